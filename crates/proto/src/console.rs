//! A machine's console-proxy: everything that a guest sends to a serial line or a screen passes through it.

use crate::{NoFds, OneFd, protocol::protocol};
use serde::{Deserialize, Serialize};
use std::os::fd::OwnedFd;

/// Attaches a stream to the serial line: it gets the scroll-back, then what comes. Descriptor: a stream socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachSerial {
    /// Wants to type, too. One may at a time.
    pub write: bool,
    /// Takes the keyboard over from whoever has it; he goes on as a reader and is told.
    pub take: bool,
}

/// See [`AttachSerial`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {
    /// Whether this stream may type.
    pub writer: bool,
    /// Bytes of scroll-back that it gets first.
    pub scrollback: u32,
}

/// Joins a client's stream to a connection to the screen, or to a channel. Descriptors: the client's stream, the hypervisor's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachScreen {}

/// Asks for counters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {}

/// See [`Status`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsoleState {
    /// Streams attached to the serial line.
    pub readers: u32,
    /// Whether one of them types.
    pub writer: bool,
    /// Screens attached.
    pub screens: u32,
    /// Bytes that came out of the serial line.
    pub received: u64,
    /// Bytes that could not be written to the log.
    pub unlogged: u64,
}

/// Done, nothing to say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {}

protocol! {
    /// The protocol of a console-proxy; its only client is the broker, over `RUN/console/UUID.sock`.
    Console = "console-proxy", version 1, oldest 1, ConsoleRequest {
        0 AttachSerial [OneFd] => Attached [NoFds];
        1 AttachScreen [[OwnedFd; 2]] => Done [NoFds];
        2 Status [NoFds] => ConsoleState [NoFds];
    }
}
