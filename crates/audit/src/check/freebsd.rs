//! Capability mode and jail.

use super::line;
use crate::facts::{FreeBsd, Jail, Kind, Open};
use crate::report::{Line, Verdict};
use skep_rights::{FdKind, Network, Process, Uid};

pub fn lines(table: &Process, freebsd: &FreeBsd, open: &[Open], lines: &mut Vec<Line>) {
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
    // A machine's processes live in its jail; broker and frontend may in one of their own; the helpers' work is on the host.
    let jailed = table.uid == Uid::PerMachine;
    // A socket that listens on TCP has its jail's addresses.
    let listens = open.iter().any(|open| matches!(open.kind, Kind::Inet(_)))
        && table.descriptors.iter().any(|declared| matches!(declared.kind, FdKind::Inet));
    lines.push(match &freebsd.jail {
        Some(jail) => line(
            "jail",
            if jailed { "the machine's" } else { "none, or one of its own" },
            jail_shown(jail),
            Verdict::of(jail_differences(table, jail, listens)),
        ),
        None if jailed && !table.freebsd.capability_mode => {
            line("jail", "the machine's", "none", Verdict::Differs { what: "it is not in a jail".into() })
        }
        None => line("jail", "none", "none", Verdict::Confirmed),
    });
}

fn jail_shown(jail: &Jail) -> String {
    let network = if jail.vnet { "network stack of its own" } else { "no network stack of its own" };
    format!(
        "{} ({}), root {}, {network}, securelevel {}, children {}",
        jail.name, jail.id, jail.path, jail.securelevel, jail.children
    )
}

fn jail_differences(table: &Process, jail: &Jail, listens: bool) -> Vec<String> {
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
    differences
}
