//! FreeBSD: a directory descriptor (capability mode), bhyve.

use super::Facts;
use nix::sys::socket::UnixAddr;
use skep_engine_bhyve::{BhyveRelease, Names, ScreenAddress};
use skep_machine::{HostCapabilities, Hypervisor, MachineSpec};
use skep_proto::InstanceId;
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

fn release(facts: &Facts) -> Option<BhyveRelease> {
    let major = facts.system.strip_prefix("FreeBSD ").and_then(|release| release.split('.').next());
    match major.and_then(|text| text.parse::<u32>().ok())? {
        13 => Some(BhyveRelease::V13),
        14 => Some(BhyveRelease::V14),
        15.. => Some(BhyveRelease::V15),
        _ => None,
    }
}

/// The hypervisor's configuration file. The vmm instance is named by skep's instance and the machine's id, as far as 32 characters go.
pub fn configure(spec: &MachineSpec, instance: InstanceId, facts: &Facts) -> Result<String, String> {
    let release = release(facts).ok_or_else(|| format!("{}: FreeBSD 13.2 or later is needed", facts.system))?;
    let machine: String = format!("{:032x}", spec.uuid.as_u128()).chars().take(26).collect();
    let mut names = Names::standard(&format!("sk{instance}{machine}"));
    if release < BhyveRelease::V15 {
        names.screen = ScreenAddress::Loopback;
    }
    skep_engine_bhyve::configure(spec, &names, release).map_err(|e| e.to_string())
}

/// How the firmware's device paths to the disk in a slot begin.
pub fn boot_path(spec: &MachineSpec, slot: u8) -> Option<Vec<u8>> {
    skep_engine_bhyve::boot_path(spec, slot)
}

/// Who runs the machines.
pub const HYPERVISOR: Hypervisor = Hypervisor::Bhyve;

/// Whether any disk can stand on layers, and do so while its machine runs: bhyve reads raw files and volumes, and QCOW2 by a server alone.
pub const LAYERS: bool = false;

/// Whether QCOW2 disks are served to it by processes of their own.
pub const SERVES: bool = true;

/// None: bhyve runs on the processor or not at all.
pub fn probe() -> Option<(String, Vec<u8>)> {
    None
}

/// Why a machine has no more CPUs than vmm(4) said.
pub const CPUS_WHY: &str = "it is hw.vmm.maxcpu, which loader.conf sets, and which is the number of the host's CPUs otherwise";

/// The largest screen of this release's bhyve.
pub fn screen(facts: &Facts) -> Option<(u16, u16)> {
    release(facts).map(skep_engine_bhyve::largest_screen)
}

/// What the hypervisor can do, before the cell is asked.
pub fn capabilities(memory_mib: u32) -> HostCapabilities {
    HostCapabilities::bhyve(memory_mib)
}
