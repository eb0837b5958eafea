//! What a suite may leave on the host: nothing. Compared around every test.

use crate::platform;
use std::collections::BTreeSet;
use std::path::Path;

/// Everything of skep that the kernel knows, of one instance or below one directory: links, mounts, sockets, processes; control
/// groups or jails, instances of vmm and limits.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Snapshot {
    /// Lines, each with its kind first.
    pub things: BTreeSet<String>,
}

impl Snapshot {
    /// Looks at the host. `mark` is a part of every path of the suite under test.
    pub fn take(mark: &Path, instance: Option<&str>) -> Self {
        Self { things: platform::things(&mark.to_string_lossy(), instance.unwrap_or("no instance")) }
    }

    /// What is there now and was not before.
    pub fn since(&self, before: &Snapshot) -> Vec<String> {
        self.things.difference(&before.things).cloned().collect()
    }
}
