//! Linux: paths (Landlock limits them), QEMU.

use super::Facts;
use nix::sys::socket::{UnixAddr, connect};
use skep_engine_qemu::Fds;
use skep_machine::{HostCapabilities, Hypervisor, MachineSpec};
use skep_proto::InstanceId;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// RUN, where the sockets are.
#[derive(Debug, Clone)]
pub struct RunDir(PathBuf);

impl RunDir {
    /// Remembers the path.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(path.to_owned()))
    }
    /// Its descriptor: none.
    pub fn held(&self) -> Option<BorrowedFd<'_>> {
        None
    }
    /// Connects to the socket `name`, at once or not at all.
    pub fn connect(&self, name: &str) -> io::Result<OwnedFd> {
        let socket = super::seqpacket()?;
        connect(socket.as_raw_fd(), &UnixAddr::new(&self.0.join(name))?)?;
        Ok(socket)
    }
}

/// The hypervisor's configuration file.
pub fn configure(spec: &MachineSpec, _instance: InstanceId, _facts: &Facts) -> Result<String, String> {
    skep_engine_qemu::configure(spec, &Fds::standard()).map(|launch| launch.config).map_err(|e| e.to_string())
}

/// How the firmware's device paths to the disk in a slot begin.
pub fn boot_path(spec: &MachineSpec, slot: u8) -> Option<Vec<u8>> {
    skep_engine_qemu::boot_path(spec, slot)
}

/// Who runs the machines.
pub const HYPERVISOR: Hypervisor = Hypervisor::Qemu;

/// Whether disks can stand on layers.
pub const LAYERS: bool = true;

/// Whether QCOW2 disks are served to it by processes of their own.
pub const SERVES: bool = false;

/// The configuration and the firmware of a machine that shows whether KVM works.
pub fn probe() -> Option<(String, Vec<u8>)> {
    skep_engine_qemu::probe(true).ok()
}

/// Why a machine has no more CPUs than the host's kernel said, which is asked elsewhere only.
pub const CPUS_WHY: &str = "as its kernel says";

/// The largest screen of this host's hypervisor, where releases differ.
pub fn screen(_facts: &Facts) -> Option<(u16, u16)> {
    None
}

/// What the hypervisor can do, before the cell is asked.
pub fn capabilities(memory_mib: u32) -> HostCapabilities {
    HostCapabilities::qemu(memory_mib)
}
