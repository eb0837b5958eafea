//! TCP of one port, by smoltcp over bare IP packets: what goes to the port has one possible destination, and comes from one.

use crate::Now;
use crate::dns;
use crate::forward::{Client, Via};
use crate::http::{self, Read, Reply};
use crate::metadata::Content;
use crate::port::{Identity, World};
use skep_proto::services::{ADDRESS, ADDRESS6};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Checksum, ChecksumCapabilities, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::Instant;
use smoltcp::wire::{HardwareAddress, IpCidr};
use std::rc::Rc;
use std::time::Duration;

/// Connections at a time of each kind; more are refused.
const HTTP: usize = 6;
const DNS: usize = 2;
/// Bytes of each connection on their way to us, and from us.
const RECEIVE: usize = 4096;
const SEND: usize = 16_384;
/// How long a client may take for a request, and to take an answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// One packet in, some out.
struct Wire<'a> {
    incoming: Option<&'a [u8]>,
    outgoing: Vec<Vec<u8>>,
    mtu: usize,
}

struct Receive<'a>(&'a [u8]);
struct Transmit<'a>(&'a mut Vec<Vec<u8>>);

impl RxToken for Receive<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

impl TxToken for Transmit<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        let mut packet = vec![0; length];
        let result = f(&mut packet);
        self.0.push(packet);
        result
    }
}

impl Device for Wire<'_> {
    type RxToken<'b>
        = Receive<'b>
    where
        Self: 'b;
    type TxToken<'b>
        = Transmit<'b>
    where
        Self: 'b;

    fn receive(&mut self, _: Instant) -> Option<(Receive<'_>, Transmit<'_>)> {
        Some((Receive(self.incoming.take()?), Transmit(&mut self.outgoing)))
    }
    fn transmit(&mut self, _: Instant) -> Option<Transmit<'_>> {
        Some(Transmit(&mut self.outgoing))
    }
    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.mtu;
        // Ours are made; a guest's are left to a NIC that is none.
        let mut checksum = ChecksumCapabilities::default();
        (checksum.ipv4, checksum.tcp) = (Checksum::Tx, Checksum::Tx);
        capabilities.checksum = checksum;
        capabilities
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Http,
    Dns,
}

/// One connection, or one that is waited for.
#[derive(Debug)]
struct Connection {
    number: u64,
    handle: SocketHandle,
    kind: Kind,
    input: Vec<u8>,
    /// Bytes of a body that are still to be read, and forgotten.
    body: u64,
    reply: Option<(Reply, usize)>,
    /// A resolver is asked.
    waits: bool,
    /// All was said; what still comes is not heard.
    ends: bool,
    /// None: nobody has connected yet.
    until: Option<Now>,
}

/// See the module.
pub struct Stack {
    interface: Interface,
    sockets: SocketSet<'static>,
    connections: Vec<Connection>,
    numbers: u64,
    mtu: u16,
    wakes: Option<Now>,
}

impl std::fmt::Debug for Stack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stack").field("connections", &self.connections).finish_non_exhaustive()
    }
}

fn instant(now: Now) -> Instant {
    Instant::from_micros(i64::try_from(now.as_micros()).unwrap_or(i64::MAX))
}

impl Stack {
    /// One without connections. `seed` cannot be guessed: sequence numbers are made from it.
    pub fn new(identity: &Identity, now: Now, seed: u64) -> Self {
        let mtu = identity.subnet.mtu;
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut wire = Wire { incoming: None, outgoing: Vec::new(), mtu: mtu.into() };
        let mut interface = Interface::new(config, &mut wire, instant(now));
        let six = identity.subnet.v6.is_some();
        // It has room for two.
        interface.update_ip_addrs(|list| {
            let _ = list.push(IpCidr::new(ADDRESS.into(), 32));
            if six {
                let _ = list.push(IpCidr::new(ADDRESS6.into(), 128));
            }
        });
        // Wherever it leads: there is but one way.
        let _ = interface.routes_mut().add_default_ipv4_route(ADDRESS);
        if six {
            let _ = interface.routes_mut().add_default_ipv6_route(ADDRESS6);
        }
        // A number is never used again: an answer that comes late must not go to another's connection.
        Self { interface, sockets: SocketSet::new(Vec::new()), connections: Vec::new(), numbers: seed, mtu, wakes: None }
    }

    /// Whether nobody is connected.
    pub fn is_idle(&self) -> bool {
        self.connections.iter().all(|connection| connection.until.is_none())
    }

    /// When a turn has something to do.
    pub fn wakes(&self) -> Option<Now> {
        self.wakes
    }

    /// A resolver's answer for a connection, which may have gone.
    pub fn answer(&mut self, number: u64, bytes: &[u8]) {
        let waiting = self.connections.iter_mut().find(|connection| connection.number == number && connection.waits);
        if let Some(connection) = waiting {
            connection.waits = false;
            connection.reply = Some((framed(bytes), 0));
        }
    }

    /// Takes a packet, if there is one, and does what is to be done. What is sent.
    pub fn turn(
        &mut self, identity: &Identity, world: &mut World, content: Option<&Content>, now: Now, packet: Option<&[u8]>,
        home: &mut bool,
    ) -> Vec<Vec<u8>> {
        self.listen(Kind::Http, http::PORT, HTTP);
        self.listen(Kind::Dns, dns::PORT, DNS);
        let mut wire = Wire { incoming: packet, outgoing: Vec::new(), mtu: self.mtu.into() };
        self.interface.poll(instant(now), &mut wire, &mut self.sockets);
        for connection in &mut self.connections {
            let socket = self.sockets.get_mut::<Socket<'_>>(connection.handle);
            connection.turn(socket, identity, world, content, now, home);
        }
        self.interface.poll(instant(now), &mut wire, &mut self.sockets);
        // A connection of which we know all is over, whatever the other side may still repeat.
        let sockets = &mut self.sockets;
        self.connections.retain(|connection| {
            let over = matches!(sockets.get::<Socket<'_>>(connection.handle).state(), State::Closed | State::TimeWait);
            if over {
                sockets.remove(connection.handle);
            }
            !over
        });
        let ends = self.connections.iter().filter_map(|connection| connection.until).min();
        let next = self.interface.poll_at(instant(now), &self.sockets);
        let next = next.map(|at| Duration::from_micros(u64::try_from(at.total_micros()).unwrap_or(0)));
        self.wakes = if self.is_idle() { None } else { ends.into_iter().chain(next).min() };
        wire.outgoing
    }

    /// Sees to it that one more can connect.
    fn listen(&mut self, kind: Kind, port: u16, most: usize) {
        let all = self.connections.iter().filter(|connection| connection.kind == kind);
        if all.clone().any(|connection| connection.until.is_none()) || all.count() >= most {
            return;
        }
        let mut socket = Socket::new(SocketBuffer::new(vec![0; RECEIVE]), SocketBuffer::new(vec![0; SEND]));
        socket.set_nagle_enabled(false);
        socket.set_ack_delay(None);
        // By whichever of our addresses: who lets a packet through to here sees to what is where.
        if socket.listen(port).is_err() {
            return;
        }
        self.numbers = self.numbers.wrapping_add(1);
        self.connections.push(Connection {
            number: self.numbers,
            handle: self.sockets.add(socket),
            kind,
            input: Vec::new(),
            body: 0,
            reply: None,
            waits: false,
            ends: false,
            until: None,
        });
    }
}

/// A message of DNS over TCP.
fn framed(bytes: &[u8]) -> Reply {
    let length = u16::try_from(bytes.len()).unwrap_or(0).to_be_bytes();
    Reply { head: [&length, bytes].concat(), body: Rc::from([]), close: false }
}

impl Connection {
    fn turn(
        &mut self, socket: &mut Socket<'_>, identity: &Identity, world: &mut World, content: Option<&Content>, now: Now,
        home: &mut bool,
    ) {
        if socket.state() == State::Listen {
            // Nobody yet, or somebody who has taken it back before all was agreed.
            self.until = None;
            return;
        }
        let until = *self.until.get_or_insert(now + PATIENCE);
        if until <= now {
            return socket.abort();
        }
        if self.ends {
            // Read all the same, or the other side could not end what it says.
            while socket.recv(|bytes| (bytes.len(), bytes.len())).is_ok_and(|count| count > 0) {}
            return;
        }
        loop {
            if !self.send(socket, now) || self.waits {
                return;
            }
            let moved = self.receive(socket);
            match self.kind {
                Kind::Http => self.http(identity, world, content, now, home),
                Kind::Dns => self.dns(identity, world, now),
            }
            if self.reply.is_none() && !self.waits && !moved {
                // Nothing more comes, and what came is not enough.
                if socket.state() == State::CloseWait {
                    socket.close();
                }
                return;
            }
        }
    }

    /// Sends what there is to send. False: not all of it could be.
    fn send(&mut self, socket: &mut Socket<'_>, now: Now) -> bool {
        let Some((reply, sent)) = &mut self.reply else { return true };
        loop {
            let head = reply.head.get(*sent..).filter(|rest| !rest.is_empty());
            let rest = head.or_else(|| reply.body.get(sent.saturating_sub(reply.head.len())..)).unwrap_or_default();
            if rest.is_empty() {
                break;
            }
            match socket.send_slice(rest) {
                Ok(0) => return false,
                Ok(count) => *sent += count,
                Err(_) => {
                    socket.abort();
                    return false;
                }
            }
        }
        let close = reply.close;
        self.reply = None;
        if close {
            self.ends = true;
            socket.close();
            return false;
        }
        self.until = Some(now + PATIENCE);
        true
    }

    /// Reads as much as is kept. Whether there was something.
    fn receive(&mut self, socket: &mut Socket<'_>) -> bool {
        let most = match self.kind {
            Kind::Http => http::LONGEST_HEAD,
            Kind::Dns => dns::LONGEST + 2,
        };
        let before = self.input.len();
        while self.input.len() < most || self.body > 0 {
            let (body, room) = (&mut self.body, most.saturating_sub(self.input.len()));
            let input = &mut self.input;
            let read = socket.recv(|bytes| {
                // A body is read and forgotten.
                let skipped = usize::try_from(*body).unwrap_or(usize::MAX).min(bytes.len());
                *body -= skipped as u64;
                let kept = bytes.get(skipped..).unwrap_or_default();
                let kept = kept.get(..room.min(kept.len())).unwrap_or_default();
                input.extend_from_slice(kept);
                (skipped + kept.len(), skipped + kept.len())
            });
            match read {
                Ok(count) if count > 0 => {}
                _ => break,
            }
        }
        self.input.len() > before
    }

    fn http(&mut self, identity: &Identity, world: &World, content: Option<&Content>, now: Now, home: &mut bool) {
        if self.body > 0 || self.input.is_empty() || self.reply.is_some() {
            return;
        }
        if let Read::Whole(length, body, mut reply) = http::read(identity, world, content, now, &self.input, home) {
            self.input.drain(..length.min(self.input.len()));
            // As much of the body as is here already.
            let here = usize::try_from(body).unwrap_or(usize::MAX).min(self.input.len());
            self.input.drain(..here);
            self.body = body - here as u64;
            reply.seal();
            self.reply = Some((reply, 0));
        }
    }

    fn dns(&mut self, identity: &Identity, world: &mut World, now: Now) {
        let Some((length, rest)) = self.input.split_first_chunk::<2>() else { return };
        let length = usize::from(u16::from_be_bytes(*length));
        let whole = rest.get(..length).filter(|_| (1..=dns::LONGEST).contains(&length));
        let Some(question) = whole else {
            if length == 0 || length > dns::LONGEST {
                self.reply = Some((Reply { close: true, ..framed(&[]) }, 2));
            }
            return;
        };
        let client = Client { port: identity.token, via: Via::Tcp(self.number) };
        let answer = dns::ask(identity, world, now, client, question);
        self.input.drain(..length + 2);
        match answer {
            dns::Answer::Now(bytes) => self.reply = Some((framed(&bytes), 0)),
            dns::Answer::Later => self.waits = true,
            dns::Answer::Nothing => self.reply = Some((Reply { close: true, ..framed(&[]) }, 2)),
        }
    }
}
