//! Variables of a machine's UEFI firmware.

use super::Ref;
use crate::vars::VarName;
use serde::{Deserialize, Serialize};

/// Lists a machine's variables by name. While it runs: as they are at the moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FirmwareList {
    /// Whose.
    pub machine: Ref,
    /// Begin after this one.
    pub after: Option<VarName>,
}

/// Reads a variable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FirmwareGet {
    /// Whose.
    pub machine: Ref,
    /// Which.
    pub name: VarName,
    /// From this byte of its data on.
    pub from: u32,
}

/// A boot entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum BootChoice {
    /// By its number.
    Entry(u16),
    /// The one that leads to this disk of the machine's.
    Disk(Ref),
}

/// See [`crate::vars::VarEdit`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FirmwareChange {
    /// Gives a variable data.
    Set {
        /// Which.
        name: VarName,
        /// Attributes; none: those that it has, for a new one 7.
        attributes: Option<u32>,
        /// At most [`crate::vars::MAX_DATA`] bytes.
        data: Vec<u8>,
    },
    /// Deletes a variable.
    Delete(VarName),
    /// Puts entries first in the boot order.
    Order(Vec<BootChoice>),
    /// Has an entry booted once; none: takes that back.
    Next(Option<BootChoice>),
    /// Brings back the variables of a new machine.
    Reset,
}

/// Changes the variables of a machine that does not run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FirmwareEdit {
    /// Whose.
    pub machine: Ref,
    /// What to change.
    pub change: FirmwareChange,
}
