//! What a read of a bpf(4) device gives: frames, each behind a `struct bpf_hdr` (64-bit FreeBSD), each padded to 8 bytes.

/// Offsets of `bh_caplen`, `bh_datalen` and `bh_hdrlen`.
const CAPTURED: usize = 16;
const LENGTH: usize = 20;
const HEADER: usize = 24;

/// Frames of one read. Ends at the first record that is cut short.
#[derive(Debug, Clone)]
pub struct Records<'a> {
    rest: &'a [u8],
}

impl<'a> Records<'a> {
    /// Of these bytes.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }
}

impl<'a> Iterator for Records<'a> {
    /// `None` within: a frame that the kernel has cut.
    type Item = Option<&'a [u8]>;

    fn next(&mut self) -> Option<Self::Item> {
        let word = |at: usize| Some(u32::from_ne_bytes(self.rest.get(at..at + 4)?.try_into().ok()?) as usize);
        let (captured, length) = (word(CAPTURED)?, word(LENGTH)?);
        let header = usize::from(u16::from_ne_bytes(self.rest.get(HEADER..HEADER + 2)?.try_into().ok()?));
        let end = header.checked_add(captured)?;
        let frame = self.rest.get(header..end)?;
        // The last one may lack its padding. A header shorter than itself would not move on.
        let next = end.next_multiple_of(8);
        self.rest = if header > HEADER { self.rest.get(next..).unwrap_or_default() } else { &[] };
        Some((captured == length).then_some(frame))
    }
}

#[cfg(test)]
mod tests {
    use super::Records;

    fn record(frame: &[u8], length: u32) -> Vec<u8> {
        let mut bytes = vec![0xee; 16];
        bytes.extend((frame.len() as u32).to_ne_bytes());
        bytes.extend(length.to_ne_bytes());
        bytes.extend(32u16.to_ne_bytes());
        bytes.extend([0; 6]);
        bytes.extend(frame);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes
    }

    #[test]
    fn frames_are_read_one_after_the_other_and_a_cut_one_is_told() {
        let mut bytes = [record(b"one", 3), record(b"cut", 99), record(b"fifteen bytes..", 15)].concat();
        let all: Vec<_> = Records::new(&bytes).collect();
        assert_eq!(all, [Some(&b"one"[..]), None, Some(b"fifteen bytes..")]);
        // Without the padding of the last one, and cut within.
        bytes.pop();
        assert_eq!(Records::new(&bytes).count(), 3);
        bytes.pop();
        assert_eq!(Records::new(&bytes).count(), 2);
        for end in 0..bytes.len() {
            assert!(Records::new(&bytes[..end]).count() <= 2);
        }
        assert!(Records::new(&[0; 100]).count() <= 1);
    }
}
