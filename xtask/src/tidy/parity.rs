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

pub fn check(sources: &[Source], problems: &mut Vec<String>) {
    let protos = sources.iter().filter(|source| source.path.extension().is_some_and(|end| end == "proto"));
    let api: Vec<&str> = protos.map(|source| source.text.as_str()).collect();
    let is_test = |name: &str| sources.iter().filter(|source| source.is_rust()).any(|source| has_test(source, name));
    judge(text_of(sources, PAGE), &api, is_test, problems);
    problems.extend(missing(text_of(sources, PAGE)).map(|call| format!("{PAGE}: {call} has no row")));
}

/// Calls that no row names.
fn missing(page: &str) -> impl Iterator<Item = &'static str> {
    let theirs = page.lines().filter_map(|line| line.strip_prefix('|')?.split('|').next());
    let named: Vec<&str> = theirs.flat_map(|cell| cell.split(',')).map(str::trim).collect();
    CALLS.into_iter().filter(move |call| !named.contains(call))
}

fn judge(page: &str, api: &[&str], is_test: impl Fn(&str) -> bool, problems: &mut Vec<String>) {
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
        judge(&page, &[API], |name| name == "it_works", &mut problems);
        problems
    }

    #[test]
    fn a_row_has_a_test_that_is_there_and_what_the_api_has() {
        assert_eq!(problems("| WipeDisk | `Disks.Wipe`, `Disk.name`, `skep disk wipe` | `it_works` |"), [""; 0]);
        assert_eq!(problems("| WipeDisk | `Disks.Wipe` | |"), ["docs/parity.md: WipeDisk: no test"]);
        assert_eq!(problems("| W | `Disks.Wipe` | `it_sleeps` |"), ["docs/parity.md: W: the test it_sleeps does not exist"]);
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
        let row = format!("| {} | `x` | `y` |", CALLS.join(", "));
        assert_eq!(missing(&row).count(), 0);
        assert_eq!(missing(&row.replace("GetVMNics,", "")).collect::<Vec<_>>(), ["GetVMNics"]);
    }
}
