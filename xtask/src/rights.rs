//! docs/rights.md, printed from the tables of rights.

use skep_proto::Helper;
use skep_proto::broker::{Broker, RULES, Role};
use skep_rights::{
    ALL, Access, BASE, Descriptor, FdKind, Most, Network, PathRule, Paths, Place, Process, Syscalls, Uid, VARIANTS,
};
use std::fmt::Write;

const HEAD: &str = "# Rights of each process

Printed from `crates/rights` by `cargo xtask rights`: the same tables that the sandbox enforces (`crates/sandbox`) and that
`skep audit` holds the kernel's answers against. Do not edit.

Every process has no_new_privs, a seccomp list of its own beside what follows, no core dumps, and ends with its supervisor.
Linux: capabilities, namespaces, paths (Landlock) and system calls (seccomp). FreeBSD: capability mode, with the rights of each
descriptor (rights(4)) and its ioctls.

";

/// The page.
pub fn page() -> String {
    let mut page = HEAD.to_owned();
    row(&mut page, &["process", "program", "task", "uid", "capabilities", "network", "FreeBSD"]);
    row(&mut page, &["---"; 7]);
    for table in ALL {
        let capabilities: Vec<&str> = table.capabilities.iter().map(|(capability, _)| capability.name()).collect();
        let link = format!("[{0}](#{0})", table.name);
        let network = if matches!(table.network, Network::None) { "none" } else { "the host's" };
        let mode = if table.freebsd.capability_mode { "capability mode" } else { "see below" };
        row(&mut page, &[&link, &code(table.program), table.task, uid(table), &or_none(&capabilities.join(" ")), network, mode]);
    }
    let _ = writeln!(
        page,
        "\n## System calls of every process\n\n{}\n",
        BASE.iter().map(|name| code(name)).collect::<Vec<_>>().join(" ")
    );
    for table in ALL {
        process(&mut page, table);
    }
    // One newline at the end.
    page.truncate(page.trim_end().len());
    page.push('\n');
    page
}

fn process(page: &mut String, table: &Process) {
    let _ = writeln!(page, "## {}\n\n`{}`: {}.\n", table.name, table.program, table.task);
    let namespaces: Vec<&str> = table.namespaces.iter().map(|namespace| namespace.file()).collect();
    let _ = writeln!(page, "- uid: {}", uid(table));
    let _ = writeln!(page, "- namespaces of its own: {}", or_none(&namespaces.join(", ")));
    let capabilities: Vec<String> = table.capabilities.iter().map(|(c, why)| format!("`{}` ({why})", c.name())).collect();
    let _ = writeln!(page, "- capabilities: {}", or_none(&capabilities.join(", ")));
    let _ = match table.network {
        Network::None => writeln!(page, "- network: none"),
        Network::Host(why) => writeln!(page, "- network: the host's: {why}"),
    };
    let _ = writeln!(page, "- open files: at most {}", table.max_descriptors);
    let mode = if table.freebsd.capability_mode { "capability mode" } else { "not in capability mode" };
    let note = if table.freebsd.note.is_empty() { String::new() } else { format!(": {}", table.freebsd.note) };
    let _ = writeln!(page, "- FreeBSD: {mode}{note}\n");
    descriptors(page, table.descriptors);
    paths(page, table);
    calls(page, table.syscalls);
    for (request, why) in table.ioctls {
        let _ = writeln!(page, "- ioctl `{request:#x}`: {why}");
    }
    if !table.syscalls.is_empty() || !table.ioctls.is_empty() {
        page.push('\n');
    }
    for (_, variant, when) in VARIANTS.iter().filter(|(of, ..)| of.name == table.name) {
        more(page, table, variant, when);
    }
    if table.name == Broker::NAME {
        row(page, &["operation", "what it does", "least role", "on", "shown by the test"]);
        row(page, &["---"; 5]);
        for operation in table.operations {
            let rule = RULES.iter().find(|rule| rule.op == operation.name);
            let (role, on) = rule.map_or(("", ""), |rule| (rule.role.map_or("none", Role::word), rule.on));
            row(page, &[operation.name, operation.does, role, on, &code(operation.test)]);
        }
        page.push('\n');
    } else if !table.operations.is_empty() {
        row(page, &["operation", "what it does", "shown by the test"]);
        row(page, &["---"; 3]);
        for operation in table.operations {
            row(page, &[operation.name, operation.does, &code(operation.test)]);
        }
        page.push('\n');
    }
}

fn calls(page: &mut String, groups: &[Syscalls]) {
    for group in groups {
        let names: Vec<String> = group.names.iter().map(|name| code(name)).collect();
        let _ = writeln!(page, "- system calls {}: {}", names.join(" "), group.why);
    }
}

/// What a variant has beyond its table.
fn more(page: &mut String, table: &Process, variant: &Process, when: &str) {
    let _ = writeln!(page, "Besides, {when}:\n");
    descriptors(page, variant.descriptors.get(table.descriptors.len()..).unwrap_or_default());
    calls(page, variant.syscalls.get(table.syscalls.len()..).unwrap_or_default());
    if let (Paths::Only(own), Paths::Only(all)) = (table.paths, variant.paths) {
        for rule in all.get(own.len()..).unwrap_or_default() {
            let (place, access) = path(rule);
            let _ = writeln!(page, "- path {}, to {access}: {}", code(&place), rule.why);
        }
    }
    page.push('\n');
}

fn descriptors(page: &mut String, lines: &[Descriptor]) {
    if lines.is_empty() {
        return;
    }
    row(page, &["descriptor", "kind", "most", "Capsicum rights", "why"]);
    row(page, &["---"; 5]);
    for line in lines {
        let most = match line.most {
            Most::N(count) => count.to_string(),
            Most::Many => "any".into(),
        };
        row(page, &[line.name, &kind(line.kind), &most, &line.rights.join(" "), line.why]);
    }
    page.push('\n');
}

fn paths(page: &mut String, table: &Process) {
    match table.paths {
        Paths::Unrestricted(why) => {
            let _ = writeln!(page, "Paths: not restricted by Landlock: {why}\n");
        }
        Paths::Only([]) => page.push_str("Paths: none\n\n"),
        Paths::Only(rules) => {
            row(page, &["path", "access", "why"]);
            row(page, &["---"; 3]);
            for rule in rules {
                let (place, access) = path(rule);
                row(page, &[&code(&place), access, rule.why]);
            }
            page.push('\n');
        }
    }
}

fn path(rule: &PathRule) -> (String, &'static str) {
    let place = match rule.place {
        Place::State(below) => format!("STATE/{below}"),
        Place::Run(below) => format!("RUN/{below}"),
        Place::Exact(path) => path.to_owned(),
    };
    let access = match rule.access {
        Access::Read => "read",
        Access::ReadWriteFile => "read and write the file",
        Access::ReadWrite => "read, write, make, delete",
        Access::Files => "read, write, make, delete files and directories",
        Access::Execute => "read and execute",
    };
    (place, access)
}

fn kind(kind: FdKind) -> String {
    match kind {
        FdKind::Null => "`/dev/null`".into(),
        FdKind::File(below) => format!("file below `STATE/{below}`"),
        FdKind::Nameless(below) => format!("file without a name, of `STATE/{below}`"),
        FdKind::Directory(which) => format!("directory `{which}`"),
        FdKind::Unix => "UNIX socket".into(),
        FdKind::Listener => "UNIX socket that listens".into(),
        FdKind::Line => "UNIX socket (FreeBSD: terminal)".into(),
        FdKind::Netlink => "netlink socket".into(),
        FdKind::SockDiag => "sock_diag socket".into(),
        FdKind::GenericNetlink => "generic netlink socket".into(),
        FdKind::Netfilter => "netfilter socket".into(),
        FdKind::Netgraph => "netgraph control socket".into(),
        FdKind::Inet => "internet socket".into(),
        FdKind::Packet => "packet socket (FreeBSD: bpf(4) device)".into(),
        FdKind::Pipe => "pipe".into(),
        FdKind::Fifo(below) => format!("named pipe in `RUN/{below}`"),
        FdKind::Device(name) => format!("device `{name}`"),
        FdKind::CellFile(name) => format!("`{name}` of the cell"),
        FdKind::DeviceBelow(name) => format!("device below `RUN/{name}`"),
        FdKind::Shared => "file or directory below a shared one".into(),
        FdKind::Memory => "memory file".into(),
        FdKind::Event => "event, poll, timer".into(),
        FdKind::Process => "process".into(),
        FdKind::Namespace => "namespace".into(),
    }
}

fn uid(table: &Process) -> &'static str {
    match table.uid {
        Uid::Own => "its own",
        Uid::PerMachine => "one per machine",
        Uid::PerSwitch => "one per switch",
        Uid::PerFetch => "one per fetch",
        Uid::PerInitiator => "one per iSCSI disk at work",
    }
}

fn or_none(text: &str) -> String {
    if text.is_empty() { "none".into() } else { text.to_owned() }
}

fn code(text: &str) -> String {
    format!("`{text}`")
}

fn row(page: &mut String, cells: &[&str]) {
    let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
    let _ = writeln!(page, "| {} |", cells.join(" | "));
}
