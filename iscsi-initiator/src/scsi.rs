//! SCSI commands for disks (SBC, SPC), and what a target says of how they ended. Pure.

use skep_nbd::Geometry;

/// A command's bytes.
pub type Cdb = [u8; 16];

/// What is asked of the logical unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// Whether it is ready.
    Ready,
    /// What it is.
    Inquiry,
    /// How large it is.
    Capacity,
    /// To read from a block on.
    Read {
        /// The first block.
        block: u64,
        /// How many.
        blocks: u32,
    },
    /// To write from a block on; `now`: onto the medium.
    Write {
        /// The first block.
        block: u64,
        /// How many.
        blocks: u32,
        /// Past its cache.
        now: bool,
    },
    /// To bring onto the medium what is in its cache.
    Flush,
}

/// Bytes of an answer to [`Ask::Inquiry`] and [`Ask::Capacity`].
pub const INQUIRY: usize = 36;
/// See [`INQUIRY`].
pub const CAPACITY: usize = 32;

impl Ask {
    /// As it is sent.
    pub fn cdb(&self) -> Cdb {
        let mut cdb = [0; 16];
        let mut blocks = |operation: u8, flags: u8, block: u64, blocks: u32| {
            cdb[0] = operation;
            cdb[1] = flags;
            cdb[2..10].copy_from_slice(&block.to_be_bytes());
            cdb[10..14].copy_from_slice(&blocks.to_be_bytes());
        };
        match *self {
            Self::Ready => {}
            Self::Inquiry => {
                cdb[0] = 0x12;
                cdb[4] = INQUIRY as u8;
            }
            // SERVICE ACTION IN, READ CAPACITY(16).
            Self::Capacity => blocks(0x9e, 0x10, 0, CAPACITY as u32),
            Self::Read { block, blocks: count } => blocks(0x88, 0, block, count),
            Self::Write { block, blocks: count, now } => blocks(0x8a, if now { 0x08 } else { 0 }, block, count),
            Self::Flush => blocks(0x91, 0, 0, 0),
        }
        cdb
    }
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Well.
    Good,
    /// Not, and the same may be asked again at once.
    Again,
    /// Not: it is busy, and the same may be asked again later.
    Busy,
    /// It has no such command, or not such a one.
    Unknown,
    /// It may not be written.
    Protected,
    /// It has no room.
    Full,
    /// Not.
    Failed,
}

/// From a status byte, and the sense data that came with it.
pub fn status(byte: u8, sense: &[u8]) -> Status {
    match byte {
        0x00 | 0x10 => Status::Good,
        0x02 => sensed(sense),
        // Busy, task set full.
        0x08 | 0x28 => Status::Busy,
        // Task aborted.
        0x40 => Status::Again,
        _ => Status::Failed,
    }
}

fn sensed(sense: &[u8]) -> Status {
    let byte = |at: usize| sense.get(at).copied().unwrap_or(0);
    let (key, code) = match byte(0) & 0x7f {
        0x70 | 0x71 => (byte(2) & 0x0f, (byte(12), byte(13))),
        0x72 | 0x73 => (byte(1) & 0x0f, (byte(2), byte(3))),
        _ => return Status::Failed,
    };
    match (key, code) {
        // Recovered by itself.
        (0x1, _) => Status::Good,
        // Becoming ready.
        (0x2, (0x04, 0x01)) => Status::Busy,
        (0x5, _) => Status::Unknown,
        // Unit attention: something happened before; aborted.
        (0x6 | 0xb, _) => Status::Again,
        // Space allocation failed: write protect.
        (0x7, (0x27, 0x07)) => Status::Full,
        (0x7, _) => Status::Protected,
        _ => Status::Failed,
    }
}

/// A logical unit's size, in blocks of 512 or 4096 bytes, from an answer to [`Ask::Capacity`].
pub fn geometry(bytes: &[u8]) -> Option<Geometry> {
    let last = u64::from_be_bytes(bytes.get(..8)?.try_into().ok()?);
    let block = u32::from_be_bytes(bytes.get(8..12)?.try_into().ok()?);
    let blocks = last.checked_add(1)?;
    let size = blocks.checked_mul(u64::from(block))?;
    ([512, 4096].contains(&block) && size <= i64::MAX as u64).then_some(Geometry { blocks, block })
}

/// Whether an answer to [`Ask::Inquiry`] is a disk's. `None`: there is no such logical unit.
pub fn is_disk(bytes: &[u8]) -> Option<bool> {
    let first = *bytes.first()?;
    // The upper bits: whether anything is connected there.
    if first >> 5 == 0 { Some(first & 0x1f == 0) } else { None }
}

/// A logical unit's number as units carry it (SAM: single level).
pub fn lun(number: u16) -> [u8; 8] {
    let [high, low] = number.to_be_bytes();
    let high = if number < 256 { 0 } else { 0x40 | high & 0x3f };
    [high, low, 0, 0, 0, 0, 0, 0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_have_the_bytes_of_the_standard() {
        let write = Ask::Write { block: 0x0102_0304_0506, blocks: 8, now: true }.cdb();
        assert_eq!(write, [0x8a, 8, 0, 0, 1, 2, 3, 4, 5, 6, 0, 0, 0, 8, 0, 0]);
        assert_eq!(Ask::Capacity.cdb()[..2], [0x9e, 0x10]);
        assert_eq!((lun(5), lun(300)[..2].to_vec()), ([0, 5, 0, 0, 0, 0, 0, 0], vec![0x41, 44]));
    }

    #[test]
    fn ends_are_told_by_status_and_sense() {
        let fixed = |key: u8, code: u8, more: u8| [0x70, 0, key, 0, 0, 0, 0, 10, 0, 0, 0, 0, code, more];
        assert_eq!(status(0, &[]), Status::Good);
        assert_eq!(status(2, &fixed(6, 0x29, 0)), Status::Again);
        assert_eq!(status(2, &[0x72, 6, 0x29, 0]), Status::Again);
        assert_eq!(status(2, &fixed(7, 0x27, 7)), Status::Full);
        assert_eq!(status(2, &fixed(7, 0x27, 0)), Status::Protected);
        assert_eq!(status(2, &fixed(5, 0x20, 0)), Status::Unknown);
        assert_eq!(status(2, &fixed(3, 0x11, 0)), Status::Failed);
        assert_eq!((status(2, &[]), status(8, &[]), status(0x18, &[])), (Status::Failed, Status::Busy, Status::Failed));
    }

    #[test]
    fn sizes_are_held_against_what_can_be() {
        let mut bytes = [0; 32];
        bytes[7] = 0xff;
        bytes[10] = 2;
        assert_eq!(geometry(&bytes), Some(Geometry { blocks: 256, block: 512 }));
        bytes[..8].fill(0xff);
        assert_eq!(geometry(&bytes), None);
        assert_eq!(geometry(&bytes[..9]), None);
        assert_eq!((is_disk(&[0]), is_disk(&[5]), is_disk(&[0x7f]), is_disk(&[])), (Some(true), Some(false), None, None));
    }
}
