//! A password on its way: wiped when it is dropped, and never printed.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use std::{fmt, str::FromStr};
use zeroize::Zeroize;

/// At most 256 bytes of text without control characters.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(String);

/// Text that is no password. It is not repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a password has at most {} bytes and no control characters", Secret::MAX)]
pub struct BadSecret;

impl Secret {
    /// Bytes, at most.
    pub const MAX: usize = 256;

    /// The text.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl FromStr for Secret {
    type Err = BadSecret;
    fn from_str(text: &str) -> Result<Self, BadSecret> {
        let good = text.len() <= Self::MAX && !text.chars().any(char::is_control);
        if good { Ok(Self(text.to_owned())) } else { Err(BadSecret) }
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(s)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let mut text = String::deserialize(d)?;
        let secret = text.parse().map_err(D::Error::custom);
        text.zeroize();
        secret
    }
}
