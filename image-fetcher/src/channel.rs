//! The broker at the other end of the channel: asked for connections, told how far it is.

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use skep_proto::fetch::{FetchOrder, FetchSays, FetchTold};
use skep_proto::{MAX_FDS, MAX_RECORD, Reason, Refusal, wire};
use skep_sys::msg;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// See the module.
#[derive(Debug)]
pub struct Channel(OwnedFd);

fn lost(why: impl std::fmt::Display) -> Refusal {
    Refusal::new(Reason::Cancelled, "image-fetcher").note(format_args!("the broker is away: {why}"))
}

fn out_of_turn() -> Refusal {
    Refusal::new(Reason::Internal, "image-fetcher").note("the broker spoke out of turn")
}

impl Channel {
    /// Over this socket.
    pub fn new(socket: OwnedFd) -> Self {
        Self(socket)
    }

    fn say(&self, says: &FetchSays) -> Result<(), Refusal> {
        let bytes = wire::encode(says).map_err(lost)?;
        msg::send(self.0.as_fd(), &bytes, &[], None).map_err(lost)
    }

    fn hear(&self) -> Result<(FetchTold, Vec<OwnedFd>), Refusal> {
        let record = msg::recv(self.0.as_fd(), MAX_RECORD, MAX_FDS, None).map_err(lost)?;
        Ok((wire::decode(&record.bytes).map_err(lost)?, record.fds))
    }

    /// What to fetch, and what for: certificates, then resolvers.
    pub fn begin(&self) -> Result<(FetchOrder, Vec<OwnedFd>), Refusal> {
        match self.hear()? {
            (FetchTold::Begin(order), fds) => Ok((order, fds)),
            _ => Err(out_of_turn()),
        }
    }

    /// A socket that is being connected.
    pub fn connect(&self, address: IpAddr, port: u16) -> Result<OwnedFd, Refusal> {
        self.say(&FetchSays::Connect { address, port })?;
        match self.hear()? {
            (FetchTold::Connected, fds) => fds.into_iter().next().ok_or_else(out_of_turn),
            (FetchTold::Refused(refusal), _) => Err(refusal),
            _ => Err(out_of_turn()),
        }
    }

    /// The pipe that it is written to.
    pub fn found(&self, length: u64) -> Result<OwnedFd, Refusal> {
        self.say(&FetchSays::Found { length })?;
        match self.hear()? {
            (FetchTold::Go, fds) => fds.into_iter().next().ok_or_else(out_of_turn),
            (FetchTold::Refused(refusal), _) => Err(refusal),
            _ => Err(out_of_turn()),
        }
    }

    /// The end.
    pub fn done(&self, result: Result<(), Refusal>) {
        // If nobody hears it, nobody waits for it.
        let _ = self.say(&FetchSays::Done(result));
    }

    /// Waits until `fd` is ready, at most `patience`. An end of the channel ends everything.
    pub fn wait(&self, fd: BorrowedFd<'_>, flags: PollFlags, patience: Duration) -> io::Result<()> {
        let timeout = PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX);
        loop {
            let mut fds = [PollFd::new(fd, flags), PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, timeout) {
                Err(nix::errno::Errno::EINTR) => continue,
                Err(e) => return Err(e.into()),
                Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
                Ok(_) => {}
            }
            let [wanted, channel] = &fds;
            if channel.any() == Some(true) {
                // Nothing is to be said now: it has closed it.
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            if wanted.any() == Some(true) {
                return Ok(());
            }
        }
    }

    /// Lets some time pass. `false`: the channel has ended.
    pub fn pause(&self, time: Duration) -> bool {
        let timeout = PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX);
        matches!(poll(&mut [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)], timeout), Ok(0))
    }
}
