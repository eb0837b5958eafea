//! Serves one QCOW2 disk, with what it stands on, as a device of the host (geom_gate(4)), for bhyve, which reads none.
//!
//! Two processes. The gate has the control device, which would let it answer for any such disk of the host; it sees what the kernel
//! asks, and no byte of an image means anything to it. The reader has the image's files and a stream to the gate, and parses what a
//! guest may have written. Both have given up everything else before the first request.
#![forbid(unsafe_code)]

mod fuzz;
pub mod image;
pub mod pace;
mod qcow2;
pub mod stream;

pub use fuzz::served as fuzz_served;
