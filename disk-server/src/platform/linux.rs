//! Linux: nothing to serve.

/// There is nobody who would read it.
#[derive(Debug, thiserror::Error)]
#[error("QEMU reads QCOW2 itself: disks are served on FreeBSD")]
pub struct Needless;

/// Refuses.
pub fn serve() -> Result<(), Needless> {
    Err(Needless)
}
