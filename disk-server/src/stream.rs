//! What gate and reader say to each other, over a stream.

use std::io::{self, Read, Write};

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Bytes are read.
    Read,
    /// Bytes are written.
    Write,
    /// What was written has to be on the disk.
    Flush,
}

/// A request; after a write come its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// What.
    pub act: Act,
    /// From which byte on.
    pub offset: u64,
    /// How many.
    pub length: u64,
}

/// Most bytes of a request: more than the kernel asks for at a time (`MAXPHYS`).
pub const MOST: u64 = 16 << 20;
/// Most bytes of a text.
const MOST_TEXT: usize = 1000;

const ACTS: [Act; 3] = [Act::Read, Act::Write, Act::Flush];

impl Request {
    /// Sends it.
    pub fn send(&self, to: &mut impl Write) -> io::Result<()> {
        let act = ACTS.iter().position(|act| *act == self.act).unwrap_or_default();
        let mut bytes = [0; 24];
        for (place, value) in bytes.as_chunks_mut::<8>().0.iter_mut().zip([act as u64, self.offset, self.length]) {
            *place = value.to_le_bytes();
        }
        to.write_all(&bytes)
    }

    /// The next one; `None`: there is none any more.
    pub fn receive(from: &mut impl Read) -> io::Result<Option<Self>> {
        let mut bytes = [0; 24];
        match from.read_exact(&mut bytes) {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            other => other?,
        }
        let [act, offset, length] =
            std::array::from_fn(|at| bytes.as_chunks::<8>().0.get(at).map_or(0, |place| u64::from_le_bytes(*place)));
        let act = usize::try_from(act).ok().and_then(|act| ACTS.get(act)).filter(|_| length <= MOST);
        let act = *act.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
        Ok(Some(Self { act, offset, length }))
    }
}

/// Sends a result: 0, or a number of errno(2).
pub fn send_result(to: &mut impl Write, result: i32) -> io::Result<()> {
    to.write_all(&result.to_le_bytes())
}

/// The result of a request.
pub fn receive_result(from: &mut impl Read) -> io::Result<i32> {
    let mut bytes = [0; 4];
    from.read_exact(&mut bytes)?;
    Ok(i32::from_le_bytes(bytes))
}

/// Says that the image is open, or why not. It comes before all results.
pub fn send_opened(to: &mut impl Write, opened: Result<(), String>) -> io::Result<()> {
    let text = opened.err().unwrap_or_default();
    let text = text.as_bytes().get(..text.len().min(MOST_TEXT)).unwrap_or_default();
    to.write_all(&u32::try_from(text.len()).unwrap_or(0).to_le_bytes())?;
    to.write_all(text)
}

/// Whether it is open.
pub fn receive_opened(from: &mut impl Read) -> io::Result<Result<(), String>> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    match usize::try_from(u32::from_le_bytes(length)).ok().filter(|length| *length <= MOST_TEXT) {
        Some(0) => Ok(Ok(())),
        Some(length) => {
            let mut text = vec![0; length];
            from.read_exact(&mut text)?;
            Ok(Err(String::from_utf8_lossy(&text).into_owned()))
        }
        None => Err(io::Error::from(io::ErrorKind::InvalidData)),
    }
}
