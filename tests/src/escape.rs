//! What the probes in tests/probe say, and what must be true of it.

use crate::root;
use anyhow::{Result, ensure};
use std::collections::BTreeMap;

/// What a probe reports, by attempt.
pub fn results(text: &str) -> BTreeMap<String, String> {
    let lines = text.lines().filter_map(|l| l.split_once("attempt ")?.1.split_once(": "));
    lines.map(|(name, result)| (name.to_owned(), result.trim().to_owned())).collect()
}

/// Each attempt succeeds outside (or proves nothing) and fails in the cell, and `page` names it: the list is documentation.
///
/// `known`: those that succeed in this host's cells, which the page has to say, too.
pub fn judge(outside: &str, inside: &str, page: &str, known: &[&str]) -> Result<()> {
    let (outside, within) = (results(outside), results(inside));
    ensure!(outside.len() >= 60, "only {} attempts outside: {outside:#?}", outside.len());
    // What the host's kernel has not, nobody can call.
    let failed: Vec<_> = outside.iter().filter(|(_, r)| *r != "succeeded" && *r != "Function not implemented").collect();
    ensure!(failed.is_empty(), "these prove nothing, since they fail outside, too: {failed:?}");
    ensure!(within.len() == outside.len(), "the probe did not get through in the cell:\n{inside}");
    let escaped: Vec<_> = within.iter().filter(|(_, r)| *r == "succeeded").map(|(name, _)| name.as_str()).collect();
    ensure!(escaped == known, "these succeed in the cell: {escaped:?}; known are {known:?}");
    let text = std::fs::read_to_string(root().join(page))?;
    let missing: Vec<_> = within.keys().filter(|name| !text.contains(&format!("`{name}`"))).collect();
    ensure!(missing.is_empty(), "not in {page}: {missing:?}");
    Ok(())
}
