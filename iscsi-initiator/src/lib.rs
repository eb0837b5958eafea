//! The machinery of iscsi-initiator, without any I/O: what a target and a hypervisor send comes in as bytes, and what they are sent goes out
//! likewise.
#![forbid(unsafe_code)]

pub mod bridge;
pub mod login;
pub mod pdu;
pub mod scsi;
pub mod session;
