//! The messages that skep's processes send each other.
//!
//! One record is one `sendmsg(2)` on a UNIX seqpacket socket: a postcard-encoded header, a body, and the descriptors that belong to
//! it. Every request is a struct of its own; its reply and the descriptors of both directions are bound to it by [`Call`], so a
//! handler that answers with something else does not compile. This crate does no I/O.
//!
//! * Each helper has one protocol: [`storage`], [`net`], [`cell`] (the spawner), [`runner`], [`console`], [`services`], [`iscsi`], [`broker`].
//! * Enums only grow at their end; `tests/golden.rs` holds the bytes of every message.
//! * Names and ids validate when they are decoded; a value that exists is a valid value.
#![forbid(unsafe_code)]

pub mod broker;
pub mod cell;
pub mod console;
mod cpus;
mod disk_order;
pub mod fetch;
mod forward;
pub mod ids;
pub mod iscsi;
mod line;
mod log;
pub mod marks;
pub mod names;
pub mod net;
pub mod pci;
mod protocol;
mod rate;
pub mod refusal;
mod resize;
pub mod runner;
mod secret;
pub mod services;
mod sound;
pub mod storage;
mod subnet;
mod subnet6;
pub mod tunnel;
pub mod upload;
pub mod vars;
pub mod wire;

pub use cpus::{BadCpus, CpuList, CpuPins};
pub use disk_order::{DiskCounts, DiskOrder};
pub use forward::{BadForward, Forward, Forwards, Port, Transport};
pub use ids::{DiskId, GroupId, InstanceId, MachineId, NicId, OperationId, RequestId, SnapshotId, SwitchId, TraceId, UserId};
pub use line::{BadPort, SPEEDS, SerialPort};
pub use names::{DiskName, GroupName, IfName, MachineName, NicName, Share, ShareName, SnapshotName, SwitchName, Text, UserName};
pub use protocol::{Call, FdCount, Fds, Helper, NoFds, OneFd, Op, UpTo};
pub use rate::{BadDiskRate, BadRate, DiskRates, Rate, Rates};
pub use refusal::{Reason, Refusal};
pub use secret::{BadSecret, Secret};
pub use sound::{BadDsp, Dsp, SoundDevice};
pub use subnet::{BadSubnet, Subnet, overlap};
pub use subnet6::{BadSubnet6, Choice6, HOST_LINK_LOCAL, Subnet6, link_local, overlap6};
pub use vars::VarName;

/// Bytes in the largest record, either way (DESIGN.md, settled 6: 13.2's default socket space is 8 KiB).
pub const MAX_RECORD: usize = 8000;
/// Descriptors in one record, at most.
pub const MAX_FDS: usize = 16;
