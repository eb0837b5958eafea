//! Names of vendors.

use std::fmt;
use std::str::FromStr;

/// A GUID as it is stored: the first three groups are little-endian.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Guid(pub [u8; 16]);

/// Where the bytes stand of the text's digits, pair by pair.
const PLACES: [usize; 16] = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];

impl Guid {
    /// The vendor of the variables that the UEFI specification names.
    pub const GLOBAL: Self = Self::from_fields(0x8be4_df61, 0x93ca, 0x11d2, *b"\xaa\x0d\x00\xe0\x98\x03\x2b\x8c");

    /// Of its groups, as specifications write them.
    pub const fn from_fields(a: u32, b: u16, c: u16, d: [u8; 8]) -> Self {
        let ([a0, a1, a2, a3], [b0, b1], [c0, c1]) = (a.to_le_bytes(), b.to_le_bytes(), c.to_le_bytes());
        let [d0, d1, d2, d3, d4, d5, d6, d7] = d;
        Self([a0, a1, a2, a3, b0, b1, c0, c1, d0, d1, d2, d3, d4, d5, d6, d7])
    }
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, byte) in PLACES.iter().filter_map(|place| self.0.get(*place)).enumerate() {
            let hyphen = if matches!(number, 4 | 6 | 8 | 10) { "-" } else { "" };
            write!(f, "{hyphen}{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is no GUID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a GUID is written like 8be4df61-93ca-11d2-aa0d-00e098032b8c")]
pub struct BadGuid;

impl FromStr for Guid {
    type Err = BadGuid;

    fn from_str(text: &str) -> Result<Self, BadGuid> {
        let groups: Vec<&str> = text.split('-').collect();
        if groups.iter().map(|group| group.len()).ne([8, 4, 4, 4, 12]) {
            return Err(BadGuid);
        }
        let digits: Vec<u8> = groups.concat().chars().map_while(|c| c.to_digit(16)).map_while(|d| u8::try_from(d).ok()).collect();
        let mut bytes = [0; 16];
        for (pair, place) in digits.as_chunks::<2>().0.iter().zip(PLACES) {
            let ([high, low], Some(byte)) = (pair, bytes.get_mut(place)) else { return Err(BadGuid) };
            *byte = high << 4 | low;
        }
        if digits.len() == 32 { Ok(Self(bytes)) } else { Err(BadGuid) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guids_read_as_they_are_written() {
        let text = "8be4df61-93ca-11d2-aa0d-00e098032b8c";
        assert_eq!(Guid::GLOBAL.to_string(), text);
        assert_eq!(text.parse(), Ok(Guid::GLOBAL));
        assert_eq!(text.to_uppercase().parse(), Ok(Guid::GLOBAL));
        for wrong in
            ["", "8be4df61", &text[1..], &text.replace("df", "xy"), &text.replace("df", "+f"), &text.replace('-', ""), "é"]
        {
            assert_eq!(wrong.parse::<Guid>(), Err(BadGuid), "{wrong}");
        }
    }
}
