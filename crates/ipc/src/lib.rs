//! skep's messages over seqpacket sockets: [`Server`] and [`Client`] for helpers (blocking), [`aio`] for broker and frontend.
#![forbid(unsafe_code)]

#[cfg(feature = "tokio")]
pub mod aio;
mod ask;
mod client;
mod error;
mod server;

pub use ask::{Answered, Ask, Observer, Silent};
pub use client::{Client, Started};
pub use error::{CallError, ProtocolError};
pub use server::{Limit, Server, Service, Watch};

use std::time::Duration;

/// A peer that has begun a record must end it, and must take a reply, within this.
pub const RECORD_DEADLINE: Duration = Duration::from_secs(5);
