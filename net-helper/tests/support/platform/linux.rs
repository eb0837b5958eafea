//! A network namespace for each test.

use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::sched::{CloneFlags, unshare};
use skep_net_helper::platform::NetHost;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, OwnedFd};

/// Whether a tunnel takes nothing from strangers.
pub const GUARDS_TUNNELS: bool = true;

/// `struct virtio_net_hdr`, all zero: nothing offloaded.
pub const HEADER: usize = 10;
/// The kinds of a tap and of an end of a pair.
pub const KINDS: (&str, &str) = ("tun", "veth");
/// Whether an index may be given again.
pub const INDICES_RETURN: bool = false;
/// The loopback.
pub const LOOPBACK: &str = "lo";

/// Gives the calling thread, and those that it makes, a table of descriptors that no other test changes.
pub fn own_descriptors() {
    unshare(CloneFlags::CLONE_FILES).unwrap();
}

/// How many descriptors are open.
pub fn open() -> usize {
    std::fs::read_dir("/proc/thread-self/fd").unwrap().count()
}

/// The kernel's network, as the helper has it.
pub fn host() -> skep_net_helper::platform::Host {
    skep_net_helper::platform::Host::acquire(&mut None).unwrap()
}

/// Whether the host forwards packets, after having it do so or not.
pub fn forwarding(set: Option<bool>) -> bool {
    let forward = "/proc/sys/net/ipv4/ip_forward";
    if let Some(on) = set {
        std::fs::write(forward, if on { "1" } else { "0" }).unwrap();
    }
    std::fs::read_to_string(forward).unwrap().trim() == "1"
}

/// Names of the rules that are there.
pub fn rules(host: &mut skep_net_helper::platform::Host) -> Vec<String> {
    host.tables().unwrap()
}

/// The frames of one read of a port.
pub fn frames_of(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::once(bytes)
}

/// The network that a test may change; it ends with the thread.
pub struct Network(());

impl Network {
    /// Moves the calling thread into an empty network namespace. None, and a named skip, without root.
    pub fn own() -> Option<Self> {
        own_descriptors();
        if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
            println!("SKIP {}: a network namespace: {error}", std::thread::current().name().unwrap_or("?"));
            return None;
        }
        Some(Self(()))
    }

    /// The calling thread's, which is in one of its own already.
    pub fn this() -> Self {
        Self(())
    }

    /// An interface of the host's: what is written to the descriptor comes in from outside.
    pub fn outside(&mut self, name: &str) -> OwnedFd {
        let tun = std::fs::File::options().read(true).write(true).open("/dev/net/tun").unwrap();
        skep_sys::linux::tun::set_tap(tun.as_fd(), name).unwrap();
        tun.into()
    }

    /// Everything goes with the namespace.
    pub fn will_end(&mut self, _name: &str) {}

    /// Sets an interface of the host up.
    pub fn up(&self, name: &str) {
        host().set_up(&name.parse().unwrap(), true).unwrap();
    }

    /// An interface's hardware address.
    pub fn mac(&self, name: &str) -> [u8; 6] {
        let interfaces = nix::ifaddrs::getifaddrs().unwrap().filter(|i| i.interface_name == name);
        let mut links = interfaces.filter_map(|i| i.address?.as_link_addr()?.addr());
        links.next().unwrap()
    }

    /// Gives an interface of the host an address.
    pub fn address(&self, name: &str, ip: Ipv4Addr) {
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet;
        (message.header.prefix_len, message.header.index) = (24, nix::net::if_::if_nametoindex(name).unwrap());
        message.attributes = vec![AddressAttribute::Local(IpAddr::V4(ip)), AddressAttribute::Address(IpAddr::V4(ip))];
        let mut request = NetlinkMessage::from(RouteNetlinkMessage::NewAddress(message));
        request.header.flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE;
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        let socket = netlink_sys::Socket::new(netlink_sys::protocols::NETLINK_ROUTE).unwrap();
        socket.send_to(&bytes, &netlink_sys::SocketAddr::new(0, 0), 0).unwrap();
        let (answer, _) = socket.recv_from_full().unwrap();
        let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer).unwrap();
        assert!(matches!(answer.payload, NetlinkPayload::Error(ref e) if e.code.is_none()), "{answer:?}");
    }
}
