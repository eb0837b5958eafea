//! Streams of machines: consoles, screens, channels, logs.

use super::Ref;
use crate::{Text, storage::LogKind};
use serde::{Deserialize, Serialize};

/// Attaches to a serial line; the descriptor is a stream socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineConsole {
    /// Which.
    pub machine: Ref,
    /// Wants to type.
    pub write: bool,
    /// Takes the keyboard over.
    pub take: bool,
    /// Number of the port, 1 to 4.
    pub port: u8,
}

/// An attached console.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsoleAttached {
    /// Whether this client may type.
    pub writer: bool,
    /// Bytes of scroll-back that the stream begins with.
    pub scrollback: u32,
}

/// Connects to the screen; the descriptor is a stream socket that speaks RFB (VNC, RFC 6143).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineScreen {
    /// Which.
    pub machine: Ref,
}

/// Connects to a channel of the guest's; the descriptor is a stream socket. One client at a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineChannel {
    /// Which machine.
    pub machine: Ref,
    /// The channel's name.
    pub channel: Text<63>,
}

/// Opens a machine's log for reading, older half first. To follow it, a watcher may come along as the last descriptor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineLog {
    /// Which machine.
    pub machine: Ref,
    /// Which log.
    pub log: LogKind,
    /// Whether what is written later is wanted, too.
    pub follow: bool,
}
