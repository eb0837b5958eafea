//! Serves one disk as a device of the host (geom_gate(4)), for bhyve, which reads nothing but files and devices.
//!
//! Two processes. The gate has the control device, which would let it answer for any such disk of the host; it sees what the kernel
//! asks, passes it on over a stream, in NBD, and no byte of a disk means anything to it. At the other end of the stream is the reader of a QCOW2 disk,
//! which has the image's files and parses what a guest may have written; or the iscsi-initiator of an iSCSI disk, which is its own program. Both have
//! given up everything else before the first request.
#![forbid(unsafe_code)]

mod fuzz;
pub mod image;
pub mod pace;
mod qcow2;

pub use fuzz::served as fuzz_served;
