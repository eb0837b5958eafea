//! The service: the line, who reads it, who types, and screens.

use crate::log::Log;
use crate::readers::Reader;
use crate::ring::Ring;
use crate::screen::Screen;
use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::sys::socket::{SockType, getsockopt, sockopt};
use nix::unistd::{read, write};
use skep_ipc::{Answered, Ask, ProtocolError, Service, Watch};
use skep_proto::console::{AttachSerial, Attached, Console, ConsoleRequest, ConsoleState, Done};
use skep_proto::{NoFds, OneFd, Reason, Refusal};
use skep_sys::sock::Peer;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Streams on the line at a time.
const READERS: usize = 32;
/// Screens and channels at a time.
const SCREENS: usize = 12;
/// Bytes that were typed and that the guest has not taken.
const TYPED: usize = 4096;
/// The line's token; others count from here.
const LINE: u64 = 0;

/// See the module.
pub struct Proxy {
    /// `None`: hypervisor and runner have closed it; it never comes back.
    line: Option<OwnedFd>,
    ring: Ring,
    log: Log,
    typed: Vec<u8>,
    readers: Vec<Reader>,
    screens: Vec<Screen>,
    token: u64,
}

impl Proxy {
    /// Serves `line`, a stream socket or the master of a terminal, which is non-blocking.
    pub fn new(line: OwnedFd, log: Log) -> Self {
        let (readers, screens) = (Vec::new(), Vec::new());
        Self { line: Some(line), ring: Ring::default(), log, typed: Vec::new(), readers, screens, token: LINE }
    }

    /// What it holds.
    pub fn held(&self) -> Vec<(&'static str, BorrowedFd<'_>)> {
        let line = self.line.iter().map(|fd| ("serial line", fd.as_fd()));
        line.chain(self.log.held().map(|fd| ("log", fd))).collect()
    }

    fn next_token(&mut self) -> u64 {
        self.token += 2;
        self.token
    }

    fn attach_serial(&mut self, c: &AttachSerial, [socket]: OneFd) -> Result<(Attached, NoFds), Refusal> {
        stream(&socket)?;
        if self.readers.len() >= READERS {
            return Err(Refusal::new(Reason::LimitReached, "serial line").note(format_args!("{READERS} terminals are attached")));
        }
        let taken = self.readers.iter_mut().find(|r| r.writer);
        let writer = match taken {
            Some(other) if c.write && c.take => {
                other.writer = false;
                other.tell("the keyboard was taken over by another terminal");
                true
            }
            Some(_) => false,
            None => c.write,
        };
        let token = self.next_token();
        self.readers.push(Reader::new(socket, token, writer, &self.ring));
        let scrollback = u32::try_from(self.ring.end() - self.ring.start()).unwrap_or(u32::MAX);
        Ok((Attached { writer, scrollback }, []))
    }

    fn attach_screen(&mut self, ends: [OwnedFd; 2]) -> Result<(Done, NoFds), Refusal> {
        for end in &ends {
            stream(end)?;
        }
        if self.screens.len() >= SCREENS {
            return Err(Refusal::new(Reason::LimitReached, "screen").note(format_args!("{SCREENS} clients are connected")));
        }
        let token = self.next_token();
        self.screens.push(Screen::new(ends, token));
        Ok((Done {}, []))
    }

    fn state(&self) -> ConsoleState {
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        ConsoleState {
            readers: count(self.readers.len()),
            writer: self.readers.iter().any(|r| r.writer),
            screens: count(self.screens.len()),
            received: self.ring.end(),
            unlogged: self.log.unlogged,
        }
    }

    fn line_ready(&mut self, flags: PollFlags) {
        let Some(line) = &self.line else { return };
        if flags.contains(PollFlags::POLLOUT) && !self.typed.is_empty() {
            match write(line, &self.typed) {
                Ok(n) => drop(self.typed.drain(..n)),
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                // Nobody is there to read; the end of the line shows below.
                Err(_) => self.typed.clear(),
            }
        }
        let mut buffer = [0; 4096];
        match read(line, &mut buffer) {
            Ok(0) => self.line = None,
            Ok(n) => {
                let bytes = buffer.get(..n).unwrap_or_default();
                self.ring.push(bytes);
                self.log.add(bytes);
            }
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(_) => self.line = None,
        }
    }

    /// False: it is gone.
    fn reader_ready(&mut self, index: usize, flags: PollFlags) -> bool {
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
}

/// Only a stream socket can be attached: reading anything else could wait, or mean something.
fn stream(socket: &OwnedFd) -> Result<(), Refusal> {
    match getsockopt(socket, sockopt::SockType) {
        Ok(SockType::Stream) => Ok(()),
        _ => Err(Refusal::new(Reason::InvalidValue, "descriptor").note("a stream socket is expected")),
    }
}

impl Service<Console> for Proxy {
    fn serve(&mut self, ask: Ask<'_>, request: ConsoleRequest) -> Result<Answered, ProtocolError> {
        match request {
            ConsoleRequest::AttachSerial(c) => ask.answer(c, |_, c, fds| self.attach_serial(&c, fds)),
            ConsoleRequest::AttachScreen(c) => ask.answer(c, |_, _, fds| self.attach_screen(fds)),
            ConsoleRequest::Status(c) => ask.answer(c, |_, _, []| Ok((self.state(), []))),
        }
    }

    fn watched(&self) -> Vec<Watch<'_>> {
        let room = self.typed.len() < TYPED;
        let mut list = Vec::new();
        if let Some(line) = &self.line {
            let mut flags = PollFlags::POLLIN;
            flags.set(PollFlags::POLLOUT, !self.typed.is_empty());
            list.push(Watch { fd: line.as_fd(), flags, token: LINE });
        }
        list.extend(self.readers.iter().map(|r| Watch {
            fd: r.socket.as_fd(),
            flags: r.wants(&self.ring, room),
            token: r.token,
        }));
        for screen in &self.screens {
            let ends = screen.ends.iter().zip(screen.wants()).zip(screen.token..);
            list.extend(ends.filter_map(|((fd, flags), token)| Some(Watch { fd: fd.as_fd(), flags: flags?, token })));
        }
        list
    }

    fn ready(&mut self, token: u64, flags: PollFlags) {
        if token == LINE {
            self.line_ready(flags);
        } else if let Some(index) = self.readers.iter().position(|r| r.token == token) {
            if !self.reader_ready(index, flags) {
                self.readers.swap_remove(index);
            }
        } else if let Some(index) = self.screens.iter().position(|s| s.token == token || s.token + 1 == token) {
            let over = self.screens.get_mut(index).is_some_and(|s| !s.ready(token != s.token, flags));
            if over {
                self.screens.swap_remove(index);
            }
        }
    }

    fn closed(&mut self, _: Peer, _: &ProtocolError) {}
    fn stranger(&mut self, _: Peer) {}

    /// Until the line is closed and everybody has got everything.
    fn goes_on(&self) -> bool {
        self.line.is_some() || self.readers.iter().any(|r| !r.has_all(&self.ring))
    }
}
