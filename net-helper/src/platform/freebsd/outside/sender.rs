//! The process itself. It is root, and outside of capability mode: it reads nothing but [`Ask`]s, and each name in
//! one is checked here, too.

use super::super::{DESCRIBE, ENTER_GROUP, NAME as NAME_IT, adopt, unmade};
use super::subnets::{self, CONNECT, FORWARD, GUARD, OPEN_PORT, OPEN_RULES, ROUTES, TAKEN};
use super::{Answer, Ask, PAGE, Said};
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use skep_proto::wire::{decode, encode};
use skep_proto::{IfName, InstanceId, MAX_RECORD};
use skep_rights::net::OUTSIDE;
use skep_sandbox::{EnterError, Held, Scene, enter, limit};
use skep_sys::freebsd::net;
use skep_sys::freebsd::netgraph::{self, Hook};
use skep_sys::msg::{self, RecvError};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

const OPEN: &str = "open a netgraph socket (kldload ng_socket)";
const MAKE: &str = "make a bridge node (kldload ng_bridge)";
const NAME: &str = "name the bridge node";
const KEEP: &str = "keep the bridge node";
const NODES: &str = "list nodes";
pub const HOOKS: &str = "list a node's hooks (kldload ng_ether)";
const JOIN: &str = "join it to the bridge node";
const LEAVE: &str = "take it off the bridge node";
const REMOVE: &str = "remove the bridge node";
const FOREIGN_TAP: &str = "make a tap whose name is none of this instance's";
const MAKE_TAP: &str = "make a tap";
const NO_TAPS: &str = "make a tap (kldload if_tuntap)";
pub const OPEN_TAP: &str = "open the tap";
const COUNT: &str = "read its counters";
/// Steps, as errors name them.
pub const STEPS: [&str; 24] = [
    FOREIGN_TAP,
    MAKE_TAP,
    NO_TAPS,
    OPEN_TAP,
    COUNT,
    DESCRIBE,
    ENTER_GROUP,
    NAME_IT,
    OPEN,
    MAKE,
    NAME,
    KEEP,
    NODES,
    HOOKS,
    JOIN,
    LEAVE,
    REMOVE,
    OPEN_RULES,
    OPEN_PORT,
    GUARD,
    FORWARD,
    ROUTES,
    TAKEN,
    CONNECT,
];

/// Why it did not begin.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What it was started with.
    #[error("it is started by net-helper only")]
    Arguments,
    /// Its socket.
    #[error("standard input: {0}")]
    Socket(#[from] io::Error),
    /// Its limits.
    #[error(transparent)]
    Sandbox(#[from] EnterError),
}

/// What it begins with.
struct Acquired {
    requests: OwnedFd,
    interfaces: OwnedFd,
}

impl Held for Acquired {
    fn held(&self) -> Vec<(&'static str, BorrowedFd<'_>)> {
        vec![("requests", self.requests.as_fd()), ("interfaces", self.interfaces.as_fd())]
    }
}

/// Reads requests from standard input until net-helper closes it.
pub fn run(arguments: &[String]) -> Result<(), Error> {
    let [instance, uplinks] = arguments else { return Err(Error::Arguments) };
    let instance: InstanceId = instance.parse().map_err(|_| Error::Arguments)?;
    let names = uplinks.split(',').filter(|name| !name.is_empty());
    let uplinks: Vec<IfName> = names.map(str::parse).collect::<Result<_, _>>().map_err(|_| Error::Arguments)?;
    let requests = io::stdin().as_fd().try_clone_to_owned()?;
    let interfaces = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).map_err(io::Error::from)?;
    skep_sys::fd::place(std::fs::File::open("/dev/null")?.as_fd(), 0)?;
    let scene = Scene { state: "/".into(), run: "/".into(), identity: None, group: None, in_cell: false, with_parent: true };
    let Acquired { requests, interfaces } = enter(limit(Acquired { requests, interfaces }, &OUTSIDE)?, &scene)?.into_inner();
    let mut sender = Sender { instance, uplinks, interfaces, socket: None };
    loop {
        let record = match msg::recv(requests.as_fd(), MAX_RECORD, 0, None) {
            Ok(record) => record,
            Err(RecvError::Io(error)) => return Err(error.into()),
            // Closed, or not a record of ours.
            Err(_) => return Ok(()),
        };
        let Ok(ask) = decode::<Ask>(&record.bytes) else { return Ok(()) };
        let mut opened = None;
        let mut opens = |open: Step<OwnedFd>| {
            open.map(|fd| {
                opened = Some(fd);
                Said::Names(Vec::new())
            })
        };
        let acted = match &ask {
            Ask::MakeTap(name) => opens(sender.make_tap(name)),
            Ask::Connect(transport, to) => opens(subnets::connect(*transport, *to)),
            Ask::OpenRules => opens(subnets::open_rules()),
            Ask::OpenPort(name, v6) => opens(sender.open_port(name, *v6)),
            Ask::Count(name, index) => sender.count(name, *index),
            Ask::Forward(set) => subnets::forward(*set),
            Ask::Routes(after) => subnets::list(*after),
            Ask::Routes6(after) => subnets::list6(*after),
            Ask::IsTaken(forward) => subnets::is_taken(forward),
            ask => sender.act(ask).map(Said::Names),
        };
        let answer = acted.map_err(|(step, error)| (step.to_owned(), error.raw_os_error().unwrap_or(Errno::EIO as i32)));
        let Ok(bytes) = encode::<Answer>(&answer) else { return Ok(()) };
        let fds: Vec<BorrowedFd<'_>> = opened.iter().map(AsFd::as_fd).collect();
        msg::send(requests.as_fd(), &bytes, &fds, None)?;
    }
}

pub type Step<T> = Result<T, (&'static str, io::Error)>;

pub fn step<T>(step: &'static str, result: io::Result<T>) -> Step<T> {
    result.map_err(|error| (step, error))
}

/// What it has.
pub struct Sender {
    instance: InstanceId,
    uplinks: Vec<IfName>,
    interfaces: OwnedFd,
    socket: Option<OwnedFd>,
}

impl Sender {
    fn act(&mut self, ask: &Ask) -> Step<Vec<(IfName, u32)>> {
        // Modules may be loaded at any time.
        if self.socket.is_none() {
            let socket = step(OPEN, netgraph::open())?;
            let limited = skep_sandbox::limit_one(&OUTSIDE, "netgraph", socket.as_fd());
            step(OPEN, limited.map_err(|e| io::Error::other(e.to_string())))?;
            self.socket = Some(socket);
        }
        let Some(socket) = &self.socket else { return Ok(Vec::new()) };
        let socket = socket.as_fd();
        match ask {
            Ask::Make(bridge) => step(MAKE, self.bridge(bridge)).and_then(|()| make(socket, bridge))?,
            Ask::Remove(bridge) => {
                step(REMOVE, self.bridge(bridge))?;
                self.remove(socket, bridge)?;
            }
            Ask::Join(port, bridge) => {
                step(JOIN, self.bridge(bridge).and_then(|()| self.port(port)))?;
                self.join(socket, port, bridge)?;
            }
            Ask::Leave(port, bridge) => {
                step(LEAVE, self.bridge(bridge).and_then(|()| self.port(port)))?;
                leave(socket, port, bridge)?;
            }
            Ask::Bridges => {
                let nodes = step(NODES, netgraph::nodes(socket))?.into_iter().filter(|node| node.kind == "bridge");
                let ours = nodes.filter_map(|node| Some((node.name.parse().ok()?, node.id)));
                return Ok(ours.filter(|(name, _)| self.bridge(name).is_ok()).take(PAGE).collect());
            }
            Ask::Members(bridge, after) => {
                step(HOOKS, self.bridge(bridge))?;
                let hooks = step(HOOKS, netgraph::hooks(socket, &path(bridge)))?;
                let members = hooks.into_iter().filter(|hook| hook.peer_hook == "lower" && hook.peer.kind == "ether");
                let members = members.filter_map(|hook| Some((hook.peer.name.parse().ok()?, hook.peer.id)));
                return Ok(members.skip(*after as usize).take(PAGE).collect());
            }
            Ask::Guard(tap, own) => self.guard(socket, tap, own.as_ref())?,
            // They need no socket.
            Ask::MakeTap(_)
            | Ask::Count(..)
            | Ask::OpenRules
            | Ask::OpenPort(..)
            | Ask::Forward(_)
            | Ask::Routes(_)
            | Ask::Routes6(_)
            | Ask::IsTaken(_)
            | Ask::Connect(..) => {}
        }
        Ok(Vec::new())
    }

    /// Whether it is a name of a bridge of this instance.
    fn bridge(&self, name: &IfName) -> io::Result<()> {
        self.named(name, 'b', IfName::bridge)
    }

    /// Whether it is the name that `of` gives to some number.
    pub(super) fn named(&self, name: &IfName, letter: char, of: fn(InstanceId, u16) -> IfName) -> io::Result<()> {
        let prefix = format!("sk{}{letter}", self.instance);
        let number = name.as_str().strip_prefix(&prefix).and_then(|number| number.parse::<u16>().ok());
        let ours = number.is_some_and(|number| *name == of(self.instance, number));
        if ours { Ok(()) } else { Err(Errno::EPERM.into()) }
    }

    /// Makes a tap, opens its device by the name that the kernel gave it, and names it. Whatever fails, nothing of it stays.
    fn make_tap(&self, name: &IfName) -> Step<OwnedFd> {
        step(FOREIGN_TAP, self.named(name, 't', IfName::tap))?;
        let socket = self.interfaces.as_fd();
        let made = net::create(socket, "tap").map_err(unmade(MAKE_TAP, NO_TAPS)).map_err(|e| (e.step, e.error))?;
        // The tap is closed before it is discarded: the descriptor does not leave the closure on failure.
        let all = || -> Step<OwnedFd> {
            let device = std::fs::File::options().read(true).write(true).open(format!("/dev/{made}"));
            let tap: OwnedFd = step(OPEN_TAP, device)?.into();
            let limited = skep_sandbox::limit_one(&OUTSIDE, "tap", tap.as_fd());
            step(OPEN_TAP, limited.map_err(|e| io::Error::other(e.to_string())))?;
            adopt(socket, &made, name).map_err(|e| (e.step, e.error))?;
            Ok(tap)
        };
        all().inspect_err(|_| {
            // That it stays would be news to whoever reads the list of interfaces; the next start sweeps it.
            let _ = net::destroy(socket, &made);
        })
    }

    /// Reads the counters of a tap; none if it is gone.
    fn count(&self, name: &IfName, index: u32) -> Step<Said> {
        step(COUNT, self.named(name, 't', IfName::tap))?;
        let counted = step(COUNT, net::counters(index, name.as_str()))?;
        let all = |c: net::Counted| Said::Counted([c.in_bytes, c.in_packets, c.out_bytes, c.out_packets]);
        Ok(counted.map_or(Said::Names(Vec::new()), all))
    }

    /// Whether it is an interface that may be touched.
    fn port(&self, name: &IfName) -> io::Result<()> {
        if name.is_of(self.instance) || self.uplinks.contains(name) { Ok(()) } else { Err(Errno::EPERM.into()) }
    }

    /// Joins what comes in at the interface, and for one of the host's what the host itself sends and gets there.
    fn join(&self, socket: BorrowedFd<'_>, port: &IfName, bridge: &IfName) -> Step<()> {
        let taken = step(HOOKS, netgraph::hooks(socket, &path(bridge)))?;
        let mut free = (0u32..).map(|number| format!("link{number}")).filter(|link| !taken.iter().any(|hook| hook.name == *link));
        let (node, bridge) = (path(port), path(bridge));
        let mut connect = |hook| {
            let link = free.next().unwrap_or_default();
            step(JOIN, netgraph::connect(socket, &node, hook, &bridge, &link))
        };
        connect("lower")?;
        let mut rest = || -> Step<()> {
            // Frames keep the address of whoever sent them.
            step(JOIN, netgraph::send(socket, &node, netgraph::SET_SOURCE, &0u32.to_ne_bytes()))?;
            // A tap drops what its guest sends to anybody's address but the tap's own, too (tunwrite_l2 of if_tuntap.c).
            step(JOIN, netgraph::send(socket, &node, netgraph::SET_PROMISCUOUS, &1u32.to_ne_bytes()))?;
            if !port.is_of(self.instance) {
                connect("upper")?;
            }
            Ok(())
        };
        rest().inspect_err(|_| {
            let _ = take_off(socket, &node);
        })
    }

    /// Removes a bridge; one that is not there is no error.
    fn remove(&self, socket: BorrowedFd<'_>, bridge: &IfName) -> Step<()> {
        let hooks = match netgraph::hooks(socket, &path(bridge)) {
            Err(error) if error.raw_os_error() == Some(Errno::ENOENT as i32) => return Ok(()),
            hooks => step(REMOVE, hooks)?,
        };
        for hook in hooks.iter().filter(|hook| hook.peer_hook == "lower" && hook.peer.kind == "ether") {
            step(REMOVE, take_off(socket, &format!("{}:", hook.peer.name)))?;
        }
        step(REMOVE, netgraph::send(socket, &path(bridge), netgraph::SHUTDOWN, &[]).map(drop))
    }
}

/// The path of a node. That of an interface has `_` for what would mean something in a path.
pub fn path(name: &IfName) -> String {
    format!("{}:", name.as_str().replace('.', "_"))
}

/// Makes a bridge. Until it is kept it ends with our socket, should we be killed.
fn make(socket: BorrowedFd<'_>, bridge: &IfName) -> Step<()> {
    const OURS: &str = "made";
    step(MAKE, netgraph::make_peer(socket, ".", "bridge", OURS, "link0"))?;
    let all = || -> Step<()> {
        step(NAME, netgraph::set_name(socket, &format!(".:{OURS}"), bridge.as_str()))?;
        step(KEEP, netgraph::send(socket, &path(bridge), netgraph::PERSIST, &[]).map(drop))
    };
    let result = all();
    let off = step(KEEP, netgraph::disconnect(socket, ".", OURS));
    result.and(off)
}

fn leave(socket: BorrowedFd<'_>, port: &IfName, bridge: &IfName) -> Step<()> {
    let hooks = step(HOOKS, netgraph::hooks(socket, &path(port)))?;
    let on = |hook: &Hook| hook.name == "lower" && hook.peer.name == bridge.as_str();
    if !hooks.iter().any(on) {
        return Err((LEAVE, Errno::ENOENT.into()));
    }
    step(LEAVE, take_off(socket, &path(port)))
}

/// Takes an interface's node off whatever it is joined to, and leaves it as it was before. (With its last hook the node begins anew, and for
/// a moment is not there.)
fn take_off(socket: BorrowedFd<'_>, node: &str) -> io::Result<()> {
    netgraph::send(socket, node, netgraph::SET_PROMISCUOUS, &0u32.to_ne_bytes())?;
    netgraph::disconnect(socket, node, "upper")?;
    netgraph::disconnect(socket, node, "lower")
}
