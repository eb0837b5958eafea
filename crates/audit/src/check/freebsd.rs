//! Capability mode and jail.

use super::{line, mounts};
use crate::facts::{FreeBsd, Jail, Kind, Mount, NodeRule, Open};
use crate::report::{Line, Verdict};
use skep_rights::hypervisor::{NODES, SOUND, node_of};
use skep_rights::{FdKind, Network, Process, Uid};

/// What a new jail has of `allow.*` if nothing is said (`JAIL_DEFAULT_ALLOW` in sys/kern/kern_jail.c): of no use without an address,
/// without a writable root, and without another process of the uid.
const USUAL: [&str; 4] = ["reserved_ports", "set_hostname", "suser", "unprivileged_proc_debug"];

pub fn lines(table: &Process, freebsd: &FreeBsd, uids: &[u32], open: &[Open], lines: &mut Vec<Line>) {
    let shown = |on: bool| if on { "in capability mode" } else { "not in capability mode" };
    let verdict = match (table.freebsd.capability_mode, freebsd.capability_mode) {
        (true, false) => Verdict::Differs { what: "it is not in capability mode".into() },
        _ => Verdict::Confirmed,
    };
    let declared = if table.freebsd.note.is_empty() {
        shown(table.freebsd.capability_mode).to_owned()
    } else {
        format!("{}: {}", shown(table.freebsd.capability_mode), table.freebsd.note)
    };
    lines.push(line("capsicum", declared, shown(freebsd.capability_mode), verdict));
    // A machine's processes live in its jail, guest-services in one of a switch; broker and frontend may in one of their own; the helpers' work is on the host.
    let jailed = table.uid != Uid::Own;
    // A socket that listens on TCP has its jail's addresses.
    let listens = open.iter().any(|open| matches!(open.kind, Kind::Inet(_)))
        && table.descriptors.iter().any(|declared| matches!(declared.kind, FdKind::Inet));
    lines.push(match &freebsd.jail {
        Some(jail) => line(
            "jail",
            match table.uid {
                Uid::PerSwitch => "the switch's",
                Uid::PerFetch => "the fetch's",
                Uid::PerInitiator => "the iSCSI disk's",
                Uid::PerMachine => "the machine's",
                Uid::Own => "none, or one of its own",
            },
            jail_shown(jail),
            Verdict::of(jail_differences(table, jail, jailed, listens)),
        ),
        None if jailed && !table.freebsd.capability_mode => {
            line("jail", "the machine's", "none", Verdict::Differs { what: "it is not in a jail".into() })
        }
        None => line("jail", "none", "none", Verdict::Confirmed),
    });
    if let Some(jail) = freebsd.jail.as_ref().filter(|_| jailed) {
        // The others' have no limits beside those of every process, and open nothing.
        if runs_guests(table) {
            lines.push(limits(jail));
            lines.push(nodes(jail, uids));
            lines.push(root(jail, &[("/dev", "devfs"), ("/dev/fd", "fdescfs"), ("/run", "tmpfs"), ("/tmp", "tmpfs")]));
        } else {
            lines.push(root(jail, &[]));
        }
    }
}

/// What is mounted at and below its root: of the host's the prepared root and shares, of the kernel's these, each at its place.
fn root(jail: &Jail, kernels: &[(&str, &str)]) -> Line {
    let Some(seen) = &jail.mounts else {
        let why = "the kernel's list of mounts cannot be read".into();
        return line("root", "read-only, nothing of the host but the machine's shares", "not readable", Verdict::Weaker { why });
    };
    let known = |mount: &Mount| kernels.contains(&(mount.point.as_str(), mount.filesystem.as_str()));
    let strange = seen.iter().filter(|mount| mount.point != "/" && !mount.is_share() && !known(mount));
    let strange = strange.map(|mount| format!("{} is {} of {}", mount.point, mount.filesystem, mount.root)).collect();
    mounts::root(seen, |_| true, strange)
}

/// Rules of rctl(8). How large each limit is stands in the broker's database, which is no kernel's word; that they are the jail's own,
/// that they refuse or slow down, and that tasks have one, can be seen.
fn limits(jail: &Jail) -> Line {
    let declared = "only rules that deny or throttle, for this jail alone; one of processes, one of threads";
    let Some(rules) = &jail.limits else {
        let why = "the kernel does not count (kern.racct.enable)".into();
        return line("limits", declared, "not readable", Verdict::Weaker { why });
    };
    let mut differences = Vec::new();
    let mut own = Vec::new();
    for rule in rules {
        let parts: Option<(&str, &str)> =
            rule.strip_prefix("jail:").and_then(|rest| rest.strip_prefix(jail.name.as_str())?.strip_prefix(':')?.split_once(':'));
        match parts {
            Some((resource, action))
                if !action.contains('/') && (action.starts_with("deny=") || action.starts_with("throttle=")) =>
            {
                own.push(resource);
            }
            _ => differences.push(format!("rule {rule}")),
        }
    }
    for resource in ["maxproc", "nthr"] {
        if !own.contains(&resource) {
            differences.push(format!("no rule limits {resource}"));
        }
    }
    line("limits", declared, if rules.is_empty() { "none".to_owned() } else { rules.join(" ") }, Verdict::of(differences))
}

/// Nodes of devices that its devfs shows.
fn nodes(jail: &Jail, uids: &[u32]) -> Line {
    let declared = NODES.iter().chain([&SOUND]).map(|node| node.pattern).collect::<Vec<_>>().join(" ");
    let Some(rules) = &jail.nodes else {
        return line("devices", declared, "not readable", Verdict::Weaker { why: "rules of devfs are told to root only".into() });
    };
    let mut differences = Vec::new();
    // The first only says whose the ruleset is: it hides a path that no device has.
    let is_mark = |rule: &NodeRule| rule.hides && !rule.shows && !rule.other && rule.pattern.starts_with("skep/");
    let rules = match rules.split_first() {
        Some((first, rest)) if is_mark(first) => rest,
        _ => rules,
    };
    if !rules.first().is_some_and(|first| first.hides && first.pattern.is_empty() && !first.other) {
        differences.push("not everything is hidden first".to_owned());
    }
    for rule in rules {
        let known = node_of(&rule.pattern);
        let owner_fits = match (known, rule.owner) {
            (_, None) => true,
            (Some(node), Some((uid, mode))) => node.owned && uids.contains(&uid) && mode == 0o660,
            (None, Some(_)) => false,
        };
        if rule.other {
            differences.push(format!("rule for {} does more than show or hide", pattern(rule)));
        }
        if rule.shows && known.is_none() {
            differences.push(format!("{} is shown", pattern(rule)));
        } else if !owner_fits {
            let (uid, mode) = rule.owner.unwrap_or_default();
            differences.push(format!("{} is uid {uid}'s with mode {mode:o}", pattern(rule)));
        }
    }
    let shown: Vec<&str> = rules.iter().filter(|rule| rule.shows).map(pattern).collect();
    line("devices", declared, shown.join(" "), Verdict::of(differences))
}

fn pattern(rule: &NodeRule) -> &str {
    if rule.pattern.is_empty() { "everything" } else { &rule.pattern }
}

fn jail_shown(jail: &Jail) -> String {
    let network = if jail.vnet { "network stack of its own" } else { "no network stack of its own" };
    format!(
        "{} ({}), root {}, {network}, securelevel {}, children {}, enforce_statfs {}, allow {}",
        jail.name,
        jail.id,
        jail.path,
        jail.securelevel,
        jail.children,
        jail.enforce_statfs,
        jail.allowed.join(" ")
    )
}

/// Whether the jail is one with a hypervisor.
fn runs_guests(table: &Process) -> bool {
    use skep_rights::{console, disk, fetcher, initiator, services};
    let others = [&console::TABLE, &services::TABLE, &fetcher::TABLE, &initiator::TABLE, &disk::TABLE, &disk::READER];
    !others.iter().any(|other| other.name == table.name)
}

fn jail_differences(table: &Process, jail: &Jail, machines: bool, listens: bool) -> Vec<String> {
    let mut differences = Vec::new();
    if matches!(table.network, Network::None) && !listens && !jail.vnet && (jail.ip4 != 0 || jail.ip6 != 0) {
        differences.push("the jail has addresses".to_owned());
    }
    if jail.children != 0 {
        differences.push(format!("the jail may have {} jails of its own", jail.children));
    }
    if jail.path == "/" {
        differences.push("the jail's root is the host's".to_owned());
    }
    if machines && jail.securelevel < 3 {
        differences.push(format!("the jail has securelevel {}, not 3", jail.securelevel));
    }
    if jail.enforce_statfs < 2 {
        differences.push("the jail sees the host's mounts".to_owned());
    }
    let vmm = machines && runs_guests(table);
    let fits = |name: &str| USUAL.contains(&name) || vmm && name == "vmm";
    let more = jail.allowed.iter().filter(|name| !fits(name));
    differences.extend(more.map(|name| format!("the jail is allowed {name}")));
    differences
}
