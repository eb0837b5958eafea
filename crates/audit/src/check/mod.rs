//! The judging: facts against a table. Pure.

mod capsicum;
mod descriptors;
mod freebsd;
mod identity;
mod linux;
mod mounts;
#[cfg(test)]
mod tests;

use crate::Options;
use crate::facts::{Confinement, Facts};
use crate::find::Subject;
use crate::proofs;
use crate::report::{Line, Process, Verdict};
use skep_rights::{Network, Paths};

/// Judges one process. `others` are those of other groups: its namespaces and uid must not be theirs.
pub fn process(subject: &Subject, facts: &Facts, others: &[&Facts], options: &Options) -> Process {
    let table = subject.table;
    let mut lines = Vec::new();
    if !subject.notes.is_empty() {
        lines.push(line("process", "alone", subject.notes.join("; "), Verdict::of(subject.notes.clone())));
    }
    lines.push(identity::uid(subject, facts, others, options));
    lines.push(identity::threads(table, facts));
    match &facts.confinement {
        Confinement::Linux(linux) => linux::lines(table, linux, others, options, &mut lines),
        Confinement::FreeBsd(freebsd) => freebsd::lines(table, freebsd, &facts.uids, &facts.descriptors, &mut lines),
    }
    lines.push(network(table, facts));
    lines.extend(most_descriptors(table, facts));
    let shown = descriptors::lines(table, facts, options, &mut lines);
    undiscoverable(table, facts, &mut lines);
    Process {
        name: subject.name.clone(),
        machine: subject.machine.map(|id| id.to_string()),
        pid: Some(facts.pid),
        program: facts.program.clone(),
        uids: facts.uids.clone(),
        gids: facts.gids.clone(),
        groups: facts.groups.clone(),
        lines,
        descriptors: shown,
    }
}

pub(crate) fn line(name: impl Into<String>, declared: impl Into<String>, found: impl Into<String>, verdict: Verdict) -> Line {
    Line { line: name.into(), declared: declared.into(), found: found.into(), verdict }
}

fn declared(proved_by: &str) -> Verdict {
    Verdict::Declared { proved_by: proved_by.into() }
}

fn network(table: &skep_rights::Process, facts: &Facts) -> Line {
    let reach = &facts.reach;
    let listed = |list: &[String]| if list.is_empty() { "none".to_owned() } else { list.join(" ") };
    let own = matches!(&facts.confinement, Confinement::Linux(linux) if linux.left(skep_rights::Namespace::Net));
    match (table.network, &reach.interfaces) {
        (Network::Host(why), _) => {
            let found = if own { "a network of its own" } else { "the host's" };
            line("network", format!("the host's: {why}"), found, Verdict::Confirmed)
        }
        (Network::None, None) => line("network", "none", "not readable from outside the jail", declared(proofs::NETWORK)),
        (Network::None, Some(interfaces)) => {
            let mut differences = Vec::new();
            let more: Vec<&str> = interfaces.iter().map(String::as_str).filter(|name| !harmless(name)).collect();
            if !more.is_empty() {
                differences.push(format!("interfaces {}", more.join(" ")));
            }
            if !reach.addresses.is_empty() {
                differences.push(format!("addresses {}", reach.addresses.join(" ")));
            }
            let found = format!("interfaces: {}; addresses: {}", listed(interfaces), listed(&reach.addresses));
            line("network", "none", found, Verdict::of(differences))
        }
    }
}

/// Loopback, and what some kernels put into every new network namespace (`net.core.fb_tunnels_only_for_init_net`): without addresses
/// they lead nowhere.
fn harmless(interface: &str) -> bool {
    let fallback = ["tunl0", "gre0", "gretap0", "erspan0", "ip_vti0", "ip6_vti0", "sit0", "ip6tnl0", "ip6gre0"];
    interface == "lo" || interface == "lo0" || fallback.contains(&interface)
}

fn most_descriptors(table: &skep_rights::Process, facts: &Facts) -> Option<Line> {
    let found = facts.most_descriptors?;
    let verdict = if found <= table.max_descriptors {
        Verdict::Confirmed
    } else {
        Verdict::Differs { what: format!("it may open {found} descriptors") }
    };
    Some(line("open files", format!("at most {}", table.max_descriptors), format!("limit {found}"), verdict))
}

/// What dead cells left on the host; of one that is just being made or swept a part shows so for a moment.
pub fn left_over(left: &[String]) -> Line {
    let differences = left.iter().map(|what| format!("left over: {what}")).collect();
    line(
        "dead cells",
        "have left no rules of rctl(8) and no instances of vmm(4)",
        plural(left.len(), "thing"),
        Verdict::of(differences),
    )
}

/// What no kernel lets anybody read.
fn undiscoverable(table: &skep_rights::Process, facts: &Facts, lines: &mut Vec<Line>) {
    if matches!(facts.confinement, Confinement::Linux(_)) {
        lines.push(match table.paths {
            Paths::Only(rules) => {
                line("paths", format!("{} (Landlock)", plural(rules.len(), "path")), "", declared(proofs::PATHS))
            }
            Paths::Unrestricted(why) => {
                line("paths", "not restricted", "", Verdict::Weaker { why: format!("Landlock is not used: {why}") })
            }
        });
        let calls = skep_rights::BASE.len() + table.syscalls.iter().map(|group| group.names.len()).sum::<usize>();
        lines.push(line("system calls", format!("{calls} allowed (seccomp)"), "", declared(proofs::SYSTEM_CALLS)));
    }
    lines.push(line("ioctls", plural(table.ioctls.len(), "request"), "", declared(proofs::IOCTLS)));
    for operation in table.operations {
        lines.push(line(format!("operation {}", operation.name), operation.does, "", declared(operation.test)));
    }
}

/// `no path`, `1 path`, `2 paths`.
pub(crate) fn plural(count: usize, what: &str) -> String {
    match count {
        0 => format!("no {what}"),
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    }
}
