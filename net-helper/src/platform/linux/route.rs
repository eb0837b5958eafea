//! One question to rtnetlink(7), and its whole answer.

use netlink_packet_core::{NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::LinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::sys::socket::{setsockopt, sockopt::ReceiveTimeout};
use nix::sys::time::TimeVal;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

/// The kernel sends at most this at once.
const BUFFER: usize = 64 << 10;
/// A list that changed while it was read is read again, this often.
const TRIES: u32 = 16;

/// A netlink socket that is connected to the kernel, so that nobody else can send to it.
pub struct Route {
    socket: Socket,
    seq: u32,
}

impl std::fmt::Debug for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Route({})", self.seq)
    }
}

impl AsFd for Route {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Route {
    pub fn open() -> io::Result<Self> {
        let socket = Socket::new(NETLINK_ROUTE)?;
        socket.connect(&SocketAddr::new(0, 0))?;
        // The kernel answers before send(2) returns; should an answer be lost, we do not wait for ever.
        setsockopt(&socket.as_fd(), ReceiveTimeout, &TimeVal::new(5, 0))?;
        Ok(Self { socket, seq: 0 })
    }

    /// As [`Self::ask`]; of the answer, the links.
    pub fn links(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<Vec<LinkMessage>> {
        let answer = self.ask(message, flags)?.into_iter();
        Ok(answer
            .filter_map(|message| if let RouteNetlinkMessage::NewLink(link) = message { Some(link) } else { None })
            .collect())
    }

    /// Asks, with `NLM_F_ACK` or `NLM_F_DUMP` in `flags` so that there is an end, and collects the answer. An error is the kernel's
    /// errno.
    pub fn ask(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<Vec<RouteNetlinkMessage>> {
        for _ in 0..TRIES {
            if let Some(answer) = self.ask_once(message.clone(), flags)? {
                return Ok(answer);
            }
        }
        Err(io::Error::new(io::ErrorKind::ResourceBusy, "the interfaces change faster than they can be listed"))
    }

    fn ask_once(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<Option<Vec<RouteNetlinkMessage>>> {
        self.seq = self.seq.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.seq;
        let mut request = NetlinkMessage::new(header, NetlinkPayload::from(message));
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;

        let mut messages = Vec::new();
        let mut whole = true;
        loop {
            let mut buffer = Vec::with_capacity(BUFFER);
            self.socket.recv(&mut buffer, 0)?;
            let mut rest = buffer.as_slice();
            while !rest.is_empty() {
                let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest);
                let answer = answer.map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e.to_string()))?;
                let length = (answer.header.length as usize).next_multiple_of(4).max(4);
                rest = rest.get(length..).unwrap_or_default();
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
