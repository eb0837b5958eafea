//! The service: ports, the resolvers that all of them share, and who watches.

use crate::platform::Frames;
use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::sys::socket::{MsgFlags, SockType, getsockopt, recv, send, sockopt};
use nix::sys::uio::pread;
use skep_guest_services::{Identity, Names, Now, Port, Via, World};
use skep_ipc::{Answered, Ask, ProtocolError, Service, Watch};
use skep_proto::services::{
    AddPort, Document, Done, ListPorts, MAX_DOCUMENT, MAX_RESOLVERS, PortPage, RemovePort, ServiceEvent, Services as Protocol,
    ServicesRequest,
};
use skep_proto::{NicId, NoFds, OneFd, Reason, Refusal, UpTo, wire};
use skep_rights::services::TABLE;
use skep_sys::alarm::Alarm;
use skep_sys::sock::Peer;
use skep_sys::{fd, msg, sock};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// Ports at a time.
const PORTS: usize = 1024;
/// Ports of a page.
const PAGE: usize = 64;
/// Watchers at a time.
const WATCHERS: usize = 8;
/// Answers of a resolver in a turn.
const ANSWERS: usize = 32;
/// Bytes of the largest answer of a resolver.
const ANSWER: usize = 65_535;

/// The alarm's token, those of resolvers, and the first of ports and watchers, which are never used again.
const ALARM: u64 = 0;
const RESOLVER: u64 = 1;
const FIRST: u64 = 16;

struct Served {
    port: Port,
    frames: Frames,
    /// Its interface has gone: nothing comes any more.
    ended: bool,
}

/// See the module.
pub struct Services {
    world: World,
    ports: BTreeMap<NicId, Served>,
    tokens: BTreeMap<u64, NicId>,
    resolvers: Vec<OwnedFd>,
    watchers: Vec<(u64, OwnedFd)>,
    alarm: Alarm,
    /// When it rings.
    set: Cell<Option<Now>>,
    next: u64,
    begun: Instant,
    buffer: Vec<u8>,
}

type Answer<T, F = NoFds> = Result<(T, F), Refusal>;

fn wrong(descriptor: &str, note: &str) -> Refusal {
    Refusal::new(Reason::InvalidValue, descriptor).note(note)
}

impl Services {
    /// One that serves nobody yet.
    pub fn new() -> io::Result<Self> {
        let random = || {
            let (high, low) = uuid::Uuid::new_v4().as_u64_pair();
            // The bits that are the same in all of them meet others.
            high.rotate_left(32) ^ low
        };
        Ok(Self {
            world: World::new(Box::new(random)),
            ports: BTreeMap::new(),
            tokens: BTreeMap::new(),
            resolvers: Vec::new(),
            watchers: Vec::new(),
            alarm: Alarm::new()?,
            set: Cell::new(None),
            next: FIRST,
            begun: Instant::now(),
            buffer: Vec::new(),
        })
    }

    /// What it holds.
    pub fn held(&self) -> Vec<(&'static str, BorrowedFd<'_>)> {
        vec![("alarm", self.alarm.as_fd())]
    }

    fn now(&self) -> Now {
        self.begun.elapsed()
    }

    fn next_token(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn add_port(&mut self, c: AddPort, fds: UpTo<2>) -> Answer<Done> {
        let nic = c.nic;
        let object = format!("nic {nic}");
        let mut fds = fds.0.into_iter();
        let (Some(frames), document, None) = (fds.next(), fds.next(), fds.next()) else {
            return Err(wrong("descriptors", "frames are expected, and a document if it says so"));
        };
        if document.is_some() != c.document {
            return Err(wrong("descriptors", "frames are expected, and a document if it says so"));
        }
        if !self.ports.contains_key(&nic) && self.ports.len() >= PORTS {
            return Err(Refusal::new(Reason::LimitReached, &object).note(format_args!("{PORTS} are served")));
        }
        let taken = self.ports.values().map(|served| served.port.identity());
        if taken.into_iter().any(|other| other.nic != nic && other.address == c.address) {
            return Err(Refusal::new(Reason::AlreadyExists, &object).field("address").note(c.address));
        }
        let token = self.next_token();
        let identity =
            Identity::new(token, c).map_err(|bad| Refusal::new(Reason::InvalidValue, &object).field(bad.field()).note(bad))?;
        let document = document.map(read_document).transpose()?;
        let frames = Frames::new(frames).ok_or_else(|| wrong("frames", "a packet socket or bpf(4) device is expected"))?;
        skep_sandbox::limit_one(&TABLE, "frames", frames.as_fd()).map_err(|e| Refusal::new(Reason::Internal, &object).note(e))?;
        self.buffer.resize(self.buffer.len().max(frames.room()), 0);
        let mut port = Port::new(identity, document);
        if let Some(before) = self.take(nic) {
            port = port.succeed(&before.port);
        }
        self.tokens.insert(token, nic);
        self.ports.insert(nic, Served { port, frames, ended: false });
        self.name();
        Ok((Done {}, []))
    }

    fn remove_port(&mut self, c: &RemovePort) -> Answer<Done> {
        if self.take(c.nic).is_some() {
            self.name();
        }
        Ok((Done {}, []))
    }

    fn take(&mut self, nic: NicId) -> Option<Served> {
        let served = self.ports.remove(&nic)?;
        let token = served.port.identity().token;
        self.tokens.remove(&token);
        self.world.forwarder.forget(token);
        Some(served)
    }

    /// Ports have changed: so have names.
    fn name(&mut self) {
        let all = self.ports.values().flat_map(|Served { port, .. }| {
            let host = port.identity().host.as_str();
            let addresses = [Some(IpAddr::V4(port.identity().address)), port.address6().map(IpAddr::V6)];
            addresses.into_iter().flatten().map(move |address| (host, address))
        });
        self.world.names = Names::new(all);
    }

    fn set_resolvers(&mut self, fds: UpTo<{ MAX_RESOLVERS }>) -> Answer<Done> {
        for socket in &fds.0 {
            if !sock::is_connected_udp(socket.as_fd()) {
                return Err(wrong("resolver", "a connected socket of UDP is expected"));
            }
            skep_sandbox::limit_one(&TABLE, "resolver", socket.as_fd())
                .map_err(|e| Refusal::new(Reason::Internal, "resolver").note(e))?;
        }
        self.resolvers = fds.0;
        self.world.forwarder.set_resolvers(self.resolvers.len());
        Ok((Done {}, []))
    }

    fn list_ports(&self, c: &ListPorts) -> Answer<PortPage> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = c.after.map_or(Unbounded, Excluded);
        let page = self.ports.range((from, Unbounded)).take(PAGE).map(|(nic, served)| skep_proto::services::Port {
            nic: *nic,
            address: served.port.identity().address,
            address6: served.port.address6(),
            leased: served.port.leased,
            home: served.port.home,
            frames: served.port.frames,
            refused: served.port.refused,
        });
        Ok((PortPage { ports: page.collect() }, []))
    }

    fn watch(&mut self, [socket]: OneFd) -> Answer<Done, NoFds> {
        if !matches!(getsockopt(&socket, sockopt::SockType), Ok(SockType::SeqPacket)) {
            return Err(Refusal::new(Reason::InvalidValue, "watchers").field("fds").note("a seqpacket socket is expected"));
        }
        if self.watchers.len() >= WATCHERS {
            return Err(Refusal::new(Reason::LimitReached, "watchers").note(format_args!("{WATCHERS} are watching")));
        }
        let token = self.next_token();
        self.watchers.push((token, socket));
        Ok((Done {}, []))
    }

    fn tell(&mut self, events: &[ServiceEvent]) {
        for event in events {
            let Ok(bytes) = wire::encode(event) else { continue };
            // Tried once: who does not keep up is cut off.
            self.watchers.retain(|(_, socket)| msg::send(socket.as_fd(), &bytes, &[], Some(Instant::now())).is_ok());
        }
    }

    fn frames_ready(&mut self, nic: NicId) {
        let now = self.now();
        let Some(served) = self.ports.get_mut(&nic) else { return };
        let Served { port, frames, ended } = served;
        let world = &mut self.world;
        let before = port.address6();
        let read = frames.read(&mut self.buffer, |frame| match frame {
            Some(frame) => {
                let answers = port.frame(world, now, frame);
                answers.iter().for_each(|answer| frames.write(answer, port.identity().mac));
            }
            None => port.refuse(),
        });
        *ended = read.is_err();
        let (events, after) = (port.events(), port.address6());
        if after != before {
            self.name();
        }
        self.tell(&events);
    }

    fn resolver_ready(&mut self, number: usize) {
        let now = self.now();
        self.buffer.resize(self.buffer.len().max(ANSWER), 0);
        for _ in 0..ANSWERS {
            let Some(socket) = self.resolvers.get(number) else { return };
            match recv(socket.as_raw_fd(), &mut self.buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(length) => {
                    let answer = self.world.forwarder.reply(self.buffer.get(..length).unwrap_or_default());
                    if let Some((client, bytes)) = answer {
                        self.answer(now, client.port, client.via, &bytes);
                    }
                }
                // Nobody listens there, or there is no way: as if it were silent. It may be different for the next question.
                Err(Errno::ECONNREFUSED | Errno::EHOSTUNREACH | Errno::ENETUNREACH | Errno::EHOSTDOWN | Errno::ENETDOWN) => {}
                Err(_) => return,
            }
        }
    }

    fn answer(&mut self, now: Now, token: u64, via: Via, bytes: &[u8]) {
        let Some(served) = self.tokens.get(&token).and_then(|nic| self.ports.get_mut(nic)) else { return };
        let mac = served.port.identity().mac;
        served.port.answer(&mut self.world, now, via, bytes).iter().for_each(|frame| served.frames.write(frame, mac));
    }

    fn alarm_rings(&mut self) {
        let _ = self.alarm.clear();
        self.set.set(None);
        let now = self.now();
        for (client, bytes) in self.world.forwarder.poll(now) {
            self.answer(now, client.port, client.via, &bytes);
        }
        let (mut events, mut named) = (Vec::new(), false);
        for served in self.ports.values_mut() {
            let (mac, before) = (served.port.identity().mac, served.port.address6());
            served.port.poll(&mut self.world, now).iter().for_each(|frame| served.frames.write(frame, mac));
            events.extend(served.port.events());
            named |= served.port.address6() != before;
        }
        if named {
            self.name();
        }
        self.tell(&events);
    }

    /// Sends what resolvers are asked.
    fn flush(&mut self) {
        for (number, query) in self.world.forwarder.outgoing() {
            if let Some(socket) = self.resolvers.get(number) {
                // What cannot be sent is as good as lost on the way.
                let _ = send(socket.as_raw_fd(), &query, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL);
            }
        }
    }

    /// Sets the alarm to the first thing that is to be done.
    fn wind(&self) {
        let ports = self.ports.values().filter_map(|served| served.port.wakes());
        let first = ports.chain(self.world.forwarder.wakes()).min();
        if first != self.set.get() {
            let done = match first {
                // A timer that is set to nothing is not set; one of FreeBSD's counts milliseconds.
                Some(at) => {
                    let wait = at.saturating_sub(self.now()) + Duration::from_micros(999);
                    self.alarm.set(wait.max(Duration::from_millis(1)))
                }
                None => self.alarm.clear(),
            };
            if done.is_ok() {
                self.set.set(first);
            }
        }
    }
}

/// The document in a sealed memory file.
fn read_document(file: OwnedFd) -> Result<Document, Refusal> {
    if !fd::is_sealed(file.as_fd()) {
        return Err(wrong("document", "a sealed memory file is expected"));
    }
    // One byte more than there may be tells that there are too many.
    let mut bytes = vec![0; MAX_DOCUMENT + 1];
    let mut length = 0;
    while let Some(rest) = bytes.get_mut(length..).filter(|rest| !rest.is_empty()) {
        match pread(&file, rest, i64::try_from(length).unwrap_or(i64::MAX)) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(Errno::EINTR) => {}
            Err(e) => return Err(Refusal::io("document", "read", &e.into())),
        }
    }
    bytes.truncate(length);
    if length > MAX_DOCUMENT {
        return Err(Refusal::new(Reason::TooLarge, "document").note(format_args!("{MAX_DOCUMENT} bytes are the most")));
    }
    Document::decode(&bytes).map_err(|e| wrong("document", &e.to_string()))
}

impl Service<Protocol> for Services {
    fn serve(&mut self, ask: Ask<'_>, request: ServicesRequest) -> Result<Answered, ProtocolError> {
        match request {
            ServicesRequest::AddPort(c) => ask.answer(c, |_, c, fds| self.add_port(c, fds)),
            ServicesRequest::RemovePort(c) => ask.answer(c, |_, c, []| self.remove_port(&c)),
            ServicesRequest::SetResolvers(c) => ask.answer(c, |_, _, fds| self.set_resolvers(fds)),
            ServicesRequest::ListPorts(c) => ask.answer(c, |_, c, []| self.list_ports(&c)),
            ServicesRequest::Watch(c) => ask.answer(c, |_, _, fds| self.watch(fds)),
        }
    }

    fn watched(&self) -> Vec<Watch<'_>> {
        // Called before each wait: the place to set the alarm.
        self.wind();
        let mut list = vec![Watch { fd: self.alarm.as_fd(), flags: PollFlags::POLLIN, token: ALARM }];
        let reads = |fd, token| Watch { fd, flags: PollFlags::POLLIN, token };
        list.extend(self.resolvers.iter().zip(RESOLVER..).map(|(socket, token)| reads(socket.as_fd(), token)));
        list.extend(self.watchers.iter().map(|(token, socket)| reads(socket.as_fd(), *token)));
        let ports = self.ports.values().filter(|served| !served.ended);
        list.extend(ports.map(|served| reads(served.frames.as_fd(), served.port.identity().token)));
        list
    }

    fn ready(&mut self, token: u64, _: PollFlags) {
        if token == ALARM {
            self.alarm_rings();
        } else if token < FIRST {
            self.resolver_ready(usize::try_from(token - RESOLVER).unwrap_or(usize::MAX));
        } else if let Some(nic) = self.tokens.get(&token) {
            self.frames_ready(*nic);
        } else {
            // It is gone: a watcher never says anything.
            self.watchers.retain(|(number, _)| *number != token);
        }
        self.flush();
    }

    fn closed(&mut self, _: Peer, _: &ProtocolError) {}
    fn stranger(&mut self, _: Peer) {}
}
