//! Variables of UEFI firmware, as storage-helper and the broker's sessions tell of them.

use crate::{MachineId, Text};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use std::{fmt, str::FromStr};

/// Attributes that a stored variable can have (UEFI specification, `GetVariable`).
pub const ATTRIBUTES: u32 = 0x3f;
/// Most bytes of data that a request can give a variable, and that a reply holds of one.
pub const MAX_DATA: usize = 6000;
/// Most boot entries in a request.
pub const MAX_ENTRIES: usize = 64;

/// The vendor of the variables that the UEFI specification names.
const GLOBAL: &str = "8be4df61-93ca-11d2-aa0d-00e098032b8c";

/// A variable's name with its vendor's GUID: `BootOrder-8be4df61-93ca-11d2-aa0d-00e098032b8c`, as in efivarfs. Without a GUID it is
/// one of the UEFI specification's.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct VarName(String);

/// A text that names no variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a variable's name has 1 to 250 printable ASCII characters; a hyphen and its vendor's GUID may follow")]
pub struct BadVarName;

impl VarName {
    /// `NAME-GUID`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name and the vendor's GUID.
    pub fn parts(&self) -> (&str, &str) {
        split(&self.0).unwrap_or((&self.0, GLOBAL))
    }
}

/// A name and the GUID behind it.
fn split(text: &str) -> Option<(&str, &str)> {
    let at = text.len().checked_sub(GLOBAL.len() + 1)?;
    let (name, guid) = (text.get(..at)?, text.get(at..)?.strip_prefix('-')?);
    let fits = |(like, c): (u8, u8)| if like == b'-' { c == b'-' } else { c.is_ascii_hexdigit() };
    GLOBAL.bytes().zip(guid.bytes()).all(fits).then_some((name, guid))
}

impl FromStr for VarName {
    type Err = BadVarName;
    fn from_str(text: &str) -> Result<Self, BadVarName> {
        let (name, guid) = split(text).unwrap_or((text, GLOBAL));
        let plain = |c: u8| c.is_ascii_graphic() || c == b' ';
        if !(1..=250).contains(&name.len()) || !name.bytes().all(plain) {
            return Err(BadVarName);
        }
        Ok(Self(format!("{name}-{}", guid.to_ascii_lowercase())))
    }
}

impl fmt::Display for VarName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl Serialize for VarName {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(s)
    }
}

impl<'de> Deserialize<'de> for VarName {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(D::Error::custom)
    }
}

/// A variable as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VarState {
    /// Its name; what does not print is escaped.
    pub name: VarName,
    /// 1: outlives a reset (all do); 2: seen by the firmware and loaders; 4: by the running system, too; 8: a hardware error;
    /// 0x10, 0x20: written only with a signature.
    pub attributes: u32,
    /// Bytes of data.
    pub size: u32,
    /// What it says, as far as that is known; else its first bytes.
    pub meaning: Text<400>,
}

/// Lists a machine's variables by name. While it runs: as they are at the moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListVars {
    /// Whose.
    pub machine: MachineId,
    /// Begin after this one.
    pub after: Option<VarName>,
}

/// A page of variables; without any at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VarPage {
    /// As many as fit a record.
    pub vars: Vec<VarState>,
    /// Bytes that all variables take.
    pub used: u32,
    /// Bytes that there are for them.
    pub room: u32,
}

/// Reads a variable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadVar {
    /// Whose.
    pub machine: MachineId,
    /// Which.
    pub name: VarName,
    /// From this byte of its data on.
    pub from: u32,
}

/// A variable with data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VarPiece {
    /// What it is.
    pub var: VarState,
    /// At most [`MAX_DATA`] bytes; none behind the end.
    pub data: Vec<u8>,
}

/// A boot entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum BootRef {
    /// By its number.
    Entry(u16),
    /// The first, in the present order, that leads to something whose device path begins so.
    Path(Vec<u8>),
}

/// A change of the variables of a machine that does not run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum VarEdit {
    /// Gives a variable data.
    Set {
        /// Which; a new one must have a plain name of at most 128 bytes.
        name: VarName,
        /// Attributes; none: those that it has, for a new one 7.
        attributes: Option<u32>,
        /// At most [`MAX_DATA`] bytes.
        data: Vec<u8>,
    },
    /// Deletes a variable. Deleting one that is not there succeeds.
    Delete(VarName),
    /// Puts entries first in the boot order; the others keep their turns behind them. The order counts from then on, not the places of
    /// the disks.
    Order(Vec<BootRef>),
    /// Has an entry booted once, at the next start; none: takes that back.
    Next(Option<BootRef>),
    /// Brings back the variables of a new machine.
    Reset,
}

/// Changes the variables of a machine that does not run: all of the change or, whatever happens, nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EditVars {
    /// Whose.
    pub machine: MachineId,
    /// What to change.
    pub edit: VarEdit,
}

/// What is booted after a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VarsEdited {
    /// The boot order, as far as it fits; empty: the firmware makes one at the next start.
    pub order: Vec<u16>,
    /// What goes first, once.
    pub next: Option<u16>,
}

/// Asks who says what is booted first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhoseOrder {
    /// Of which machine.
    pub machine: MachineId,
}

/// Who says what is booted first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderState {
    /// The variables, since a user has set an order; else the places of the disks.
    pub own: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_a_vendor() {
        let name: VarName = "BootOrder".parse().expect("valid");
        assert_eq!(name.parts(), ("BootOrder", GLOBAL));
        assert_eq!(format!("BootOrder-{}", GLOBAL.to_uppercase()).parse(), Ok(name));
        let other: VarName = "a-b-c0ffee00-93ca-11d2-aa0d-00e098032b8c".parse().expect("valid");
        assert_eq!(other.parts(), ("a-b", "c0ffee00-93ca-11d2-aa0d-00e098032b8c"));
        // Not a GUID: part of the name.
        assert_eq!("a-b".parse::<VarName>().expect("valid").parts(), ("a-b", GLOBAL));
        for wrong in ["", "a\nb", "é", &"a".repeat(251), &format!("-{GLOBAL}")] {
            assert_eq!(wrong.parse::<VarName>(), Err(BadVarName), "{wrong}");
        }
    }
}
