//! What differs between the hosts.

#[cfg(target_os = "freebsd")]
#[path = "freebsd.rs"]
mod host;
#[cfg(target_os = "linux")]
#[path = "linux.rs"]
mod host;

pub use host::{CONF, MANAGED, STATE, checks, clear, enter_jail, make_user};

use std::path::Path;

/// What a check found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// It is there.
    Ok,
    /// It is not there; machines run, but something is less than it could be.
    Weaker,
    /// It is not there, and machines cannot run.
    Missing,
}

/// One line of `skep doctor`.
#[derive(Debug)]
pub struct Check {
    /// What was looked for.
    pub name: &'static str,
    /// What was found.
    pub found: Found,
    /// Details.
    pub detail: String,
    /// The command that mends it, or what to do.
    pub mend: String,
}

impl Check {
    /// A line.
    pub fn new(name: &'static str, found: Found, detail: impl ToString, mend: &str) -> Self {
        let mend = if found == Found::Ok { String::new() } else { mend.to_owned() };
        Self { name, found, detail: detail.to_string(), mend }
    }
}

/// The first file of a list below any of the prefixes.
fn first_file(prefixes: &[&Path], paths: &[&str]) -> Option<std::path::PathBuf> {
    let mut candidates = prefixes.iter().flat_map(|prefix| paths.iter().map(|path| prefix.join(path.trim_start_matches('/'))));
    candidates.find(|path| path.is_file())
}
