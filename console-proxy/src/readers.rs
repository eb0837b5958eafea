//! Streams attached to the line: each reads at its own pace, one types.

use crate::ring::Ring;
use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::sys::socket::{MsgFlags, recv, send};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// One attached stream.
#[derive(Debug)]
pub struct Reader {
    /// Its socket.
    pub socket: OwnedFd,
    /// Given back when it is ready.
    pub token: u64,
    /// What it types goes to the line.
    pub writer: bool,
    /// Position of the next byte that it gets.
    next: u64,
    /// What it is told in between.
    notice: Vec<u8>,
    /// It has closed its sending side.
    silent: bool,
}

impl Reader {
    /// Begins with everything that is kept.
    pub fn new(socket: OwnedFd, token: u64, writer: bool, ring: &Ring) -> Self {
        Self { socket, token, writer, next: ring.start(), notice: Vec::new(), silent: false }
    }

    /// Tells it something.
    pub fn tell(&mut self, what: &str) {
        self.notice.extend_from_slice(format!("\r\n[skep: {what}]\r\n").as_bytes());
    }

    /// Whether it has got everything.
    pub fn has_all(&self, ring: &Ring) -> bool {
        self.notice.is_empty() && self.next >= ring.end()
    }

    /// What it waits for. `room`: whether what it types can be taken.
    pub fn wants(&self, ring: &Ring, room: bool) -> PollFlags {
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::POLLIN, !self.silent && (room || !self.writer));
        flags.set(PollFlags::POLLOUT, !self.has_all(ring));
        flags
    }

    /// Gives it what it takes without waiting. False: it is gone.
    pub fn give(&mut self, ring: &Ring) -> bool {
        if self.next < ring.start() && self.notice.is_empty() {
            let lost = ring.start() - self.next;
            self.next = ring.start();
            self.tell(&format!("{lost} bytes were skipped: this terminal is too slow"));
        }
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        let from_ring = self.notice.is_empty();
        let piece = if from_ring { ring.piece(self.next) } else { &self.notice };
        if piece.is_empty() {
            return true;
        }
        match send(self.socket.as_raw_fd(), piece, flags) {
            Ok(n) if from_ring => self.next += n as u64,
            Ok(n) => drop(self.notice.drain(..n)),
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(_) => return false,
        }
        true
    }

    /// Reads at most `most` bytes of what it typed; those of a mere reader are read and forgotten. `None`: it is gone.
    pub fn typed(&mut self, most: usize) -> Option<Vec<u8>> {
        let mut buffer = [0; 1024];
        let buffer = buffer.get_mut(..most.clamp(1, 1024)).unwrap_or_default();
        match recv(self.socket.as_fd().as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT) {
            Ok(0) => {
                self.silent = true;
                Some(Vec::new())
            }
            Ok(n) if self.writer => buffer.get(..n).map(<[u8]>::to_vec),
            Ok(_) | Err(Errno::EAGAIN | Errno::EINTR) => Some(Vec::new()),
            Err(_) => None,
        }
    }
}
