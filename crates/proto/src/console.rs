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

/// The same for a serial line by its port's number. A console-proxy that is older than this operation closes the connection, and has the
/// first one only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachPort {
    /// 1 to 4.
    pub port: u8,
    /// See [`AttachSerial`].
    pub write: bool,
    /// See [`AttachSerial`].
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

/// Joins a client's stream to a connection to the screen, to a channel, or to a debugger's stub. Descriptors: the client's stream, the hypervisor's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachScreen {}

/// Asks for counters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {}

/// See [`Status`]; of all serial lines together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsoleState {
    /// Streams attached to serial lines.
    pub readers: u32,
    /// Whether one of them types.
    pub writer: bool,
    /// Screens attached.
    pub screens: u32,
    /// Bytes that came out of them.
    pub received: u64,
    /// Bytes that could not be written to their logs.
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
        3 AttachPort [OneFd] => Attached [NoFds];
    }
}
