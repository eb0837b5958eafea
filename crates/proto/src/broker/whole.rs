//! Snapshots of whole machines.

use super::Ref;
use crate::{SnapshotId, SnapshotName, Text};
use serde::{Deserialize, Serialize};

/// Makes a snapshot of a machine: of all disks that it writes to, at one instant, of its firmware's variables and its settings. It may run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WholeCreate {
    /// Of which machine.
    pub machine: Ref,
    /// Its name, among the machine's; its disks' snapshots have it, too.
    pub name: SnapshotName,
}

/// Lists a machine's snapshots by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WholeList {
    /// Of which machine.
    pub machine: Ref,
    /// Begin after this name.
    pub after: Option<SnapshotName>,
}

/// Brings a stopped machine back to a snapshot: disks, variables, settings; its NICs and its name stay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WholeRollBack {
    /// Which machine.
    pub machine: Ref,
    /// To which snapshot.
    pub snapshot: Ref,
}

/// Deletes a snapshot, with its disks'.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WholeDelete {
    /// Of which machine.
    pub machine: Ref,
    /// Which.
    pub snapshot: Ref,
}

/// Renames a snapshot, with its disks'.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WholeRename {
    /// Of which machine.
    pub machine: Ref,
    /// Which.
    pub snapshot: Ref,
    /// The new name, among the machine's and its disks'.
    pub name: SnapshotName,
}

/// A snapshot of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WholeView {
    /// Its id.
    pub id: SnapshotId,
    /// Its name.
    pub name: SnapshotName,
    /// When it was made; nanoseconds since 1970.
    pub created_ns: i64,
    /// Names of the disks that it holds.
    pub disks: Vec<Text<63>>,
    /// Bytes that it occupies alone, when last asked.
    pub used: u64,
}

/// A page; empty at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WholePage {
    /// As many as fit a record.
    pub snapshots: Vec<WholeView>,
}
