//! Frames through taps.

use super::HEADER;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::{AsFd, OwnedFd};

/// For local experiments (IEEE 802).
const EXPERIMENT: u16 = 0x88b5;

/// A broadcast frame with `text`.
pub fn frame(text: &str) -> Vec<u8> {
    let mut bytes = vec![0xff; 6];
    bytes.extend([0x02, 0, 0, 0, 0, text.bytes().fold(1, u8::wrapping_add)]);
    bytes.extend(EXPERIMENT.to_be_bytes());
    bytes.extend(text.as_bytes());
    bytes.resize(60, 0);
    bytes
}

pub fn send(tap: &OwnedFd, frame: &[u8]) {
    let bytes = [&[0; HEADER], frame].concat();
    assert_eq!(nix::unistd::write(tap, &bytes), Ok(bytes.len()));
}

/// The next frame, which must come.
pub fn receive(tap: &OwnedFd) -> Vec<u8> {
    let mut set = [PollFd::new(tap.as_fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut set, PollTimeout::from(20_000u16)), Ok(1), "no frame came");
    let mut buffer = [0; 2048];
    let got = nix::unistd::read(tap, &mut buffer).unwrap();
    buffer[HEADER..got].to_vec()
}

/// The next frame of ours, as text: from whoever sent it. `pass` sees the others, which the kernel itself sent.
pub fn hear(tap: &OwnedFd, mut pass: impl FnMut(&[u8])) -> String {
    loop {
        let frame = receive(tap);
        if frame[12..14] == EXPERIMENT.to_be_bytes() {
            let text = String::from_utf8_lossy(&frame[14..]).trim_end_matches('\0').to_owned();
            assert_eq!(frame[6..12], self::frame(&text)[6..12], "the sender of {text}");
            return text;
        }
        pass(&frame);
    }
}
