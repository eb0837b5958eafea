//! bpf(4) devices.

use nix::errno::Errno;
use nix::unistd::{read, write};
use skep_guest_services::bpf::Records;
use skep_sys::freebsd::bpf;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Bytes of the largest buffer that is accepted.
const LARGEST: usize = 1 << 20;

/// The frames of one NIC.
#[derive(Debug)]
pub struct Frames {
    device: OwnedFd,
    room: usize,
}

impl Frames {
    /// Of a bpf(4) device; `None`: it is something else.
    pub fn new(device: OwnedFd) -> Option<Self> {
        let room = bpf::buffer_length(device.as_fd()).ok().filter(|room| *room <= LARGEST)?;
        Some(Self { device, room })
    }

    /// Bytes that reading takes.
    pub fn room(&self) -> usize {
        self.room
    }

    /// Reads what is there, one buffer of it. `None` for a frame that was cut. Fails when nothing will come any more.
    pub fn read(&self, buffer: &mut [u8], each: impl FnMut(Option<&[u8]>)) -> io::Result<()> {
        // Exactly so many bytes as the device's buffer has, or the kernel refuses.
        let Some(buffer) = buffer.get_mut(..self.room) else { return Ok(()) };
        match read(&self.device, buffer) {
            Ok(length) => Records::new(buffer.get(..length).unwrap_or_default()).for_each(each),
            Err(Errno::EAGAIN | Errno::EINTR | Errno::ENETDOWN | Errno::ENOBUFS) => {}
            Err(e) => return Err(e.into()),
        }
        Ok(())
    }

    /// Sends one to the guest with this hardware address, if there is room: what is lost will be asked for again. What is meant for all
    /// is for him, too: the tap is on a bridge, which would carry it to all.
    pub fn write(&self, frame: &[u8], guest: [u8; 6]) {
        let mut frame = frame.to_vec();
        if let Some(receiver) = frame.get_mut(..6) {
            receiver.copy_from_slice(&guest);
        }
        let _ = write(&self.device, &frame);
    }
}

impl AsFd for Frames {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }
}
