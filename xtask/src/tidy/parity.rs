//! docs/parity.md: every row has tests that are there, and names what the API has.

use super::operations::has_test;
use super::text_of;
use crate::source::Source;

const PAGE: &str = "docs/parity.md";

/// The tables of which each row is a promise.
const TABLES: [&str; 2] = ["## Calls", "## Fields"];

/// The former manager's calls, each of which has a row.
#[rustfmt::skip]
const CALLS: [&str; 56] = [
    "AddVM", "GetVMs", "GetVMConfig", "GetVMName", "GetVMID", "UpdateVM", "DeleteVM", "StartVM", "StopVM", "GetVMState",
    "RequestStatus", "ClearUEFIState", "GetVersion", "GetNetInterfaces", "GetKeyboardLayouts", "GetISOs", "GetISOInfo",
    "AddISO", "RemoveISO", "SetVMISOs", "GetVMISOs", "GetISOVMs", "UploadIso", "UploadDisk", "GetDisks", "GetDiskInfo",
    "SetDiskInfo", "AddDisk", "RemoveDisk", "SetVMDisks", "GetVMDisks", "GetDiskVM", "GetDiskSizeUsage", "WipeDisk",
    "GetSwitches", "GetSwitchInfo", "AddSwitch", "SetSwitchInfo", "RemoveSwitch", "SetSwitchUplink", "GetVMNicsAll",
    "GetVMNicName", "GetVMNicID", "GetVMNicInfo", "AddVMNic", "UpdateVMNic", "RemoveVMNic", "SetVMNicSwitch", "GetVMNicVM",
    "SetVMNics", "GetVMNics", "CloneVMNic", "Com1Interactive", "Com2Interactive", "Com3Interactive", "Com4Interactive",
];

/// The fields of its objects, each of which begins a row of its own, or is said to be missing.
#[rustfmt::skip]
const FIELDS: [&str; 92] = [
    "VM id", "VM name", "VM description", "VM status", "VncPort", "DebugPort", "cpu", "mem", "wireguestmem", "priority", "protect",
    "pcpu", "rbps", "wbps", "riops", "wiops", "max_wait", "restart", "restart_delay", "autostart", "autostart_delay", "screen",
    "width", "height", "vncwait", "vncport", "keyboard", "tablet", "storeuefi", "utc", "hostbridge", "acpi", "hlt", "eop", "dpo",
    "ium", "debug", "debug_wait", "debug_port", "sound", "sound_in", "sound_out", "com1", "com2", "com3", "com4", "com1dev",
    "com2dev", "com3dev", "com4dev", "com1log", "com2log", "com3log", "com4log", "com1speed", "com2speed", "com3speed",
    "com4speed", "extra_args", "Disk name", "Disk description", "Disk size", "size_num", "Disk usage", "usage_num", "disk_type",
    "disk_dev_type", "cache", "direct", "NIC name", "NIC description", "mac", "nettype", "netdevtype", "switchid", "vmid",
    "ratelimit", "ratein", "rateout", "Switch name", "Switch description", "type", "uplink", "ISO id", "ISO name",
    "ISO description", "ISO size", "ISO path", "sha512", "RequestID", "complete", "success",
];

/// Where tests are that run the whole suite, or a hypervisor.
const WHOLE: [&str; 2] = ["tests/tests/", "vm-runner/tests/"];

pub fn check(sources: &[Source], problems: &mut Vec<String>) {
    let protos = sources.iter().filter(|source| source.path.extension().is_some_and(|end| end == "proto"));
    let api: Vec<&str> = protos.map(|source| source.text.as_str()).collect();
    let is_test = |name: &str| sources.iter().filter(|source| source.is_rust()).any(|source| has_test(source, name));
    let whole = |source: &&Source| source.is_rust() && WHOLE.iter().any(|of| source.path.starts_with(of));
    let is_whole = |name: &str| sources.iter().filter(whole).any(|source| has_test(source, name));
    judge(text_of(sources, PAGE), &api, is_test, is_whole, problems);
    problems.extend(missing(text_of(sources, PAGE)).map(|what| format!("{PAGE}: {what} has no row")));
}

/// Calls and fields that no row names.
fn missing(page: &str) -> impl Iterator<Item = &'static str> {
    let theirs = page.lines().filter_map(|line| line.strip_prefix('|')?.split('|').next());
    // What is said of one of them stands in brackets.
    let bare = |name: &'_ str| name.split(" (").next().unwrap_or_default().trim().to_owned();
    let named: Vec<String> = theirs.flat_map(outside).map(|name| bare(&name)).collect();
    CALLS.into_iter().chain(FIELDS).filter(move |name| !named.iter().any(|named| named == name))
}

/// What stands between commas that are not within brackets.
fn outside(cell: &str) -> Vec<String> {
    let mut depth = 0_u32;
    let mut parts = vec![String::new()];
    for c in cell.chars() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        match parts.last_mut() {
            Some(part) if c != ',' || depth > 0 => part.push(c),
            _ => parts.push(String::new()),
        }
    }
    parts
}

fn judge(page: &str, api: &[&str], is_test: impl Fn(&str) -> bool, is_whole: impl Fn(&str) -> bool, problems: &mut Vec<String>) {
    let mut rows = 0;
    let mut promised = false;
    for line in page.lines() {
        if line.starts_with("## ") {
            promised = TABLES.contains(&line);
        }
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, theirs, ours, tests, _] = cells.as_slice() else { continue };
        if !promised || *theirs == "theirs" || theirs.starts_with("---") {
            continue;
        }
        rows += 1;
        let mut problem = |what: String| problems.push(format!("{PAGE}: {theirs}: {what}"));
        if code(tests).next().is_none() {
            problem("no test".into());
        }
        if code(tests).all(|name| !is_whole(name)) && code(tests).next().is_some() {
            problem("no test of it runs the whole suite".into());
        }
        code(tests).filter(|name| !is_test(name)).for_each(|name| problem(format!("the test {name} does not exist")));
        for name in code(ours).filter(|name| name.chars().next().is_some_and(char::is_uppercase)) {
            if !name.split_once('.').is_some_and(|(of, member)| api.iter().any(|text| has(text, of, member))) {
                problem(format!("the API has no {name}"));
            }
        }
    }
    if rows == 0 {
        problems.push(format!("{PAGE}: no rows"));
    }
}

/// What stands between backticks.
fn code(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// Whether a service or message has such a method or field.
fn has(proto: &str, of: &str, member: &str) -> bool {
    let opens = [format!("service {of} {{"), format!("message {of} {{")];
    let body = proto.lines().skip_while(|line| !opens.iter().any(|open| line == open)).skip(1).take_while(|line| *line != "}");
    body.map(str::trim).filter(|line| !line.starts_with("//")).any(|line| {
        let method =
            line.strip_prefix("rpc ").and_then(|rest| rest.strip_prefix(member)).is_some_and(|rest| rest.starts_with('('));
        method || line.split_once(" = ").is_some_and(|(field, _)| field.split(' ').next_back() == Some(member))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const API: &str = "service Disks {\n  // rpc Sing(A) returns (B);\n  rpc Wipe(A) returns (B);\n}\nmessage Disk {\n  optional string name = 1;\n}\n";

    fn problems(rows: &str) -> Vec<String> {
        let mut problems = Vec::new();
        let page = format!("## Calls\n| theirs | ours | test |\n|---|---|---|\n{rows}\n## What is missing\n| x | y |\n");
        judge(&page, &[API], |name| name != "it_sleeps", |name| name == "it_works", &mut problems);
        problems
    }

    #[test]
    fn a_row_has_a_test_that_is_there_and_what_the_api_has() {
        assert_eq!(problems("| WipeDisk | `Disks.Wipe`, `Disk.name`, `skep disk wipe` | `it_works` |"), [""; 0]);
        assert_eq!(problems("| WipeDisk | `Disks.Wipe` | |"), ["docs/parity.md: WipeDisk: no test"]);
        assert_eq!(
            problems("| W | `Disks.Wipe` | `it_sleeps` |"),
            ["docs/parity.md: W: no test of it runs the whole suite", "docs/parity.md: W: the test it_sleeps does not exist"]
        );
        assert_eq!(problems("| W | `Disks.Wipe` | `it_works` `a_part_does` |"), [""; 0]);
        assert_eq!(problems("| W | `Disks.Wipe` | `a_part_does` |"), ["docs/parity.md: W: no test of it runs the whole suite"]);
        for ours in ["Disks.Sing", "Disks.Wip", "Disk.nam", "Machines.Wipe", "Disks"] {
            assert_eq!(
                problems(&format!("| W | `{ours}` | `it_works` |")),
                [format!("docs/parity.md: W: the API has no {ours}")]
            );
        }
        assert_eq!(problems(""), ["docs/parity.md: no rows"]);
    }

    #[test]
    fn a_call_without_a_row_is_found() {
        let row = format!("| {}, {} | `x` | `y` |", CALLS.join(", "), FIELDS.join(", "));
        assert_eq!(missing(&row).count(), 0);
        for (from, to, lacks) in [
            ("GetVMNics,", "", &["GetVMNics"][..]),
            (" acpi,", " acpi (on, off),", &[]),
            (" acpi,", " pci,", &["acpi"]),
            (" Switch name,", "", &["Switch name"]),
        ] {
            assert!(row.contains(from), "{from}");
            assert_eq!(missing(&row.replacen(from, to, 1)).collect::<Vec<_>>(), lacks, "{from}");
        }
    }
}
