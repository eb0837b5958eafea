//! `skep doctor`: what is missing here, and what mends it.

use crate::error::Failure;
use crate::output::{Column, Output, bytes};
use crate::places::Places;
use crate::platform::{Check, Found, checks};
use crate::up;
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};

/// Exit code when something that machines need is missing.
const MISSING: u8 = 1;
/// Bytes below which a disk is soon full.
const LITTLE: u64 = 1 << 30;

/// Looks at everything, and says what it found.
pub fn run(places: &Places, output: Output) -> Result<u8, Failure> {
    let root = nix::unistd::geteuid().is_root();
    let packages = std::env::var_os("SKEP_PKG").map_or_else(|| places.state.join("pkg"), PathBuf::from);
    let mut all = vec![ours(), space(places)];
    all.extend(checks(&[&packages, Path::new("/")], root));
    if root {
        all.extend(uids(places));
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
    match up::programs() {
        Ok(dir) => Check::new("programs", Found::Ok, dir.display(), ""),
        Err(error) => Check::new("programs", Found::Missing, error, "install skep again, all of it"),
    }
}

/// Space where the disks will lie: in STATE, or in what is above it.
fn space(places: &Places) -> Check {
    let there = places.state.ancestors().find(|dir| dir.is_dir()).unwrap_or(Path::new("/"));
    match nix::sys::statvfs::statvfs(there) {
        Ok(stat) => {
            let free = stat.blocks_available().saturating_mul(stat.fragment_size());
            let found = if free < LITTLE { Found::Weaker } else { Found::Ok };
            Check::new(
                "space",
                found,
                format_args!("{} free in {}", bytes(free), there.display()),
                "free some space, or choose another --state",
            )
        }
        Err(error) => Check::new("space", Found::Missing, format_args!("{}: {error}", there.display()), "choose another --state"),
    }
}

/// Nobody else may have the uids that a suite of root's gives to its processes; which they are is settled at the first start.
fn uids(places: &Places) -> Option<Check> {
    let ids = fs::read_to_string(places.state.join("ids")).ok()?;
    let own: Vec<u32> = ids.trim().split(',').filter_map(|part| part.split_once('=')?.1.parse().ok()).collect();
    let range = *own.iter().min()?..own.iter().max()?.saturating_add(2000);
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let taken = users.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let uid: u32 = fields.nth(1)?.parse().ok()?;
        range.contains(&uid).then(|| name.to_owned())
    });
    let taken: Vec<_> = taken.collect();
    let free = format!("{} to {} are free", range.start, range.end - 1);
    let detail = if taken.is_empty() { free } else { format!("taken by {}", taken.join(", ")) };
    let found = if taken.is_empty() { Found::Ok } else { Found::Missing };
    Some(Check::new("uids", found, detail, "give those users other uids, or start the suite with another --state"))
}
