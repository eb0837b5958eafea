//! The same for tokio: clients for the broker and the frontend, connections for the broker's own server.

use crate::client::{Started, hello, welcome};
use crate::server::greet;
use crate::{CallError, ProtocolError, RECORD_DEADLINE};
use nix::sys::socket::MsgFlags;
use skep_proto::wire::{self, Origin, VersionRefused, Welcome};
use skep_proto::{Call, Fds, Helper, MAX_FDS, MAX_RECORD, Reason, Refusal, Text, TraceId};
use skep_sys::msg::{self, Record, RecvError};
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};
use tokio_seqpacket::UnixSeqpacket;

/// A seqpacket socket that carries whole records.
pub struct Port(UnixSeqpacket);

impl Port {
    /// Wraps a connected socket.
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        skep_sys::fd::set_nonblocking(socket.as_fd(), true)?;
        UnixSeqpacket::try_from(socket).map(Self)
    }

    /// Receives one record.
    pub async fn recv(&self) -> Result<Record, RecvError> {
        let (mut bytes, mut fds) = (Vec::new(), Vec::new());
        loop {
            let mut guard = self.0.as_async_fd().readable().await?;
            match msg::recv_piece(guard.get_inner().as_fd(), MAX_RECORD, MAX_FDS, &mut bytes, &mut fds, MsgFlags::MSG_DONTWAIT) {
                Ok(true) => return Ok(Record { bytes, fds }),
                Ok(false) => {}
                Err(RecvError::Io(e)) if e.kind() == io::ErrorKind::WouldBlock => guard.clear_ready(),
                Err(RecvError::Io(e)) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Sends one record. Cancelled in mid-record, the connection must be closed.
    pub async fn send(&self, bytes: &[u8], fds: &[OwnedFd]) -> io::Result<()> {
        loop {
            let mut guard = self.0.as_async_fd().writable().await?;
            // A deadline that has passed: one try. Only FreeBSD 15 can shorten it, and then the rest follows within a moment.
            match msg::send(guard.get_inner().as_fd(), bytes, &msg::borrow(fds), Some(Instant::now())) {
                Err(e) if e.kind() == io::ErrorKind::TimedOut => guard.clear_ready(),
                result => return result,
            }
        }
    }

    /// Who is at the other end.
    pub fn peer(&self) -> io::Result<skep_sys::sock::Peer> {
        skep_sys::sock::peer(self.0.as_fd())
    }
}

/// A connection to a helper. After [`CallError::Gone`], or when a call was cancelled, it must be dropped.
pub struct Client<H: Helper> {
    port: Port,
    seq: u32,
    protocol: PhantomData<H>,
}

impl<H: Helper> Client<H> {
    /// Connects and greets.
    pub async fn connect(path: &Path) -> Result<Self, CallError> {
        let failed = |error| CallError::Connect { helper: H::NAME, error };
        Self::over(skep_sys::sock::connect_seqpacket(path).map_err(failed)?).await
    }

    /// Greets over a connected socket.
    pub async fn over(socket: OwnedFd) -> Result<Self, CallError> {
        let failed = |error| CallError::Connect { helper: H::NAME, error };
        let port = Port::new(socket).map_err(failed)?;
        let greeting = async {
            port.send(&hello::<H>()?, &[]).await.map_err(ProtocolError::Send)?;
            welcome(&port.recv().await?)
        };
        let greeting = tokio::time::timeout(RECORD_DEADLINE, greeting).await;
        let greeting = greeting.unwrap_or(Err(ProtocolError::Receive(RecvError::TimedOut)));
        greeting.map_err(|error| CallError::Gone { helper: H::NAME, error })?;
        Ok(Self { port, seq: 0, protocol: PhantomData })
    }

    /// Waits, between calls, until the connection is of no more use: the peer is gone, or it spoke unasked.
    pub async fn ended(&mut self) {
        let _ = self.port.recv().await;
    }

    /// Asks and waits for the reply, at most `patience`.
    pub async fn call<C: Call<Helper = H>>(
        &mut self, trace: TraceId, user: &Text<64>, call: C, fds: C::SendFds, patience: Duration,
    ) -> Result<(C::Reply, C::ReplyFds), CallError> {
        self.seq = self.seq.wrapping_add(1);
        let exchange = async {
            let started = Started::<C>::new(self.seq, trace, user, call)?;
            self.port.send(&started.bytes, &fds.into_vec()).await.map_err(ProtocolError::Send)?;
            Ok((started, self.port.recv().await?))
        };
        let result = tokio::time::timeout(patience, exchange).await;
        match result.unwrap_or(Err(ProtocolError::Receive(RecvError::TimedOut))) {
            Ok((started, record)) => started.finish(record),
            Err(error) => Err(CallError::Gone { helper: H::NAME, error }),
        }
    }
}

/// A client's connection to this process.
pub struct Connection<H: Helper> {
    port: Port,
    next: u32,
    protocol: PhantomData<H>,
}

/// One received request, not yet taken apart.
#[derive(Debug)]
pub struct Request<R> {
    /// Who asked, in which user action.
    pub origin: Origin,
    /// Its line in the protocol's table.
    pub op: &'static skep_proto::Op,
    /// What is asked.
    pub request: R,
    /// Descriptors that came with it.
    pub fds: Vec<OwnedFd>,
}

impl<H: Helper> Connection<H> {
    /// Takes a new connection and answers its hello.
    pub async fn accept(socket: OwnedFd) -> Result<Self, ProtocolError> {
        let port = Port::new(socket).map_err(ProtocolError::Send)?;
        let greeting = async {
            let record = port.recv().await?;
            let result = greet::<H>(&record.bytes, record.fds.len());
            let protocol = Text::lossy(H::NAME);
            let reply = match &result {
                Ok(()) => Welcome::Ok(H::VERSION),
                Err(_) => Welcome::Err(VersionRefused { protocol, oldest: H::OLDEST, newest: H::VERSION }),
            };
            port.send(&wire::encode(&reply)?, &[]).await.map_err(ProtocolError::Send)?;
            result
        };
        let greeting = tokio::time::timeout(RECORD_DEADLINE, greeting).await;
        greeting.unwrap_or(Err(ProtocolError::Receive(RecvError::TimedOut)))?;
        Ok(Self { port, next: 1, protocol: PhantomData })
    }

    /// Who is at the other end.
    pub fn peer(&self) -> io::Result<skep_sys::sock::Peer> {
        self.port.peer()
    }

    /// Waits, between two requests, until the client is gone; for ever if it has already sent the next request.
    pub async fn hung_up(&self) {
        loop {
            let Ok(mut guard) = self.port.0.as_async_fd().readable().await else { return };
            let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
            match nix::sys::socket::recv(guard.get_inner().as_raw_fd(), &mut [0], flags) {
                Ok(1..) => return std::future::pending().await,
                Err(nix::errno::Errno::EAGAIN) => guard.clear_ready(),
                Err(nix::errno::Errno::EINTR) => {}
                Ok(0) | Err(_) => return,
            }
        }
    }

    /// The next request.
    pub async fn next(&mut self) -> Result<Request<H::Request>, ProtocolError> {
        let record = self.port.recv().await?;
        let (origin, request) = wire::decode_request::<H>(&record.bytes)?;
        if origin.seq != self.next {
            return Err(ProtocolError::Sequence(origin.seq, self.next));
        }
        self.next = self.next.wrapping_add(1);
        let op = H::op(&request);
        if record.fds.len() < op.sends.min || record.fds.len() > op.sends.max {
            return Err(ProtocolError::FdCount(op.name, record.fds.len()));
        }
        Ok(Request { origin, op, request, fds: record.fds })
    }

    /// Sends the answer to `C`.
    pub async fn answer<C: Call<Helper = H>>(
        &mut self, seq: u32, result: Result<(C::Reply, C::ReplyFds), Refusal>,
    ) -> Result<(), ProtocolError> {
        let (result, fds) = match result {
            Ok((reply, fds)) => (Ok(reply), fds.into_vec()),
            Err(refusal) => (Err(refusal), Vec::new()),
        };
        let (bytes, fds) = match wire::encode_reply::<C>(seq, &result) {
            Ok(bytes) => (bytes, fds),
            Err(e) => (wire::encode_reply::<C>(seq, &Err(Refusal::new(Reason::Internal, H::NAME).note(e)))?, Vec::new()),
        };
        let sent = tokio::time::timeout(RECORD_DEADLINE, self.port.send(&bytes, &fds)).await;
        sent.unwrap_or(Err(io::ErrorKind::TimedOut.into())).map_err(ProtocolError::Send)
    }
}
