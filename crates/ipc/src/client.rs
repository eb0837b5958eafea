//! The asking side, blocking.

use crate::{CallError, ProtocolError};
use skep_proto::wire::{self, Hello, Origin, Welcome};
use skep_proto::{Call, Fds, Helper, MAX_FDS, MAX_RECORD, Text, TraceId};
use skep_sys::{msg, sock};
use std::marker::PhantomData;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

/// A connection to a helper. After [`CallError::Gone`] it must be dropped.
pub struct Client<H: Helper> {
    socket: OwnedFd,
    seq: u32,
    protocol: PhantomData<H>,
}

/// A request as bytes, and how to read its reply.
#[derive(Debug)]
pub struct Started<C: Call> {
    /// Number of the request.
    pub seq: u32,
    /// The record.
    pub bytes: Vec<u8>,
    call: PhantomData<C>,
}

impl<C: Call> Started<C> {
    /// Encodes a request.
    pub fn new(seq: u32, trace: TraceId, user: &Text<64>, call: C) -> Result<Self, ProtocolError> {
        let origin = Origin { seq, trace, user: user.clone() };
        Ok(Self { seq, bytes: wire::encode_request::<C::Helper>(&origin, &call.into())?, call: PhantomData })
    }

    /// Decodes its reply.
    pub fn finish(self, record: msg::Record) -> Result<(C::Reply, C::ReplyFds), CallError> {
        let gone = |error| CallError::Gone { helper: C::Helper::NAME, error };
        let reply = wire::decode_reply::<C>(self.seq, &record.bytes).map_err(|e| gone(e.into()))?;
        let name = C::Helper::OPS.get(usize::from(C::OP)).map_or("", |op| op.name);
        match reply {
            Ok(reply) => match C::ReplyFds::from_vec(record.fds) {
                Ok(fds) => Ok((reply, fds)),
                Err(fds) => Err(gone(ProtocolError::FdCount(name, fds.len()))),
            },
            Err(_) if !record.fds.is_empty() => Err(gone(ProtocolError::FdCount(name, record.fds.len()))),
            Err(refusal) => Err(refusal.into()),
        }
    }
}

/// The hello for a protocol, as bytes.
pub(crate) fn hello<H: Helper>() -> Result<Vec<u8>, ProtocolError> {
    Ok(wire::encode(&Hello { protocol: Text::lossy(H::NAME), version: H::VERSION })?)
}

/// Reads the answer to a hello.
pub(crate) fn welcome(record: &msg::Record) -> Result<(), ProtocolError> {
    if !record.fds.is_empty() {
        return Err(ProtocolError::FdCount("Hello", record.fds.len()));
    }
    match wire::decode::<Welcome>(&record.bytes)? {
        Ok(_) => Ok(()),
        Err(v) => Err(ProtocolError::Version(v.protocol.as_str().to_owned(), v.oldest, v.newest)),
    }
}

impl<H: Helper> Client<H> {
    /// Connects and greets.
    pub fn connect(path: &Path) -> Result<Self, CallError> {
        let socket = sock::connect_seqpacket(path).map_err(|error| CallError::Connect { helper: H::NAME, error })?;
        Self::over(socket)
    }

    /// Greets over a connected socket.
    pub fn over(socket: OwnedFd) -> Result<Self, CallError> {
        let gone = |error| CallError::Gone { helper: H::NAME, error };
        let deadline = Some(Instant::now() + crate::RECORD_DEADLINE);
        let bytes = hello::<H>().map_err(gone)?;
        msg::send(socket.as_fd(), &bytes, &[], deadline).map_err(|e| gone(ProtocolError::Send(e)))?;
        let record = msg::recv(socket.as_fd(), MAX_RECORD, MAX_FDS, deadline).map_err(|e| gone(e.into()))?;
        welcome(&record).map_err(gone)?;
        Ok(Self { socket, seq: 0, protocol: PhantomData })
    }

    /// Asks and waits for the reply, at most `patience`.
    pub fn call<C: Call<Helper = H>>(
        &mut self, trace: TraceId, user: &Text<64>, call: C, fds: C::SendFds, patience: Duration,
    ) -> Result<(C::Reply, C::ReplyFds), CallError> {
        let gone = |error| CallError::Gone { helper: H::NAME, error };
        self.seq = self.seq.wrapping_add(1);
        let started = Started::new(self.seq, trace, user, call).map_err(gone)?;
        let deadline = Some(Instant::now() + patience);
        let fds = fds.into_vec();
        msg::send(self.socket.as_fd(), &started.bytes, &msg::borrow(&fds), deadline).map_err(|e| gone(ProtocolError::Send(e)))?;
        drop(fds);
        let record = msg::recv(self.socket.as_fd(), MAX_RECORD, MAX_FDS, deadline).map_err(|e| gone(e.into()))?;
        started.finish(record)
    }
}
