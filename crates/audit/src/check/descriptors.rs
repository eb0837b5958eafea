//! Each open descriptor, and the line of the table that it belongs to.

use super::{capsicum, line, plural};
use crate::Options;
use crate::assign::assign;
use crate::facts::{Facts, Kind, Open};
use crate::report::{Descriptor, Line, Verdict};
use skep_rights::{Descriptor as Declared, FdKind, Most, Process};
use std::path::{Path, PathBuf};

/// Adds a line for each of the table's, and one for those that have none. Returns what is open.
pub fn lines(table: &Process, facts: &Facts, options: &Options, lines: &mut Vec<Line>) -> Vec<Descriptor> {
    let places = Places::of(options);
    let open = &facts.descriptors;
    // The standard three are the null device, the service's log or the pipe to who writes it (daemon(8)), else they need a line like
    // any other.
    let standard = |open: &Open| {
        open.number <= 2 && places.is_standard(&open.kind) || [1, 2].contains(&open.number) && open.kind == Kind::Pipe
    };
    let fits: Vec<Vec<usize>> =
        open.iter().map(|o| if standard(o) { Vec::new() } else { fitting(table, o, &places, true) }).collect();
    let most: Vec<usize> = table.descriptors.iter().map(|d| limit(d.most)).collect();
    let lines_of = assign(&fits, &most);

    let mut shown = Vec::new();
    let mut differences = Vec::new();
    for (open, assigned) in open.iter().zip(&lines_of) {
        let declared = assigned.and_then(|index| table.descriptors.get(index));
        let name = if standard(open) { Some("standard") } else { declared.map(|d| d.name) };
        if name.is_none() {
            differences.push(reason(table, open, &places));
        }
        shown.push(Descriptor {
            number: open.number,
            shown: open.shown.clone(),
            line: name.map(str::to_owned),
            rights: open.rights.map(capsicum::names),
        });
    }
    for (index, declared) in table.descriptors.iter().enumerate() {
        let numbers: Vec<String> =
            open.iter().zip(&lines_of).filter(|(_, l)| **l == Some(index)).map(|(o, _)| o.number.to_string()).collect();
        let found =
            if numbers.is_empty() { "none open".to_owned() } else { format!("{} ({})", numbers.len(), numbers.join(" ")) };
        let most = match declared.most {
            Most::N(count) => format!("at most {count}"),
            Most::Many => "any number".into(),
        };
        lines.push(line(format!("descriptor {}", declared.name), most, found, Verdict::Confirmed));
    }
    let found = plural(open.len(), "descriptor");
    lines.push(line("descriptors", "none but these and the standard three", found, Verdict::of(differences)));
    shown
}

fn limit(most: Most) -> usize {
    match most {
        Most::N(count) => count as usize,
        Most::Many => usize::MAX,
    }
}

fn fitting(table: &Process, open: &Open, places: &Places, rights: bool) -> Vec<usize> {
    let fits = |declared: &Declared| places.fits(declared.kind, &open.kind) && (!rights || excess(declared, open).is_empty());
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
            | (FdKind::Inet, Kind::Inet(_))
            | (FdKind::Inet | FdKind::Unix, Kind::Ended)
            | (FdKind::Pipe, Kind::Pipe)
            | (FdKind::Memory, Kind::Memory)
            | (FdKind::Event, Kind::Event)
            | (FdKind::Process, Kind::Process)
            | (FdKind::Namespace, Kind::Namespace) => true,
            (FdKind::File(below), Kind::File(path)) => path.starts_with(self.state.join(below)),
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
            (FdKind::Device(name), Kind::Device(path)) if name.ends_with('/') => path.starts_with(Path::new("/dev").join(name)),
            (FdKind::Device(name), Kind::Device(path)) => *path == Path::new("/dev").join(name),
            (FdKind::DeviceBelow(below), Kind::Device(path)) => path.starts_with(self.run.join(below)),
            _ => false,
        }
    }
}
