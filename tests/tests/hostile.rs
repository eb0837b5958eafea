//! A taken-over frontend: it may send what it likes, and nothing dies but its connection.

use anyhow::{Result, ensure};
use nix::unistd::{Gid, Uid, setegid, seteuid};
use skep_ipc::{CallError, Client};
use skep_proto::broker::{Broker, Credential, HostShow, MachineAct, MachineGet, OpenSession};
use skep_proto::wire::{Hello, Origin, Welcome, decode, encode};
use skep_proto::{Helper, Reason, Text, TraceId, UpTo};
use skep_sys::{msg, sock};
use skep_tests::{Mode, Suite, is_root, skip};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(20);

/// A connection to the broker as the frontend's uid.
fn as_frontend<T>(suite: &Suite, what: impl FnOnce() -> T) -> Result<T> {
    let frontend = suite.uid_of("api-frontend")?;
    setegid(Gid::from_raw(frontend))?;
    seteuid(Uid::from_raw(frontend))?;
    let result = what();
    seteuid(Uid::from_raw(0))?;
    setegid(Gid::from_raw(0))?;
    Ok(result)
}

fn raw(suite: &Suite) -> Result<OwnedFd> {
    Ok(as_frontend(suite, || sock::connect_seqpacket(&suite.run.join("broker.sock")))??)
}

fn ask(socket: &OwnedFd, bytes: &[u8], fds: &[OwnedFd]) -> Result<msg::Record, msg::RecvError> {
    let deadline = Some(Instant::now() + PATIENCE);
    msg::send(socket.as_fd(), bytes, &msg::borrow(fds), deadline)?;
    msg::recv(socket.as_fd(), 8000, 16, deadline)
}

fn hello() -> Vec<u8> {
    encode(&Hello { protocol: Text::lossy(Broker::NAME), version: Broker::VERSION }).expect("encodes")
}

#[test]
fn a_taken_over_frontend_ends_nothing_but_its_own_connections() -> Result<()> {
    if !is_root() {
        skip!("needs the frontend's uid, so root");
    }
    let suite = Suite::start(Mode::Root)?;
    let before = suite.pids("broker")?;
    // Bytes that are no record, of every length and kind.
    for length in [1usize, 2, 7, 100, 7999, 8000, 8001, 20_000] {
        for fill in [0u8, 0x7f, 0xff] {
            let socket = raw(&suite)?;
            // At most it is told which versions are served here.
            let answer = ask(&socket, &vec![fill; length], &[]);
            let good = answer.is_ok_and(|r| !matches!(decode::<Welcome>(&r.bytes), Ok(Err(_))));
            ensure!(!good, "{length} x {fill:#x} was answered with a good record")
        }
    }
    // A good hello, then a request before the session, then descriptors where none belong, then a wrong number.
    let origin = |seq| Origin { seq, trace: TraceId::random(), user: Text::lossy("uid 0") };
    let request =
        |seq| encode(&(origin(seq), <HostShow as Into<skep_proto::broker::BrokerRequest>>::into(HostShow {}))).expect("encodes");
    for (what, bytes, fds) in [
        ("before the session", request(1), 0),
        ("with descriptors", request(1), 3),
        ("out of sequence", request(9), 0),
        ("with a tail", [request(1), vec![0]].concat(), 0),
        ("empty", vec![], 0),
    ] {
        let socket = raw(&suite)?;
        ask(&socket, &hello(), &[])?;
        let fds: Vec<OwnedFd> =
            (0..fds).map(|_| std::fs::File::open("/dev/null").map(OwnedFd::from)).collect::<Result<_, _>>()?;
        ensure!(ask(&socket, &bytes, &fds).is_err(), "{what}: answered");
    }
    // A flood of connections that say nothing.
    let flood: Vec<_> = (0..200).map_while(|_| raw(&suite).ok()).collect();
    drop(flood);
    ensure!(suite.pids("broker")? == before, "the broker was restarted");
    suite.ok(&["host", "show"])?;
    suite.finish()
}

#[test]
fn a_frontend_cannot_claim_to_be_somebody_else() -> Result<()> {
    if !is_root() {
        skip!("needs the frontend's uid, so root");
    }
    let suite = Suite::start(Mode::Root)?;
    suite.import_guest()?;
    suite.define("m", &[])?;
    let connect = || as_frontend(&suite, || Client::<Broker>::connect(&suite.run.join("broker.sock")));
    let user = Text::lossy("uid 0");
    // A socket whose other end is an ordinary user's.
    let listener = std::os::unix::net::UnixListener::bind(suite.dir().join("x.sock"))?;
    std::fs::set_permissions(suite.dir().join("x.sock"), std::os::unix::fs::PermissionsExt::from_mode(0o666))?;
    setegid(Gid::from_raw(61_234))?;
    seteuid(Uid::from_raw(61_234))?;
    let client = std::os::unix::net::UnixStream::connect(suite.dir().join("x.sock"))?;
    seteuid(Uid::from_raw(0))?;
    setegid(Gid::from_raw(0))?;
    let accepted: OwnedFd = listener.accept()?.0.into();
    let mut broker = connect()??;
    let session = OpenSession { credential: Credential::LocalSocket };
    let refused = broker.call(TraceId::random(), &user, session, UpTo(vec![accepted]), PATIENCE);
    ensure!(matches!(&refused, Err(CallError::Refused(r)) if r.reason == Reason::PermissionDenied), "{refused:?}");
    drop((client, listener));
    // No socket at all, a file, a forged token.
    for (credential, fds) in [
        (Credential::LocalSocket, vec![]),
        (Credential::LocalSocket, vec![OwnedFd::from(std::fs::File::open("/dev/null")?)]),
        (Credential::Token(Text::lossy("0000")), vec![]),
        (Credential::Token(Text::lossy("")), vec![]),
    ] {
        let mut broker = connect()??;
        let result = broker.call(TraceId::random(), &user, OpenSession { credential }, UpTo(fds), PATIENCE);
        ensure!(result.is_err(), "a session was opened");
        let act = MachineAct { machine: Text::lossy("m"), act: skep_proto::broker::Act::Start };
        ensure!(broker.call(TraceId::random(), &user, act, [], PATIENCE).is_err());
    }
    // A socket that root listens on, connected to by the frontend itself: the kernel names root as its peer, who is no client.
    let own = raw(&suite)?;
    ensure!(sock::peer(own.as_fd())?.uid == 0, "root listened on the broker's socket before it dropped its uid");
    let mut broker = connect()??;
    let session = OpenSession { credential: Credential::LocalSocket };
    let result = broker.call(TraceId::random(), &user, session, UpTo(vec![own]), PATIENCE);
    ensure!(matches!(&result, Err(CallError::Refused(r)) if r.reason == Reason::PermissionDenied), "{result:?}");
    ensure!(suite.state_of("m")? == "stopped");
    let log = suite.logs();
    ensure!(log.contains("may not do that") || log.contains("PERMISSION_DENIED"), "the refusal is not in a log:\n{log}");
    suite.finish()
}

#[test]
fn strangers_cannot_reach_the_services_sockets() -> Result<()> {
    if !is_root() {
        skip!("needs other uids, so root");
    }
    let suite = Suite::start(Mode::Root)?;
    for service in ["broker", "storage-helper", "net-helper", "vm-runner"] {
        let path = suite.run.join(format!("{service}.sock"));
        // A user of the host, and a service that is not the declared peer.
        for uid in [61_234, suite.uid_of("net-helper")?] {
            setegid(Gid::from_raw(uid))?;
            seteuid(Uid::from_raw(uid))?;
            let result = sock::connect_seqpacket(&path);
            seteuid(Uid::from_raw(0))?;
            setegid(Gid::from_raw(0))?;
            ensure!(result.is_err(), "uid {uid} could connect to {service}");
        }
        // root gets past the file's mode, and is then refused by the service itself.
        let mut root = match Client::<Broker>::connect(&path) {
            Err(_) => continue,
            Ok(client) => client,
        };
        let get = MachineGet { machine: Text::lossy("m") };
        ensure!(root.call(TraceId::random(), &Text::lossy("uid 0"), get, [], PATIENCE).is_err(), "{service} serves root");
    }
    suite.finish()
}

#[test]
fn logs_stay_within_their_bounds_whoever_fills_them() -> Result<()> {
    let suite = Suite::start(if is_root() { Mode::Root } else { Mode::User })?;
    let logs = suite.state.join("logs");
    let services = ["api-frontend", "broker", "storage-helper", "net-helper", "vm-runner"];
    suite.ok(&["down"])?;
    let full = usize::try_from(skep_service::FULL)?;
    let filled = |number: usize| format!("2026-01-01T00:00:00.000000Z filled info {number:059}\n");
    let text: String = (0..full / 100).map(filled).collect();
    for service in services {
        std::fs::write(logs.join(format!("{service}.log")), &text)?;
        std::fs::write(logs.join(format!("audit-{service}.log")), &text)?;
    }
    suite.up()?;
    // Each adds lines of its own from within its sandbox, until what is there is too much.
    let mut rounds = 0;
    let turned = |name: &str| std::fs::metadata(logs.join(format!("{name}.1.log"))).is_ok_and(|meta| meta.len() > 0);
    while services.iter().any(|service| !turned(service)) {
        suite.ok(&["disk", "list"])?;
        suite.ok(&["host", "show"])?;
        rounds += 1;
        ensure!(rounds < 200, "not full: {:?}", services.iter().filter(|service| !turned(service)).collect::<Vec<_>>());
    }
    for entry in std::fs::read_dir(&logs)?.flatten() {
        let length = entry.metadata()?.len();
        ensure!(length <= skep_service::FULL, "{}: {length}", entry.path().display());
    }
    // What is said in cells is in bounds of the same kind, which another keeps.
    let name = "console-proxy";
    suite.ok(&["down"])?;
    std::fs::write(logs.join(format!("{name}.log")), &text)?;
    suite.up()?;
    suite.import_guest()?;
    suite.define("m", &[])?;
    suite.boot("m")?;
    while !turned(name) {
        suite.guest_runs("m", "echo $((6*7))", "42")?;
    }
    suite.ok(&["vm", "kill", "m"])?;
    ensure!(std::fs::metadata(logs.join("console-proxy.log"))?.len() <= skep_service::FULL);
    // Both are read.
    let log = suite.ok(&["log", "broker", "-n", "1000000"])?;
    ensure!(log.contains("filled info") && log.contains("HostShow"), "{} bytes", log.len());
    let audit = suite.skep(&["audit"])?;
    ensure!(audit.status.success(), "{}", String::from_utf8_lossy(&audit.stdout));
    suite.finish()
}
