//! Sound devices of a host.

use crate::Text;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A sound device by its number, as users and `/dev` write it: `dsp0` (sound(4)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Dsp(pub u8);

impl fmt::Display for Dsp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "dsp{}", self.0)
    }
}

/// It names no sound device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a sound device is like dsp0; `skep host show` lists those of the host")]
pub struct BadDsp;

impl FromStr for Dsp {
    type Err = BadDsp;
    fn from_str(text: &str) -> Result<Self, BadDsp> {
        let digits = text.strip_prefix("dsp").filter(|d| d.bytes().all(|b| b.is_ascii_digit())).ok_or(BadDsp)?;
        // One way to write each.
        if digits.len() > 1 && digits.starts_with('0') {
            return Err(BadDsp);
        }
        Ok(Self(digits.parse().map_err(|_| BadDsp)?))
    }
}

/// A sound device that machines may have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SoundDevice {
    /// Which.
    pub device: Dsp,
    /// What its driver calls it.
    pub description: Text<64>,
    /// Whether it plays.
    pub plays: bool,
    /// Whether it records.
    pub records: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sound_device_is_written_in_one_way() {
        for (text, number) in [("dsp0", 0), ("dsp7", 7), ("dsp255", 255)] {
            assert_eq!(text.parse(), Ok(Dsp(number)));
            assert_eq!(Dsp(number).to_string(), text);
        }
        for wrong in ["", "dsp", "dsp256", "dsp00", "dsp-1", "dsp+1", "dsp0.1", "/dev/dsp0", "pcm0", "dsp0\n"] {
            assert_eq!(wrong.parse::<Dsp>(), Err(BadDsp), "{wrong:?}");
        }
    }
}
