//! The little of RFB (RFC 6143) that it takes to hear a machine, by the extension that QEMU's server has for sound. Pure.

/// Samples in a second, 16 bits each, little endian, of two channels.
pub const RATE: u32 = 44_100;
/// Bytes of a second of it.
pub const BYTES_A_SECOND: u32 = RATE * 4;

/// The pseudo-encoding that says that a server has sound (rfbproto.rst, "QEMU Audio Pseudo-encoding").
const SOUND: i32 = -259;
/// Most bytes of a message that are waited for at once; larger ones are no server's.
const MOST: usize = 1 << 20;

/// What is to be done next.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Send this.
    Send(Vec<u8>),
    /// Sound came.
    Sound(Vec<u8>),
    /// More has to come first.
    More,
}

/// The server does not speak as it should; why.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Wrong(pub &'static str);

#[derive(Debug, Clone, Copy)]
enum Stage {
    Version,
    Security,
    Result,
    Init,
    /// So many rectangles of an update are still to come.
    Open(u16),
}

/// A client that listens.
#[derive(Debug)]
pub struct Listener {
    stage: Stage,
    buffer: Vec<u8>,
    pixel: usize,
    heard: bool,
}

/// A number at a place, if it has come.
fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

impl Default for Listener {
    fn default() -> Self {
        Self { stage: Stage::Version, buffer: Vec::new(), pixel: 4, heard: false }
    }
}

impl Listener {
    /// Takes what came.
    pub fn came(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Until it says [`Step::More`].
    pub fn next(&mut self) -> Result<Step, Wrong> {
        loop {
            let taken = self.buffer.len();
            if let Some(step) = self.step()? {
                return Ok(step);
            }
            if self.buffer.len() == taken {
                return if taken > MOST { Err(Wrong("a message of the screen's server is too long")) } else { Ok(Step::More) };
            }
        }
    }

    /// Drops the first bytes; whether they had come.
    fn take(&mut self, count: usize) -> bool {
        let there = self.buffer.len() >= count;
        if there {
            self.buffer.drain(..count);
        }
        there
    }

    /// One message, if it has come whole.
    fn step(&mut self) -> Result<Option<Step>, Wrong> {
        let bytes = &self.buffer;
        match self.stage {
            Stage::Version => {
                let Some(version) = number::<12>(bytes, 0) else { return Ok(None) };
                if !version.starts_with(b"RFB 003.") {
                    return Err(Wrong("its screen does not speak RFB"));
                }
                (self.stage, _) = (Stage::Security, self.take(12));
                Ok(Some(Step::Send(b"RFB 003.008\n".to_vec())))
            }
            Stage::Security => {
                let Some(kinds) = bytes.first().and_then(|count| bytes.get(1..=usize::from(*count))) else { return Ok(None) };
                if !kinds.contains(&1) {
                    return Err(Wrong("its screen asks for a password"));
                }
                let count = 1 + kinds.len();
                (self.stage, _) = (Stage::Result, self.take(count));
                Ok(Some(Step::Send(vec![1])))
            }
            Stage::Result => {
                let Some(result) = number::<4>(bytes, 0) else { return Ok(None) };
                if result != [0; 4] {
                    return Err(Wrong("its screen refuses"));
                }
                (self.stage, _) = (Stage::Init, self.take(4));
                Ok(Some(Step::Send(vec![1])))
            }
            Stage::Init => {
                let (Some(bits), Some(name)) = (bytes.get(4).copied(), number::<4>(bytes, 20)) else { return Ok(None) };
                let name = u32::from_be_bytes(name) as usize;
                if name > MOST {
                    return Err(Wrong("the name of its screen is too long"));
                }
                if !self.take(24 + name) {
                    return Ok(None);
                }
                self.pixel = usize::from(bits / 8);
                self.stage = Stage::Open(0);
                Ok(Some(Step::Send(wishes())))
            }
            Stage::Open(0) => self.message(),
            Stage::Open(left) => self.rectangle(left).map(|()| None),
        }
    }

    fn message(&mut self) -> Result<Option<Step>, Wrong> {
        let bytes = &self.buffer;
        match bytes.first() {
            None => {}
            Some(0) => {
                if let Some(count) = number(bytes, 2) {
                    (self.stage, _) = (Stage::Open(u16::from_be_bytes(count)), self.take(4));
                }
            }
            // Colours.
            Some(1) => {
                if let Some(count) = number(bytes, 4) {
                    self.take(6 + 6 * usize::from(u16::from_be_bytes(count)));
                }
            }
            // A bell.
            Some(2) => drop(self.take(1)),
            // What was copied.
            Some(3) => {
                if let Some(length) = number(bytes, 4) {
                    self.take(8 + i32::from_be_bytes(length).unsigned_abs() as usize);
                }
            }
            // QEMU's own: of sound it begins, ends, or is a piece.
            Some(255) => match (number(bytes, 1), number(bytes, 2)) {
                (Some([1]), Some([0, 2])) => {
                    let Some(length) = number(bytes, 4) else { return Ok(None) };
                    let end = 8 + u32::from_be_bytes(length) as usize;
                    if let Some(sound) = bytes.get(8..end).map(<[u8]>::to_vec) {
                        self.take(end);
                        return Ok(Some(Step::Sound(sound)));
                    }
                }
                (Some([1]), Some([0, 0 | 1])) => drop(self.take(4)),
                (Some([1]), None) | (None, _) => {}
                _ => return Err(Wrong("its screen sends what was not asked for")),
            },
            Some(_) => return Err(Wrong("its screen sends what was not asked for")),
        }
        Ok(None)
    }

    /// The server says that it has sound before it answers the request for a pixel.
    fn rectangle(&mut self, left: u16) -> Result<(), Wrong> {
        let bytes = &self.buffer;
        let (Some(width), Some(height), Some(kind)) = (number(bytes, 4), number(bytes, 6), number(bytes, 8)) else {
            return Ok(());
        };
        let [width, height] = [width, height].map(|side| usize::from(u16::from_be_bytes(side)));
        let picture = match i32::from_be_bytes(kind) {
            SOUND => {
                self.heard = true;
                0
            }
            0 if self.heard => width * height * self.pixel,
            0 => return Err(Wrong("it has a screen, and no sound: its hypervisor or its settings have none (`--sound on`)")),
            _ => return Err(Wrong("its screen sends what was not asked for")),
        };
        if self.take(12 + picture) {
            self.stage = Stage::Open(left - 1);
        }
        Ok(())
    }
}

/// SetEncodings, for sound; its format; sound on; and one pixel, whose coming first shows that there is none.
fn wishes() -> Vec<u8> {
    let mut all = vec![2, 0, 0, 1];
    all.extend(SOUND.to_be_bytes());
    // Signed, 16 bits; two channels.
    all.extend([255, 1, 0, 2, 3, 2]);
    all.extend(RATE.to_be_bytes());
    all.extend([255, 1, 0, 0]);
    all.extend([3, 0, 0, 0, 0, 0, 0, 1, 0, 1]);
    all
}

/// The head of a WAV file with so many bytes of sound; none: nobody knows yet, which players take.
pub fn wav(bytes: Option<u32>) -> Vec<u8> {
    let length = bytes.unwrap_or(u32::MAX);
    let mut head = b"RIFF".to_vec();
    head.extend(length.saturating_add(36).to_le_bytes());
    head.extend(b"WAVEfmt ");
    head.extend(16u32.to_le_bytes());
    // PCM, two channels.
    head.extend([1, 0, 2, 0]);
    head.extend(RATE.to_le_bytes());
    head.extend(BYTES_A_SECOND.to_le_bytes());
    head.extend([4, 0, 16, 0]);
    head.extend(b"data");
    head.extend(length.to_le_bytes());
    head
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What QEMU 7.2 says, up to where sound comes.
    fn greeting() -> Vec<u8> {
        let mut all = b"RFB 003.008\n\x01\x01\0\0\0\0".to_vec();
        all.extend(b"\x02\x80\x01\xe0 \x18\x00\x01\x00\xff\x00\xff\x00\xff\x10\x08\x00\x00\x00\x00\x00\x00\x00\x04QEMU");
        all
    }

    fn rectangle(width: u16, height: u16, kind: i32) -> Vec<u8> {
        let mut all = vec![0; 4];
        all.extend(width.to_be_bytes());
        all.extend(height.to_be_bytes());
        all.extend(kind.to_be_bytes());
        all
    }

    /// All sound, and the last word, of what comes in pieces of `size`.
    fn hear(bytes: &[u8], size: usize) -> (Vec<u8>, usize, Option<Wrong>) {
        let (mut listener, mut sound, mut sent) = (Listener::default(), Vec::new(), 0);
        for piece in bytes.chunks(size) {
            listener.came(piece);
            loop {
                match listener.next() {
                    Ok(Step::Send(_)) => sent += 1,
                    Ok(Step::Sound(more)) => sound.extend(more),
                    Ok(Step::More) => break,
                    Err(wrong) => return (sound, sent, Some(wrong)),
                }
            }
        }
        (sound, sent, None)
    }

    #[test]
    fn sound_is_heard_in_whatever_pieces_it_comes() {
        let mut all = greeting();
        all.extend([0, 0, 0, 1]);
        all.extend(rectangle(640, 480, SOUND));
        all.extend([0, 0, 0, 1]);
        all.extend(rectangle(1, 1, 0));
        all.extend([9; 4]);
        all.extend([2, 255, 1, 0, 1]);
        all.extend([255, 1, 0, 2, 0, 0, 0, 4, 1, 2, 3, 4]);
        all.extend([3, 0, 0, 0, 0, 0, 0, 2, b'a', b'b', 255, 1, 0, 0]);
        all.extend([255, 1, 0, 2, 0, 0, 0, 1, 5]);
        for size in [1, 3, 7, 4096] {
            assert_eq!(hear(&all, size), (vec![1, 2, 3, 4, 5], 4, None), "{size}");
        }
    }

    #[test]
    fn a_screen_without_sound_is_said_to_be_one() {
        let mut all = greeting();
        all.extend([0, 0, 0, 1]);
        all.extend(rectangle(1, 1, 0));
        let (_, _, wrong) = hear(&all, 4096);
        assert!(wrong.expect("refused").0.contains("no sound"));
        for wrong in [&b"HTTP/1.1 200"[..], b"RFB 003.008\n\x01\x02", b"RFB 003.008\n\x01\x01\0\0\0\x01"] {
            assert!(hear(wrong, 4096).2.is_some());
        }
    }

    #[test]
    fn a_wav_file_says_how_long_it_is() {
        let head = wav(Some(8));
        assert_eq!(head.len(), 44);
        assert_eq!((&head[4..8], &head[40..]), (&44u32.to_le_bytes()[..], &8u32.to_le_bytes()[..]));
        assert_eq!(wav(None)[40..], [0xff; 4]);
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..600), greeted: bool) {
            let mut all = if greeted { greeting() } else { Vec::new() };
            all.extend(bytes);
            let (sound, sent, _) = hear(&all, 50);
            prop_assert!(sound.len() <= all.len() && sent <= 4);
        }
    }
}
