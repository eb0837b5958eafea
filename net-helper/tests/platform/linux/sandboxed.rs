//! The program itself, in its sandbox, in a network namespace of the test's own.

use crate::support::frames::{frame, hear, send};
use crate::support::{Network, PATIENCE, ask, instance};
use nix::unistd::{Gid, Uid, chown, geteuid, seteuid};
use skep_ipc::Client;
use skep_proto::net::{
    CheckPort, CreateSwitch, CreateTap, DeleteSwitch, DeleteTap, Gateway, GuardTap, ListInterfaces, MoveTap, Net, OpenPort,
    OpenResolvers, Own, PortForward, Reach, SetGateway,
};
use skep_proto::{MachineId, NicId, Reason, SwitchId, UpTo};
use skep_sys::{msg, sock};
use std::io::{BufRead, BufReader};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Instant;
use tempfile::TempDir;

const BROKER: u32 = 71_900;
const HELPER: u32 = 71_901;

struct Program {
    child: Child,
    dir: TempDir,
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Program {
    /// Starts it as root with uids, or as the ordinary user `uid`; returns when it serves.
    fn start(uid: Option<u32>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_skep-net-helper"));
        command.arg("--state").arg(dir.path().join("state")).arg("--run").arg(dir.path().join("run"));
        command
            .args(["--instance", &instance().to_string(), "--resolvers", "127.0.0.1"])
            .stdin(Stdio::null())
            .stderr(Stdio::piped());
        if let Some(uid) = uid {
            chown(dir.path(), Some(Uid::from_raw(uid)), Some(Gid::from_raw(uid))).unwrap();
            command.uid(uid).gid(uid);
        } else {
            let rest = "api-frontend=71902,storage-helper=71903,vm-runner=71904,machines=71905";
            command.args(["--ids", &format!("broker={BROKER},net-helper={HELPER},{rest}")]);
        }
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stderr.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.contains("serving"), "{line}");
        Self { child, dir }
    }

    /// Connects as `uid`.
    fn connect(&self, uid: u32) -> Result<OwnedFd, std::io::Error> {
        seteuid(Uid::from_raw(uid)).unwrap();
        let socket = sock::connect_seqpacket(&self.dir.path().join("run/net-helper.sock"));
        seteuid(Uid::from_raw(0)).unwrap();
        socket
    }

    fn client(&self, uid: u32) -> Client<Net> {
        Client::over(self.connect(uid).unwrap()).unwrap()
    }

    fn status(&self, field: &str) -> String {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|l| l.strip_prefix(field)).unwrap();
        line.trim_start_matches(':').split_whitespace().collect::<Vec<_>>().join(" ")
    }

    fn descriptors(&self) -> Vec<String> {
        let dir = std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap();
        dir.map(|entry| std::fs::read_link(entry.unwrap().path()).unwrap().to_string_lossy().into_owned()).collect()
    }
}

#[test]
fn it_makes_switches_and_taps_with_two_capabilities() {
    let Some(network) = Network::own() else { return };
    network.up("lo");
    let node = || std::fs::metadata("/dev/net/tun").map(|m| (m.mode(), m.uid(), m.ino(), m.dev())).unwrap();
    let (before, mounts) = (node(), std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap());
    let program = Program::start(None);
    assert_eq!(program.status("Uid"), format!("{HELPER} {HELPER} {HELPER} {HELPER}"));
    assert_eq!(program.status("Gid"), format!("{HELPER} {HELPER} {HELPER} {HELPER}"));
    // CAP_NET_ADMIN and CAP_NET_RAW.
    const BOTH: u64 = 1 << 12 | 1 << 13;
    for (set, bits) in [("CapEff", BOTH), ("CapPrm", BOTH), ("CapBnd", BOTH), ("CapInh", 0), ("CapAmb", 0)] {
        assert_eq!(u64::from_str_radix(&program.status(set), 16).unwrap(), bits, "{set}");
    }
    assert_eq!(
        (program.status("NoNewPrivs"), program.status("Seccomp"), program.status("Threads")),
        ("1".into(), "2".into(), "1".into())
    );

    let mut client = program.client(BROKER);
    let held = program.descriptors();
    for number in 0..2 {
        ask(&mut client, CreateSwitch { switch: SwitchId::random(), number, uplink: None }).unwrap();
    }
    let mut tap = |number| {
        ask(&mut client, CreateTap { machine: MachineId::random(), nic: NicId::random(), number, switch: Some(0) })
            .map(|(_, [tap])| tap)
            .unwrap()
    };
    let (a, b) = (tap(0), tap(1));
    send(&a, &frame("through the sandbox"));
    assert_eq!(hear(&b, |_| ()), "through the sandbox");
    ask(&mut client, MoveTap { number: 1, switch: Some(1), isolated: false }).unwrap();
    ask(&mut client, DeleteTap { number: 0 }).unwrap();
    let (page, []) = ask(&mut client, ListInterfaces { own: true, after: 0 }).unwrap();
    assert_eq!(page.interfaces.len(), 3);
    // A subnet, with all that goes with it, inside the sandbox.
    let gateway = Some(Gateway { subnet: "10.77.0.0/24".parse().unwrap(), reach: Reach::Out, subnet6: None });
    ask(&mut client, SetGateway { number: 1, gateway, forwards: vec![] }).unwrap();
    let own = Some(Own { mac: [2, 0, 0, 0, 0, 1], address: [10, 77, 0, 2].into(), subnet6: None });
    ask(&mut client, GuardTap { number: 1, own }).unwrap();
    ask(&mut client, OpenPort { number: 1, v6: false }).unwrap();
    let (_, UpTo(resolvers)) = ask(&mut client, OpenResolvers {}).unwrap();
    assert_eq!(resolvers.len(), 1);
    let led = |guest: [u8; 4], reach| {
        let gateway = gateway.map(|gateway| Gateway { reach, ..gateway });
        let forward = PortForward { forward: "8080:80".parse().unwrap(), guest: guest.into() };
        SetGateway { number: 1, gateway, forwards: vec![forward] }
    };
    ask(&mut client, led([10, 77, 0, 2], Reach::Out)).unwrap();
    // To guests of this subnet alone, and only where there is a way out.
    for wrong in [led([10, 77, 0, 1], Reach::Out), led([10, 78, 0, 2], Reach::Out), led([10, 77, 0, 2], Reach::Host)] {
        let refusal = ask(&mut client, wrong).unwrap_err();
        assert_eq!((refusal.reason, refusal.field.as_str()), (Reason::InvalidValue, "forwards"), "{refusal}");
    }
    ask(&mut client, SetGateway { number: 1, gateway: None, forwards: vec![] }).unwrap();
    assert_eq!(program.descriptors(), held, "descriptors of the helper");
    drop((a, b));
    for number in 0..2 {
        ask(&mut client, DeleteSwitch { number }).unwrap();
    }
    // The host's node and mounts are as before: the helper has its own.
    assert_eq!(node(), before);
    assert_eq!(std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap(), mounts);
    let acts = std::fs::read_to_string(program.dir.path().join("state/logs/audit-net-helper.log")).unwrap();
    let of = |what: &str| acts.lines().filter(|l| l.contains(what)).count();
    assert_eq!((of("\tCreateTap\tbegin\t"), of("\tCreateTap\tdone\t"), of("\tDeleteSwitch\tdone\t")), (2, 2, 2));
}

#[test]
fn a_port_that_the_host_listens_on_is_not_led_away() {
    let Some(_network) = Network::own() else { return };
    let program = Program::start(None);
    let mut client = program.client(BROKER);
    let check =
        |client: &mut Client<Net>, forward: String| ask(client, CheckPort { forward: forward.parse().unwrap() }).map(drop);
    let listener = std::net::TcpListener::bind("[::]:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let refusal = check(&mut client, format!("{port}:80")).unwrap_err();
    assert_eq!((refusal.reason, refusal.object.as_str()), (Reason::InUse, format!("port {port}/tcp").as_str()));
    check(&mut client, format!("{port}:80/udp")).unwrap();
    drop(listener);
    check(&mut client, format!("{port}:80")).unwrap();
}

#[test]
fn it_serves_its_declared_peer_alone_and_outlives_floods_of_descriptors() {
    let Some(_network) = Network::own() else { return };
    let program = Program::start(None);
    let mut client = program.client(BROKER);
    ask(&mut client, ListInterfaces { own: true, after: 0 }).unwrap();
    let held = program.descriptors().len();
    // Another uid may not open the socket; root may, and is turned away.
    assert_eq!(program.connect(BROKER + 7).unwrap_err().kind(), std::io::ErrorKind::PermissionDenied);
    assert!(Client::<Net>::over(program.connect(0).unwrap()).is_err());
    // More descriptors than the helper may have open, again and again.
    let null: OwnedFd = std::fs::File::open("/dev/null").unwrap().into();
    for count in [1, 16, 17, 29, 60, 200, 253] {
        for _ in 0..8 {
            let socket = program.connect(BROKER).unwrap();
            let fds = vec![null.as_fd(); count];
            let deadline = Some(Instant::now() + PATIENCE);
            msg::send(socket.as_fd(), b"hello?", &fds, deadline).unwrap();
            // Closed, perhaps after a refused hello.
            while msg::recv(socket.as_fd(), 8000, 0, deadline).is_ok() {}
        }
    }
    ask(&mut client, ListInterfaces { own: true, after: 0 }).unwrap();
    assert_eq!(program.descriptors().len(), held);
}

#[test]
fn started_by_an_ordinary_user_it_lists_and_changes_nothing() {
    let Some(_network) = Network::own() else { return };
    assert!(geteuid().is_root());
    let user = 71_907;
    let program = Program::start(Some(user));
    assert_eq!(u64::from_str_radix(&program.status("CapEff"), 16).unwrap(), 0);
    let mut client = program.client(user);
    let (page, []) = ask(&mut client, ListInterfaces { own: false, after: 0 }).unwrap();
    assert!(page.interfaces.iter().all(|i| i.name.as_str() != "lo"));
    let refusal = ask(&mut client, CreateSwitch { switch: SwitchId::random(), number: 0, uplink: None }).unwrap_err();
    assert_eq!(refusal.reason, Reason::NeedsRoot);
    assert!(!refusal.note.as_str().is_empty());
}
