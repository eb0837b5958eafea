//! A client's stream joined to a connection of the hypervisor's screen: bytes go both ways, unread, through bounded buffers.

use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::sys::socket::{MsgFlags, Shutdown, recv, send, shutdown};
use std::os::fd::{AsRawFd, OwnedFd};

/// Bytes on their way in one direction.
const BUFFER: usize = 64 << 10;

/// One direction.
#[derive(Debug, Default)]
struct Way {
    bytes: Vec<u8>,
    sent: usize,
    /// Nothing more comes.
    ended: bool,
}

impl Way {
    fn waits(&self) -> bool {
        self.sent < self.bytes.len()
    }
    /// Reads what is there, when all before it was sent. False: broken.
    fn fill(&mut self, from: &OwnedFd) -> bool {
        self.bytes.resize(BUFFER, 0);
        let result = recv(from.as_raw_fd(), &mut self.bytes, MsgFlags::MSG_DONTWAIT);
        self.sent = 0;
        self.bytes.truncate(result.unwrap_or(0));
        match result {
            Ok(n) => self.ended = n == 0,
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(_) => return false,
        }
        true
    }
    /// Sends what is taken without waiting. False: broken.
    fn drain(&mut self, to: &OwnedFd) -> bool {
        let rest = self.bytes.get(self.sent..).unwrap_or_default();
        match send(to.as_raw_fd(), rest, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL) {
            Ok(n) => self.sent += n,
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(_) => return false,
        }
        if !self.waits() {
            // Idle screens keep no buffer.
            self.bytes = Vec::new();
            self.sent = 0;
        }
        true
    }
}

/// Two joined streams.
#[derive(Debug)]
pub struct Screen {
    /// The client's and the hypervisor's.
    pub ends: [OwnedFd; 2],
    /// Tokens of the two are this and the next one.
    pub token: u64,
    /// From the first to the second, and back.
    ways: [Way; 2],
}

impl Screen {
    /// Joins them.
    pub fn new(ends: [OwnedFd; 2], token: u64) -> Self {
        Self { ends, token, ways: Default::default() }
    }

    /// What each end is waited for; `None`: nothing, not even its end, until the other one has taken what this one sent.
    pub fn wants(&self) -> [Option<PollFlags>; 2] {
        let [there, back] = &self.ways;
        let flags = |from: &Way, to: &Way| {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::POLLIN, !from.ended && !from.waits());
            flags.set(PollFlags::POLLOUT, to.waits());
            (!flags.is_empty() || from.ended).then_some(flags)
        };
        [flags(there, back), flags(back, there)]
    }

    /// An end is ready. False: the connection is over.
    pub fn ready(&mut self, second: bool, flags: PollFlags) -> bool {
        let [client, hypervisor] = &self.ends;
        let [there, back] = &mut self.ways;
        let (own, other, from, to) = if second { (hypervisor, client, back, there) } else { (client, hypervisor, there, back) };
        if flags.contains(PollFlags::POLLOUT) && to.waits() && !to.drain(own) {
            return false;
        }
        if flags.contains(PollFlags::POLLIN) && !from.waits() && !from.ended {
            if !from.fill(own) {
                return false;
            }
            if from.ended {
                // Half closed; the other half may still have something to say.
                let _ = shutdown(other.as_raw_fd(), Shutdown::Write);
            } else if from.waits() && !from.drain(other) {
                return false;
            }
        }
        // A hang-up with something left to read is no end yet; and what was read must still get out.
        let broken =
            flags.intersects(PollFlags::POLLERR | PollFlags::POLLNVAL) || flags.contains(PollFlags::POLLHUP) && from.ended;
        !broken && (!from.ended || !to.ended || from.waits() || to.waits())
    }
}
