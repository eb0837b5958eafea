//! Which processes the suite consists of, as the kernel shows them.

use crate::facts::{Confinement, Facts, Mount};
use crate::platform::{Kernel, Listener};
use crate::report::{Line, Process, Report, Verdict};
use crate::{Error, Options, check};
use skep_proto::MachineId;
use skep_rights::{Process as Table, disk, hypervisor, initiator, net, storage};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

/// A process that is to be judged.
pub struct Subject {
    /// Against this.
    pub table: &'static Table,
    /// Its name in the report.
    pub name: String,
    /// Its machine.
    pub machine: Option<MachineId>,
    /// Its process id.
    pub pid: i32,
    /// Differences that its finding already showed.
    pub notes: Vec<String>,
}

/// What of a machine a process is: the cell is one thing, its console-proxy another.
type Group = (Option<MachineId>, &'static str);

impl Subject {
    fn group(&self) -> Group {
        let name = if [hypervisor::TABLE.name, hypervisor::LOOK_UPS.name].contains(&self.table.name) {
            skep_rights::runner::TABLE.name
        } else if self.table.name == storage::JOB.name {
            // A fork of its parent, in all that this one is in.
            storage::TABLE.name
        } else if [disk::READER.name, initiator::TABLE.name].contains(&self.table.name) {
            // What serves one disk.
            disk::TABLE.name
        } else {
            self.table.name
        };
        (self.machine, name)
    }
}

/// The services, each with the sockets that it may serve on.
const SERVICES: &[(&Table, &[&str])] = &[
    (&skep_rights::frontend::TABLE, &["api.sock", "api-frontend.sock"]),
    (&skep_rights::broker::TABLE, &["broker.sock"]),
    (&skep_rights::storage::TABLE, &["storage-helper.sock"]),
    (&skep_rights::net::TABLE, &["net-helper.sock"]),
    (&skep_rights::vm_runner::TABLE, &["vm-runner.sock"]),
];

/// The whole suite.
pub fn run(options: &Options) -> Result<Report, Error> {
    let kernel = Kernel::open(options)?;
    let mut listeners = kernel.listeners()?;
    listeners.extend(unlisted(options, &listeners));
    let mut missing = Vec::new();
    let mut subjects = Vec::new();
    for (table, names) in SERVICES {
        let holder = names.iter().find_map(|name| holder(&kernel, &listeners, &options.run.join(name)));
        match holder {
            Some((pid, notes)) => subjects.push(Subject { table, name: table.name.into(), machine: None, pid, notes }),
            None => missing.push(absent(table, options)),
        }
    }
    machines(&kernel, &listeners, options, &mut subjects)?;
    children(&kernel, &mut subjects)?;

    let mut found: Vec<(Subject, Facts)> = Vec::new();
    for subject in subjects {
        match kernel.facts(subject.pid)? {
            Some(facts) => found.push((subject, facts)),
            // It ended meanwhile. A machine may; a service that is declared is missing then.
            None if subject.machine.is_none() && subject.name == subject.table.name => {
                missing.push(absent(subject.table, options))
            }
            None => {}
        }
    }
    let machines: Vec<MachineId> = found.iter().filter_map(|(subject, _)| subject.machine).collect();
    let left = kernel.left_over(options, &machines);
    let mut processes: Vec<Process> = missing;
    for (subject, facts) in &found {
        let others: Vec<&Facts> =
            found.iter().filter(|(other, _)| other.group() != subject.group()).map(|(_, facts)| facts).collect();
        let mut judged = check::process(subject, facts, &others, options);
        if subject.table.name == skep_rights::vm_runner::TABLE.name
            && subject.name == subject.table.name
            && let Some(left) = &left
        {
            judged.lines.push(check::left_over(left));
        }
        processes.push(judged);
    }
    processes.sort_by_key(|process| (process.machine.clone(), SERVICES.iter().position(|(table, _)| table.name == process.name)));
    if let Some(only) = &options.only {
        processes.retain(|p| p.name == *only || p.machine.as_ref().is_some_and(|id| id.starts_with(only.as_str())));
        if processes.is_empty() {
            return Err(Error::NotFound(only.clone()));
        }
    }
    Ok(Report { instance: options.instance.to_string(), processes })
}

/// Sockets of machines that no list shows: one belongs to the network namespace that it was made in, and when the spawner that made it
/// has gone, no process is left there to show it. Whoever connects is told by the kernel who listens.
fn unlisted(options: &Options, listed: &[Listener]) -> Vec<Listener> {
    let mut found = Vec::new();
    for below in ["vm", "console"] {
        let Ok(entries) = std::fs::read_dir(options.run.join(below)) else { continue };
        for path in entries.flatten().map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == "sock")) {
            if listed.iter().any(|listener| same_path(&listener.path, &path)) {
                continue;
            }
            let peer = skep_sys::sock::connect_seqpacket(&path).and_then(|socket| skep_sys::sock::peer(socket.as_fd()));
            if let Ok(peer) = peer {
                found.push(Listener { path, pids: vec![peer.pid] });
            }
        }
    }
    found
}

/// Who holds the socket that listens at `path`. More than one is worth a note: nobody but the service has any business with it.
fn holder(kernel: &Kernel, listeners: &[Listener], path: &Path) -> Option<(i32, Vec<String>)> {
    let mut pids: Vec<i32> = listeners.iter().filter(|l| same_path(&l.path, path)).flat_map(|l| l.pids.iter().copied()).collect();
    pids.sort_unstable();
    pids.dedup();
    // A child that still holds its parent's listener is not the service.
    let main = *pids.iter().find(|pid| !kernel.parent(**pid).is_some_and(|parent| pids.contains(&parent)))?;
    let others = pids.iter().filter(|pid| **pid != main);
    Some((main, others.map(|pid| format!("process {pid} holds its listening socket, too")).collect()))
}

/// Paths may be written differently where RUN goes through a symbolic link.
fn same_path(a: &Path, b: &Path) -> bool {
    let real = |path: &Path| -> Option<PathBuf> { Some(path.parent()?.canonicalize().ok()?.join(path.file_name()?)) };
    a == b || a.file_name() == b.file_name() && real(a).is_some_and(|a| real(b) == Some(a))
}

/// Runners, their hypervisors, console-proxies, guest-services of switches, image-fetchers, iscsi-initiators, and disk-servers.
fn machines(kernel: &Kernel, listeners: &[Listener], options: &Options, subjects: &mut Vec<Subject>) -> Result<(), Error> {
    let ids = |below: &str| {
        let directory = options.run.join(below);
        let mut ids: Vec<MachineId> = listeners
            .iter()
            .filter(|listener| listener.path.parent().is_some_and(|parent| same_path(parent, &directory)))
            .filter_map(|listener| listener.path.file_name()?.to_str()?.strip_suffix(".sock")?.parse().ok())
            .collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    };
    for machine in ids("vm") {
        let Some((runner, notes)) = holder(kernel, listeners, &options.run.join(format!("vm/{machine}.sock"))) else { continue };
        // It may have ended meanwhile; then it shares nothing.
        let shares = kernel.facts(runner)?.is_some_and(|facts| facts.confinement.mounts().iter().any(Mount::is_share));
        let table = if shares { &skep_rights::runner::TABLE_SHARES } else { &skep_rights::runner::TABLE };
        subjects.push(Subject { table, name: table.name.into(), machine: Some(machine), pid: runner, notes });
        let mut titles = Vec::new();
        for pid in kernel.cell_mates(runner)? {
            let Some(facts) = kernel.facts(pid)? else { continue };
            let table = mate(&facts, shares, &mut titles);
            subjects.push(Subject { table, name: table.name.into(), machine: Some(machine), pid, notes: Vec::new() });
        }
    }
    for machine in ids("console") {
        let Some((pid, notes)) = holder(kernel, listeners, &options.run.join(format!("console/{machine}.sock"))) else {
            continue;
        };
        // A switch's, a fetch's and an iSCSI disk's have the place of a console-proxy, in a cell by their id. Their programs lie in a root that none can write to.
        let program = kernel.facts(pid)?.map(|facts| facts.program).unwrap_or_default();
        use skep_rights::{fetcher, services};
        let others = [&services::TABLE, &fetcher::TABLE, &initiator::TABLE, &disk::TABLE];
        let table = others.into_iter().find(|table| program.ends_with(table.program)).unwrap_or(&skep_rights::console::TABLE);
        subjects.push(Subject { table, name: table.name.into(), machine: Some(machine), pid, notes });
        let beside = match table.name {
            name if name == disk::TABLE.name => &disk::READER,
            name if name == initiator::TABLE.name => &disk::TABLE,
            _ => continue,
        };
        // One, where there are disk-servers: another would hold what its table does not know.
        for pid in kernel.cell_mates(pid)? {
            subjects.push(Subject { table: beside, name: beside.name.into(), machine: Some(machine), pid, notes: Vec::new() });
        }
    }
    Ok(())
}

/// What one of a runner's cell is. A process gives itself its title: one that claims to look names up is held against a table that has
/// less than its hypervisor's. `titles`: those that were found already.
fn mate(facts: &Facts, shares: bool, titles: &mut Vec<&'static str>) -> &'static Table {
    let words = facts.arguments.first().and_then(|words| words.split_once(": "));
    let title = words.filter(|(program, _)| *program == hypervisor::LOOK_UPS.program).map(|(_, title)| title);
    let title = hypervisor::LOOK_UP_TITLES.into_iter().find(|known| Some(*known) == title && !titles.contains(known));
    match (title, shares) {
        (Some(title), true) if matches!(facts.confinement, Confinement::FreeBsd(_)) => {
            titles.push(title);
            &hypervisor::LOOK_UPS
        }
        (_, true) => &hypervisor::TABLE_SHARES,
        (_, false) => &hypervisor::TABLE,
    }
}

/// Children of the services, and theirs, that are nothing else.
fn children(kernel: &Kernel, subjects: &mut Vec<Subject>) -> Result<(), Error> {
    loop {
        let before = subjects.len();
        for pid in kernel.processes()? {
            let Some(parent) = kernel.parent(pid) else { continue };
            if subjects.iter().any(|subject| subject.pid == pid) {
                continue;
            }
            let Some(of) = subjects.iter().find(|subject| subject.pid == parent && subject.machine.is_none()) else { continue };
            // Either may have ended meanwhile.
            let (Some(above), Some(facts)) = (kernel.facts(parent)?, kernel.facts(pid)?) else { continue };
            let taken = subjects.iter().any(|subject| subject.name == net::OUTSIDE.name);
            let child = child(of, &above, &facts, taken);
            subjects.push(child);
        }
        if subjects.len() == before {
            return Ok(());
        }
    }
}

/// What a child of the service `of` is, by what the kernel says of both: its program, its uid, what confines it, and, which a process
/// may change, its arguments. `taken`: net-helper's other part was found already. One that no table knows is held against its parent's,
/// and differs.
fn child(of: &Subject, above: &Facts, facts: &Facts, taken: bool) -> Subject {
    let itself = above.program == facts.program && above.uids == facts.uids;
    let is = |table: &Table| of.name == table.name;
    // Whatever net-helper makes once it is in its sandbox is in capability mode, too.
    let outside = matches!(&facts.confinement, Confinement::FreeBsd(freebsd) if !freebsd.capability_mode)
        && facts.arguments.get(1).is_some_and(|word| word == "--outside");
    let (table, name, notes) = if is(&storage::TABLE) && itself {
        (&storage::JOB, format!("child of {}", of.name), Vec::new())
    } else if is(&net::TABLE) && itself && outside && !taken {
        (&net::OUTSIDE, net::OUTSIDE.name.to_owned(), Vec::new())
    } else if is(&skep_rights::vm_runner::TABLE) {
        // On its way to be a cell's first process, as another uid.
        (of.table, format!("child of {}", of.name), Vec::new())
    } else {
        let words = facts.arguments.join(" ");
        let what = if words.is_empty() { &facts.program } else { &words };
        (of.table, format!("child of {}", of.name), vec![format!("a process that nobody declared: {what}")])
    };
    Subject { table, name, machine: None, pid: facts.pid, notes }
}

/// A declared service that nobody is.
fn absent(table: &'static Table, options: &Options) -> Process {
    let names = SERVICES.iter().find(|(of, _)| of.name == table.name).map_or(&[][..], |(_, names)| names);
    let socket = options.run.join(names.first().copied().unwrap_or_default());
    Process {
        name: table.name.into(),
        machine: None,
        pid: None,
        program: table.program.into(),
        uids: Vec::new(),
        gids: Vec::new(),
        groups: Vec::new(),
        lines: vec![Line {
            line: "process".into(),
            declared: "runs".into(),
            found: String::new(),
            verdict: Verdict::Differs { what: format!("it does not run: nobody listens at {}", socket.display()) },
        }],
        descriptors: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::FreeBsd;

    fn subject(table: &'static Table) -> Subject {
        Subject { table, name: table.name.into(), machine: None, pid: 1, notes: Vec::new() }
    }

    fn facts(program: &str, words: &str, uid: u32, capability_mode: bool) -> Facts {
        Facts {
            pid: 2,
            program: program.into(),
            arguments: words.split(' ').map(str::to_owned).collect(),
            uids: vec![uid; 3],
            confinement: Confinement::FreeBsd(FreeBsd { capability_mode, jail: None }),
            ..Facts::default()
        }
    }

    #[test]
    fn the_other_part_of_net_helper_is_told_by_program_uid_arguments_and_what_confines_it() {
        const HELPER: &str = "/usr/local/libexec/skep/skep-net-helper";
        let (of, above) = (subject(&net::TABLE), facts(HELPER, "skep-net-helper --state /s", 0, true));
        let right = facts(HELPER, "skep-net-helper --outside ab12 em0", 0, false);
        let found = child(&of, &above, &right, false);
        assert!(found.name == net::OUTSIDE.name && found.notes.is_empty());
        let wrong = [
            // Another program under the same words, a child of the helper's own making, another uid, other words, a second one.
            (facts("/tmp/skep-net-helper", "skep-net-helper --outside ab12 em0", 0, false), false),
            (facts(HELPER, "skep-net-helper --outside ab12 em0", 0, true), false),
            (facts(HELPER, "skep-net-helper --outside ab12 em0", 71_000, false), false),
            (facts(HELPER, "skep-net-helper --state /s", 0, false), false),
            (facts("/bin/sh", "sh -c id", 0, false), false),
            (right, true),
        ];
        for (facts, taken) in wrong {
            let found = child(&of, &above, &facts, taken);
            assert_eq!(found.name, "child of net-helper");
            assert!(found.notes.iter().any(|note| note.starts_with("a process that nobody declared: ")), "{:?}", found.notes);
            let options = Options {
                state: "/state".into(),
                run: "/run".into(),
                instance: "test".parse().expect("an id"),
                ids: None,
                only: None,
            };
            let judged = check::process(&found, &facts, &[], &options);
            assert!(judged.lines.iter().any(|line| line.line == "process" && line.verdict.differs()), "{judged}");
        }
    }

    #[test]
    fn in_a_cell_that_shares_one_process_of_each_kind_looks_names_up() {
        let bhyve = |title: &str| Facts { arguments: vec![format!("bhyve: {title}")], ..facts("/usr/sbin/bhyve", "", 5, true) };
        let mut titles = Vec::new();
        let mut found = |title, shares| mate(&bhyve(title), shares, &mut titles);
        assert!(std::ptr::eq(found("sk0123m", true), &hypervisor::TABLE_SHARES));
        assert!(std::ptr::eq(found("system.pwd", false), &hypervisor::TABLE));
        for title in hypervisor::LOOK_UP_TITLES {
            assert!(std::ptr::eq(found(title, true), &hypervisor::LOOK_UPS));
            assert!(std::ptr::eq(found(title, true), &hypervisor::TABLE_SHARES));
        }
        let linux = Facts { confinement: Confinement::default(), ..bhyve("system.grp") };
        assert!(std::ptr::eq(mate(&linux, true, &mut Vec::new()), &hypervisor::TABLE_SHARES));
    }

    #[test]
    fn only_those_who_declare_children_have_any() {
        let helper = || facts("/x/skep-storage-helper", "skep-storage-helper", 5, true);
        let job = child(&subject(&storage::TABLE), &helper(), &helper(), false);
        assert!(std::ptr::eq(job.table, &storage::JOB) && job.notes.is_empty());
        let shell = || facts("/bin/sh", "sh", 5, false);
        assert_eq!(child(&subject(&storage::TABLE), &helper(), &shell(), false).notes, ["a process that nobody declared: sh"]);
        // A job has none, either.
        assert!(!child(&job, &helper(), &helper(), false).notes.is_empty());
        for table in [&skep_rights::broker::TABLE, &skep_rights::frontend::TABLE, &net::OUTSIDE] {
            assert!(!child(&subject(table), &shell(), &shell(), false).notes.is_empty(), "{}", table.name);
        }
    }
}
