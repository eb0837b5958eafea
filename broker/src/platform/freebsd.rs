//! FreeBSD: a directory descriptor (capability mode), bhyve.

use nix::sys::socket::UnixAddr;
use skep_machine::{HostCapabilities, MachineSpec};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

/// RUN, where the sockets are.
#[derive(Debug, Clone)]
pub struct RunDir(Arc<OwnedFd>);

impl RunDir {
    /// Opens the directory.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(Arc::new(std::fs::File::open(path)?.into())))
    }
    /// Its descriptor.
    pub fn held(&self) -> Option<BorrowedFd<'_>> {
        Some(self.0.as_fd())
    }
    /// Connects to the socket `name`, at once or not at all.
    pub fn connect(&self, name: &str) -> io::Result<OwnedFd> {
        let socket = super::seqpacket()?;
        skep_sys::freebsd::connectat(self.0.as_fd(), socket.as_fd(), &UnixAddr::new(name)?)?;
        Ok(socket)
    }
}

/// The hypervisor's configuration file.
pub fn configure(spec: &MachineSpec) -> Result<String, String> {
    skep_engine_bhyve::configure(spec, &skep_engine_bhyve::Fds::standard()).map(|launch| launch.config).map_err(|e| e.to_string())
}

/// What the hypervisor can do, before the cell is asked.
pub fn capabilities(memory_mib: u32) -> HostCapabilities {
    HostCapabilities::bhyve(memory_mib)
}
