//! Namespaces, capabilities, no_new_privs, seccomp, the root of a cell.

use super::{line, plural};
use crate::Options;
use crate::facts::{Confinement, Facts, Linux, Mount};
use crate::report::{Line, Verdict};
use skep_rights::{Namespace, Network, Process, Uid};

/// Filters that `skep-sandbox` installs; a hypervisor adds its own.
const FILTERS: u32 = 2;

pub fn lines(table: &Process, linux: &Linux, others: &[&Facts], options: &Options, lines: &mut Vec<Line>) {
    lines.push(namespaces(table, linux, others));
    lines.push(capabilities(table, linux, options));
    lines.push(line("no_new_privs", "set", if linux.no_new_privs { "set" } else { "not set" }, {
        if linux.no_new_privs { Verdict::Confirmed } else { Verdict::Differs { what: "no_new_privs is not set".into() } }
    }));
    let filters = format!("mode {}, {}", linux.seccomp, plural(linux.filters as usize, "filter"));
    let filtered = linux.seccomp == 2 && linux.filters >= FILTERS;
    let verdict = if filtered { Verdict::Confirmed } else { Verdict::Differs { what: format!("seccomp: {filters}") } };
    lines.push(line("seccomp", format!("mode 2, at least {FILTERS} filters"), filters, verdict));
    if table.uid == Uid::PerMachine {
        lines.push(root(linux));
    }
}

fn namespaces(table: &Process, linux: &Linux, others: &[&Facts]) -> Line {
    let hosts_network = matches!(table.network, Network::Host(_));
    let wanted: Vec<Namespace> = table.namespaces.iter().copied().filter(|n| !(*n == Namespace::Net && hosts_network)).collect();
    let mut differences = Vec::new();
    for namespace in &wanted {
        let own = linux.namespace(*namespace);
        if !linux.left(*namespace) {
            differences.push(format!("{} namespace is the host's", namespace.file()));
        } else if others.iter().any(|other| matches!(&other.confinement, Confinement::Linux(l) if l.namespace(*namespace) == own))
        {
            differences.push(format!("{} namespace is another process's, too", namespace.file()));
        }
    }
    let names = |list: &[Namespace]| match list {
        [] => "none".to_owned(),
        list => list.iter().map(|n| n.file()).collect::<Vec<_>>().join(" "),
    };
    let left: Vec<Namespace> = linux.namespaces.iter().map(|(n, _, _)| *n).filter(|n| linux.left(*n)).collect();
    line("namespaces", format!("own: {}", names(&wanted)), format!("own: {}", names(&left)), Verdict::of(differences))
}

fn capabilities(table: &Process, linux: &Linux, options: &Options) -> Line {
    let mask = table.capabilities.iter().fold(0u64, |mask, (capability, _)| mask | 1 << capability.number());
    let [inheritable, permitted, effective, bounding, ambient] = linux.capabilities;
    // An ordinary user's processes can hold none of the host's.
    let held = if options.ids.is_some() { mask } else { 0 };
    let mut differences = Vec::new();
    for (set, has, may) in [
        ("effective", effective, held),
        ("permitted", permitted, held),
        ("inheritable", inheritable, 0),
        ("ambient", ambient, 0),
        ("bounding", bounding, mask),
    ] {
        if has & !may != 0 {
            differences.push(format!("{set}: {} too many", names(has & !may)));
        }
    }
    if held & !effective != 0 {
        differences.push(format!("{} missing", names(held & !effective)));
    }
    let found = if effective == permitted {
        names(effective)
    } else {
        format!("effective {}, permitted {}", names(effective), names(permitted))
    };
    let verdict = match Verdict::of(differences) {
        Verdict::Confirmed if held != mask => {
            let what: Vec<String> = table.capabilities.iter().map(|(c, why)| format!("{} ({why})", c.name())).collect();
            Verdict::Weaker { why: format!("an ordinary user started the suite: not held: {}", what.join(", ")) }
        }
        verdict => verdict,
    };
    line("capabilities", names(mask), found, verdict)
}

/// capabilities(7), by number.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

fn names(mask: u64) -> String {
    if mask == 0 {
        return "none".into();
    }
    if mask.count_ones() > 8 {
        return format!("{} capabilities", mask.count_ones());
    }
    let name = |bit: usize| NAMES.get(bit).map_or_else(|| format!("capability {bit}"), |name| format!("CAP_{name}"));
    (0..64).filter(|bit| mask & (1 << bit) != 0).map(name).collect::<Vec<_>>().join(" ")
}

/// A cell's root is read-only; what can be written in it is memory, a single device, or a directory of the host that the machine shares.
fn root(linux: &Linux) -> Line {
    let mut differences = Vec::new();
    match linux.mounts.iter().rfind(|mount| mount.point == "/") {
        None => differences.push("it has no root".to_owned()),
        Some(root) if !root.read_only => differences.push("its root can be written".to_owned()),
        Some(_) => {}
    }
    let harmless = |mount: &Mount| {
        let memory = matches!(mount.filesystem.as_str(), "tmpfs" | "ramfs" | "proc" | "devpts" | "mqueue");
        let device = mount.root != "/" && matches!(mount.point.as_str(), "/dev/null" | "/dev/urandom" | "/dev/kvm");
        memory && mount.root == "/" || mount.filesystem == "proc" || device || is_share(mount)
    };
    for mount in linux.mounts.iter().filter(|mount| is_share(mount) && !mount.plain) {
        differences.push(format!("{}: programs, devices or set-user-id files of it can be used", mount.point));
    }
    let writable = linux.mounts.iter().filter(|mount| !mount.read_only && mount.point != "/");
    for mount in writable.clone().filter(|mount| !harmless(mount)) {
        differences.push(format!("{} can be written ({} of {})", mount.point, mount.root, mount.filesystem));
    }
    let list: Vec<String> = writable.map(|mount| format!("{} ({})", mount.point, mount.filesystem)).collect();
    let list = if list.is_empty() { "nothing".into() } else { list.join(" ") };
    let read: Vec<&str> =
        linux.mounts.iter().filter(|mount| mount.read_only && is_share(mount)).map(|mount| mount.point.as_str()).collect();
    let read = if read.is_empty() { String::new() } else { format!("; shared read-only: {}", read.join(" ")) };
    let found = format!("{}; can be written: {list}{read}", plural(linux.mounts.len(), "mount"));
    line("root", "read-only, nothing of the host but the machine's shares", found, Verdict::of(differences))
}

/// Where the spawner mounts what a machine shares.
fn is_share(mount: &Mount) -> bool {
    let number = mount.point.strip_prefix("/share/").and_then(|number| number.parse::<usize>().ok());
    number.is_some_and(|number| number < skep_rights::hypervisor::SHARES)
}
