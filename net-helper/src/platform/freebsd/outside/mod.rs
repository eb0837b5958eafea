//! The part outside of capability mode: a process of its own ([`sender`]) that makes taps, sends the control messages of netgraph(4),
//! for switches that are subnets opens what is opened by name and asks what capability mode refuses ([`subnets`]), and connects sockets
//! to resolvers and servers.
//! It reads typed requests from net-helper alone, checks them for itself, and ends with it.
//!
//! * Messages name their nodes, which capability mode forbids. Switches of netgraph are a bridge node each, to which interfaces are
//!   joined by what their own nodes have (ng_ether(4)).
//! * Taps could be opened beneath a descriptor of /dev; but Capsicum knows no names, and it would lead to the host's disks, too. It
//!   opens none that is there already: only what it has just made itself, under a name of this instance's. So nobody gets at another's
//!   frames through it.

pub mod sender;
mod subnets;

use crate::platform::{Counters, HostError};
use nix::errno::Errno;
use serde::{Deserialize, Serialize};
use skep_proto::net::Own;
use skep_proto::wire::{decode, encode};
use skep_proto::{Forward, IfName, InstanceId, Transport};
use skep_sys::msg;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The word that makes the program a sender.
pub const ROLE: &str = "--outside";
/// Nothing that is asked takes long.
const PATIENCE: Duration = Duration::from_secs(30);
/// Members of a page: 100 of at most 40 bytes fit into a record.
const PAGE: usize = 100;

/// Without it net-helper cannot tell what is on the host, and in capability mode it cannot start another: it ends, its supervisor
/// starts it anew with one, and the broker brings the host in line.
fn lost(error: &io::Error) -> ! {
    eprintln!("the part outside of capability mode is lost ({error}); ending, to be started anew with one");
    std::process::exit(1)
}

/// What is asked of the sender.
#[derive(Debug, Serialize, Deserialize)]
enum Ask {
    /// Make a bridge.
    Make(IfName),
    /// Remove a bridge; its members are released.
    Remove(IfName),
    /// Join an interface to a bridge.
    Join(IfName, IfName),
    /// Take an interface off a bridge.
    Leave(IfName, IfName),
    /// Our bridges, each with its number.
    Bridges,
    /// Members of a bridge, this many left out.
    Members(IfName, u32),
    /// Make a tap of this name, and open its device.
    MakeTap(IfName),
    /// What has gone through a tap, which has this index.
    Count(IfName, u32),
    /// Open /dev/pf.
    OpenRules,
    /// Open the frames that come in at a tap and are for guests' services, or those of IPv6, too.
    OpenPort(IfName, bool),
    /// Keep the guest of a tap to his own addresses, or let him go.
    Guard(IfName, Option<Own>),
    /// Whether the host forwards packets of IPv4; and have it do so, or not.
    Forward(Option<bool>),
    /// IPv4 routes, this many left out.
    Routes(u32),
    /// IPv6 routes, this many left out.
    Routes6(u32),
    /// Whether a socket of the host's has a port.
    IsTaken(Forward),
    /// A socket that is connected to a server, or is about to be.
    Connect(Transport, SocketAddr),
}

/// What it says.
#[derive(Debug, Serialize, Deserialize)]
enum Said {
    /// Names, with numbers of nodes; none, where there is nothing to be said.
    Names(Names),
    /// Bytes and packets that came in, bytes and packets that went out.
    Counted([u64; 4]),
    /// The host forwards packets, or has the port.
    Is(bool),
    /// Routes: net, prefix, index of the interface.
    Routes(Vec<(Ipv4Addr, u8, u32)>),
    /// The same of IPv6.
    Routes6(Vec<(Ipv6Addr, u8, u32)>),
}

/// What it answers: that, or the failed step and its errno.
type Answer = Result<Said, (String, i32)>;
/// Names, each with the number of its node.
type Names = Vec<(IfName, u32)>;

/// A bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bridge {
    /// Its name.
    pub name: IfName,
    /// Number of its node.
    pub id: u32,
    /// Interfaces on it.
    pub members: Vec<IfName>,
}

/// The other process, as net-helper has it.
#[derive(Debug)]
pub struct Outside {
    socket: OwnedFd,
}

impl AsFd for Outside {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Outside {
    /// Starts `program` as the sender for `instance`; beside what is the instance's it joins `uplinks` alone. It ends when the socket is
    /// closed, or with its parent.
    pub fn start(program: &Path, instance: InstanceId, uplinks: &[IfName]) -> io::Result<Self> {
        let (socket, theirs) = skep_sys::sock::seqpacket_pair()?;
        let names: Vec<&str> = uplinks.iter().map(IfName::as_str).collect();
        let mut command = Command::new(program);
        command.args([ROLE, &instance.to_string(), &names.join(",")]).env_clear();
        // Nobody waits for it: in capability mode nobody can. It ends when net-helper does. Of what net-helper holds it gets standard
        // error alone: all else is close-on-exec, the word to the supervisor, too (`Start::from_args`).
        command.stdin(Stdio::from(theirs)).stdout(Stdio::null()).spawn()?;
        Ok(Self { socket })
    }

    fn ask(&self, ask: &Ask) -> Result<Names, HostError> {
        match self.ask_for(ask, 0)?.0 {
            Said::Names(names) => Ok(names),
            _ => Ok(Vec::new()),
        }
    }

    /// With as many descriptors in the answer as `fds`, at most.
    fn ask_for(&self, ask: &Ask, fds: usize) -> Result<(Said, Vec<OwnedFd>), HostError> {
        let deadline = Some(Instant::now() + PATIENCE);
        let exchange = || -> io::Result<(Answer, Vec<OwnedFd>)> {
            msg::send(self.socket.as_fd(), &encode(ask).map_err(io::Error::other)?, &[], deadline)?;
            let record = msg::recv(self.socket.as_fd(), skep_proto::MAX_RECORD, fds, deadline).map_err(io::Error::other)?;
            Ok((decode(&record.bytes).map_err(io::Error::other)?, record.fds))
        };
        let (answer, fds) = exchange().unwrap_or_else(|error| lost(&error));
        answer.map(|answer| (answer, fds)).map_err(|(step, errno)| {
            let known = sender::STEPS.iter().find(|known| **known == step).copied();
            HostError { step: known.unwrap_or("ask outside of capability mode"), error: io::Error::from_raw_os_error(errno) }
        })
    }

    /// Makes a tap, down, and opens its device with the rights that bhyve needs.
    pub fn make_tap(&self, name: &IfName) -> Result<OwnedFd, HostError> {
        let (_, fds) = self.ask_for(&Ask::MakeTap(name.clone()), 1)?;
        fds.into_iter().next().ok_or_else(|| HostError::step(sender::OPEN_TAP)(Errno::EBADF))
    }

    /// What has gone through the tap with this index; none: there is no such tap any more.
    pub fn count(&self, name: &IfName, index: u32) -> Result<Option<Counters>, HostError> {
        let said = self.ask_for(&Ask::Count(name.clone(), index), 0)?.0;
        Ok(match said {
            Said::Counted([rx_bytes, rx_packets, tx_bytes, tx_packets]) => {
                Some(Counters { rx_bytes, rx_packets, tx_bytes, tx_packets })
            }
            _ => None,
        })
    }

    /// Makes a bridge.
    pub fn make(&self, name: &IfName) -> Result<(), HostError> {
        self.ask(&Ask::Make(name.clone())).map(drop)
    }

    /// Removes a bridge.
    pub fn remove(&self, name: &IfName) -> Result<(), HostError> {
        self.ask(&Ask::Remove(name.clone())).map(drop)
    }

    /// Joins an interface to a bridge.
    pub fn join(&self, port: &IfName, bridge: &IfName) -> Result<(), HostError> {
        self.ask(&Ask::Join(port.clone(), bridge.clone())).map(drop)
    }

    /// Takes an interface off a bridge.
    pub fn leave(&self, port: &IfName, bridge: &IfName) -> Result<(), HostError> {
        self.ask(&Ask::Leave(port.clone(), bridge.clone())).map(drop)
    }

    /// Our bridges; none where the kernel has no netgraph.
    pub fn bridges(&self) -> Result<Vec<Bridge>, HostError> {
        let found = match self.ask(&Ask::Bridges) {
            Err(e) if [Errno::EPROTONOSUPPORT, Errno::EAFNOSUPPORT].iter().any(|none| super::is(&e.error, *none)) => Vec::new(),
            found => found?,
        };
        let mut bridges = Vec::new();
        for (name, id) in found {
            let mut members = Vec::new();
            loop {
                let after = u32::try_from(members.len()).unwrap_or(u32::MAX);
                let page = self.ask(&Ask::Members(name.clone(), after))?;
                let last = page.len() < PAGE;
                members.extend(page.into_iter().map(|(name, _)| name));
                if last {
                    break;
                }
            }
            bridges.push(Bridge { name, id, members });
        }
        Ok(bridges)
    }
}
