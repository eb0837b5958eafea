//! Namespaces, capabilities, no_new_privs, seccomp, the root of a cell.

use super::{line, mounts, plural};
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
    if table.uid != Uid::Own {
        lines.push(mounts::root(&linux.mounts, harmless, Vec::new()));
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

/// What can be written in a cell without reaching the host: memory, a single device.
fn harmless(mount: &Mount) -> bool {
    let memory = matches!(mount.filesystem.as_str(), "tmpfs" | "ramfs" | "proc" | "devpts" | "mqueue");
    let device = mount.root != "/" && matches!(mount.point.as_str(), "/dev/null" | "/dev/urandom" | "/dev/kvm");
    memory && mount.root == "/" || mount.filesystem == "proc" || device
}
