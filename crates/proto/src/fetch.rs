//! image-fetcher: one for each image that comes from an address. It can reach nothing by itself: what it and the broker say to each other
//! over the channel that it was started with, one record each, no hello. Either ends the fetch by closing it.

use crate::{Refusal, names::Text};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Bytes of an address of something on the net.
pub const MAX_URL: usize = 2048;
/// Bytes of certificates that a fetch may be given, or the host may have.
pub const MAX_ROOTS: usize = 1 << 20;
/// Bytes of public keys that a fetch may be given.
pub const MAX_KEYS: usize = 256 << 10;
/// Resolvers at most, as net-helper opens them.
pub const MAX_RESOLVERS: usize = crate::services::MAX_RESOLVERS;

/// What the broker says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FetchTold {
    /// The first: what to fetch. Descriptors: certificates (PEM) in a sealed memory file; public keys in another, if it is `signed`; then
    /// the sockets of resolvers.
    Begin(FetchOrder),
    /// In answer to `Connect`: a TCP socket, non-blocking, that is being connected.
    Connected,
    /// In answer to `Connect`: there is none.
    Refused(Refusal),
    /// In answer to `Found`: the pipe that what comes is written to, in [`crate::upload`]'s pieces.
    Go,
}

/// What to fetch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchOrder {
    /// From where: `https://…`.
    pub url: Text<MAX_URL>,
    /// A list of checksums (SHA-256 or SHA-512) in which its file's must be.
    pub sums: Option<Text<MAX_URL>>,
    /// One of the keys must have signed that list or, if there is none, what is fetched.
    pub signed: bool,
    /// In a file of its own, which is there; none: in the list's. Never none where what is fetched is signed itself.
    pub signature: Option<Text<MAX_URL>>,
}

/// What image-fetcher says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FetchSays {
    /// Asks for a connection.
    Connect {
        /// To this address.
        address: IpAddr,
        /// And port.
        port: u16,
    },
    /// The server is about to send it.
    Found {
        /// Bytes; 0: unknown.
        length: u64,
    },
    /// The last: all of it was written with the end mark, or why not.
    Done(Result<(), Refusal>),
}
