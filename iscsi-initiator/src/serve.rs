//! The service: the hypervisor's connection, the target's, and the broker's requests.

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, SockType, getsockopt, recv, send, sockopt};
use skep_ipc::{Answered, Ask, ProtocolError, Service, Watch};
use skep_iscsi_initiator::bridge::{self, Bridge};
use skep_iscsi_initiator::login::{Login, Step};
use skep_iscsi_initiator::pdu::Reader;
use skep_iscsi_initiator::scsi::{self, Status};
use skep_iscsi_initiator::session::{Done as Ended, Session};
use skep_nbd::{Client, Geometry};
use skep_proto::iscsi::{Attach, Attached, Done, Initiator as Protocol, InitiatorRequest, LinkEvent, LoginOrder};
use skep_proto::{NoFds, OneFd, Reason, Refusal, Text, wire};
use skep_rights::initiator::TABLE;
use skep_service::Words;
use skep_sys::alarm::Alarm;
use skep_sys::sock::Peer;
use skep_sys::{fd, msg, sock};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// How long a login and the first questions may take. The broker's patience is longer.
const LOGIN: Duration = Duration::from_secs(15);
/// How long a target may be silent before it is asked, and after that.
const SILENCE: Duration = Duration::from_secs(10);
/// How long it is let alone when it was busy.
const REST: Duration = Duration::from_millis(500);
/// Bytes that are read at a time.
const GULP: usize = 256 << 10;
/// Watchers at a time.
const WATCHERS: usize = 4;
/// How often one of the first questions is asked.
const TRIES: u32 = 20;

const ALARM: u64 = 0;
const DOOR: u64 = 1;
const CLIENT: u64 = 2;
const TARGET: u64 = 3;
const FIRST: u64 = 16;

/// See the module.
pub struct Initiator {
    /// Listens in the machine's cell; none: the target is only looked at.
    door: Option<OwnedFd>,
    bridge: Bridge,
    /// The hypervisor, or who asks for it.
    client: Option<OwnedFd>,
    /// It was there from the start, and its end is ours.
    bound: bool,
    target: Option<OwnedFd>,
    geometry: Option<Geometry>,
    read_only: bool,
    /// Why there is no session.
    lost: Text<200>,
    watchers: Vec<(u64, OwnedFd)>,
    next: u64,
    alarm: Alarm,
    buffer: Vec<u8>,
}

type Answer<T, F = NoFds> = Result<(T, F), Refusal>;

impl Initiator {
    /// One that is not attached.
    pub fn new(door: Option<OwnedFd>, client: Option<OwnedFd>) -> io::Result<Self> {
        Ok(Self {
            door,
            bridge: Bridge::default(),
            bound: client.is_some(),
            client,
            target: None,
            geometry: None,
            read_only: true,
            lost: Text::lossy("iscsi-initiator was started anew"),
            watchers: Vec::new(),
            next: FIRST,
            alarm: Alarm::new()?,
            buffer: vec![0; GULP],
        })
    }

    /// What it holds.
    pub fn held(&self) -> Vec<(&'static str, BorrowedFd<'_>)> {
        let door = self.door.iter().map(|door| ("door", door.as_fd()));
        let client = self.client.iter().map(|client| ("hypervisor", client.as_fd()));
        door.chain(client).chain([("alarm", self.alarm.as_fd())]).collect()
    }

    fn attach(&mut self, order: &LoginOrder, read_only: bool, [socket]: OneFd) -> Answer<Attached> {
        let object = || format!("target {}", order.target);
        if getsockopt(&socket, sockopt::SockType).ok() != Some(SockType::Stream) {
            return Err(Refusal::new(Reason::InvalidValue, object()).note("a stream's socket is expected"));
        }
        let mut line = Line { socket: &socket, order, until: Instant::now() + LOGIN, step: "connection" };
        line.connected()?;
        skep_sandbox::limit_one(&TABLE, "target", socket.as_fd())
            .map_err(|e| Refusal::new(Reason::Internal, object()).note(e))?;
        // The former one goes first: this one has its session id.
        self.lose("another session takes its place");
        line.step = "login";
        let mut session = line.log_in()?;
        line.step = "first questions";
        let geometry = line.look(&mut session)?;
        if let Some(known) = self.geometry.filter(|known| !bridge::fits(*known, geometry)) {
            let note = format!("it has {} bytes now; the machine knows it with {}", geometry.size(), known.size());
            return Err(Refusal::new(Reason::Conflict, object()).note(note));
        }
        // Who asks already was told of another.
        if self.bridge.client.is_none() || self.geometry.is_none() {
            self.geometry = Some(geometry);
        }
        self.read_only = read_only;
        if self.bound && self.bridge.client.is_none() {
            self.bridge.take(Client::new(geometry, read_only));
        }
        self.bridge.begin(session);
        self.target = Some(socket);
        let _ = self.alarm.set(SILENCE);
        self.carry();
        Ok((Attached { size: geometry.size(), block: geometry.block }, []))
    }

    fn watch(&mut self, [watcher]: OneFd) -> Answer<Done> {
        if self.target.is_none() && !tell(&watcher, &LinkEvent::Lost(self.lost.clone())) {
            return Ok((Done {}, []));
        }
        if self.watchers.len() >= WATCHERS {
            self.watchers.remove(0);
        }
        self.next += 1;
        self.watchers.push((self.next, watcher));
        Ok((Done {}, []))
    }

    /// The session is gone.
    fn lose(&mut self, why: &str) {
        self.bridge.lose();
        if self.target.take().is_some() {
            self.lost = Text::lossy(why);
            Words.warn(None, format_args!("the session is lost: {why}"));
            let event = LinkEvent::Lost(self.lost.clone());
            self.watchers.retain(|(_, watcher)| tell(watcher, &event));
        }
        let _ = self.alarm.clear();
    }

    fn hang_up(&mut self) {
        self.bridge.hang_up();
        self.client = None;
    }

    fn accept(&mut self) {
        let (Some(door), Some(geometry)) = (&self.door, self.geometry) else { return };
        let Ok(socket) = sock::accept(door.as_fd()) else { return };
        if fd::set_nonblocking(socket.as_fd(), true).is_err() || skep_sandbox::limit_connection(&TABLE, socket.as_fd()).is_err() {
            return;
        }
        self.bridge.take(Client::new(geometry, self.read_only));
        self.client = Some(socket);
        self.carry();
    }

    fn read_client(&mut self) {
        let Some(socket) = &self.client else { return };
        match recv(socket.as_raw_fd(), &mut self.buffer, MsgFlags::MSG_DONTWAIT) {
            Ok(0) => self.hang_up(),
            Ok(n) => {
                if let (Some(client), Some(bytes)) = (&mut self.bridge.client, self.buffer.get(..n)) {
                    client.feed(bytes);
                }
            }
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(_) => self.hang_up(),
        }
        self.carry();
    }

    fn read_target(&mut self) {
        let Some(socket) = &self.target else { return };
        match recv(socket.as_raw_fd(), &mut self.buffer, MsgFlags::MSG_DONTWAIT) {
            Ok(0) => self.lose("the target closed the connection"),
            Ok(n) => {
                if let Err(broken) = self.bridge.target(self.buffer.get(..n).unwrap_or_default()) {
                    self.lose(&broken.to_string());
                }
            }
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(e) => self.lose(e.desc()),
        }
        self.carry();
    }

    /// Moves on whatever can be, and sends what can be sent.
    fn carry(&mut self) {
        let rested = self.bridge.rests();
        if self.bridge.carry().is_err() {
            // What it was answered last may still go.
            if let (Some(socket), Some(client)) = (&self.client, &self.bridge.client) {
                let _ = send(socket.as_raw_fd(), client.pending(), FLAGS);
            }
            self.hang_up();
        }
        if self.bridge.rests() && !rested {
            let _ = self.alarm.set(REST);
        }
        if let (Some(socket), Some(client)) = (&self.client, &mut self.bridge.client) {
            match flush(socket, client.pending()) {
                Ok(n) => client.sent(n),
                Err(_) => self.hang_up(),
            }
        }
        if let (Some(socket), Some(session)) = (&self.target, &mut self.bridge.session) {
            match flush(socket, session.pending()) {
                Ok(n) => session.sent(n),
                Err(e) => self.lose(&e.to_string()),
            }
        }
    }

    /// Time has passed.
    fn ring(&mut self) {
        let _ = self.alarm.clear();
        if self.target.is_none() {
            return;
        }
        if self.bridge.rests() {
            self.bridge.rested();
        } else if !self.bridge.session.as_mut().is_some_and(Session::ask) {
            self.lose("the target does not answer");
        }
        if self.target.is_some() {
            let _ = self.alarm.set(SILENCE);
        }
        self.carry();
    }
}

const FLAGS: MsgFlags = MsgFlags::MSG_DONTWAIT.union(MsgFlags::MSG_NOSIGNAL);

/// Sends as much as goes.
fn flush(socket: &OwnedFd, bytes: &[u8]) -> nix::Result<usize> {
    let mut sent = 0;
    while let Some(rest) = bytes.get(sent..).filter(|rest| !rest.is_empty()) {
        match send(socket.as_raw_fd(), rest, FLAGS) {
            Ok(n) => sent += n,
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => break,
            Err(e) => return Err(e),
        }
    }
    Ok(sent)
}

/// False: it does not keep up, or is gone.
fn tell(watcher: &OwnedFd, event: &LinkEvent) -> bool {
    // A deadline that has passed: one try.
    wire::encode(event).is_ok_and(|bytes| msg::send(watcher.as_fd(), &bytes, &[], Some(Instant::now())).is_ok())
}

/// A connection during a login: one thing after the other.
struct Line<'a> {
    socket: &'a OwnedFd,
    order: &'a LoginOrder,
    until: Instant,
    /// What is done on it, for who reads that it broke.
    step: &'static str,
}

impl Line<'_> {
    fn refuse(&self, reason: Reason, note: impl std::fmt::Display) -> Refusal {
        let Self { order, .. } = self;
        Refusal::new(reason, format_args!("target {}", order.target)).note(format_args!("{}: {note}", order.portal))
    }

    fn broke(&self, why: impl std::fmt::Display) -> Refusal {
        self.refuse(Reason::Unavailable, format_args!("{}: {why}", self.step))
    }

    fn wait(&self, flags: PollFlags) -> Result<(), Refusal> {
        loop {
            let left = self.until.saturating_duration_since(Instant::now());
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            match poll(&mut [PollFd::new(self.socket.as_fd(), flags)], timeout) {
                Err(Errno::EINTR) => {}
                Err(e) => return Err(self.refuse(Reason::Internal, e)),
                Ok(0) => return Err(self.refuse(Reason::Timeout, format_args!("{}: it does not answer", self.step))),
                Ok(_) => return Ok(()),
            }
        }
    }

    /// The socket came while it was being connected. Asked for what became of that, it says why; a write to one that was refused says
    /// no more than EPIPE on FreeBSD.
    fn connected(&self) -> Result<(), Refusal> {
        self.wait(PollFlags::POLLOUT)?;
        match getsockopt(self.socket, sockopt::SocketError) {
            Ok(0) => Ok(()),
            Ok(errno) => Err(self.broke(Errno::from_raw(errno))),
            Err(e) => Err(self.broke(e)),
        }
    }

    fn send(&self, bytes: &[u8]) -> Result<(), Refusal> {
        let mut sent = 0;
        while sent < bytes.len() {
            self.wait(PollFlags::POLLOUT)?;
            let rest = bytes.get(sent..).unwrap_or_default();
            sent += flush(self.socket, rest).map_err(|e| self.broke(e))?;
        }
        Ok(())
    }

    fn recv<'b>(&self, buffer: &'b mut [u8]) -> Result<&'b [u8], Refusal> {
        self.wait(PollFlags::POLLIN)?;
        match recv(self.socket.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT) {
            Ok(0) => Err(self.broke("it closed the connection")),
            Ok(n) => Ok(buffer.get(..n).unwrap_or_default()),
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(&[]),
            Err(e) => Err(self.broke(e)),
        }
    }

    fn log_in(&mut self) -> Result<Session, Refusal> {
        let (mut login, first) = Login::new(self.order);
        self.send(&first)?;
        let mut reader = Reader::default();
        let mut buffer = [0; 16 << 10];
        loop {
            reader.feed(self.recv(&mut buffer)?);
            while let Some(unit) = reader.unit().map_err(|e| self.refuse(Reason::Unavailable, e))? {
                match login.hear(&unit)? {
                    Step::Send(bytes) => self.send(&bytes)?,
                    // A target says nothing more until it is asked.
                    Step::Done(agreed) => return Ok(Session::new(agreed, self.order.lun)),
                }
            }
        }
    }

    /// One command and how it ended; what is to be asked again is.
    fn ask(&self, session: &mut Session, ask: &scsi::Ask, reads: usize) -> Result<Ended, Refusal> {
        let mut buffer = [0; 16 << 10];
        for _ in 0..TRIES {
            session.command(0, ask, Vec::new(), reads);
            let done = loop {
                let pending = session.pending().to_vec();
                self.send(&pending)?;
                session.sent(pending.len());
                if let Some(done) = session.ended() {
                    break done;
                }
                let came = self.recv(&mut buffer)?;
                session.hear(came).map_err(|e| self.refuse(Reason::Unavailable, e))?;
            };
            match done.status {
                Status::Again => {}
                Status::Busy => {
                    // Nothing else is to be done meanwhile; what it says of itself is read with the next answer.
                    let _ = poll(&mut [], PollTimeout::try_from(REST).unwrap_or(PollTimeout::MAX));
                }
                _ => return Ok(done),
            }
        }
        Err(self.refuse(Reason::Unavailable, "it is busy"))
    }

    /// What the logical unit is, and how large.
    fn look(&self, session: &mut Session) -> Result<Geometry, Refusal> {
        let lun = self.order.lun;
        let none = || self.refuse(Reason::NotFound, format_args!("it has no LUN {lun}")).field("lun");
        let what = self.ask(session, &scsi::Ask::Inquiry, scsi::INQUIRY)?;
        if what.status != Status::Good {
            return Err(none());
        }
        match scsi::is_disk(&what.data) {
            None => return Err(none()),
            Some(false) => return Err(self.refuse(Reason::InvalidValue, format_args!("its LUN {lun} is no disk")).field("lun")),
            Some(true) => {}
        }
        self.ask(session, &scsi::Ask::Ready, 0)?;
        let capacity = self.ask(session, &scsi::Ask::Capacity, scsi::CAPACITY)?;
        let odd = || {
            self.refuse(Reason::Unsupported, format_args!("its LUN {lun} does not say its size in blocks of 512 or 4096 bytes"))
        };
        scsi::geometry(&capacity.data).filter(|_| capacity.status == Status::Good).ok_or_else(odd)
    }
}

impl Service<Protocol> for Initiator {
    fn serve(&mut self, ask: Ask<'_>, request: InitiatorRequest) -> Result<Answered, ProtocolError> {
        match request {
            InitiatorRequest::Attach(c) => ask.answer(c, |_, c: Attach, fds| self.attach(&c.order, c.read_only, fds)),
            InitiatorRequest::Watch(c) => ask.answer(c, |_, _, fds| self.watch(fds)),
        }
    }

    fn watched(&self) -> Vec<Watch<'_>> {
        let mut list = vec![Watch { fd: self.alarm.as_fd(), flags: PollFlags::POLLIN, token: ALARM }];
        if let Some(door) = self.door.as_ref().filter(|_| self.geometry.is_some()) {
            list.push(Watch { fd: door.as_fd(), flags: PollFlags::POLLIN, token: DOOR });
        }
        let flags = |reads: bool, writes: bool| {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::POLLIN, reads);
            flags.set(PollFlags::POLLOUT, writes);
            flags
        };
        if let (Some(fd), Some(client)) = (&self.client, &self.bridge.client) {
            let writes = !client.pending().is_empty();
            // Whoever does not read what he asked for is asked nothing more.
            list.push(Watch { fd: fd.as_fd(), flags: flags(self.bridge.listens() && !writes, writes), token: CLIENT });
        }
        if let (Some(fd), Some(session)) = (&self.target, &self.bridge.session) {
            list.push(Watch { fd: fd.as_fd(), flags: flags(true, !session.pending().is_empty()), token: TARGET });
        }
        list.extend(self.watchers.iter().map(|(token, fd)| Watch { fd: fd.as_fd(), flags: PollFlags::POLLIN, token: *token }));
        list
    }

    fn ready(&mut self, token: u64, flags: PollFlags) {
        let reads = flags.intersects(PollFlags::POLLIN | PollFlags::POLLHUP | PollFlags::POLLERR);
        match token {
            ALARM => self.ring(),
            DOOR => self.accept(),
            CLIENT if reads => self.read_client(),
            TARGET if reads => self.read_target(),
            CLIENT | TARGET => self.carry(),
            // It is gone: a watcher never says anything.
            _ => self.watchers.retain(|(number, _)| *number != token),
        }
    }

    fn goes_on(&self) -> bool {
        !self.bound || self.client.is_some()
    }

    fn closed(&mut self, _: Peer, _: &ProtocolError) {}
    fn stranger(&mut self, _: Peer) {}
}
