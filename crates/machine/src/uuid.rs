//! A machine's identity as its guest sees it (SMBIOS type 1).

use serde::{Deserialize, Serialize};
use std::fmt;

/// 128 bits; written in the usual hyphenated form.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Uuid([u8; 16]);

impl Uuid {
    /// From its 128 bits, first byte highest.
    pub const fn from_u128(bits: u128) -> Self {
        Self(bits.to_be_bytes())
    }
    /// Its 128 bits.
    pub const fn as_u128(self) -> u128 {
        u128::from_be_bytes(self.0)
    }
    /// All bits zero: what a specification has before it is given an identity. Not valid for a machine.
    pub const fn is_nil(self) -> bool {
        self.as_u128() == 0
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = self.as_u128();
        let (a, b, c) = (bits >> 96, bits >> 80 & 0xffff, bits >> 64 & 0xffff);
        write!(f, "{a:08x}-{b:04x}-{c:04x}-{:04x}-{:012x}", bits >> 48 & 0xffff, bits & 0xffff_ffff_ffff)
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
