//! What can go wrong between two processes.

use skep_proto::wire::WireError;
use skep_proto::{Reason, Refusal};
use skep_sys::msg::RecvError;
use std::io;

/// The peer broke the protocol, or the connection did. It is closed, and logged; nothing else happens.
#[derive(Debug, thiserror::Error)]
pub enum ProtocolError {
    /// A record could not be received.
    #[error(transparent)]
    Receive(#[from] RecvError),
    /// A record could not be sent.
    #[error("send: {0}")]
    Send(io::Error),
    /// A record's bytes are wrong.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The hello named another protocol or a version that is not served.
    #[error("a hello for {0} version {1}")]
    Hello(String, u16),
    /// The peer serves other versions.
    #[error("the peer serves {0} versions {1} to {2}")]
    Version(String, u16, u16),
    /// The wrong number of descriptors for this operation.
    #[error("{0} came with {1} descriptors")]
    FdCount(&'static str, usize),
    /// A request that is not permitted in this state of the connection.
    #[error("{0} is not permitted now")]
    Order(&'static str),
    /// Request numbers must rise by one.
    #[error("request {0} where {1} was expected")]
    Sequence(u32, u32),
}

impl ProtocolError {
    /// Whether the peer simply went away between two records.
    pub fn is_goodbye(&self) -> bool {
        matches!(self, ProtocolError::Receive(RecvError::Closed))
    }
}

/// Why a call gave no good reply.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The helper refused the operation.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The connection failed: the client is of no more use.
    #[error("{helper}: {error}")]
    Gone {
        /// Which helper.
        helper: &'static str,
        /// What happened.
        error: ProtocolError,
    },
    /// It could not be connected to.
    #[error("{helper}: connect: {error}")]
    Connect {
        /// Which helper.
        helper: &'static str,
        /// What happened.
        error: io::Error,
    },
}

impl CallError {
    /// As a refusal for whoever asked us: a gone helper is `Unavailable`.
    pub fn into_refusal(self) -> Refusal {
        match self {
            CallError::Refused(refusal) => refusal,
            CallError::Gone { helper, error } => Refusal::new(Reason::Unavailable, helper).note(error),
            CallError::Connect { helper, error } => {
                let errno = error.raw_os_error().unwrap_or(0);
                let mut refusal = Refusal::new(Reason::Unavailable, helper).note(error);
                refusal.errno = errno;
                refusal
            }
        }
    }
}
