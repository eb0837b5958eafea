//! The rights of net-helper.

use crate::base::{CONNECTION, LISTENER, LOG, LOG_OF_ACTS, READY, SYSLOG};
use crate::table::*;

/// `TUNSETIFF` (linux/if_tun.h).
const TUNSETIFF: u64 = 0x4004_54ca;

/// See the module.
pub static TABLE: Process = Process {
    name: "net-helper",
    program: "skep-net-helper",
    task: "makes bridges, taps, tunnels and pairs, and keeps switches apart from the rest",
    uid: Uid::Own,
    namespaces: &[Namespace::Ipc, Namespace::Uts],
    capabilities: &[
        (Capability::NetAdmin, "interfaces are made with it, and rules of nf_tables"),
        (Capability::NetRaw, "packet sockets on its own taps, for guest-services"),
    ],
    network: Network::Host("bridges, taps and uplinks are interfaces of the host"),
    descriptors: &[
        LISTENER,
        CONNECTION,
        READY,
        LOG_OF_ACTS,
        LOG,
        SYSLOG,
        Descriptor {
            name: "netlink",
            kind: FdKind::Netlink,
            most: Most::N(1),
            rights: &["READ", "WRITE", "EVENT"],
            ioctls: &[],
            why: "Linux: rtnetlink, connected to the kernel",
        },
        Descriptor {
            name: "rules",
            kind: FdKind::Netfilter,
            most: Most::N(1),
            rights: &["READ", "WRITE", "EVENT"],
            ioctls: &[],
            why: "Linux: nf_tables, connected to the kernel",
        },
        Descriptor {
            name: "listeners",
            kind: FdKind::SockDiag,
            most: Most::N(1),
            rights: &["READ", "WRITE", "EVENT"],
            ioctls: &[],
            why: "Linux: sock_diag, connected to the kernel: which ports the host itself listens on",
        },
        Descriptor {
            name: "generic",
            kind: FdKind::GenericNetlink,
            most: Most::N(1),
            rights: &["READ", "WRITE", "EVENT"],
            ioctls: &[],
            why: "Linux: generic netlink, connected to the kernel: keys of WireGuard",
        },
        Descriptor {
            name: "interfaces",
            kind: FdKind::Unix,
            most: Most::N(1),
            rights: &["IOCTL"],
            ioctls: INTERFACE_IOCTLS,
            why: "FreeBSD: an unbound socket that carries the requests about interfaces",
        },
        Descriptor {
            name: "addresses",
            kind: FdKind::Inet,
            most: Most::N(1),
            rights: &["IOCTL"],
            ioctls: ADDRESS_IOCTLS,
            why: "FreeBSD: the same, about IPv4 addresses of switches and keys of WireGuard, which take a socket of that family",
        },
        Descriptor {
            name: "addresses6",
            kind: FdKind::Inet,
            most: Most::N(1),
            rights: &["IOCTL"],
            ioctls: ADDRESS6_IOCTLS,
            why: "FreeBSD: the same, about the link-local addresses inside of WireGuard",
        },
        Descriptor {
            name: "pf",
            kind: FdKind::Device("pf"),
            most: Most::N(1),
            rights: &["IOCTL"],
            ioctls: PF_IOCTLS,
            why: "FreeBSD: rules in anchors of skep's, from the part outside of capability mode when the first subnet is made",
        },
        Descriptor {
            name: "outside",
            kind: FdKind::Unix,
            most: Most::N(1),
            rights: &["READ", "WRITE", "EVENT"],
            ioctls: &[],
            why: "FreeBSD: to the part outside of capability mode, which makes and counts taps, sends netgraph messages, opens /dev/pf and /dev/bpf, connects sockets, and has the host forward packets",
        },
        Descriptor {
            name: "tap",
            kind: FdKind::Device("/dev/net/tun"),
            most: Most::N(1),
            rights: TAP_RIGHTS,
            ioctls: TAP_IOCTLS,
            why: "while an operation makes it; sent to the broker and closed",
        },
    ],
    paths: Paths::Only(&[
        PathRule {
            place: Place::Exact("/proc/sys/net/ipv4/ip_forward"),
            access: Access::ReadWriteFile,
            why: "while a switch has a way out, the host forwards its packets",
        },
        PathRule {
            place: Place::Exact("/dev/net/tun"),
            access: Access::ReadWriteFile,
            why: "each tap is an open descriptor of it. Started by root, the node is its own, in a mount namespace made for that: the host's may be root's alone",
        },
    ]),
    syscalls: &[
        Syscalls {
            names: &["openat"],
            why: "opens /dev/net/tun for each tap, and what says whether the host forwards; Landlock allows nothing else",
        },
        Syscalls {
            names: &["socket:packet", "bind"],
            why: "packet sockets on its own taps, with a filter that is locked before they are bound",
        },
        Syscalls { names: &["socket:udp", "socket:udp6", "connect"], why: "sockets to the host's resolvers" },
        Syscalls {
            names: &["socket:tcp", "socket:tcp6"],
            why: "connections for image-fetcher, to public addresses, and for iscsi-initiator, to portals that the administrator named; Landlock lets it connect, which all others may not",
        },
    ],
    ioctls: &[(TUNSETIFF, "makes a tap of an open /dev/net/tun")],
    max_descriptors: 64,
    operations: &[
        Operation {
            name: "CreateSwitch",
            does: "makes a bridge, sets it up, and makes the uplink its member and up",
            test: "a_switch_takes_and_releases_its_uplink",
        },
        Operation {
            name: "DeleteSwitch",
            does: "deletes a bridge on which nothing of skep's is",
            test: "a_switch_with_taps_is_not_deleted",
        },
        Operation { name: "CreateTap", does: "makes a tap, a member of a bridge, up", test: "two_taps_on_a_switch_pass_frames" },
        Operation {
            name: "MoveTap",
            does: "makes a tap a member of another bridge, or of none",
            test: "a_moved_tap_hears_its_new_switch_only",
        },
        Operation { name: "DeleteTap", does: "deletes a tap", test: "a_tap_ends_with_its_descriptor_or_when_deleted" },
        Operation { name: "CountTaps", does: "reads counters of taps", test: "a_taps_counters_are_those_of_its_guest" },
        Operation { name: "ListInterfaces", does: "reads the list of interfaces", test: "interfaces_are_listed_in_pages" },
        Operation {
            name: "CreateTunnel",
            does: "makes a VXLAN interface from an address of an uplink, or over one of WireGuard with this host's key, a member of a bridge, up, and rules that keep strangers from it",
            test: "a_tunnel_joins_its_switch_and_is_made_anew_when_it_should_differ",
        },
        Operation {
            name: "HostKey",
            does: "says this host's public key of WireGuard, which an interface that is there for a moment makes of the private one",
            test: "a_tunnel_goes_through_wireguard_where_the_kernel_has_it",
        },
        Operation {
            name: "DeleteTunnel",
            does: "deletes a VXLAN interface, the one of WireGuard beneath it, and its rules",
            test: "a_tunnel_joins_its_switch_and_is_made_anew_when_it_should_differ",
        },
        Operation {
            name: "CreatePair",
            does: "makes two interfaces joined like a cable, each a member of a bridge or of none, up",
            test: "a_pair_carries_frames_from_switch_to_switch",
        },
        Operation {
            name: "SetGateway",
            does: "gives a bridge private addresses of the host's, with the rules that keep it apart, or takes both",
            test: "guests_of_a_nat_switch_reach_what_the_host_reaches_and_not_the_host",
        },
        Operation {
            name: "CheckPort",
            does: "asks whether the host itself listens on a port",
            test: "a_port_that_the_host_listens_on_is_not_led_away",
        },
        Operation {
            name: "OpenPort",
            does: "opens those frames of a tap that are for guests' services",
            test: "a_port_shows_what_is_for_services_and_nothing_else",
        },
        Operation {
            name: "GuardTap",
            does: "has a tap's guest send only from his own addresses",
            test: "a_guarded_guest_sends_only_as_who_he_is",
        },
        Operation {
            name: "LimitTap",
            does: "limits how much goes through a tap, each way, or lifts the limits",
            test: "what_goes_through_a_limited_tap_is_held_each_way",
        },
        Operation {
            name: "OpenResolvers",
            does: "opens a UDP socket to each resolver that the administrator gave",
            test: "a_socket_to_a_resolver_sends_to_it_alone",
        },
        Operation {
            name: "ConnectServer",
            does: "begins a TCP connection to a public address, or to one that the administrator named",
            test: "no_connection_leads_inside",
        },
        Operation { name: "DeletePair", does: "deletes both", test: "a_pair_carries_frames_from_switch_to_switch" },
        Operation {
            name: "CreateGraphSwitch",
            does: "FreeBSD: has a bridge of netgraph made, to which an uplink is joined",
            test: "a_switch_of_netgraph_carries_frames_and_the_host_is_not_on_it",
        },
    ],
    freebsd: FreeBsd {
        capability_mode: true,
        root: Root::Always,
        note: "keeps uid 0: the kernel asks for root at each request about interfaces, and for root the limits of the socket are \
               documentation, since capability mode lets root make another (FREEBSD 13 to 15). Requests carry names that the kernel cannot \
               limit; the helper checks them",
    },
};

/// Its part outside of capability mode (FreeBSD).
pub static OUTSIDE: Process = Process {
    name: "net-helper-outside",
    program: "skep-net-helper",
    task: "makes and counts taps, sends netgraph messages and opens pf and bpf, and connects sockets, for net-helper (FreeBSD)",
    uid: Uid::Own,
    namespaces: &[],
    capabilities: &[],
    network: Network::Host("nodes of interfaces are the host's"),
    descriptors: &[
        Descriptor {
            name: "requests",
            kind: FdKind::Unix,
            most: Most::N(1),
            rights: &["READ", "WRITE", "EVENT"],
            ioctls: &[],
            why: "from net-helper, which made the pair and this process",
        },
        Descriptor {
            name: "interfaces",
            kind: FdKind::Unix,
            most: Most::N(1),
            rights: &["IOCTL"],
            ioctls: TAP_MAKING_IOCTLS,
            why: "an unbound socket that carries the requests that make a tap",
        },
        Descriptor {
            name: "netgraph",
            kind: FdKind::Netgraph,
            most: Most::N(1),
            rights: &["READ", "WRITE", "EVENT", "CONNECT"],
            ioctls: &[],
            why: "carries the control messages",
        },
        Descriptor {
            name: "tap",
            kind: FdKind::Device("tap"),
            most: Most::N(1),
            rights: TAP_RIGHTS,
            ioctls: TAP_IOCTLS,
            why: "while it is sent to net-helper",
        },
        Descriptor {
            name: "pf",
            kind: FdKind::Device("pf"),
            most: Most::N(1),
            rights: &["IOCTL"],
            ioctls: PF_IOCTLS,
            why: "while it is sent to net-helper",
        },
        Descriptor {
            name: "port",
            kind: FdKind::Packet,
            most: Most::N(1),
            rights: &["READ", "WRITE", "EVENT", "IOCTL"],
            ioctls: super::services::FRAME_IOCTLS,
            why: "while it is sent to net-helper: bound to a tap, and locked",
        },
        Descriptor {
            name: "server",
            kind: FdKind::Inet,
            most: Most::N(1),
            rights: &["READ", "WRITE", "EVENT", "GETSOCKOPT", "GETPEERNAME", "GETSOCKNAME"],
            ioctls: &[],
            why: "while it is sent to net-helper: connected to a resolver, or begun to be to a server of images",
        },
    ],
    paths: Paths::Unrestricted("FreeBSD alone has it"),
    syscalls: &[],
    ioctls: &[],
    max_descriptors: 16,
    operations: &[
        Operation {
            name: "Make, Remove",
            does: "makes and removes bridge nodes whose names are the instance's",
            test: "a_switch_of_netgraph_carries_frames_and_the_host_is_not_on_it",
        },
        Operation {
            name: "Join, Leave",
            does: "joins interfaces of the instance and uplinks to them",
            test: "a_switch_of_netgraph_carries_frames_and_the_host_is_not_on_it",
        },
        Operation {
            name: "MakeTap",
            does: "makes a tap whose name is the instance's, and opens it; none that is there already",
            test: "the_sender_opens_no_tap_that_it_has_not_made",
        },
        Operation {
            name: "Count",
            does: "reads the counters of a tap of the instance",
            test: "a_taps_counters_are_those_of_its_guest",
        },
        Operation {
            name: "Guard",
            does: "puts a program of bpf between a tap of the instance and what it is a member of, by which its guest sends from his own addresses alone",
            test: "a_guarded_guest_sends_only_as_who_he_is",
        },
        Operation {
            name: "OpenPort",
            does: "opens those frames of a tap of the instance that are for guests' services",
            test: "a_port_shows_what_is_for_services_and_nothing_else",
        },
        Operation {
            name: "OpenRules, Forward, Routes, IsTaken",
            does: "opens /dev/pf; reads and sets whether the host forwards packets of IPv4; lists its routes; tries whether a port is free",
            test: "guests_of_a_nat_switch_reach_what_the_host_reaches_and_not_the_host",
        },
        Operation {
            name: "Connect",
            does: "connects a socket; net-helper, which may not, has looked at the address",
            test: "no_connection_leads_inside",
        },
        Operation {
            name: "Bridges, Members",
            does: "lists them",
            test: "a_switch_of_netgraph_carries_frames_and_the_host_is_not_on_it",
        },
    ],
    freebsd: FreeBsd {
        capability_mode: false,
        root: Root::Always,
        note: "each netgraph message names its node, which capability mode refuses (ECAPMODE, EDESTADDRREQ; 13 to 15), and the kernel asks \
               for root; taps are opened by path, since a descriptor of /dev would lead to the host's disks, too; an interface's counters \
               are a sysctl(3) that capability mode refuses, as are routes and whether the host forwards packets; it refuses connect(2), too. So this process does \
               nothing else: it reads typed requests from net-helper alone, and checks each name for itself",
    },
};

const fn request(direction: u64, group: u8, number: u8, size: u64) -> u64 {
    direction | size << 16 | (group as u64) << 8 | number as u64
}
const IN: u64 = 0x8000_0000;
const OUT: u64 = 0x4000_0000;
const VOID: u64 = 0x2000_0000;
/// Sizes of `struct ifreq`, `ifconf`, `ifdrv` and `ifgroupreq` on 64-bit FreeBSD.
const IFREQ: u64 = 32;
const IFCONF: u64 = 16;
const IFDRV: u64 = 40;
const IFGROUPREQ: u64 = 40;
/// Of `struct wg_data_io`.
const WG: u64 = 32;

/// Requests about interfaces (FreeBSD, sys/sockio.h).
pub const INTERFACE_IOCTLS: &[u64] = &[
    request(IN, b'i', 16, IFREQ),             // SIOCSIFFLAGS
    request(IN | OUT, b'i', 17, IFREQ),       // SIOCGIFFLAGS
    request(IN | OUT, b'i', 32, IFREQ),       // SIOCGIFINDEX
    request(IN | OUT, b'i', 36, IFCONF),      // SIOCGIFCONF
    request(IN, b'i', 40, IFREQ),             // SIOCSIFNAME
    request(IN, b'i', 41, IFREQ),             // SIOCSIFDESCR
    request(IN | OUT, b'i', 42, IFREQ),       // SIOCGIFDESCR
    request(IN | OUT, b'i', 51, IFREQ),       // SIOCGIFMTU
    request(IN, b'i', 52, IFREQ),             // SIOCSIFMTU
    request(IN, b'i', 121, IFREQ),            // SIOCIFDESTROY
    request(IN, b'i', 123, IFDRV),            // SIOCSDRVSPEC
    request(IN | OUT, b'i', 123, IFDRV),      // SIOCGDRVSPEC
    request(IN | OUT, b'i', 124, IFREQ),      // SIOCIFCREATE2
    request(IN, b'i', 135, IFGROUPREQ),       // SIOCAIFGROUP
    request(IN | OUT, b'i', 136, IFGROUPREQ), // SIOCGIFGROUP
    request(IN, b'i', 137, IFGROUPREQ),       // SIOCDIFGROUP
];

/// Requests about IPv4 addresses of interfaces, and those of WireGuard, which take a socket of that family, too.
pub const ADDRESS_IOCTLS: &[u64] = &[
    request(IN, b'i', 25, IFREQ),       // SIOCDIFADDR
    request(IN | OUT, b'i', 37, IFREQ), // SIOCGIFNETMASK
    request(IN, b'i', 43, 68),          // SIOCAIFADDR (`struct ifaliasreq`)
    request(IN | OUT, b'i', 210, WG),   // SIOCSWG
    request(IN | OUT, b'i', 211, WG),   // SIOCGWG
];

/// Those about IPv6 addresses.
pub const ADDRESS6_IOCTLS: &[u64] = &[
    request(IN, b'i', 25, 288),      // SIOCDIFADDR_IN6 (`struct in6_ifreq`)
    request(IN, b'i', 27, 136),      // SIOCAIFADDR_IN6 (`struct in6_aliasreq`)
    request(IN | OUT, b'i', 87, 72), // SIOCSIFINFO_FLAGS (`struct in6_ndireq`)
];

/// Sizes of `struct pfioc_nv`, `pfioc_rule`, `pfioc_pooladdr`, `pfioc_ruleset` and `pfioc_trans`.
const PF: [u64; 5] = [24, 3040, 1136, 1092, 16];

/// Requests of pf(4) (net/pfvar.h).
pub const PF_IOCTLS: &[u64] = {
    let [nv, rule, pool, ruleset, transaction] = PF;
    &[
        request(VOID, b'D', 1, 0),                // DIOCSTART
        request(VOID, b'D', 2, 0),                // DIOCSTOP
        request(IN | OUT, b'D', 4, nv),           // DIOCADDRULENV
        request(IN | OUT, b'D', 6, rule),         // DIOCGETRULES
        request(IN | OUT, b'D', 7, nv),           // DIOCGETRULENV
        request(IN | OUT, b'D', 21, nv),          // DIOCGETSTATUSNV
        request(IN | OUT, b'D', 41, nv),          // DIOCKILLSTATESNV
        request(IN | OUT, b'D', 51, pool),        // DIOCBEGINADDRS
        request(IN | OUT, b'D', 52, pool),        // DIOCADDADDR
        request(IN | OUT, b'D', 58, ruleset),     // DIOCGETRULESETS
        request(IN | OUT, b'D', 59, ruleset),     // DIOCGETRULESET
        request(IN | OUT, b'D', 81, transaction), // DIOCXBEGIN
        request(IN | OUT, b'D', 82, transaction), // DIOCXCOMMIT
        request(IN | OUT, b'D', 83, transaction), // DIOCXROLLBACK
    ]
};

/// Those of them that make a tap: SIOCSIFNAME, SIOCSIFDESCR, SIOCIFDESTROY, SIOCIFCREATE2, SIOCAIFGROUP.
const TAP_MAKING_IOCTLS: &[u64] = &[
    request(IN, b'i', 40, IFREQ),
    request(IN, b'i', 41, IFREQ),
    request(IN, b'i', 121, IFREQ),
    request(IN | OUT, b'i', 124, IFREQ),
    request(IN, b'i', 135, IFGROUPREQ),
];

/// What bhyve does with a tap, and who passes it on (fstat(2)).
const TAP_RIGHTS: &[&str] = &["READ", "WRITE", "EVENT", "IOCTL", "FSTAT"];

/// Requests that bhyve makes on a tap (FreeBSD, net/if_tap.h, sys/filio.h): `TAPGIFNAME` on 13, `VMIO_SIOCSIFFLAGS` on 15, `FIONBIO`.
pub const TAP_IOCTLS: &[u64] = &[request(OUT, b't', 93, IFREQ), request(VOID, b'V', 0, 4), request(IN, b'f', 126, 4)];
