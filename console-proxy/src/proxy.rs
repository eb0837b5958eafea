//! The service: serial lines, who reads them, who types, and screens.

use crate::line::Line;
use crate::screen::Screen;
use nix::poll::PollFlags;
use nix::sys::socket::{SockType, getsockopt, sockopt};
use skep_ipc::{Answered, Ask, ProtocolError, Service, Watch};
use skep_proto::console::{Attached, Console, ConsoleRequest, ConsoleState, Done};
use skep_proto::{NoFds, OneFd, Reason, Refusal};
use skep_sys::sock::Peer;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Screens and channels at a time.
const SCREENS: usize = 12;
/// Tokens: of a port's line its number, of its alarm that and so many; others count from the third on.
const ALARMS: u64 = 10;
const OTHERS: u64 = 100;

/// See the module.
pub struct Proxy {
    lines: Vec<Line>,
    screens: Vec<Screen>,
    token: u64,
}

impl Proxy {
    /// Serves these, each of another port.
    pub fn new(lines: Vec<Line>) -> Self {
        Self { lines, screens: Vec::new(), token: OTHERS }
    }

    /// What it holds.
    pub fn held(&self) -> Vec<(&'static str, BorrowedFd<'_>)> {
        self.lines.iter().flat_map(Line::held).collect()
    }

    fn next_token(&mut self) -> u64 {
        self.token += 2;
        self.token
    }

    fn attach(&mut self, port: u8, write: bool, take: bool, [socket]: OneFd) -> Result<(Attached, NoFds), Refusal> {
        stream(&socket)?;
        let token = self.next_token();
        let missing = || Refusal::new(Reason::WrongState, format_args!("serial port {port}")).note("the machine runs without it");
        let line = self.lines.iter_mut().find(|line| line.port == port).ok_or_else(missing)?;
        Ok((line.attach(write, take, socket, token)?, []))
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
        let readers = || self.lines.iter().flat_map(|line| &line.readers);
        ConsoleState {
            readers: count(readers().count()),
            writer: readers().any(|r| r.writer),
            screens: count(self.screens.len()),
            received: self.lines.iter().map(Line::received).sum(),
            unlogged: self.lines.iter().map(Line::unlogged).sum(),
        }
    }

    fn of_port(&mut self, number: u64) -> Option<&mut Line> {
        self.lines.iter_mut().find(|line| u64::from(line.port) == number)
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
            ConsoleRequest::AttachSerial(c) => ask.answer(c, |_, c, fds| self.attach(1, c.write, c.take, fds)),
            ConsoleRequest::AttachPort(c) => ask.answer(c, |_, c, fds| self.attach(c.port, c.write, c.take, fds)),
            ConsoleRequest::AttachScreen(c) => ask.answer(c, |_, _, fds| self.attach_screen(fds)),
            ConsoleRequest::Status(c) => ask.answer(c, |_, _, []| Ok((self.state(), []))),
        }
    }

    fn watched(&self) -> Vec<Watch<'_>> {
        let tokens = |line: &Line| (u64::from(line.port), ALARMS + u64::from(line.port));
        let lines = self.lines.iter().map(|line| (line, tokens(line)));
        let mut list: Vec<_> = lines.flat_map(|(line, (own, alarm))| line.watched(own, alarm)).collect();
        for screen in &self.screens {
            let ends = screen.ends.iter().zip(screen.wants()).zip(screen.token..);
            list.extend(ends.filter_map(|((fd, flags), token)| Some(Watch { fd: fd.as_fd(), flags: flags?, token })));
        }
        list
    }

    fn ready(&mut self, token: u64, flags: PollFlags) {
        let is = |r: &crate::readers::Reader| r.token == token;
        if token < ALARMS {
            self.of_port(token).into_iter().for_each(|line| line.ready(flags));
        } else if token < OTHERS {
            self.of_port(token - ALARMS).into_iter().for_each(Line::rung);
        } else if let Some(line) = self.lines.iter_mut().find(|line| line.readers.iter().any(is)) {
            if let Some(index) = line.readers.iter().position(is)
                && !line.reader_ready(index, flags)
            {
                line.readers.swap_remove(index);
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

    /// Until the lines are closed and everybody has got everything.
    fn goes_on(&self) -> bool {
        self.lines.iter().any(Line::goes_on)
    }
}
