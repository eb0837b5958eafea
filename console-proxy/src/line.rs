//! One serial line: who reads it, who types.

use crate::log::Log;
use crate::pace::{Pace, Way};
use crate::readers::Reader;
use crate::ring::Ring;
use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::unistd::{read, write};
use skep_ipc::Watch;
use skep_proto::console::Attached;
use skep_proto::{Reason, Refusal};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Streams on a line at a time.
const READERS: usize = 32;
/// Bytes that were typed and that the guest has not taken.
const TYPED: usize = 4096;
/// Bytes read at a time.
const GULP: usize = 4096;

/// See the module.
pub struct Line {
    /// The port's number.
    pub port: u8,
    /// `None`: hypervisor and runner have closed it; it never comes back.
    line: Option<OwnedFd>,
    ring: Ring,
    log: Option<Log>,
    pace: Option<Pace>,
    typed: Vec<u8>,
    /// Streams attached to it.
    pub readers: Vec<Reader>,
}

impl Line {
    /// Serves `line`, a stream socket or the master of a terminal, which is non-blocking.
    pub fn new(port: u8, line: OwnedFd, log: Option<Log>, pace: Option<Pace>) -> Self {
        Self { port, line: Some(line), ring: Ring::default(), log, pace, typed: Vec::new(), readers: Vec::new() }
    }

    /// What it holds.
    pub fn held(&self) -> Vec<(&'static str, BorrowedFd<'_>)> {
        let line = self.line.iter().map(|fd| ("serial line", fd.as_fd()));
        let log = self.log.iter().flat_map(Log::held).map(|fd| ("log", fd));
        line.chain(log).chain(self.pace.iter().map(|pace| ("alarm", pace.as_fd()))).collect()
    }

    /// Bytes that came out of it.
    pub fn received(&self) -> u64 {
        self.ring.end()
    }

    /// Bytes that could not be logged.
    pub fn unlogged(&self) -> u64 {
        self.log.as_ref().map_or(0, |log| log.unlogged)
    }

    /// Joins a stream to it, that is told apart by `token`.
    pub fn attach(&mut self, write: bool, take: bool, socket: OwnedFd, token: u64) -> Result<Attached, Refusal> {
        if self.readers.len() >= READERS {
            let object = format!("serial port {}", self.port);
            return Err(Refusal::new(Reason::LimitReached, object).note(format_args!("{READERS} terminals are attached")));
        }
        let taken = self.readers.iter_mut().find(|r| r.writer);
        let writer = match taken {
            Some(other) if write && take => {
                other.writer = false;
                other.tell("the keyboard was taken over by another terminal");
                true
            }
            Some(_) => false,
            None => write,
        };
        self.readers.push(Reader::new(socket, token, writer, &self.ring));
        let scrollback = u32::try_from(self.ring.end() - self.ring.start()).unwrap_or(u32::MAX);
        Ok(Attached { writer, scrollback })
    }

    /// What to wait for: the line itself, its alarm, and its readers by their own tokens.
    pub fn watched(&self, line: u64, alarm: u64) -> Vec<Watch<'_>> {
        let room = self.typed.len() < TYPED;
        let open = |way| self.pace.as_ref().is_none_or(|pace| pace.is_open(way));
        let mut list = Vec::new();
        if let Some(fd) = &self.line {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::POLLIN, open(Way::Out));
            flags.set(PollFlags::POLLOUT, !self.typed.is_empty() && open(Way::In));
            // One that is shut is not asked about at all: its end would be told again and again.
            if !flags.is_empty() {
                list.push(Watch { fd: fd.as_fd(), flags, token: line });
            }
        }
        list.extend(self.pace.iter().map(|pace| Watch { fd: pace.as_fd(), flags: PollFlags::POLLIN, token: alarm }));
        let wants = |r: &Reader| r.wants(&self.ring, room);
        list.extend(self.readers.iter().map(|r| Watch { fd: r.socket.as_fd(), flags: wants(r), token: r.token }));
        list
    }

    /// Its alarm has rung.
    pub fn rung(&mut self) {
        if let Some(pace) = &mut self.pace {
            pace.rung();
        }
    }

    fn room(&mut self, way: Way) -> usize {
        self.pace.as_mut().map_or(GULP, |pace| pace.room(way).min(GULP))
    }

    fn passed(&mut self, way: Way, bytes: usize) {
        if let Some(pace) = &mut self.pace {
            pace.passed(way, bytes);
        }
    }

    /// The line is ready.
    pub fn ready(&mut self, flags: PollFlags) {
        let (out, back) = (self.room(Way::Out), self.room(Way::In));
        let Some(line) = &self.line else { return };
        if flags.contains(PollFlags::POLLOUT) && !self.typed.is_empty() && back > 0 {
            match write(line, self.typed.get(..back).unwrap_or(&self.typed)) {
                Ok(n) => {
                    self.typed.drain(..n);
                    self.passed(Way::In, n);
                }
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                // Nobody is there to read; the end of the line shows below.
                Err(_) => self.typed.clear(),
            }
        }
        let mut buffer = [0; GULP];
        let buffer = buffer.get_mut(..out).unwrap_or_default();
        let Some(line) = self.line.as_ref().filter(|_| !buffer.is_empty()) else { return };
        match read(line, buffer) {
            Ok(0) => self.line = None,
            Ok(n) => {
                let bytes = buffer.get(..n).unwrap_or_default();
                self.ring.push(bytes);
                if let Some(log) = &mut self.log {
                    log.add(bytes);
                }
                self.passed(Way::Out, n);
            }
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(_) => self.line = None,
        }
    }

    /// A reader is ready. False: it is gone.
    pub fn reader_ready(&mut self, index: usize, flags: PollFlags) -> bool {
        let room = TYPED.saturating_sub(self.typed.len());
        let Some(reader) = self.readers.get_mut(index) else { return true };
        if flags.contains(PollFlags::POLLOUT) && !reader.give(&self.ring) {
            return false;
        }
        if flags.contains(PollFlags::POLLIN) {
            match reader.typed(room) {
                Some(bytes) => self.typed.extend_from_slice(&bytes),
                None => return false,
            }
        }
        !flags.intersects(PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL)
    }

    /// Until it is closed and everybody has got everything.
    pub fn goes_on(&self) -> bool {
        self.line.is_some() || self.readers.iter().any(|r| !r.has_all(&self.ring))
    }
}
