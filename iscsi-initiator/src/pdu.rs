//! iSCSI's protocol data units (RFC 7143, section 11): a header of 48 bytes, and data. Pure.
//!
//! Digests are never negotiated, so there are none. What a target sends is anybody's bytes: lengths are held against bounds before anything is
//! kept.

use std::ops::Range;

/// Bytes of a header.
pub const HEADER: usize = 48;
/// Bytes of data that this initiator takes in one unit (its `MaxRecvDataSegmentLength`).
pub const MOST: usize = 256 << 10;
/// The tag that names nothing.
pub const NOTHING: u32 = u32::MAX;

/// Operation codes, from the initiator.
pub mod to {
    /// NOP-Out.
    pub const NOP: u8 = 0x00;
    /// SCSI command.
    pub const COMMAND: u8 = 0x01;
    /// Login request.
    pub const LOGIN: u8 = 0x03;
    /// SCSI Data-Out.
    pub const DATA: u8 = 0x05;
    /// To be handled at once, whatever its number.
    pub const IMMEDIATE: u8 = 0x40;
}

/// Operation codes, from the target.
pub mod from {
    /// NOP-In.
    pub const NOP: u8 = 0x20;
    /// SCSI response.
    pub const RESPONSE: u8 = 0x21;
    /// Login response.
    pub const LOGIN: u8 = 0x23;
    /// SCSI Data-In.
    pub const DATA: u8 = 0x25;
    /// Ready to transfer.
    pub const READY: u8 = 0x31;
    /// Asynchronous message.
    pub const MESSAGE: u8 = 0x32;
    /// Reject.
    pub const REJECT: u8 = 0x3f;
}

/// The last of its kind (byte 1).
pub const FINAL: u8 = 0x80;

/// A header that is being read or written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header([u8; HEADER]);

impl Header {
    /// An empty one with this operation and these flags.
    pub fn new(operation: u8, flags: u8) -> Self {
        let mut bytes = [0; HEADER];
        bytes[0] = operation;
        bytes[1] = flags;
        Self(bytes)
    }

    /// Sets bytes from `at` on; what lies beyond the header is left out.
    #[must_use]
    pub fn with(mut self, at: usize, bytes: &[u8]) -> Self {
        if let Some(place) = self.0.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
        self
    }

    /// Sets a number of 32 bits.
    #[must_use]
    pub fn number(self, at: usize, number: u32) -> Self {
        self.with(at, &number.to_be_bytes())
    }

    /// A number of 32 bits.
    pub fn get(&self, at: usize) -> u32 {
        self.0.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_be_bytes)
    }

    /// One byte.
    pub fn byte(&self, at: usize) -> u8 {
        self.0.get(at).copied().unwrap_or(0)
    }

    /// Some bytes.
    pub fn bytes(&self, range: Range<usize>) -> &[u8] {
        self.0.get(range).unwrap_or_default()
    }

    /// Its operation, without the mark of what is immediate.
    pub fn operation(&self) -> u8 {
        self.byte(0) & 0x3f
    }

    /// Its initiator task tag.
    pub fn task(&self) -> u32 {
        self.get(16)
    }

    /// Whether it is the last of its kind.
    pub fn is_final(&self) -> bool {
        self.byte(1) & FINAL != 0
    }

    fn data_length(&self) -> usize {
        (self.get(4) & 0x00ff_ffff) as usize
    }

    fn more_headers(&self) -> usize {
        usize::from(self.byte(4)) * 4
    }
}

/// Appends a unit to what is to be sent.
pub fn write(out: &mut Vec<u8>, header: Header, data: &[u8]) {
    let length = u32::try_from(data.len()).unwrap_or(0) & 0x00ff_ffff;
    out.extend_from_slice(&header.number(4, length).0);
    out.extend_from_slice(data);
    out.resize(out.len() + padding(data.len()), 0);
}

fn padding(length: usize) -> usize {
    length.wrapping_neg() & 3
}

/// A unit that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// Its header.
    pub header: Header,
    /// Its data.
    pub data: Vec<u8>,
}

/// Why what came is no unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadUnit {
    /// More than was agreed on.
    #[error("it sent {0} bytes of data at once, of which {MOST} were agreed on")]
    Long(usize),
}

/// What came and is no whole unit yet.
#[derive(Debug, Default)]
pub struct Reader {
    bytes: Vec<u8>,
    at: usize,
}

impl Reader {
    /// More came.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.at > 0 {
            self.bytes.drain(..self.at);
            self.at = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole unit.
    pub fn unit(&mut self) -> Result<Option<Unit>, BadUnit> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let Some(header) = rest.get(..HEADER).and_then(|b| b.try_into().ok()).map(Header) else { return Ok(None) };
        let length = header.data_length();
        if length > MOST {
            return Err(BadUnit::Long(length));
        }
        let begin = HEADER + header.more_headers();
        let Some(data) = rest.get(begin..begin + length) else { return Ok(None) };
        let end = begin + length + padding(length);
        if rest.len() < end {
            return Ok(None);
        }
        let data = data.to_vec();
        self.at += end;
        Ok(Some(Unit { header, data }))
    }
}

/// Keys and values of a login, as they are sent.
pub fn text(pairs: &[(&str, String)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (key, value) in pairs {
        bytes.extend_from_slice(key.as_bytes());
        bytes.push(b'=');
        bytes.extend_from_slice(value.as_bytes());
        bytes.push(0);
    }
    bytes
}

/// Keys and values as they came; what is none is left out.
pub fn pairs(bytes: &[u8]) -> Vec<(String, String)> {
    let pair = |part: &[u8]| {
        let text = std::str::from_utf8(part).ok()?;
        text.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()))
    };
    bytes.split(|b| *b == 0).filter_map(pair).collect()
}

/// Whether `a` comes before `b` or is the same, as numbers that wrap (RFC 1982).
pub fn up_to(a: u32, b: u32) -> bool {
    b.wrapping_sub(a) < 1 << 31
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn units_come_back_as_they_went_in_whatever_pieces() {
        let mut bytes = Vec::new();
        write(&mut bytes, Header::new(from::DATA, FINAL).number(16, 7), b"12345");
        assert_eq!(bytes.len(), HEADER + 8);
        write(&mut bytes, Header::new(from::NOP, 0), b"");
        let mut reader = Reader::default();
        let mut units = Vec::new();
        for byte in &bytes {
            reader.feed(&[*byte]);
            units.extend(reader.unit().unwrap());
        }
        assert_eq!(units.len(), 2);
        let first = units.first().unwrap();
        assert_eq!((first.header.operation(), first.header.task(), first.data.as_slice()), (from::DATA, 7, &b"12345"[..]));
        reader.feed(&Header::new(from::DATA, 0).number(4, 0x00ff_ffff).0);
        assert_eq!(reader.unit(), Err(BadUnit::Long(0x00ff_ffff)));
    }

    #[test]
    fn numbers_wrap() {
        assert!(up_to(1, 1) && up_to(u32::MAX, 0) && !up_to(0, u32::MAX) && up_to(5, 900));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let mut reader = Reader::default();
            reader.feed(&bytes);
            while let Ok(Some(_)) = reader.unit() {}
            let _ = pairs(&bytes);
        }
    }
}
