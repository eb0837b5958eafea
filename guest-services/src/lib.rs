//! What guest-services does with a guest's frames: pure. No descriptor, no clock, no randomness of its own.
//!
//! [`Port`] is one NIC. It takes the frames that came from it and gives those to send back; what it must do later it does in
//! [`Port::poll`], which wants to be called at [`Port::wakes`]. [`World`] is what all ports of a switch share: the names on it, and the
//! questions that wait for a resolver's answer.
//!
//! `port` is the way in; behind it `dhcp`, `six`, `dns` and `tcp`, on which are `http` and, once more, `dns`. `metadata` says what is served
//! over HTTP.
#![forbid(unsafe_code)]

pub mod bpf;
mod dhcp;
mod dns;
mod forward;
mod http;
mod metadata;
mod names;
mod port;
mod records;
mod six;
mod tcp;
mod token;
mod wire;

pub use forward::{Client, Forwarder, Question, Via};
pub use names::{BadName, Names};
pub use port::{BadPort, Frames, Identity, Port, World, largest_frame};

/// Time since some moment, which is the same for all.
pub type Now = std::time::Duration;
