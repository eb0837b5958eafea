//! The program itself, in capability mode, on the host's own network.

use crate::support::frames::{frame, hear, send};
use crate::support::{Network, PATIENCE, any_socket, ask, instance, program};
use nix::unistd::{Gid, Uid, chown, geteuid, seteuid};
use skep_ipc::Client;
use skep_proto::net::*;
use skep_proto::{MachineId, NicId, Reason, SwitchId, UpTo};
use skep_rights::net::TABLE;
use skep_sys::freebsd::net;
use skep_sys::{msg, sock};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Instant;
use tempfile::TempDir;

pub const BROKER: u32 = 71_900;
const HELPER: u32 = 71_901;

pub struct Program {
    pub child: Child,
    dir: TempDir,
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn ids() -> String {
    format!("broker={BROKER},net-helper={HELPER},api-frontend=71902,storage-helper=71903,vm-runner=71904,machines=71905")
}

impl Program {
    /// Starts it as root with uids, or as the ordinary user `uid`; returns when it serves.
    pub fn start(uid: Option<u32>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        // As the supervisor does it: standard error is the log, and a byte in a pipe the word that it serves.
        let logs = dir.path().join("state/logs");
        std::fs::create_dir_all(&logs).unwrap();
        let log = std::fs::File::options().append(true).create(true).open(logs.join("net-helper.log")).unwrap();
        let (ready, theirs) = nix::unistd::pipe().unwrap();
        let mut command = Command::new(program());
        command.arg("--state").arg(dir.path().join("state")).arg("--run").arg(dir.path().join("run"));
        command.args(["--instance", &instance().to_string(), "--uplinks", "up0"]);
        command.args(["--resolvers", "127.0.0.1", "--fetch-from", "127.0.0.1"]);
        command.args(["--ready-fd", &theirs.as_raw_fd().to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        if let Some(uid) = uid {
            for path in ["", "state", "state/logs", "state/logs/net-helper.log"] {
                chown(&dir.path().join(path), Some(Uid::from_raw(uid)), Some(Gid::from_raw(uid))).unwrap();
            }
            command.uid(uid).gid(uid);
        } else {
            command.args(["--ids", &ids()]);
        }
        let child = command.spawn().unwrap();
        drop(theirs);
        let word = nix::unistd::read(&ready, &mut [0]).unwrap();
        assert_eq!(word, 1, "{}", std::fs::read_to_string(logs.join("net-helper.log")).unwrap());
        Self { child, dir }
    }

    /// Connects as `uid`.
    fn connect(&self, uid: u32) -> Result<OwnedFd, std::io::Error> {
        seteuid(Uid::from_raw(uid)).unwrap();
        let socket = sock::connect_seqpacket(&self.dir.path().join("run/net-helper.sock"));
        seteuid(Uid::from_raw(0)).unwrap();
        socket
    }

    pub fn client(&self, uid: u32) -> Client<Net> {
        Client::over(self.connect(uid).unwrap()).unwrap()
    }

    /// What the audit reads of it.
    pub fn audit(&self, root: bool) -> skep_audit::Process {
        skep_audit::process(self.child.id().cast_signed(), &TABLE, &self.options(root)).unwrap().unwrap()
    }

    /// And of its child, found as the audit finds it.
    pub fn audit_of_sender(&self) -> skep_audit::Process {
        let report = skep_audit::run(&self.options(true)).unwrap();
        report.processes.into_iter().find(|process| process.name == skep_rights::net::OUTSIDE.name).unwrap()
    }

    fn options(&self, root: bool) -> skep_audit::Options {
        skep_audit::Options {
            state: self.dir.path().join("state"),
            run: self.dir.path().join("run"),
            instance: instance(),
            ids: root.then(|| skep_service::Ids::parse(&ids()).unwrap()),
            only: None,
        }
    }
}

#[test]
fn it_makes_everything_from_inside_capability_mode() {
    let Some(_network) = Network::own() else { return };
    let before = net::list(any_socket().as_fd()).unwrap();
    let program = Program::start(None);
    let mut client = program.client(BROKER);
    let held = program.audit(true);
    for number in 0..2 {
        ask(&mut client, CreateSwitch { switch: SwitchId::random(), number, uplink: None }).unwrap();
    }
    let mut tap = |number| {
        let call = CreateTap { machine: MachineId::random(), nic: NicId::random(), number, switch: Some(0) };
        ask(&mut client, call).map(|(_, [tap])| tap).unwrap()
    };
    let (a, b) = (tap(0), tap(1));
    send(&a, &frame("through capability mode"));
    assert_eq!(hear(&b, |_| ()), "through capability mode");
    ask(&mut client, MoveTap { number: 1, switch: Some(1), isolated: false }).unwrap();
    ask(&mut client, CreatePair { number: 0, switches: [Some(0), Some(1)] }).unwrap();
    send(&a, &frame("through a pair"));
    assert_eq!(hear(&b, |_| ()), "through a pair");
    let refusal = ask(&mut client, DeleteTap { number: 0 }).unwrap_err();
    assert_eq!(refusal.reason, Reason::InUse, "{refusal}");
    let (page, []) = ask(&mut client, ListInterfaces { own: true, after: 0 }).unwrap();
    assert_eq!(page.interfaces.len(), 6);
    // What capability mode refuses, connect(2), is done outside of it.
    let (_, UpTo(resolvers)) = ask(&mut client, OpenResolvers {}).unwrap();
    assert_eq!(resolvers.len(), 1);
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let call = ConnectServer { address: [127, 0, 0, 1].into(), port: server.local_addr().unwrap().port(), portal: false };
    let (_, [_socket]) = ask(&mut client, call).unwrap();
    server.accept().unwrap();
    drop((a, b));
    for number in 0..2 {
        ask(&mut client, DeleteTap { number }).unwrap();
    }
    ask(&mut client, DeletePair { number: 0 }).unwrap();
    for number in 0..2 {
        ask(&mut client, DeleteSwitch { number }).unwrap();
    }
    assert_eq!(net::list(any_socket().as_fd()).unwrap(), before);
    // The kernel's word on what it is and holds: the same before and after.
    let after = program.audit(true);
    assert_eq!(after.descriptors.len(), held.descriptors.len(), "{after}");
    for line in &after.lines {
        assert!(!line.verdict.differs(), "{}\n{after}", line.line);
    }
    let of = |name: &str| after.lines.iter().find(|line| line.line == name).unwrap_or_else(|| panic!("no line {name}\n{after}"));
    assert!(of("capsicum").found.starts_with("in capability mode"), "{after}");
    for name in ["descriptor interfaces", "descriptor outside", "descriptor listener"] {
        assert_eq!(of(name).verdict, skep_audit::Verdict::Confirmed, "{after}");
    }
    let acts = std::fs::read_to_string(program.dir.path().join("state/logs/audit-net-helper.log")).unwrap();
    let of = |what: &str| acts.lines().filter(|l| l.contains(what)).count();
    assert_eq!((of("\tCreateTap\tbegin\t"), of("\tCreateTap\tdone\t"), of("\tDeleteSwitch\tdone\t")), (2, 2, 2));
}

#[test]
fn it_serves_its_declared_peer_alone_and_outlives_floods_of_descriptors() {
    let Some(_network) = Network::own() else { return };
    let program = Program::start(None);
    let mut client = program.client(BROKER);
    ask(&mut client, ListInterfaces { own: true, after: 0 }).unwrap();
    let held = program.audit(true).descriptors.len();
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
    assert_eq!(program.audit(true).descriptors.len(), held);
}

/// Killed and started again, it finds what it made, and removes what it did not finish.
#[test]
fn what_it_made_is_there_after_it_was_killed() {
    let Some(_network) = Network::own() else { return };
    let mut program = Program::start(None);
    let switch = SwitchId::random();
    ask(&mut program.client(BROKER), CreateSwitch { switch, number: 0, uplink: None }).unwrap();
    let call = CreateTap { machine: MachineId::random(), nic: NicId::random(), number: 0, switch: Some(0) };
    let (_, [held]) = ask(&mut program.client(BROKER), call.clone()).unwrap();
    program.child.kill().unwrap();
    program.child.wait().unwrap();
    let socket = any_socket();
    let half = net::create(socket.as_fd(), "tap").unwrap();
    net::describe(socket.as_fd(), &half, &format!("skep makes sk{}t1", instance())).unwrap();
    let program = Program::start(None);
    let mut client = program.client(BROKER);
    let (page, []) = ask(&mut client, ListInterfaces { own: true, after: 0 }).unwrap();
    assert_eq!(page.interfaces.len(), 2, "{page:?}");
    assert!(!net::list(socket.as_fd()).unwrap().contains(&half));
    // Its machine runs on; when that has ended, too, the tap is made anew.
    assert_eq!(ask(&mut client, call.clone()).unwrap_err().reason, Reason::InUse);
    drop(held);
    let (_, [held]) = ask(&mut client, call).unwrap();
    drop(held);
    ask(&mut client, DeleteTap { number: 0 }).unwrap();
    ask(&mut client, DeleteSwitch { number: 0 }).unwrap();
}

#[test]
fn started_by_an_ordinary_user_it_lists_and_changes_nothing() {
    let Some(_network) = Network::own() else { return };
    assert!(geteuid().is_root());
    let user = 71_907;
    let program = Program::start(Some(user));
    let mut client = program.client(user);
    let (page, []) = ask(&mut client, ListInterfaces { own: false, after: 0 }).unwrap();
    assert!(page.interfaces.iter().all(|i| i.name.as_str() != "lo0"));
    let refusal = ask(&mut client, CreateSwitch { switch: SwitchId::random(), number: 0, uplink: None }).unwrap_err();
    assert_eq!(refusal.reason, Reason::NeedsRoot);
    assert!(!refusal.note.as_str().is_empty());
}
