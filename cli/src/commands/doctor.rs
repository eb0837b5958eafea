//! `skep doctor`: what is missing here, and what mends it.

use crate::error::Failure;
use crate::output::{Column, Output, bytes};
use crate::places::Places;
use crate::platform::{Check, Found, checks};
use crate::up::{self, programs};
use serde_json::json;
use std::fs;
use std::path::Path;

/// Exit code when something that machines need is missing.
const MISSING: u8 = 1;
/// Bytes below which a disk is soon full.
const LITTLE: u64 = 1 << 30;

/// Looks at everything, and says what it found.
pub fn run(places: &Places, output: Output) -> Result<u8, Failure> {
    let root = nix::unistd::geteuid().is_root();
    let packages = places.state.join("pkg");
    let mut all = vec![ours(), paths(places), space(places)];
    all.extend(checks(&[&packages, Path::new("/")], root));
    if root {
        all.push(uids());
    }
    let word = |found| match found {
        Found::Ok => "ok",
        Found::Weaker => "weaker",
        Found::Missing => "missing",
    };
    let rows = all.iter().map(|check| {
        let value = json!({"check": check.name, "found": word(check.found), "detail": check.detail, "mend": check.mend});
        (value, vec![check.name.to_owned(), word(check.found).to_owned(), check.detail.clone(), check.mend.clone()])
    });
    output.list(&[Column::Left("CHECK"), Column::Left(""), Column::Left("FOUND"), Column::Left("WHAT MENDS IT")], rows);
    Ok(if all.iter().any(|check| check.found == Found::Missing) { MISSING } else { 0 })
}

/// Our own programs.
fn ours() -> Check {
    match programs() {
        Ok(dir) => Check::new("programs", Found::Ok, dir.display(), ""),
        Err(failure) => Check::new("programs", Found::Missing, failure.message, "install skep again, all of it"),
    }
}

fn paths(places: &Places) -> Check {
    match places.check_length() {
        Ok(()) => Check::new("directories", Found::Ok, format_args!("{}, {}", places.state.display(), places.run.display()), ""),
        Err(failure) => Check::new("directories", Found::Missing, failure.note, &failure.advice),
    }
}

/// Space where the disks will lie: in STATE, or in what is above it.
fn space(places: &Places) -> Check {
    let there = places.state.ancestors().find(|dir| dir.is_dir()).unwrap_or(Path::new("/"));
    match nix::sys::statvfs::statvfs(there) {
        Ok(stat) => {
            let free = u64::from(stat.blocks_available()).saturating_mul(stat.fragment_size());
            let found = if free < LITTLE { Found::Weaker } else { Found::Ok };
            Check::new("space", found, format_args!("{} free in {}", bytes(free), there.display()), "free some space, or choose another --state")
        }
        Err(error) => Check::new("space", Found::Missing, format_args!("{}: {error}", there.display()), "choose another --state"),
    }
}

/// Nobody else may have the uids that a suite of root's gives to its processes.
fn uids() -> Check {
    let range = up::ids::UIDS;
    let range = up::ids::BASE..up::ids::BASE + range;
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let taken = users.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let uid: u32 = fields.nth(1)?.parse().ok()?;
        range.contains(&uid).then(|| name.to_owned())
    });
    let taken: Vec<_> = taken.collect();
    let detail = if taken.is_empty() { format!("{} to {} are free", range.start, range.end - 1) } else { format!("taken by {}", taken.join(", ")) };
    let found = if taken.is_empty() { Found::Ok } else { Found::Missing };
    Check::new("uids", found, detail, "give another range with `skep up --uid-base N`")
}
