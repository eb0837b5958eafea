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
pub fn judge(outside: &str, inside: &str, page: &str) -> Result<()> {
    let (outside, within) = (results(outside), results(inside));
    ensure!(outside.len() >= 60, "only {} attempts outside: {outside:#?}", outside.len());
    let failed: Vec<_> = outside.iter().filter(|(_, r)| *r != "succeeded").collect();
    ensure!(failed.is_empty(), "these prove nothing, since they fail outside, too: {failed:?}");
    ensure!(within.len() == outside.len(), "the probe did not get through in the cell:\n{inside}");
    let escaped: Vec<_> = within.iter().filter(|(_, r)| *r == "succeeded").collect();
    ensure!(escaped.is_empty(), "these succeed in the cell: {escaped:?}");
    let text = std::fs::read_to_string(root().join(page))?;
    let missing: Vec<_> = within.keys().filter(|name| !text.contains(&format!("`{name}`"))).collect();
    ensure!(missing.is_empty(), "not in {page}: {missing:?}");
    Ok(())
}
