//! The host's own network: one test at a time, which leaves it as it was.

use super::super::{instance, uplinks};
use nix::fcntl::OFlag;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use nix::sys::stat::Mode;
use skep_net_helper::platform::{Host, NetHost};
use skep_sys::freebsd::net;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Whether a tunnel takes nothing from strangers.
pub const GUARDS_TUNNELS: bool = false;

/// Frames begin at once.
pub const HEADER: usize = 0;
/// The kinds of a tap and of an end of a pair.
pub const KINDS: (&str, &str) = ("tap", "epair");
/// Whether an index may be given again.
pub const INDICES_RETURN: bool = true;
/// The loopback.
pub const LOOPBACK: &str = "lo0";

static ONE: Mutex<()> = Mutex::new(());

/// In run-tests each test is a process of its own; elsewhere those that count descriptors wait for each other.
pub fn own_descriptors() {}

/// How many descriptors are open.
pub fn open() -> usize {
    use nix::libc::{CTL_KERN, KERN_PROC, KERN_PROC_NFDS};
    let bytes = skep_sys::freebsd::ask::sysctl(&[CTL_KERN, KERN_PROC, KERN_PROC_NFDS, 0]).unwrap();
    usize::try_from(i32::from_ne_bytes(bytes[..4].try_into().unwrap())).unwrap()
}

/// A socket to configure interfaces by.
pub fn any_socket() -> OwnedFd {
    socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).unwrap()
}

/// The program, where the bundle has it or cargo built it.
pub fn program() -> PathBuf {
    let name = "skep-net-helper";
    let built = || env!("CARGO_BIN_EXE_skep-net-helper").into();
    std::env::var_os("SKEP_BIN_DIR").map_or_else(built, |dir| PathBuf::from(dir).join(name))
}

/// The kernel's network, as the helper has it: with its part outside of capability mode.
pub fn host() -> Host {
    Host::acquire(&mut None).unwrap().with_outside(&program(), instance(), &uplinks()).unwrap()
}

/// Whether the host forwards packets, after having it do so or not.
pub fn forwarding(set: Option<bool>) -> bool {
    let forward = c"net.inet.ip.forwarding";
    if let Some(on) = set {
        skep_sys::freebsd::set_sysctl_number(forward, on.into()).unwrap();
    }
    skep_sys::freebsd::sysctl_number(forward).unwrap() == 1
}

/// Names of the rules that are there.
pub fn rules(host: &mut Host) -> Vec<String> {
    host.anchors().unwrap()
}

/// The frames of one read of a port (`struct bpf_hdr`).
pub fn frames_of(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let captured = u32::from_ne_bytes(*rest.get(16..)?.first_chunk()?) as usize;
        let header = usize::from(u16::from_ne_bytes(*rest.get(24..)?.first_chunk()?));
        let frame = &rest[header..header + captured];
        rest = rest.get((header + captured).next_multiple_of(8)..).unwrap_or_default();
        Some(frame)
    })
}

/// The network that a test may change: what is made in it by skep's names goes at its end.
pub struct Network {
    made: Vec<String>,
    before: Vec<String>,
    _one: MutexGuard<'static, ()>,
}

impl Network {
    /// None, and a named skip, without root.
    pub fn own() -> Option<Self> {
        let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        if !nix::unistd::geteuid().is_root() {
            println!("SKIP {}: root is needed", std::thread::current().name().unwrap_or("?"));
            return None;
        }
        Some(Self { made: Vec::new(), before: net::list(any_socket().as_fd()).unwrap(), _one: one })
    }

    /// An interface of the host's: what is written to the descriptor comes in from outside.
    pub fn outside(&mut self, name: &str) -> OwnedFd {
        let socket = any_socket();
        let made = net::create(socket.as_fd(), "tap").unwrap();
        let tap = nix::fcntl::open(&*format!("/dev/{made}"), OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty()).unwrap();
        net::rename(socket.as_fd(), &made, name).unwrap();
        self.made.push(name.to_owned());
        tap
    }

    /// Sets an interface of the host up.
    pub fn up(&self, name: &str) {
        net::set_up(any_socket().as_fd(), name, true).unwrap();
    }

    /// An interface's hardware address.
    pub fn mac(&self, name: &str) -> [u8; 6] {
        let interfaces = nix::ifaddrs::getifaddrs().unwrap().filter(|i| i.interface_name == name);
        let mut links = interfaces.filter_map(|i| i.address?.as_link_addr()?.addr());
        links.next().unwrap()
    }

    /// Gives an interface of the host an address.
    pub fn address(&self, name: &str, ip: Ipv4Addr) {
        net::add_address(any_socket().as_fd(), name, ip, 24).unwrap();
    }

    /// Has an interface that was made otherwise go at the end, too.
    pub fn will_end(&mut self, name: &str) {
        self.made.push(name.to_owned());
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let socket = any_socket();
        let ours = format!("sk{}", instance());
        for name in net::list(socket.as_fd()).unwrap() {
            if name.starts_with(&ours) || self.made.contains(&name) {
                // One end of a pair takes the other along.
                let _ = net::destroy(socket.as_fd(), &name);
            }
        }
        // Rules of switches that are gone now; the next test's frames would meet them.
        let swept = host().sweep(instance());
        if !std::thread::panicking() {
            swept.unwrap();
            assert_eq!(net::list(socket.as_fd()).unwrap(), self.before, "the host is as it was");
        }
    }
}
