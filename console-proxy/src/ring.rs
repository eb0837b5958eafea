//! The last part of what came over the line.

use std::collections::VecDeque;

/// Bytes that are kept.
pub const KEPT: usize = 256 << 10;

/// Positions count from the first byte ever. Takes memory as it fills.
#[derive(Debug, Default)]
pub struct Ring {
    kept: VecDeque<u8>,
    end: u64,
}

impl Ring {
    /// Appends; the oldest bytes make room.
    pub fn push(&mut self, bytes: &[u8]) {
        let bytes = bytes.get(bytes.len().saturating_sub(KEPT)..).unwrap_or_default();
        let over = (self.kept.len() + bytes.len()).saturating_sub(KEPT);
        self.kept.drain(..over.min(self.kept.len()));
        self.kept.extend(bytes);
        self.end += bytes.len() as u64;
    }
    /// Position after the last byte.
    pub fn end(&self) -> u64 {
        self.end
    }
    /// Position of the oldest byte.
    pub fn start(&self) -> u64 {
        self.end - self.kept.len() as u64
    }
    /// A piece from `position` on, or from the start if that is no longer kept; not all of the rest, but some of it if there is any.
    pub fn piece(&self, position: u64) -> &[u8] {
        let at = usize::try_from(position.saturating_sub(self.start())).unwrap_or(usize::MAX);
        let (first, second) = self.kept.as_slices();
        match first.get(at..) {
            Some(piece) if !piece.is_empty() => piece,
            _ => second.get(at.saturating_sub(first.len())..).unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_part_is_kept_and_found_by_position() {
        let mut ring = Ring::default();
        let bytes: Vec<u8> = (0..KEPT * 3).map(|n| (n % 251) as u8).collect();
        for chunk in bytes.chunks(1000) {
            ring.push(chunk);
        }
        assert_eq!((ring.start(), ring.end()), (2 * KEPT as u64, 3 * KEPT as u64));
        let (mut at, mut got) = (0, Vec::new());
        while at < ring.end() {
            let from = at.max(ring.start());
            let piece = ring.piece(from);
            got.extend_from_slice(piece);
            at = from + piece.len() as u64;
        }
        assert!(got == bytes[2 * KEPT..]);
        assert!(ring.piece(ring.end()).is_empty());
    }
}
