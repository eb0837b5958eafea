//! Who it is.

use super::line;
use crate::Options;
use crate::facts::{Confinement, Facts};
use crate::find::Subject;
use crate::report::{Line, Verdict};
use skep_rights::{Process, Root, Uid};
use skep_service::{FETCHES, INITIATORS, Ids, Role, SWITCHES};
use std::os::unix::fs::MetadataExt;

/// What has a machine's second uid.
const BESIDE: [&Process; 3] = [&skep_rights::console::TABLE, &skep_rights::disk::TABLE, &skep_rights::disk::READER];

/// uid, gid, groups.
pub fn uid(subject: &Subject, facts: &Facts, others: &[&Facts], options: &Options) -> Line {
    let found = shown(facts);
    let Some(ids) = &options.ids else { return as_started(facts, options, found) };
    let mut differences = Vec::new();
    let own = *facts.uids.first().unwrap_or(&0);
    if let (0, Some(line)) = (own, as_root(subject.table, facts, &found)) {
        return line;
    }
    let declared = match subject.table.uid {
        Uid::Own => {
            let declared = role(subject.table.name).map(|role| ids.of(role));
            if declared != Some(own) {
                differences.push(format!("uid {own}"));
            }
            declared.map_or_else(|| "none".to_owned(), |uid| uid.to_string())
        }
        whose @ (Uid::PerMachine | Uid::PerSwitch | Uid::PerFetch | Uid::PerInitiator) => {
            let (right, whose) = match whose {
                Uid::PerSwitch => (is_behind_machines(ids, own, 0..SWITCHES), "switch"),
                Uid::PerFetch => (is_behind_machines(ids, own, SWITCHES..SWITCHES + FETCHES), "fetch"),
                Uid::PerInitiator => (is_initiators(ids, own), "iSCSI disk"),
                Uid::Own | Uid::PerMachine => {
                    let other = subject.table.name == skep_rights::disk::TABLE.name && is_initiators(ids, own);
                    (is_machines(ids, own, is_beside(subject.table)) || other, "machine")
                }
            };
            if !right {
                differences.push(format!("uid {own} is not one of a {whose}'s"));
            }
            // A machine's console-proxy and what serves its disks have one uid, in jails of their own.
            let apart =
                |other: &&&Facts| !(is_beside(subject.table) && other.program != facts.program && besides(&other.program));
            if others.iter().filter(apart).any(|other| other.uids.contains(&own)) {
                differences.push(format!("uid {own} is another process's, too"));
            }
            format!("one of its own from {}", ids.machines())
        }
    };
    if facts.uids.iter().any(|uid| *uid != own) {
        differences.push("its four uids are not the same".into());
    }
    // root's group, and a machine's, has the number of its uid.
    let group = match subject.table.uid {
        Uid::Own if own != 0 => role(subject.table.name).map_or(own, |role| ids.group_of(role)),
        _ => own,
    };
    let kvm = accelerators(subject.table);
    let strange = |gid: &&u32| **gid != group && Some(**gid) != kvm;
    if facts.gids.iter().any(|gid| *gid != group) || facts.groups.iter().any(|gid| strange(&gid)) {
        differences.push(format!("groups {:?} {:?}", facts.gids, facts.groups));
    }
    line("uid", declared, found, Verdict::of(differences))
}

/// The group that may open the device of hardware acceleration, of those that have it where not everybody may: the spawner, and what it starts
/// in cells with that device.
fn accelerators(table: &Process) -> Option<u32> {
    if ![skep_rights::vm_runner::TABLE.name, skep_rights::runner::TABLE.name, skep_rights::hypervisor::TABLE.name]
        .contains(&table.name)
    {
        return None;
    }
    let meta = std::fs::metadata("/dev/kvm").ok()?;
    (meta.mode() & 0o060 == 0o060 && meta.gid() != 0).then(|| meta.gid())
}

/// FreeBSD: a process that is declared to be root, and is. `None`: it may not be.
fn as_root(table: &Process, facts: &Facts, found: &str) -> Option<Line> {
    let Confinement::FreeBsd(freebsd) = &facts.confinement else { return None };
    let strange: Vec<String> =
        facts.uids.iter().chain(&facts.gids).chain(&facts.groups).filter(|id| **id != 0).map(u32::to_string).collect();
    let verdict = match table.freebsd.root {
        _ if !strange.is_empty() => Verdict::Differs { what: format!("it is root and {}, too", strange.join(" ")) },
        Root::Always => Verdict::Confirmed,
        Root::InOldCells if freebsd.jail.as_ref().is_some_and(|jail| jail.vnet) => {
            Verdict::Weaker { why: "it is root of its jail: bhyve needs that before FreeBSD 15".into() }
        }
        Root::InOldCells | Root::Never => return None,
    };
    Some(line("uid", "root, without further groups", found, verdict))
}

/// An ordinary user's suite: everything has the user's uid.
fn as_started(facts: &Facts, options: &Options, found: String) -> Line {
    let owner = std::fs::metadata(&options.state).map(|meta| meta.uid()).ok();
    let strange: Vec<_> = facts.uids.iter().filter(|uid| Some(**uid) != owner).collect();
    let verdict = if strange.is_empty() {
        Verdict::Weaker { why: "an ordinary user started the suite: all its processes have the user's uid and groups".into() }
    } else {
        Verdict::Differs { what: format!("uids {:?} are not those of the owner of {}", facts.uids, options.state.display()) }
    };
    line("uid", "one of its own", found, verdict)
}

fn shown(facts: &Facts) -> String {
    let each = |list: &[u32]| {
        let mut list = list.to_vec();
        list.dedup();
        list.iter().map(u32::to_string).collect::<Vec<_>>().join("/")
    };
    let groups = if facts.groups.is_empty() { "no more groups".into() } else { format!("groups {}", each(&facts.groups)) };
    format!("uid {}, gid {}, {groups}", each(&facts.uids), each(&facts.gids))
}

fn role(name: &str) -> Option<Role> {
    if name == skep_rights::storage::JOB.name {
        return Some(Role::Storage);
    }
    [Role::Broker, Role::Frontend, Role::Storage, Role::Net, Role::Spawner].into_iter().find(|role| role.name() == name)
}

/// Slot N's cell has `machines + 2N`, its console-proxy one more.
fn is_machines(ids: &Ids, uid: u32, proxy: bool) -> bool {
    let slots = 2 * u32::from(skep_service::SLOTS);
    uid.checked_sub(ids.machines()).is_some_and(|offset| offset < slots && (offset % 2 == 1) == proxy)
}

/// Whether it has a machine's second uid.
fn is_beside(table: &Process) -> bool {
    BESIDE.iter().any(|beside| beside.name == table.name)
}

/// Whether a program is that of a process which has a machine's second uid.
fn besides(program: &str) -> bool {
    BESIDE.iter().any(|beside| program.ends_with(beside.program))
}

/// Of the iscsi-initiator of a disk.
fn is_initiators(ids: &Ids, uid: u32) -> bool {
    let first = SWITCHES + FETCHES;
    is_behind_machines(ids, uid, first..first + INITIATORS)
}

/// Behind those of all slots.
fn is_behind_machines(ids: &Ids, uid: u32, which: std::ops::Range<u16>) -> bool {
    let first = ids.machines() + 2 * u32::from(skep_service::SLOTS);
    uid.checked_sub(first).and_then(|offset| u16::try_from(offset).ok()).is_some_and(|offset| which.contains(&offset))
}

/// Helpers have one thread: `fork` without `exec` is sound only then.
pub fn threads(table: &Process, facts: &Facts) -> Line {
    // The spawner's and the runner's lists hold the hypervisor's, since filters are inherited; they themselves have one thread.
    let inherits = [skep_rights::vm_runner::TABLE.name, skep_rights::runner::TABLE.name].contains(&table.name);
    let names = table.syscalls.iter().flat_map(|group| group.names);
    let many = !inherits && names.into_iter().any(|name| matches!(*name, "clone:thread" | "clone"));
    let verdict = if many || facts.threads == 1 {
        Verdict::Confirmed
    } else {
        Verdict::Differs { what: format!("it has {} threads", facts.threads) }
    };
    line("threads", if many { "any number" } else { "1" }, facts.threads.to_string(), verdict)
}
