//! The tables of rights: names that the sandbox knows, reasons that say something.

use super::text_of;
use crate::source::Source;
use skep_rights::{ALL, BASE, Paths};

pub fn check(sources: &[Source], problems: &mut Vec<String>) {
    let known = known_calls(sources);
    let absent = text_of(sources, "crates/sandbox/src/linux/seccomp.rs").contains("strip_suffix(\":absent\")");
    let own = ALL
        .iter()
        .flat_map(|table| table.syscalls.iter().flat_map(move |group| group.names.iter().map(move |n| (table.name, n))));
    for (of, name) in BASE.iter().map(|name| ("BASE", name)).chain(own) {
        let plain = if absent { name.strip_suffix(":absent").unwrap_or(name) } else { name };
        if !known.iter().any(|k| k == plain) {
            problems.push(format!("crates/rights: {of}: the sandbox knows no system call {name}"));
        }
    }
    for table in ALL {
        for (number, one) in table.descriptors.iter().enumerate() {
            if table.descriptors.iter().skip(number + 1).any(|other| other.name == one.name && other.kind == one.kind) {
                problems.push(format!("crates/rights: {}: two lines for the descriptor {}", table.name, one.name));
            }
        }
        if table.freebsd.capability_mode && table.descriptors.iter().any(|d| d.rights.is_empty()) {
            problems.push(format!("crates/rights: {}: a descriptor without Capsicum rights", table.name));
        }
        if !table.freebsd.capability_mode && table.freebsd.note.is_empty() {
            problems.push(format!("crates/rights: {}: no reason why it is not in capability mode", table.name));
        }
        if table.descriptors.is_empty() {
            problems.push(format!("crates/rights: {}: no descriptors: the table is not filled", table.name));
        }
        for why in reasons(table) {
            if why.trim().is_empty() {
                problems.push(format!("crates/rights: {}: a line without a reason", table.name));
            }
        }
    }
}

fn reasons(table: &'static skep_rights::Process) -> Vec<&'static str> {
    let mut reasons: Vec<&str> = table.descriptors.iter().map(|line| line.why).collect();
    reasons.extend(table.capabilities.iter().map(|(_, why)| *why));
    reasons.extend(table.syscalls.iter().map(|group| group.why));
    reasons.extend(table.ioctls.iter().map(|(_, why)| *why));
    reasons.extend(table.operations.iter().map(|row| row.does));
    match table.paths {
        Paths::Only(rules) => reasons.extend(rules.iter().map(|rule| rule.why)),
        Paths::Unrestricted(why) => reasons.push(why),
    }
    reasons
}

/// Read from the sandbox's source, since FreeBSD's has none to ask: the list of names, and the special ones with their arms.
fn known_calls(sources: &[Source]) -> Vec<String> {
    let list = text_of(sources, "crates/sandbox/src/linux/names.rs");
    let list = list.split_once("numbers! {").and_then(|(_, rest)| rest.split_once('}')).map_or("", |(names, _)| names);
    let mut known: Vec<String> = list.split_whitespace().map(str::to_owned).collect();
    let arms = text_of(sources, "crates/sandbox/src/linux/seccomp.rs");
    for line in arms.lines().filter_map(|line| line.trim().strip_prefix('"')) {
        if let Some((name, rest)) = line.split_once('"')
            && rest.trim_start().starts_with("=>")
        {
            known.push(name.to_owned());
        }
    }
    known
}
