//! The outside of a DNS message, read without its insides: what guests and resolvers send reaches no parser of records.

/// Bytes of a header.
pub const HEADER: usize = 12;
/// Type of the record by which EDNS is offered (RFC 6891).
const OPT: u16 = 41;

/// A header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Number of the question.
    pub id: u16,
    /// All of its flags.
    pub flags: u16,
    /// Questions, answers, authorities, more.
    pub counts: [u16; 4],
}

impl Header {
    /// Of a message.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let word = |at| half(bytes, at);
        Some(Self { id: word(0)?, flags: word(2)?, counts: [word(4)?, word(6)?, word(8)?, word(10)?] })
    }
}

/// What a client offers by EDNS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offer {
    /// Bytes that it takes over UDP.
    pub room: u16,
    /// Version of EDNS.
    pub version: u8,
    /// Whether it wants records of DNSSEC.
    pub dnssec: bool,
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

/// Where a name ends that begins here. `pointers`: whether it may end in one.
fn name(bytes: &[u8], mut at: usize, pointers: bool) -> Option<usize> {
    loop {
        match *bytes.get(at)? {
            0 => return Some(at + 1),
            0xc0.. if pointers => return (at + 2 <= bytes.len()).then_some(at + 2),
            length @ ..64 => at += 1 + usize::from(length),
            _ => return None,
        }
    }
}

/// Where the question ends, which is the first thing of a message.
pub fn question(bytes: &[u8]) -> Option<usize> {
    let end = name(bytes, HEADER, false)? + 4;
    (end <= bytes.len()).then_some(end)
}

/// Type, class and the four bytes that else are a time, and where the record ends that begins here.
fn record(bytes: &[u8], at: usize) -> Option<(u16, u16, [u8; 4], usize)> {
    let fixed = name(bytes, at, true)?;
    let rest = bytes.get(fixed + 4..fixed + 8)?.try_into().ok()?;
    let end = fixed + 10 + usize::from(half(bytes, fixed + 8)?);
    (end <= bytes.len()).then_some((half(bytes, fixed)?, half(bytes, fixed + 2)?, rest, end))
}

/// What a question's message offers by EDNS, in the records behind the question, of which there are so many. `None`: they are malformed.
pub fn offer(bytes: &[u8], mut at: usize, count: u16) -> Option<Option<Offer>> {
    let mut offer = None;
    for _ in 0..count {
        let (kind, class, [_, version, flags, _], end) = record(bytes, at)?;
        if kind == OPT && offer.replace(Offer { room: class, version, dnssec: flags & 0x80 != 0 }).is_some() {
            return None;
        }
        at = end;
    }
    Some(offer)
}

/// An answer without its word of EDNS, for a client that knows none. `None`: it is malformed, or something stands behind that word which
/// may point to what would move.
pub fn without_offer(bytes: &[u8]) -> Option<Vec<u8>> {
    let header = Header::read(bytes)?;
    let [1, answers, authorities, more] = header.counts else { return None };
    let mut at = question(bytes)?;
    for _ in 0..u32::from(answers) + u32::from(authorities) {
        (_, _, _, at) = record(bytes, at)?;
    }
    for number in 1..=more {
        let (kind, _, _, end) = record(bytes, at)?;
        if kind == OPT {
            let mut rest = bytes.get(..at)?.to_vec();
            rest.splice(10..HEADER, (more - 1).to_be_bytes());
            return (number == more).then_some(rest);
        }
        at = end;
    }
    Some(bytes.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(more: u16, records: &[&[u8]]) -> Vec<u8> {
        let head = [&[0xab, 0xcd, 0x81, 0x80, 0, 1, 0, 1, 0, 0][..], &more.to_be_bytes()].concat();
        let answer = [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 33];
        [&head, &b"\x01a\0\0\x01\0\x01"[..], &answer, &records.concat()].concat()
    }

    const EDNS: [u8; 11] = [0, 0, 41, 4, 208, 0, 1, 0x80, 0, 0, 0];

    #[test]
    fn what_a_client_offers_is_found() {
        let bytes = message(2, &[&[0xc0, 12, 0, 16, 0, 1, 0, 0, 0, 0, 0, 1, 9], &EDNS]);
        let end = question(&bytes).unwrap();
        assert_eq!(end, 19);
        assert_eq!(offer(&bytes, end, 3), Some(Some(Offer { room: 1232, version: 1, dnssec: true })));
        assert_eq!((offer(&bytes, end, 1), offer(&bytes, end, 4)), (Some(None), None));
        for end in 0..bytes.len() {
            assert_eq!(offer(&bytes[..end], 19, 3), None);
        }
        assert_eq!(offer(&message(2, &[&EDNS, &EDNS]), 19, 3), None);
    }

    #[test]
    fn the_offer_is_taken_out_where_nothing_moves() {
        let bare = message(0, &[]);
        assert_eq!(without_offer(&message(1, &[&EDNS])), Some(bare.clone()));
        assert_eq!(without_offer(&bare), Some(bare));
        let other = [0, 0, 16, 0, 1, 0, 0, 0, 0, 0, 0];
        assert_eq!(without_offer(&message(2, &[&other, &EDNS])), Some(message(1, &[&other])));
        assert_eq!(without_offer(&message(2, &[&EDNS, &other])), None);
        assert_eq!(without_offer(&message(2, &[&EDNS])), None);
    }

    #[test]
    fn a_question_s_name_has_no_pointers() {
        for bad in
            [&b"\xc0\x0c\0\x01\0\x01"[..], b"\x01a\xc0\x0c\0\x01\0\x01", b"\x40\0\0\x01\0\x01", b"\x01a\0\0\x01\0", b"\x02a"]
        {
            assert_eq!(question(&[&[0; 12][..], bad].concat()), None, "{bad:02x?}");
        }
    }
}
