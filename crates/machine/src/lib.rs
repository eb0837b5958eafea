//! The one model of a virtual machine, for both hypervisors. Pure data and rules; no I/O.
//!
//! * [`MachineSpec`] says what a machine is; [`MachineSpec::validate`] what a machine may be anywhere.
//! * [`HostCapabilities`] says what a host can do; [`HostCapabilities::check`] refuses a machine that it cannot run, with the reason.
//! * [`applies`] says which edits of a running machine act now and which at its next start.
//! * [`place`] gives each device its PCI place: the same on both hypervisors, and never moved by another device's coming or going.
//!
//! Which file or interface a disk or NIC is stands nowhere here: those come as descriptors, found by slot.
//! The encoding (postcard, JSON) grows only at the end of an enum; a new field has a default.
#![forbid(unsafe_code)]

mod ability;
mod applies;
mod ended;
mod host;
mod keyboards;
mod mac;
pub mod place;
mod spec;
mod uuid;
mod validate;

pub use ability::Ability;
pub use applies::{Change, When, applies};
pub use ended::{Ended, Exit};
pub use host::{HostCapabilities, Hypervisor, Limit, Unsupported};
pub use keyboards::layouts;
pub use mac::{BadMac, Mac};
pub use place::{BadDevice, Device, Place};
pub use spec::{
    Acceleration, Board, Boot, Bus, BusKind, Channel, Clock, Controller, Cpu, Disk, DiskRates, Format, FwCfg, Gdb, HostBridge,
    Limits, MachineSpec, Nic, NicModel, Screen, Seat, Share, Topology,
};
pub use uuid::Uuid;
pub use validate::{Invalid, limits};
