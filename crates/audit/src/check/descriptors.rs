//! Each open descriptor, and the line of the table that it belongs to.

use super::{capsicum, line, plural};
use crate::Options;
use crate::assign::assign;
use crate::facts::{Facts, Kind, Open};
use crate::report::{Descriptor, Line, Verdict};
use skep_rights::{Descriptor as Declared, FdKind, Most, Process, Uid};
use std::path::{Path, PathBuf};

/// Adds a line for each of the table's, and one for those that have none. Returns what is open.
pub fn lines(table: &Process, facts: &Facts, options: &Options, lines: &mut Vec<Line>) -> Vec<Descriptor> {
    let places = Places::of(options);
    let open = &facts.descriptors;
    let standard: Vec<Option<Standard>> = open.iter().map(|open| standard(table, facts, open, &places)).collect();
    let fits = open.iter().zip(&standard);
    let fits: Vec<Vec<usize>> =
        fits.map(|(o, standard)| if standard.is_some() { Vec::new() } else { fitting(table, o, &places, true) }).collect();
    let most: Vec<usize> = table.descriptors.iter().map(|d| limit(d.most)).collect();
    let lines_of = assign(&fits, &most);

    let mut shown = Vec::new();
    let mut differences = Vec::new();
    for ((open, assigned), standard) in open.iter().zip(&lines_of).zip(&standard) {
        let declared = assigned.and_then(|index| table.descriptors.get(index));
        let name = if standard.is_some() { Some("standard") } else { declared.map(|d| d.name) };
        let unnamed = unnamed(&open.kind).filter(|_| declared.is_some());
        if name.is_none() {
            differences.push(reason(table, open, &places));
        }
        shown.push(Descriptor {
            number: open.number,
            shown: open.shown.clone(),
            line: name.map(str::to_owned),
            unconfirmed: unnamed.or_else(|| standard.as_ref()?.unconfirmed),
            rights: open.rights.map(capsicum::names),
        });
    }
    for (index, declared) in table.descriptors.iter().enumerate() {
        let of_line = open.iter().zip(&lines_of).filter(|(_, l)| **l == Some(index)).map(|(open, _)| open);
        let guesses = of_line.clone().filter_map(|open| Some(format!("{}: {}", open.number, unnamed(&open.kind)?)));
        let guesses: Vec<String> = guesses.collect();
        let numbers: Vec<String> = of_line.map(|open| open.number.to_string()).collect();
        let found =
            if numbers.is_empty() { "none open".to_owned() } else { format!("{} ({})", numbers.len(), numbers.join(" ")) };
        let most = match declared.most {
            Most::N(count) => format!("at most {count}"),
            Most::Many => "any number".into(),
        };
        let verdict = if guesses.is_empty() {
            Verdict::Confirmed
        } else {
            Verdict::Weaker { why: format!("declared, not confirmed, for {}", guesses.join("; ")) }
        };
        lines.push(line(format!("descriptor {}", declared.name), most, found, verdict));
    }
    let found = plural(open.len(), "descriptor");
    lines.push(line("descriptors", "none but these and the standard three", found, Verdict::of(differences)));
    shown
}

/// Why the line of a descriptor is a guess.
fn unnamed(kind: &Kind) -> Option<&'static str> {
    match kind {
        Kind::Unknown => Some("the kernel does not say what it is"),
        Kind::Nameless => Some("it has no name, and is in the file system of STATE"),
        Kind::Fifo(path) if path.as_os_str().is_empty() => Some("it is a pipe that had a name, which the kernel does not say"),
        _ => None,
    }
}

/// Why one of the standard three is.
const UNSEEN: &str = "nobody is seen at its other end";

/// One of the standard three.
struct Standard {
    unconfirmed: Option<&'static str>,
}

/// The standard three are the null device, the service's log, or a service's pipe to who writes it: somebody who started it (daemon(8)).
/// Whatever else is there needs a line like any other.
fn standard(table: &Process, facts: &Facts, open: &Open, places: &Places) -> Option<Standard> {
    if open.number > 2 {
        return None;
    }
    if places.is_standard(&open.kind) {
        return Some(Standard { unconfirmed: None });
    }
    // Those of a machine's processes are given by the spawner and the runner, as their tables say.
    let others = open.others.as_ref().filter(|_| open.number > 0 && open.kind == Kind::Pipe && table.uid == Uid::Own)?;
    let unconfirmed = others.is_empty().then_some(UNSEEN);
    others.iter().all(|pid| facts.ancestors.contains(pid)).then_some(Standard { unconfirmed })
}

fn limit(most: Most) -> usize {
    match most {
        Most::N(count) => count as usize,
        Most::Many => usize::MAX,
    }
}

fn fitting(table: &Process, open: &Open, places: &Places, rights: bool) -> Vec<usize> {
    let fits = |declared: &Declared| {
        // What is just being accepted is none of those that a process has one of.
        let one_of_many = open.kind != Kind::Unknown || declared.most != Most::N(1);
        one_of_many && places.fits(declared.kind, &open.kind) && (!rights || excess(declared, open).is_empty())
    };
    let lines = table.descriptors.iter().enumerate().filter(|(_, declared)| fits(declared));
    let mut lines: Vec<(usize, Most)> = lines.map(|(index, declared)| (index, declared.most)).collect();
    // What was accepted is a connection rather than one of the few that the process made itself.
    if matches!(open.kind, Kind::Unix { path: Some(_), .. }) {
        lines.sort_by_key(|(_, most)| std::cmp::Reverse(limit(*most)));
    }
    lines.into_iter().map(|(index, _)| index).collect()
}

/// Capsicum rights that the line does not name.
fn excess(declared: &Declared, open: &Open) -> Vec<String> {
    let held = capsicum::bits(open.rights.unwrap_or_default());
    capsicum::names(capsicum::without(held, capsicum::mask(declared.rights)))
}

/// Why a descriptor has no line.
fn reason(table: &Process, open: &Open, places: &Places) -> String {
    let Open { number, shown, .. } = open;
    let of_kind = fitting(table, open, places, false);
    let Some(first) = of_kind.first().and_then(|index| table.descriptors.get(*index)) else {
        return format!("descriptor {number} ({shown}) is not in the table");
    };
    let names: Vec<&str> = of_kind.iter().filter_map(|index| table.descriptors.get(*index)).map(|d| d.name).collect();
    let excess = excess(first, open);
    if excess.is_empty() || !fitting(table, open, places, true).is_empty() {
        format!("descriptor {number} ({shown}) is one more than the table allows of: {}", names.join(", "))
    } else {
        format!("descriptor {number} ({shown}) has rights beyond those of {}: {}", names.join(", "), excess.join(" "))
    }
}

/// Where STATE and RUN really are.
struct Places {
    state: PathBuf,
    run: PathBuf,
}

impl Places {
    fn of(options: &Options) -> Self {
        let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
        Self { state: real(&options.state), run: real(&options.run) }
    }

    fn is_standard(&self, kind: &Kind) -> bool {
        match kind {
            Kind::Null => true,
            Kind::File(path) => path.starts_with(self.state.join("logs")),
            _ => false,
        }
    }

    fn fits(&self, declared: FdKind, kind: &Kind) -> bool {
        match (declared, kind) {
            (FdKind::Null, Kind::Null)
            | (FdKind::Listener, Kind::Unix { listens: true, .. })
            | (FdKind::Unix | FdKind::Line, Kind::Unix { listens: false, .. })
            | (FdKind::Netlink, Kind::Netlink)
            | (FdKind::Netfilter, Kind::Netfilter)
            | (FdKind::SockDiag, Kind::SockDiag)
            | (FdKind::GenericNetlink, Kind::GenericNetlink)
            | (FdKind::Packet, Kind::Packet)
            | (FdKind::Inet, Kind::Inet(_))
            | (FdKind::Nameless(_), Kind::Nameless)
            | (FdKind::Inet | FdKind::Unix, Kind::Unknown)
            | (FdKind::Netgraph, Kind::Netgraph)
            | (FdKind::Pipe, Kind::Pipe)
            | (FdKind::Memory, Kind::Memory)
            | (FdKind::Event, Kind::Event)
            | (FdKind::Process, Kind::Process)
            | (FdKind::Namespace, Kind::Namespace) => true,
            (FdKind::File(below) | FdKind::Nameless(below), Kind::File(path)) => path.starts_with(self.state.join(below)),
            // As devfs of the host, where net-helper opened it, names it, or one that is mounted elsewhere.
            (FdKind::Packet, Kind::Device(path)) => path.ends_with("dev/bpf") || path == Path::new("bpf"),
            (FdKind::Line, Kind::Device(path)) => path.starts_with("/dev/pts") || path.starts_with("pts"),
            (FdKind::Directory("STATE"), Kind::Directory(path)) => *path == self.state,
            (FdKind::Directory("RUN"), Kind::Directory(path)) => *path == self.run,
            (FdKind::Directory(which), Kind::Directory(path)) => *path == self.state.join(which) || *path == self.run.join(which),
            // FreeBSD's taps are devices each.
            (FdKind::Device("net/tun" | "/dev/net/tun"), Kind::Device(path))
                if path.to_string_lossy().starts_with("/dev/tap") =>
            {
                true
            }
            // By its number.
            (FdKind::Device("dsp"), Kind::Device(path)) => {
                path.strip_prefix("/dev").ok().and_then(Path::to_str).is_some_and(skep_rights::hypervisor::is_sound)
            }
            (FdKind::Device(name), Kind::Device(path)) if name.ends_with('/') => path.starts_with(Path::new("/dev").join(name)),
            (FdKind::Device(name), Kind::Device(path)) => *path == Path::new("/dev").join(name),
            // As its cell sees it.
            (FdKind::Shared, Kind::File(path) | Kind::Directory(path)) => path.starts_with("/share"),
            (FdKind::CellFile(name), Kind::File(path)) => path == Path::new(name),
            (FdKind::Fifo(below), Kind::Fifo(path)) => {
                path.as_os_str().is_empty() || path.parent() == Some(&self.run.join(below))
            }
            (FdKind::DeviceBelow(below), Kind::Device(path)) => path.starts_with(self.run.join(below)),
            _ => false,
        }
    }
}
