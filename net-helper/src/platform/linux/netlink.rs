//! One question to netlink(7), and its whole answer: to rtnetlink(7), or to nf_tables.

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader, NetlinkMessage, NetlinkPayload,
    NetlinkSerializable,
};
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage, NetfilterProtoFamily, none::ControlMessage};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::LinkMessage;
use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use netlink_sys::{Socket, SocketAddr};
use nix::sys::socket::{setsockopt, sockopt::ReceiveTimeout};
use nix::sys::time::TimeVal;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd};

/// The kernel sends at most this at once.
const BUFFER: usize = 64 << 10;
/// A list that changed while it was read is read again, this often.
const TRIES: u32 = 16;

/// A netlink socket that is connected to the kernel, so that nobody else can send to it.
pub struct Netlink<M> {
    socket: Socket,
    seq: u32,
    messages: PhantomData<M>,
}

/// rtnetlink.
pub type Route = Netlink<RouteNetlinkMessage>;
/// nf_tables.
pub type Filter = Netlink<NetfilterMessage>;

impl<M> std::fmt::Debug for Netlink<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Netlink({})", self.seq)
    }
}

impl<M> AsFd for Netlink<M> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Route {
    pub fn open() -> io::Result<Self> {
        Self::connect(NETLINK_ROUTE)
    }

    /// As [`Self::ask`]; of the answer, the links.
    pub fn links(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<Vec<LinkMessage>> {
        let answer = self.ask(message, flags)?.into_iter();
        Ok(answer
            .filter_map(|message| if let RouteNetlinkMessage::NewLink(link) = message { Some(link) } else { None })
            .collect())
    }
}

impl Filter {
    pub fn open() -> io::Result<Self> {
        Self::connect(NETLINK_NETFILTER)
    }

    /// Does all of it or nothing, as one transaction. Each message comes with the flags of its own.
    pub fn all(&mut self, messages: Vec<(NetfilterMessage, u16)>) -> io::Result<()> {
        /// `NFNL_SUBSYS_NFTABLES` (linux/netfilter/nfnetlink.h), whose transaction it is.
        const NFTABLES: u16 = 10;
        let edge = |edge| NetfilterMessage::new(NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, NFTABLES), edge);
        let mut bytes = Vec::new();
        let first = self.seq.wrapping_add(1);
        self.put(&mut bytes, edge(ControlMessage::BatchBegin), 0);
        for (message, flags) in messages {
            self.put(&mut bytes, message, flags | NLM_F_ACK);
        }
        let last = self.seq;
        self.put(&mut bytes, edge(ControlMessage::BatchEnd), 0);
        self.socket.send(&bytes, 0)?;
        // An answer to each, in their order; to the first of all, if all of it is refused.
        loop {
            for answer in self.receive()? {
                let number = answer.header.sequence_number;
                if let NetlinkPayload::Error(error) = answer.payload
                    && (first..=self.seq).contains(&number)
                {
                    if error.code.is_some() {
                        return Err(error.to_io());
                    }
                    if number == last {
                        return Ok(());
                    }
                }
            }
        }
    }
}

impl<M: NetlinkSerializable + NetlinkDeserializable + Clone> Netlink<M> {
    pub(super) fn connect(protocol: isize) -> io::Result<Self> {
        let socket = Socket::new(protocol)?;
        socket.connect(&SocketAddr::new(0, 0))?;
        // The kernel answers before send(2) returns; should an answer be lost, we do not wait for ever.
        setsockopt(&socket.as_fd(), ReceiveTimeout, &TimeVal::new(5, 0))?;
        Ok(Self { socket, seq: 0, messages: PhantomData })
    }

    /// Asks, with `NLM_F_ACK` or `NLM_F_DUMP` in `flags` so that there is an end, and collects the answer. An error is the kernel's
    /// errno.
    pub fn ask(&mut self, message: M, flags: u16) -> io::Result<Vec<M>> {
        for _ in 0..TRIES {
            if let Some(answer) = self.ask_once(message.clone(), flags)? {
                return Ok(answer);
            }
        }
        Err(io::Error::new(io::ErrorKind::ResourceBusy, "the interfaces change faster than they can be listed"))
    }

    /// Adds a message, with the next number.
    fn put(&mut self, bytes: &mut Vec<u8>, message: M, flags: u16) {
        self.seq = self.seq.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.seq;
        let mut request = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        request.finalize();
        let at = bytes.len();
        bytes.resize(at + request.buffer_len(), 0);
        if let Some(place) = bytes.get_mut(at..) {
            request.serialize(place);
        }
    }

    /// What the kernel sends at once.
    fn receive(&self) -> io::Result<Vec<NetlinkMessage<M>>> {
        let mut buffer = Vec::with_capacity(BUFFER);
        self.socket.recv(&mut buffer, 0)?;
        let mut rest = buffer.as_slice();
        let mut messages = Vec::new();
        while !rest.is_empty() {
            let message = NetlinkMessage::<M>::deserialize(rest);
            let message = message.map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e.to_string()))?;
            let length = (message.header.length as usize).next_multiple_of(4).max(4);
            rest = rest.get(length..).unwrap_or_default();
            messages.push(message);
        }
        Ok(messages)
    }

    fn ask_once(&mut self, message: M, flags: u16) -> io::Result<Option<Vec<M>>> {
        let mut bytes = Vec::new();
        self.put(&mut bytes, message, flags);
        self.socket.send(&bytes, 0)?;
        let mut messages = Vec::new();
        let mut whole = true;
        loop {
            for answer in self.receive()? {
                // The rest of an earlier answer that was given up.
                if answer.header.sequence_number != self.seq {
                    continue;
                }
                whole &= answer.header.flags & NLM_F_DUMP_INTR == 0;
                match answer.payload {
                    NetlinkPayload::InnerMessage(message) => messages.push(message),
                    NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
                    NetlinkPayload::Done(done) if done.code < 0 => return Err(io::Error::from_raw_os_error(-done.code)),
                    NetlinkPayload::Error(_) | NetlinkPayload::Done(_) => return Ok(whole.then_some(messages)),
                    _ => {}
                }
            }
        }
    }
}
