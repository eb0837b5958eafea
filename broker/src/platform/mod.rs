//! What differs between the hosts.

#[cfg(target_os = "freebsd")]
mod freebsd;
#[cfg(target_os = "linux")]
mod linux;

#[cfg(target_os = "freebsd")]
pub use freebsd::{CPUS_WHY, HYPERVISOR, LAYERS, RunDir, SERVES, boot_path, capabilities, configure, probe, screen};
#[cfg(target_os = "linux")]
pub use linux::{CPUS_WHY, HYPERVISOR, LAYERS, RunDir, SERVES, boot_path, capabilities, configure, probe, screen};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socket, sockopt};
use std::io;
use std::os::fd::OwnedFd;

/// A socket that connects at once or not at all: a peer that does not accept must not hold us up.
fn seqpacket() -> io::Result<OwnedFd> {
    let fd = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)?;
    // Room for a full record, as skep_sys::sock gives all others.
    setsockopt(&fd, sockopt::SndBuf, &(64 * 1024))?;
    setsockopt(&fd, sockopt::RcvBuf, &(64 * 1024))?;
    Ok(fd)
}

/// Where systems keep the certificates that they trust: Debian and its kin, Red Hat's, Alpine and FreeBSD.
const BUNDLES: [&str; 3] = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

fn roots() -> Vec<u8> {
    let most = skep_proto::fetch::MAX_ROOTS;
    BUNDLES.iter().find_map(|path| std::fs::read(path).ok().filter(|bytes| bytes.len() <= most)).unwrap_or_default()
}

/// Facts about the host, asked before the sandbox is entered.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Operating system and release.
    pub system: String,
    /// Logical CPUs.
    pub cpus: u32,
    /// Bytes of memory.
    pub memory: u64,
    /// Certificates of authorities that the host trusts (PEM), as they are now.
    pub roots: Vec<u8>,
}

impl Facts {
    /// Asks.
    pub fn ask() -> Self {
        let system = nix::sys::utsname::uname()
            .map_or_else(|_| String::new(), |u| format!("{} {}", u.sysname().to_string_lossy(), u.release().to_string_lossy()));
        Self {
            system,
            cpus: std::thread::available_parallelism().ok().and_then(|n| u32::try_from(n.get()).ok()).unwrap_or(1),
            memory: skep_sys::process::physical_memory(),
            roots: roots(),
        }
    }
}
