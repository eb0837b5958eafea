//! `skep switch`, `skep nic`.

use super::vm::Switched;
use crate::{pci, size};
use clap::{Args, Subcommand, ValueEnum};

/// Switches.
#[derive(Debug, Subcommand)]
pub enum SwitchCommand {
    /// Make a switch
    Create {
        /// Its name
        name: String,
        /// The host's interface that joins it
        #[arg(long, value_name = "INTERFACE")]
        uplink: Option<String>,
        /// What it is [default: bridged with --uplink, vxlan with --vni, else internal]
        #[arg(long, value_enum, value_name = "KIND")]
        kind: Option<SwitchKind>,
        /// Its subnet, such as 10.1.2.0/24, if it is host-only or nat [default: one that collides with nothing on the host]
        #[arg(long, value_name = "NETWORK")]
        subnet: Option<String>,
        /// Its IPv6 network beside its subnet: fd00::/8 with a prefix of /64, or `auto`: one that collides with nothing on the host [default: none]
        #[arg(long, value_name = "NETWORK")]
        subnet6: Option<String>,
        #[command(flatten)]
        tunnel: TunnelArgs,
    },
    /// Show one
    Show {
        /// Name or id
        switch: String,
    },
    /// Rename a switch
    Rename {
        /// Name or id
        switch: String,
        /// Its new name
        name: String,
    },
    /// Change a switch; NICs that are connected stay so
    Set {
        /// Name or id
        switch: String,
        /// The host's interface that joins it; `none`: none
        #[arg(long, value_name = "INTERFACE")]
        uplink: Option<String>,
        /// What is said of it, at most 256 bytes
        #[arg(long, value_name = "TEXT", required_unless_present = "uplink")]
        description: Option<String>,
    },
    /// List switches
    #[command(visible_alias = "ls")]
    List,
    /// Open a switch to a group: its operators may connect NICs to it
    Open {
        /// Name or id
        switch: String,
        /// To which group [default: to all]
        #[arg(long, value_name = "GROUP")]
        group: Option<String>,
    },
    /// Close a switch that was opened; NICs that are connected stay so
    Close {
        /// Name or id
        switch: String,
        /// To which group [default: what was opened to all]
        #[arg(long, value_name = "GROUP")]
        group: Option<String>,
    },
    /// Delete a switch that no NIC is connected to
    #[command(visible_alias = "rm")]
    Delete {
        /// Name or id
        switch: String,
    },
}

/// To the same switch on other hosts.
#[derive(Debug, Args)]
pub struct TunnelArgs {
    /// Of a vxlan switch: the network's number, 1 to 16777215, the same on every host
    #[arg(long, value_name = "N", requires_all = ["local", "peer"], value_parser = clap::value_parser!(u32).range(1..1 << 24))]
    pub vni: Option<u32>,
    /// Of a vxlan switch: this host's address, of an interface that it gives to switches
    #[arg(long, value_name = "ADDRESS", requires = "vni")]
    pub local: Option<String>,
    /// Of a vxlan switch: the other host's address, or with --group-interface a group's
    #[arg(long, value_name = "ADDRESS", requires = "vni")]
    pub peer: Option<String>,
    /// Of a vxlan switch: UDP port, the same on every host [default: 4789, with --peer-key 51820]
    #[arg(long, value_name = "PORT", requires = "vni", value_parser = clap::value_parser!(u32).range(1..=65_535))]
    pub port: Option<u32>,
    /// Of a vxlan switch: the host's interface on which the group is joined
    #[arg(long, value_name = "INTERFACE", requires = "vni")]
    pub group_interface: Option<String>,
    /// Of a vxlan switch: the other host's public key, which `skep host show` there tells: through WireGuard, encrypted
    #[arg(long, value_name = "KEY", requires = "vni", conflicts_with = "group_interface")]
    pub peer_key: Option<String>,
}

/// What a switch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SwitchKind {
    /// An interface of the host's joins it: guests are on its network
    Bridged,
    /// Guests reach each other, and nothing else
    Internal,
    /// Guests get addresses, names and metadata, and reach each other and the host
    HostOnly,
    /// Guests get them, and reach each other and what the host reaches, in its name; not the host itself
    Nat,
    /// As bridged or internal, by ng_bridge: the host itself is not on it (FreeBSD)
    Netgraph,
    /// As internal, on several hosts, by a tunnel of UDP: --vni, --local, --peer
    Vxlan,
}

/// What a NIC is to the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum NicModel {
    /// virtio
    VirtioNet,
    /// Intel 82545, which guests without virtio know
    E1000,
}

/// NICs.
#[derive(Debug, Subcommand)]
pub enum NicCommand {
    /// Make a NIC
    Create {
        /// Its name
        name: String,
        /// The switch that it is connected to [default: none]
        #[arg(long, value_name = "SWITCH")]
        switch: Option<String>,
        /// The stopped machine that gets it
        #[arg(long, value_name = "MACHINE")]
        machine: Option<String>,
        /// Its MAC address [default: one of its own]
        #[arg(long, value_name = "MAC")]
        mac: Option<String>,
        /// Its group, unless a machine gets it [default: default]
        #[arg(long, value_name = "GROUP", env = "SKEP_GROUP")]
        group: Option<String>,
        /// What it is to the guest [default: virtio-net]
        #[arg(long, value_enum, value_name = "MODEL")]
        model: Option<NicModel>,
        /// Its address on its switch's subnet [default: the lowest that is free]
        #[arg(long, value_name = "ADDRESS")]
        address: Option<String>,
        /// Its place on the PCI bus, 1 to 30, with a function as 20.1 [default: 16 and its turn among the machine's NICs
        /// when it comes, or the first that is free; there it stays]
        #[arg(long, value_name = "N", value_parser = pci::place)]
        slot: Option<(u32, u32)>,
        /// Most that its guest receives, bits per second, as 10M [default: no limit]
        #[arg(long, value_name = "RATE", value_parser = size::bits)]
        rate_in: Option<u64>,
        /// Most that it sends, bits per second [default: no limit]
        #[arg(long, value_name = "RATE", value_parser = size::bits)]
        rate_out: Option<u64>,
        /// Nothing goes between it and others on its switch that are isolated, too
        #[arg(long)]
        isolated: bool,
        /// A port of the host's that leads to its guest, on a NAT switch: as 8080:80, or 192.0.2.1:53:53/udp
        #[arg(long = "forward", value_name = "[ADDRESS:]PORT:GUEST_PORT[/udp]")]
        forwards: Vec<String>,
    },
    /// Show one
    Show {
        /// Name or id
        nic: String,
    },
    /// Rename a NIC
    Rename {
        /// Name or id
        nic: String,
        /// Its new name
        name: String,
    },
    /// Change a NIC, while its machine runs, too; but for its MAC address, model and place
    Set {
        /// Name or id
        nic: String,
        /// The switch that it is connected to; `none`: none
        #[arg(long, value_name = "SWITCH")]
        switch: Option<String>,
        /// Its MAC address
        #[arg(long, value_name = "MAC")]
        mac: Option<String>,
        /// What it is to the guest
        #[arg(long, value_enum, value_name = "MODEL")]
        model: Option<NicModel>,
        /// Its place on the PCI bus, 1 to 30, with a function as 20.1; 0: the usual one
        #[arg(long, value_name = "N", value_parser = pci::place_or_usual)]
        slot: Option<(u32, u32)>,
        /// Its address on its switch's subnet
        #[arg(long, value_name = "ADDRESS")]
        address: Option<String>,
        /// Most that its guest receives, bits per second, as 10M; 0: no limit
        #[arg(long, value_name = "RATE", value_parser = size::bits)]
        rate_in: Option<u64>,
        /// Most that it sends, bits per second; 0: no limit
        #[arg(long, value_name = "RATE", value_parser = size::bits)]
        rate_out: Option<u64>,
        /// Nothing goes between it and others on its switch that are isolated, too
        #[arg(long, value_enum, value_name = "ON")]
        isolated: Option<Switched>,
        /// A port of the host's that leads to its guest, in place of all that were there; `none`: no port does
        #[arg(long = "forward", value_name = "[ADDRESS:]PORT:GUEST_PORT[/udp]")]
        forwards: Option<Vec<String>>,
        /// What is said of it, at most 256 bytes
        #[arg(long, value_name = "TEXT", required_unless_present_any = ["switch", "mac", "model", "slot", "address", "rate_in", "rate_out", "isolated", "forwards"])]
        description: Option<String>,
    },
    /// Make a NIC like another, with an address of its own
    Clone {
        /// The original, name or id
        nic: String,
        /// Name of the copy
        name: String,
    },
    /// Give it to a stopped machine
    Attach {
        /// Name or id
        nic: String,
        /// Whose it becomes
        machine: String,
    },
    /// Take it from its stopped machine
    Detach {
        /// Name or id
        nic: String,
    },
    /// List NICs
    #[command(visible_alias = "ls")]
    List,
    /// Delete a NIC that no machine has
    #[command(visible_alias = "rm")]
    Delete {
        /// Name or id
        nic: String,
    },
}
