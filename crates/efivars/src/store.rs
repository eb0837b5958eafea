//! All variables of an image.

use crate::guid::Guid;
use crate::record::{Found, Variable, attribute};
use crate::text;
use crate::volume::{Damage, Layout};
use std::collections::HashMap;

/// The variables of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    layout: Layout,
    variables: Vec<Variable>,
}

/// Why a change is not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Change {
    /// No variable can have this name.
    #[error("a name has 1 to 128 printable ASCII characters without the backslash")]
    Name,
    /// No stored variable can have these attributes.
    #[error(
        "attributes {0:#x}: 0x1 (non-volatile) is needed, 0x4 (runtime) only goes with 0x2 (boot), and 0x3f is all that there is"
    )]
    Attributes(u32),
    /// It would be deleted by the firmware.
    #[error("a variable without data does not exist; delete it instead")]
    Empty,
    /// There is no room.
    #[error("all variables come to {needed} bytes; the store has room for {room}")]
    Full {
        /// Bytes of all variables.
        needed: usize,
        /// Bytes that there are.
        room: usize,
    },
    /// The firmware was interrupted while it rewrote the store.
    #[error("the firmware was interrupted while it rewrote the store, and finishes that at the machine's next start")]
    Unfinished,
    /// It is not the image that the variables were read from.
    #[error("the image is another one")]
    OtherImage,
}

impl Store {
    /// Reads an image.
    pub fn parse(image: &[u8]) -> Result<Self, Damage> {
        let layout = Layout::parse(image)?;
        let region = image.get(..layout.region.end).unwrap_or_default();
        let mut variables: Vec<Variable> = Vec::new();
        let mut known: HashMap<(Guid, String), (usize, bool)> = HashMap::new();
        let mut at = layout.region.start;
        while let Some((found, next)) = Variable::read(layout.kind, region, at)? {
            at = next;
            let (variable, live) = match found {
                Found::Live(variable) => (variable, true),
                Found::Fading(variable) => (variable, false),
                Found::Dead => continue,
            };
            // As the firmware finds them: the first that is in force, else the last that was being replaced.
            match known.get_mut(&(variable.guid(), variable.name().to_owned())) {
                Some((_, true)) => {}
                Some((place, there)) => {
                    if let Some(slot) = variables.get_mut(*place) {
                        *slot = variable;
                    }
                    *there = live;
                }
                None => {
                    known.insert((variable.guid(), variable.name().to_owned()), (variables.len(), live));
                    variables.push(variable);
                }
            }
        }
        Ok(Self { layout, variables })
    }

    /// All that are in force, in the order of the image.
    pub fn variables(&self) -> &[Variable] {
        &self.variables
    }

    /// One of them.
    pub fn find(&self, guid: Guid, name: &str) -> Option<&Variable> {
        self.variables.iter().find(|variable| variable.guid() == guid && variable.name() == name)
    }

    /// Bytes of all variables, and bytes that there are for them.
    pub fn room(&self) -> (usize, usize) {
        let used = self.variables.iter().fold(0, |at: usize, variable| at.next_multiple_of(4) + variable.raw().len());
        (used, self.layout.region.len())
    }

    /// Gives a variable data, and attributes, if any are given: one that is there keeps its own, a new one is seen by all.
    pub fn set(&mut self, guid: Guid, name: &str, attributes: Option<u32>, data: &[u8]) -> Result<(), Change> {
        let there = self.variables.iter().position(|variable| variable.guid() == guid && variable.name() == name);
        let old = there.and_then(|place| self.variables.get_mut(place));
        let usual = attribute::NON_VOLATILE | attribute::BOOT | attribute::RUNTIME;
        let attributes = attributes.unwrap_or_else(|| old.as_ref().map_or(usual, |variable| variable.attributes()));
        let seen = attributes & (attribute::BOOT | attribute::RUNTIME);
        if attributes & attribute::NON_VOLATILE == 0 || attributes & !attribute::ALL != 0 || seen == attribute::RUNTIME {
            return Err(Change::Attributes(attributes));
        }
        if data.is_empty() {
            return Err(Change::Empty);
        }
        let full = Change::Full { needed: data.len(), room: self.layout.region.len() };
        match old {
            Some(old) => *old = old.with(self.layout.kind, attributes, data).ok_or(full)?,
            None if !text::is_plain(name) => return Err(Change::Name),
            None => self.variables.push(Variable::new(self.layout.kind, guid, name, attributes, data).ok_or(full)?),
        }
        Ok(())
    }

    /// Takes a variable away; says whether it was there.
    pub fn delete(&mut self, guid: Guid, name: &str) -> bool {
        let before = self.variables.len();
        self.variables.retain(|variable| variable.guid() != guid || variable.name() != name);
        self.variables.len() != before
    }

    /// Writes the variables into the image that they were read from. Nothing else of it changes.
    pub fn write(&self, image: &mut [u8]) -> Result<(), Change> {
        if self.layout.unfinished {
            return Err(Change::Unfinished);
        }
        let (needed, room) = self.room();
        if needed > room {
            return Err(Change::Full { needed, room });
        }
        if Layout::parse(image).as_ref() != Ok(&self.layout) {
            return Err(Change::OtherImage);
        }
        let region = image.get_mut(self.layout.region.clone()).ok_or(Change::OtherImage)?;
        region.fill(0xff);
        let mut at = 0;
        for variable in &self.variables {
            let raw = variable.raw();
            region.get_mut(at..at + raw.len()).ok_or(Change::Full { needed, room })?.copy_from_slice(raw);
            at = (at + raw.len()).next_multiple_of(4);
        }
        Ok(())
    }
}
