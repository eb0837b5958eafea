//! One received request, and the only ways to answer it.

use crate::{ProtocolError, RECORD_DEADLINE};
use skep_proto::wire::{self, Origin};
use skep_proto::{Call, Fds, Op, Reason, Refusal};
use skep_sys::msg;
use skep_sys::sock::Peer;
use std::os::fd::{BorrowedFd, OwnedFd};

/// Told about each operation before and after: writes the log of privileged acts.
pub trait Observer {
    /// It is about to be done.
    fn begin(&mut self, origin: &Origin, op: &'static Op, request: &dyn std::fmt::Debug);
    /// It was done, or refused.
    fn end(&mut self, origin: &Origin, op: &'static Op, result: Result<(), &Refusal>);
    /// A connection ended; `error` is what the peer did wrong, or goodbye.
    fn closed(&mut self, _peer: Peer, _error: &ProtocolError) {}
    /// Somebody connected who may not.
    fn stranger(&mut self, _peer: Peer) {}
}

/// Observes nothing (the console-proxy's operations are not privileged; tests).
#[derive(Debug)]
pub struct Silent;
impl Observer for Silent {
    fn begin(&mut self, _: &Origin, _: &'static Op, _: &dyn std::fmt::Debug) {}
    fn end(&mut self, _: &Origin, _: &'static Op, _: Result<(), &Refusal>) {}
}

/// A request that waits for its answer. Dropped without one, its descriptors are closed and the connection must be, too.
pub struct Ask<'a> {
    socket: BorrowedFd<'a>,
    origin: Origin,
    op: &'static Op,
    fds: Vec<OwnedFd>,
    observer: &'a mut dyn Observer,
}

/// Proof that a request was answered: a service can return it from nowhere else.
#[derive(Debug)]
#[must_use]
pub struct Answered(());

impl<'a> Ask<'a> {
    pub(crate) fn new(
        socket: BorrowedFd<'a>, origin: Origin, op: &'static Op, fds: Vec<OwnedFd>, observer: &'a mut dyn Observer,
    ) -> Self {
        Self { socket, origin, op, fds, observer }
    }

    /// Who asked, and in which user action.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Does `act` and sends what it gives. The type of `call` fixes the reply's and the descriptors'.
    pub fn answer<C: Call + std::fmt::Debug>(
        self, call: C, act: impl FnOnce(&Origin, C, C::SendFds) -> Result<(C::Reply, C::ReplyFds), Refusal>,
    ) -> Result<Answered, ProtocolError> {
        let Ask { socket, origin, op, fds, observer } = self;
        let fds = C::SendFds::from_vec(fds).map_err(|fds| ProtocolError::FdCount(op.name, fds.len()))?;
        observer.begin(&origin, op, &call);
        let (result, back) = match act(&origin, call, fds) {
            Ok((reply, back)) => (Ok(reply), back.into_vec()),
            Err(refusal) => (Err(refusal), Vec::new()),
        };
        observer.end(&origin, op, result.as_ref().map(|_| ()));
        let bytes = match wire::encode_reply::<C>(origin.seq, &result) {
            Ok(bytes) => bytes,
            // A reply that is too long is our own mistake; the peer gets a refusal in its place.
            Err(e) => wire::encode_reply::<C>(origin.seq, &Err(Refusal::new(Reason::Internal, op.name).note(e)))?,
        };
        let back = if result.is_ok() { back } else { Vec::new() };
        msg::send_within(socket, &bytes, &msg::borrow(&back), RECORD_DEADLINE).map_err(ProtocolError::Send)?;
        Ok(Answered(()))
    }

    /// Refuses the request and the connection: it is not permitted in this state.
    pub fn out_of_order(self) -> Result<Answered, ProtocolError> {
        Err(ProtocolError::Order(self.op.name))
    }
}
