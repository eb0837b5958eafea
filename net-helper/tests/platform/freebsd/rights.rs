//! What net-helper's descriptors may do: each request of its table is needed, and what is not in it is refused. Each time a request or
//! right is missing, some step of an operation fails, on the real kernel and from inside capability mode: nothing may be left of it.

use crate::acts::{Net7, bridge};
use crate::support::frames::{frame, send};
use crate::support::{any_socket, host, instance};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use skep_net_helper::key::PrivateKey;
use skep_net_helper::ops::{gateway, list, pair, switch, tap, tunnel};
use skep_net_helper::platform::{Host, NetHost, Switch};
use skep_proto::net::*;
use skep_proto::tunnel::{Far, Tunnel};
use skep_proto::{IfName, MachineId, NicId, Reason, Refusal, SwitchId};
use skep_rights::net::TABLE;
use skep_rights::{Descriptor, Process};
use skep_sandbox::{Held, Scene, enter, limit};
use skep_sys::freebsd::net;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// Tells the worker what it has to do without: `ioctl LINE NUMBER`, `right LINE NAME` or nothing.
const WITHOUT: &str = "SKEP_TEST_WITHOUT";
const HERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const ENOTCAPABLE: i32 = Errno::ENOTCAPABLE as i32;

struct Only(Host);

impl Held for Only {
    fn held(&self) -> Vec<(&'static str, BorrowedFd<'_>)> {
        self.0.held()
    }
}

/// A table of what `Host` holds, without something.
fn table(without: &str) -> &'static Process {
    let words: Vec<&str> = without.split(' ').collect();
    let lines: Vec<Descriptor> = TABLE
        .descriptors
        .iter()
        .map(|line| {
            let (mut rights, mut ioctls) = (line.rights.to_vec(), line.ioctls.to_vec());
            match words.as_slice() {
                ["right", name, right] if *name == line.name => rights.retain(|r| r != right),
                ["ioctl", name, number] if *name == line.name => ioctls.retain(|i| i.to_string() != *number),
                _ => {}
            }
            Descriptor { rights: rights.leak(), ioctls: ioctls.leak(), ..*line }
        })
        .collect();
    Box::leak(Box::new(Process { descriptors: lines.leak(), ..TABLE }))
}

fn shown(name: &str, result: Result<(), Refusal>) -> String {
    match result {
        Ok(()) => format!("{name}: ok"),
        Err(refusal) => format!("{name}: errno {}: {}", refusal.errno, refusal.note),
    }
}

fn errno<T>(result: std::io::Result<T>) -> i32 {
    result.err().and_then(|error| error.raw_os_error()).unwrap_or(0)
}

/// Everything that a holder of the tap does: the name, non-blocking mode, out, in.
fn use_tap(tap: OwnedFd) -> std::io::Result<OwnedFd> {
    nix::sys::stat::fstat(&tap)?;
    skep_sys::freebsd::tap_name(tap.as_fd())?;
    // The only safe function that makes a plain FIONBIO.
    let stream = TcpStream::from(tap);
    stream.set_nonblocking(true)?;
    let tap = OwnedFd::from(stream);
    nix::unistd::write(&tap, &frame("out"))?;
    let mut set = [PollFd::new(tap.as_fd(), PollFlags::POLLIN)];
    poll(&mut set, PollTimeout::from(20_000u16))?;
    if set[0].revents() != Some(PollFlags::POLLIN) {
        return Err(Errno::ENOTCAPABLE.into());
    }
    nix::unistd::read(&tap, &mut [0; 2048])?;
    Ok(tap)
}

/// Not a test of its own: what `each_…` start as a process. It goes a step each time it reads a line.
#[test]
fn worker() {
    let Ok(without) = std::env::var(WITHOUT) else { return };
    let table = table(&without);
    let scene = Scene { state: "/".into(), run: "/".into(), identity: None, group: None, in_cell: false, with_parent: true };
    let key = PrivateKey::of(tempfile::tempdir().unwrap().path());
    let host = host().with_key(key);
    let mut host = enter(limit(Only(host), table).unwrap(), &scene).unwrap().into_inner().0;
    let place = &mut host as &mut dyn NetHost;
    let of = instance();
    let (switch, machine, nic) = (SwitchId::random(), MachineId::random(), NicId::random());
    let far = Far::Host("192.0.2.2".parse().unwrap());
    let to = Tunnel {
        vni: "7".parse().unwrap(),
        local: HERE.to_string().parse().unwrap(),
        far,
        port: 4791.try_into().unwrap(),
        peer_key: None,
    };
    let input = std::io::stdin();
    let mut lines = input.lock().lines();
    let mut step = |what: String| {
        let mut out = std::io::stdout().lock();
        writeln!(out, "STEP {what}").unwrap();
        out.flush().unwrap();
        lines.next().unwrap().unwrap();
    };
    step("begin".into());
    let call = CreateSwitch { switch, number: 0, uplink: Some("up0".parse().unwrap()) };
    step(shown("CreateSwitch", switch::create((place, of), &["up0".parse().unwrap()], &call, Switch::Bridge).map(drop)));
    let mut held = None;
    let call = CreateTap { machine, nic, number: 0, switch: Some(0) };
    let made = tap::create((place, of), &call).map(|(_, [tap])| held = Some(tap));
    step(shown("CreateTap", made));
    let used = held.take().map(use_tap);
    let said = match used {
        None => "use of the tap: none".into(),
        Some(Ok(tap)) => {
            held = Some(tap);
            "use of the tap: ok".into()
        }
        Some(Err(error)) => format!("use of the tap: errno {}", error.raw_os_error().unwrap_or(0)),
    };
    step(said);
    step(shown("MoveTap", tap::move_to((place, of), &MoveTap { number: 0, switch: None, isolated: false }).map(drop)));
    let call = CreateTunnel { switch, number: 0, tunnel: to.clone() };
    step(shown("CreateTunnel", tunnel::create((place, of), &["up0".parse().unwrap()], &call).map(drop)));
    // Once more: what it is set to is read.
    step(shown("CreateTunnel again", tunnel::create((place, of), &["up0".parse().unwrap()], &call).map(drop)));
    step(shown("CreatePair", pair::create((place, of), &CreatePair { number: 0, switches: [Some(0), None] }).map(drop)));
    step(shown("ListInterfaces", list::list((place, of), &[], &ListInterfaces { own: true, after: 0 }).map(drop)));
    if place.no_subnets().is_none() {
        let call = CreateSwitch { switch, number: 1, uplink: None };
        step(shown("CreateSwitch 1", switch::create((place, of), &[], &call, Switch::Bridge).map(drop)));
        let subnet6 = Some("fd12:3456:789a:1::/64".parse().unwrap());
        let gateway = Some(Gateway { subnet: "10.64.7.0/24".parse().unwrap(), reach: Reach::Out, subnet6 });
        for again in ["", " again", " to nothing"] {
            let gateway = gateway.filter(|_| again != " to nothing");
            step(shown(
                &format!("SetGateway{again}"),
                gateway::set((place, of), &SetGateway { number: 1, gateway, forwards: vec![] }).map(drop),
            ));
        }
        step(shown("DeleteSwitch 1", switch::delete((place, of), &DeleteSwitch { number: 1 }).map(drop)));
        let own = Some(Own { mac: [2, 0, 0, 0, 0, 7], address: HERE, subnet6 });
        step(shown("GuardTap", tap::guard((place, of), &GuardTap { number: 0, own }).map(drop)));
        step(shown("OpenPort", gateway::open_port((place, of), &OpenPort { number: 0, v6: true }).map(drop)));
    }
    step(shown("DeletePair", pair::delete((place, of), &DeletePair { number: 0 }).map(drop)));
    step(shown("DeleteTunnel", tunnel::delete((place, of), &DeleteTunnel { number: 0 }).map(drop)));
    let keyed = tunnel::host_key((place, of)).map(drop);
    // Without its module there is no WireGuard.
    if keyed.as_ref().is_ok() || keyed.as_ref().is_err_and(|refusal| refusal.reason != Reason::Unsupported) {
        step(shown("HostKey", keyed));
        let peer_key = Some("xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=".parse().unwrap());
        let call = CreateTunnel { switch, number: 0, tunnel: Tunnel { peer_key, ..to } };
        for again in ["", " again"] {
            let made = tunnel::create((place, of), &["up0".parse().unwrap()], &call).map(drop);
            step(shown(&format!("CreateTunnel through WireGuard{again}"), made));
        }
        step(shown("DeleteTunnel through WireGuard", tunnel::delete((place, of), &DeleteTunnel { number: 0 }).map(drop)));
    }
    drop(held);
    step("closed the tap".into());
    step(shown("DeleteTap", tap::delete((place, of), &DeleteTap { number: 0 }).map(drop)));
    step(shown("DeleteSwitch", switch::delete((place, of), &DeleteSwitch { number: 0 }).map(drop)));
    if without.is_empty() {
        // What no operation needs is not granted.
        let name = IfName::tap(of, 9);
        let node = host.make_tap(&name).unwrap();
        let (_, socket) = host.held()[0];
        let refused = [
            ("an address for an interface", errno(net::add_address(socket, name.as_str(), HERE, 24))),
            ("a terminal's request of the tap", errno(nix::sys::termios::tcgetattr(&node).map_err(Into::into))),
            ("flags of the tap's descriptor", errno(fcntl(&node, FcntlArg::F_GETFL).map_err(Into::into))),
            ("a read of the socket", errno(nix::unistd::read(socket, &mut [0]).map_err(Into::into))),
        ];
        for (what, errno) in refused {
            assert_eq!(errno, ENOTCAPABLE, "{what}");
        }
        for path in ["/dev/tap0", "/etc/passwd", "/"] {
            assert_eq!(errno(std::fs::File::open(path)), Errno::ECAPMODE as i32, "{path}");
        }
        drop(node);
        net::destroy(socket, name.as_str()).unwrap();
        step("what is not granted: refused".into());
    }
}

struct Worker {
    child: Child,
    without: String,
    ended: Option<String>,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Worker {
    fn start(without: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "platform::freebsd::rights::worker", "--nocapture"]).env(WITHOUT, without);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Self { child, without: without.to_owned(), ended: None, input, output }
    }

    /// What it did last; none at its end, which is a good one.
    fn next(&mut self) -> Option<String> {
        loop {
            let mut line = String::new();
            if self.output.read_line(&mut line).unwrap() == 0 {
                let status = self.child.wait().unwrap();
                let mut why = String::new();
                self.child.stderr.take().unwrap().read_to_string(&mut why).unwrap();
                // Without its other part it ends, and says why.
                assert!(status.success() || self.without.contains(" outside "), "{status} {why}");
                self.ended = Some(why);
                return None;
            }
            // libtest writes the name of the test into the first of them.
            if let Some((_, said)) = line.trim_end().split_once("STEP ") {
                return Some(said.to_owned());
            }
        }
    }

    fn go_on(&mut self) {
        writeln!(self.input, "go").unwrap();
    }
}

/// Runs the worker without something; what it said. After each refused operation the host is as it was before.
fn without(net: &mut Net7, what: &str) -> Vec<String> {
    let outside = net.network.outside("up0");
    net::set_mtu(any_socket().as_fd(), "up0", 1400).unwrap();
    net.network.address("up0", HERE);
    let mut worker = Worker::start(what);
    let mut all = Vec::new();
    let mut before = net.links();
    while let Some(said) = worker.next() {
        let after = net.links();
        // An undoing may need the same request, and says so.
        if said.contains("errno") && !said.contains("was left changed") && !said.starts_with("use of") {
            assert_eq!(after, before, "without {what}: {said}");
        }
        if said.starts_with("CreateTap") {
            // For whoever reads the tap.
            send(&outside, &frame("in"));
        }
        before = net.links();
        all.push(said);
        worker.go_on();
    }
    all.extend(worker.ended.take().filter(|why| !why.is_empty()));
    drop(outside);
    // As the next begins.
    let socket = any_socket();
    for name in net::list(socket.as_fd()).unwrap() {
        if name == "up0" || name.parse::<IfName>().is_ok_and(|name| name.is_of(instance())) {
            let _ = net::destroy(socket.as_fd(), &name);
        }
    }
    all
}

#[test]
fn each_request_of_the_table_is_needed_and_no_other_is_granted() {
    let Some(mut net) = Net7::new() else { return };
    let said = without(&mut net, "");
    assert!(said.iter().all(|line| !line.contains("errno")), "{said:#?}");
    assert!(said.iter().any(|line| line == "use of the tap: ok"), "{said:#?}");
    assert_eq!(said.last().map(String::as_str), Some("what is not granted: refused"), "{said:#?}");
    // Without pf there are no addresses to be set.
    let subnets = said.iter().any(|line| line == "SetGateway: ok");
    let lines: &[&str] = if subnets { &["interfaces", "addresses", "addresses6", "outside"] } else { &["interfaces", "outside"] };
    let mut superfluous = Vec::new();
    // Nor without if_wg keys (SIOCSWG, SIOCGWG).
    let keys = said.iter().any(|line| line == "HostKey: ok");
    for line in TABLE.descriptors.iter().filter(|line| lines.contains(&line.name)) {
        let ioctls = line.ioctls.iter().filter(|number| keys || !matches!(**number & 0xff, 210 | 211));
        let ioctls = ioctls.map(|number| format!("ioctl {} {number}", line.name));
        // IOCTL comes with the list above, which is as good as none without it.
        let rights = line.rights.iter().filter(|right| **right != "IOCTL").map(|right| format!("right {} {right}", line.name));
        for what in ioctls.chain(rights) {
            let said = without(&mut net, &what);
            let needed = said
                .iter()
                .any(|line| line.contains(&format!("errno {ENOTCAPABLE}")) || line.contains("Capabilities insufficient"));
            // Only the time that an answer may take depends on this one.
            if !needed && what != "right outside EVENT" {
                superfluous.push((what, said));
            }
        }
    }
    assert!(superfluous.is_empty(), "{superfluous:#?}");
    assert_eq!(net.link(&bridge(0)), None);
}
