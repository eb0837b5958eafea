//! What each process of the suite may do: one table per process.
//!
//! These tables are the only source of three things: `skep-sandbox` enforces them, `skep audit` holds the kernel's answers against
//! them, and `docs/rights.md` is printed from them. They are data; nothing here asks the system anything.
#![forbid(unsafe_code)]

mod base;
mod table;

pub mod broker;
pub mod console;
pub mod disk;
pub mod fetcher;
pub mod frontend;
pub mod hypervisor;
pub mod initiator;
pub mod net;
pub mod runner;
pub mod services;
pub mod storage;
pub mod vm_runner;

pub use base::{BASE, CONNECTION, LISTENER, LOG, LOG_OF_ACTS, LOOP_CONNECTION, READY, SYSLOG};
pub use table::*;

/// Every process, in the order of the documentation.
pub const ALL: &[&Process] = &[
    &frontend::TABLE,
    &broker::TABLE,
    &storage::TABLE,
    &storage::JOB,
    &net::TABLE,
    &net::OUTSIDE,
    &vm_runner::TABLE,
    &runner::TABLE,
    &hypervisor::TABLE,
    &hypervisor::LOOK_UPS,
    &console::TABLE,
    &services::TABLE,
    &fetcher::TABLE,
    &initiator::TABLE,
    &disk::TABLE,
    &disk::READER,
];

/// What else is used in place of a table of [`ALL`], and when. Each has all that its table has.
pub const VARIANTS: &[(&Process, &Process, &str)] = &[
    (&runner::TABLE, &runner::TABLE_SHARES, "in cells that share directories of the host"),
    (&runner::TABLE, &runner::TABLE_REMOTE, "in cells with iSCSI disks, which share no directories"),
    (&hypervisor::TABLE, &hypervisor::TABLE_KVM, "in cells that have `/dev/kvm`"),
    (&hypervisor::TABLE, &hypervisor::TABLE_SHARES, "in cells that share directories of the host"),
    (&hypervisor::TABLE, &hypervisor::TABLE_REMOTE, "in cells with iSCSI disks, which share no directories"),
];
