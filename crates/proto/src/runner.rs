//! A machine's runner: the first process in its cell. Small and frozen: machines outlive upgrades of the suite.

use crate::{DiskId, DiskRates, MAX_FDS, NoFds, OneFd, UpTo, names::Text, protocol::protocol};
use serde::{Deserialize, Serialize};

/// What the runner is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// No hypervisor was started yet.
    Ready,
    /// The hypervisor was started and has not yet answered.
    Starting,
    /// The guest runs.
    Running,
    /// The guest is paused.
    Paused,
    /// The hypervisor has ended for good; the runner waits to be swept.
    Ended,
}

/// How a run of the hypervisor ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum End {
    /// The guest powered itself off, by itself or when asked.
    PowerOff,
    /// The guest rebooted; the hypervisor is started anew.
    Reboot,
    /// [`Reset`] ended it; the hypervisor is started anew.
    Reset,
    /// [`Kill`] ended it.
    Killed,
    /// The guest's kernel panicked.
    Panic,
    /// The hypervisor ended by itself or by a signal (code is then 128 + signal).
    Crash {
        /// Exit code.
        code: u8,
        /// The end of its standard error.
        words: Text<1024>,
    },
    /// Five quick ends in a row: it is not started again.
    RebootLoop,
}

/// Asks what the runner is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {}

/// See [`Status`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunnerState {
    /// What it is doing.
    pub phase: Phase,
    /// Times that the hypervisor was started.
    pub starts: u32,
    /// How the last run ended.
    pub last_end: Option<End>,
}

/// Starts the hypervisor for the first time. The reply comes when it has answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {}

/// Presses the power button, unless it was pressed since the hypervisor's last start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PowerButton {}

/// Ends the hypervisor at once; the guest loses what it had not written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kill {}

/// Presses the reset button: the hypervisor is ended and started anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reset {}

/// Stops the virtual CPUs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {}

/// Lets them run again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resume {}

/// Replaces the configuration for the next start (a guest's reboot included). Descriptor: the new one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configure {}

/// Asks for the host's end of the first serial line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakeSerial {}

/// Opens a new VNC connection to the screen and returns its other end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectScreen {}

/// Connects to a channel of the guest's and returns the other end. Refused as in use while another connection stands, as far as the
/// hypervisor can tell; bhyve closes a second one at once. A runner that is older than this operation closes the connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectChannel {
    /// Its place in the configuration, from 0.
    pub port: u8,
}

/// Asks for the host's end of a serial line by the port's number; of the first one [`TakeSerial`] does. A runner that is older than this
/// operation closes the connection, and has no other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakePort {
    /// 1 to 4.
    pub port: u8,
}

/// Joins a debugger, and returns its end: gdb's remote protocol. The guest stands still from then on, until the debugger lets it run. Refused
/// as in use while another one is connected. A runner that is older than this operation closes the connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectGdb {}

/// Takes the CD out of a drive, whether the guest has locked it or not. A runner that is older than this operation closes the connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Eject {
    /// Slot of the disk.
    pub slot: u8,
}

/// Keeps descriptors of layers that disks stand on, for the hypervisor's next start. Descriptors: one for each, in their order, opened for
/// reading only. A runner that is older than this operation closes the connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeepLayers {
    /// What each is.
    pub layers: Vec<LayerPlace>,
}

/// Where a layer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerPlace {
    /// Slot of the disk.
    pub slot: u8,
    /// How many layers are under it.
    pub at: u8,
}

/// Pulls a NIC's cable, or plugs it in again: its guest sees that, and asks for an address anew. A runner that is older than this operation
/// closes the connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetLink {
    /// Slot of the NIC.
    pub slot: u8,
    /// Plugged in.
    pub up: bool,
}

/// Has disks of a running guest go on in other files, which stand on those that they were in, all at one moment: what the guest writes from
/// then on goes there. Descriptors: the configuration for the next start, which says so too, then one for each disk, opened for reading and
/// writing. Those of what they now stand on came before, with [`KeepLayers`]. A disk that is there already stays: asked twice, it is done once.
/// Refused (other than for its time), nothing has changed. A runner that is older than this operation closes the connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwitchDisks {
    /// Which, each once.
    pub disks: Vec<DiskSwitch>,
}

/// A disk's next file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskSwitch {
    /// Slot of the disk.
    pub slot: u8,
    /// The file's name, by which it is known again.
    pub top: DiskId,
    /// How many layers are under it.
    pub at: u8,
    /// Its bytes pass by the host's cache.
    pub no_cache: bool,
}

/// Holds a disk of a running guest to rates; the configuration for the next start has to say them, too. A runner that is older than this
/// operation closes the connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitDisk {
    /// Slot of the disk.
    pub slot: u8,
    /// From now on.
    pub rates: DiskRates,
}

/// Has the hypervisor of a running guest make a disk larger, which its guest sees; and its file as long as that takes. Refused (other than
/// for its time), nothing has changed. A runner that is older than this operation closes the connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrowDisk {
    /// Slot of the disk.
    pub slot: u8,
    /// Bytes that it is to have; a multiple of 512.
    pub size: u64,
    /// Bytes that its file may then come to have.
    pub most: u64,
}

/// Asks for counters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {}

/// Counters since the hypervisor's start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatsState {
    /// The hypervisor's CPU time in nanoseconds.
    pub cpu_ns: u64,
    /// Of each disk, by slot.
    pub disks: Vec<DiskStats>,
}

/// Counters of one disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskStats {
    /// Slot.
    pub slot: u8,
    /// Bytes read by the guest.
    pub read_bytes: u64,
    /// Bytes written.
    pub write_bytes: u64,
    /// Reads.
    pub read_ops: u64,
    /// Writes.
    pub write_ops: u64,
}

/// Asks for the socket in the cell that the hypervisor connects to for a disk that is reached so. It listens. A runner that is older than this
/// operation closes the connection, and has none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakeDoor {
    /// The disk's slot.
    pub slot: u8,
}

/// Returns a seqpacket socket on which each change arrives as a [`RunnerEvent`], beginning with the present phase.
/// A reader that does not keep up is cut off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watch {}

/// One record of [`Watch`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RunnerEvent {
    /// The phase is now this.
    Phase(Phase),
    /// A run ended.
    Ended(End),
}

/// Ends the runner, and with it the cell; only when the hypervisor has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leave {}

/// Done, nothing to say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {}

protocol! {
    /// The protocol of a runner; its only client is the broker, over `RUN/vm/UUID.sock`.
    Runner = "runner", version 1, oldest 1, RunnerRequest {
        0 Status [NoFds] => RunnerState [NoFds];
        1 Start [NoFds] => Done [NoFds];
        2 PowerButton [NoFds] => Done [NoFds];
        3 Kill [NoFds] => Done [NoFds];
        4 Reset [NoFds] => Done [NoFds];
        5 Pause [NoFds] => Done [NoFds];
        6 Resume [NoFds] => Done [NoFds];
        7 Configure [OneFd] => Done [NoFds];
        8 TakeSerial [NoFds] => Done [OneFd];
        9 ConnectScreen [NoFds] => Done [OneFd];
        10 Stats [NoFds] => StatsState [NoFds];
        11 Watch [NoFds] => Done [OneFd];
        12 Leave [NoFds] => Done [NoFds];
        13 ConnectChannel [NoFds] => Done [OneFd];
        14 Eject [NoFds] => Done [NoFds];
        15 TakePort [NoFds] => Done [OneFd];
        16 ConnectGdb [NoFds] => Done [OneFd];
        17 KeepLayers [UpTo<MAX_FDS>] => Done [NoFds];
        18 SetLink [NoFds] => Done [NoFds];
        19 SwitchDisks [UpTo<MAX_FDS>] => Done [NoFds];
        20 LimitDisk [NoFds] => Done [NoFds];
        21 GrowDisk [NoFds] => Done [NoFds];
        22 TakeDoor [NoFds] => Done [OneFd];
    }
}
