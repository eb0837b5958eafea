//! image-fetcher: fetches one image over https and writes it to the pipe of its import.
//!
//! It can reach nothing by itself. Names it asks of the host's resolvers, over sockets that are connected to them; each connection is
//! made by net-helper, which refuses what is inside. What it reads is a stranger's: so it holds nothing else.
#![forbid(unsafe_code)]

pub mod channel;
pub mod dns;
pub mod fetch;
pub mod http;
pub mod signature;
pub mod sums;
pub mod url;
