//! Packet sockets (packet(7)).

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, send};
use skep_sys::linux::packet;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Frames of a turn: then it is another's.
const TURN: usize = 32;
/// Bytes of the largest frame: a segment that the guest leaves to its NIC to cut.
const LARGEST: usize = 66 << 10;

/// The frames of one NIC.
#[derive(Debug)]
pub struct Frames(OwnedFd);

impl Frames {
    /// Of a packet socket; `None`: it is something else.
    pub fn new(socket: OwnedFd) -> Option<Self> {
        packet::is_port(socket.as_fd()).then_some(Self(socket))
    }

    /// Bytes that reading takes.
    #[allow(clippy::unused_self)]
    pub fn room(&self) -> usize {
        LARGEST
    }

    /// Reads what is there, but no more than is one's turn. `None` for one that was cut. Fails when nothing will come any more.
    pub fn read(&self, buffer: &mut [u8], mut each: impl FnMut(Option<&[u8]>)) -> io::Result<()> {
        for _ in 0..TURN {
            match recv(self.0.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC) {
                Ok(length) => each(buffer.get(..length)),
                // ENETDOWN is told once, and the tap may be set up again.
                Err(Errno::EAGAIN | Errno::EINTR | Errno::ENETDOWN | Errno::ENOBUFS) => break,
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    /// Sends one, if there is room: what is lost will be asked for again. It goes to the tap's guest alone.
    pub fn write(&self, frame: &[u8], _guest: [u8; 6]) {
        let _ = send(self.0.as_raw_fd(), frame, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL);
    }
}

impl AsFd for Frames {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
