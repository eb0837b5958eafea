//! One variable.

use crate::bytes::{array, length, u32_at, units};
use crate::guid::Guid;
use crate::text;
use crate::volume::{Damage, damage};

/// Attributes (UEFI specification, `GetVariable`).
pub mod attribute {
    /// It outlives a reset: every variable of a store has this.
    pub const NON_VOLATILE: u32 = 1;
    /// The firmware and boot loaders see it.
    pub const BOOT: u32 = 2;
    /// The running system sees it, too.
    pub const RUNTIME: u32 = 4;
    /// A record of a hardware error.
    pub const HARDWARE_ERROR: u32 = 8;
    /// Written only with a signature (by a counter; deprecated).
    pub const SIGNED: u32 = 0x10;
    /// Written only with a signature, which has a time.
    pub const SIGNED_AT: u32 = 0x20;
    /// All that a stored variable can have.
    pub const ALL: u32 = 0x3f;

    /// What they are called for short.
    pub fn words(attributes: u32) -> String {
        let names = [(BOOT, "boot"), (RUNTIME, "runtime"), (HARDWARE_ERROR, "error"), (SIGNED, "signed"), (SIGNED_AT, "signed")];
        let mut words: Vec<&str> = names.iter().filter(|(bit, _)| attributes & bit != 0).map(|(_, word)| *word).collect();
        words.dedup();
        words.join(" ")
    }
}

/// How variables are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `AUTHENTICATED_VARIABLE_HEADER`: with a counter, a time, the number of a key.
    Authenticated,
    /// `VARIABLE_HEADER`.
    Plain,
}

impl Kind {
    /// Where the sizes of name and data stand; the vendor follows, then the name.
    fn sizes(self) -> usize {
        match self {
            Kind::Authenticated => 36,
            Kind::Plain => 8,
        }
    }

    fn header(self) -> usize {
        self.sizes() + 24
    }
}

/// First bytes of a variable.
const START: u16 = 0x55aa;
/// States. A step clears bits, so that a power failure leaves one or the other.
const ADDED: u8 = 0x3f;
const IN_TRANSITION: u8 = 0x3e;

/// A variable, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variable {
    guid: Guid,
    name: String,
    attributes: u32,
    data: usize,
    raw: Vec<u8>,
}

/// What stands at a place of the variables.
pub enum Found {
    /// One that is in force.
    Live(Variable),
    /// One that another of its name replaces, if that was completed.
    Fading(Variable),
    /// One that is not in force: half-written or deleted.
    Dead,
}

impl Variable {
    /// Makes one.
    pub fn new(kind: Kind, guid: Guid, name: &str, attributes: u32, data: &[u8]) -> Option<Self> {
        let name: Vec<u8> = name.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect();
        let mut raw = vec![0; kind.sizes()];
        raw.splice(..8, [&START.to_le_bytes()[..], &[ADDED, 0], &attributes.to_le_bytes()[..]].concat());
        raw.extend(u32::try_from(name.len()).ok()?.to_le_bytes());
        raw.extend(u32::try_from(data.len()).ok()?.to_le_bytes());
        raw.extend(guid.0);
        raw.extend(&name);
        raw.extend(data);
        let name = text::name(&units(&name).take_while(|unit| *unit != 0).collect::<Vec<_>>());
        Some(Self { guid, name, attributes, data: raw.len() - data.len(), raw })
    }

    /// Reads what begins at `at`, and says where the next one begins. None: the end.
    pub fn read(kind: Kind, region: &[u8], at: usize) -> Result<Option<(Found, usize)>, Damage> {
        let rest = region.get(at..).unwrap_or_default();
        if !rest.starts_with(&START.to_le_bytes()) {
            return Ok(None);
        }
        let what = "a variable";
        let fields = (|| {
            let sizes = (u32_at(rest, kind.sizes())?, u32_at(rest, kind.sizes() + 4)?);
            Some((*rest.get(2)?, u32_at(rest, 4)?, sizes, Guid(array(rest, kind.sizes() + 8)?)))
        })();
        let Some((state, attributes, (name_size, data_size), guid)) = fields else {
            return damage(what, at, "its header is cut off");
        };
        // As the firmware sees it: of a header that was not completed the sizes are not to be believed.
        let blank = state == 0xff || [attributes, name_size, data_size].contains(&u32::MAX);
        let (name_size, data_size) = if blank { (0, 0) } else { (length(name_size.into()), length(data_size.into())) };
        let data = kind.header().saturating_add(name_size);
        let Some(raw) = rest.get(..data.saturating_add(data_size)) else {
            let why = format_args!("its name has {name_size} bytes and its data {data_size}; {} are left", rest.len());
            return damage(what, at, why);
        };
        let next = (at + raw.len()).next_multiple_of(4);
        if state != ADDED && state != IN_TRANSITION {
            return Ok(Some((Found::Dead, next)));
        }
        let name = raw.get(kind.header()..data).unwrap_or_default();
        let name = text::name(&units(name).take_while(|unit| *unit != 0).collect::<Vec<_>>());
        let mut raw = raw.to_vec();
        if let Some(state) = raw.get_mut(2) {
            *state = ADDED;
        }
        let variable = Self { guid, name, attributes, data, raw };
        Ok(Some((if state == ADDED { Found::Live(variable) } else { Found::Fading(variable) }, next)))
    }

    /// The vendor, who chose the name.
    pub fn guid(&self) -> Guid {
        self.guid
    }

    /// The name; what does not print is escaped.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// See [`attribute`].
    pub fn attributes(&self) -> u32 {
        self.attributes
    }

    /// Its data.
    pub fn data(&self) -> &[u8] {
        self.raw.get(self.data..).unwrap_or_default()
    }

    /// All of it.
    pub fn raw(&self) -> &[u8] {
        &self.raw
    }

    /// The same with other attributes and data; counter, time and key stay.
    pub fn with(&self, kind: Kind, attributes: u32, data: &[u8]) -> Option<Self> {
        let mut raw = self.raw.get(..self.data)?.to_vec();
        raw.splice(4..8, attributes.to_le_bytes());
        raw.splice(kind.sizes() + 4..kind.sizes() + 8, u32::try_from(data.len()).ok()?.to_le_bytes());
        raw.extend(data);
        Some(Self { guid: self.guid, name: self.name.clone(), attributes, data: self.data, raw })
    }
}
