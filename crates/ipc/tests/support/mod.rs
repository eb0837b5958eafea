//! Peers that keep to no rule, and what each of them is told.

use skep_ipc::{Answered, Ask, CallError, Observer, ProtocolError, Server, Service};
use skep_proto::console::{AttachScreen, Attached, Console, ConsoleRequest, ConsoleState, Done, Status};
use skep_proto::net::Net;
use skep_proto::wire::{Hello, Origin, ReplyHead, VersionRefused, Welcome, encode};
use skep_proto::{Helper, MAX_FDS, MAX_RECORD, Op, Reason, Refusal, Text, TraceId};
use skep_sys::msg::{self, Record, RecvError, borrow};
use skep_sys::sock::{self, Peer};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};

/// The user of every request.
pub fn user() -> Text<64> {
    Text::lossy("tester")
}

/// Open descriptors of this process; each test is a process of its own (cargo-nextest).
pub fn open() -> usize {
    skep_sys::fd::count()
}

/// `count` descriptors to send.
pub fn files(count: usize) -> Vec<OwnedFd> {
    (0..count).map(|_| skep_sys::fd::memory_file(c"test").unwrap()).collect()
}

/// One end of a connection, written and read by hand.
pub struct Raw(pub OwnedFd);

impl Raw {
    pub fn connect(path: &Path) -> Self {
        Self(sock::connect_seqpacket(path).unwrap())
    }
    /// One that has said hello.
    pub fn greeted<H: Helper>(path: &Path) -> Self {
        let raw = Self::connect(path);
        raw.send(&hello::<H>(), 0);
        assert_eq!(raw.recv().unwrap().bytes, encode(&Welcome::Ok(H::VERSION)).unwrap());
        raw
    }
    pub fn send(&self, bytes: &[u8], fds: usize) {
        self.try_send(bytes, fds).unwrap();
    }
    pub fn try_send(&self, bytes: &[u8], fds: usize) -> std::io::Result<()> {
        msg::send(self.0.as_fd(), bytes, &borrow(&files(fds)), None)
    }
    pub fn recv(&self) -> Result<Record, RecvError> {
        msg::recv(self.0.as_fd(), MAX_RECORD, MAX_FDS, None)
    }
    /// Whether the peer has closed, be it with our record unread.
    pub fn is_closed(&self) -> bool {
        match self.recv() {
            Err(RecvError::Closed) => true,
            Err(RecvError::Io(e)) => e.kind() == std::io::ErrorKind::ConnectionReset,
            _ => false,
        }
    }
    /// Asks for the status, as it should be done, and gets it.
    pub fn status(&self, seq: u32) {
        self.send(&request(seq, Status {}), 0);
        let reply = self.recv().unwrap().bytes;
        assert_eq!(reply, encode(&(ReplyHead { seq, op: 2 }, Result::<_, Refusal>::Ok(state()))).unwrap());
    }
}

/// The hello of a protocol.
pub fn hello<H: Helper>() -> Vec<u8> {
    encode(&Hello { protocol: Text::lossy(H::NAME), version: H::VERSION }).unwrap()
}

/// A request to the console-proxy.
pub fn request(seq: u32, call: impl Into<ConsoleRequest>) -> Vec<u8> {
    encode(&(Origin { seq, trace: TraceId(1), user: user() }, call.into())).unwrap()
}

/// Bytes with others after them.
pub fn and(mut bytes: Vec<u8>, more: &[u8]) -> Vec<u8> {
    bytes.extend_from_slice(more);
    bytes
}

/// A client's wrong record, its descriptors, and what the server says of it.
pub type Wrong = (Vec<u8>, usize, &'static str);

/// In place of a hello.
pub fn wrong_hellos() -> Vec<Wrong> {
    let named = |name: &str, version| encode(&Hello { protocol: Text::lossy(name), version }).unwrap();
    vec![
        (named("net-helper", 1), 0, "a hello for net-helper version 1"),
        (named("console-proxy", 0), 0, "a hello for console-proxy version 0"),
        (named("console-proxy", 2), 0, "a hello for console-proxy version 2"),
        (named("", u16::MAX), 0, "a hello for  version 65535"),
        (hello::<Console>(), 1, "Hello came with 1 descriptors"),
        (and(hello::<Console>(), &[0]), 0, "a record with 1 bytes after its end"),
        (encode(&("console-proxy\n", 1u16)).unwrap(), 0, "a record that does not decode"),
        (encode(&("c".repeat(33), 1u16)).unwrap(), 0, "a record that does not decode"),
        (request(1, Status {}), 0, "a record that does not decode"),
        (vec![0xff; 100], 3, "a record that does not decode"),
        (vec![0; MAX_RECORD + 1], 3, "a record longer than 8000 bytes"),
        (hello::<Console>(), MAX_FDS + 1, "a record with more than 16 descriptors, or some were lost"),
    ]
}

/// In place of the first request.
pub fn wrong_requests() -> Vec<Wrong> {
    let status = request(1, Status {});
    let by = |user: String| encode(&((1u32, TraceId(1), user), ConsoleRequest::Status(Status {}))).unwrap();
    let unknown = and(status[..status.len() - 1].to_vec(), &[3]);
    vec![
        (request(0, Status {}), 0, "request 0 where 1 was expected"),
        (request(2, Status {}), 0, "request 2 where 1 was expected"),
        (request(u32::MAX, Status {}), 0, "request 4294967295 where 1 was expected"),
        (and(status.clone(), b"more"), 0, "a record with 4 bytes after its end"),
        (status[..status.len() - 1].to_vec(), 0, "a record that does not decode"),
        (unknown, 0, "a record that does not decode"),
        (by("a\nb".into()), 0, "a record that does not decode"),
        (by("u".repeat(65)), 0, "a record that does not decode"),
        (hello::<Console>(), 0, "a record that does not decode"),
        (status, 1, "Status came with 1 descriptors"),
        (request(1, AttachScreen {}), 0, "AttachScreen came with 0 descriptors"),
        (request(1, AttachScreen {}), 1, "AttachScreen came with 1 descriptors"),
        (request(1, AttachScreen {}), 3, "AttachScreen came with 3 descriptors"),
        (vec![0; MAX_RECORD + 1], 16, "a record longer than 8000 bytes"),
        (request(1, AttachScreen {}), 17, "a record with more than 16 descriptors, or some were lost"),
    ]
}

/// In place of a welcome, and what the client says of it.
pub fn wrong_welcomes() -> Vec<Wrong> {
    let refused = VersionRefused { protocol: Text::lossy("net-helper"), oldest: 3, newest: 4 };
    let good = encode(&Welcome::Ok(1)).unwrap();
    vec![
        (encode(&Welcome::Err(refused)).unwrap(), 0, "the peer serves net-helper versions 3 to 4"),
        (and(good.clone(), &[1]), 0, "a record with 1 bytes after its end"),
        (vec![9], 0, "a record that does not decode"),
        (vec![0; MAX_RECORD + 1], 0, "a record longer than 8000 bytes"),
        (good, 1, "Hello came with 1 descriptors"),
    ]
}

/// In place of the reply to request 1, `CreateTap`, which should be a name and one descriptor.
pub fn wrong_replies() -> Vec<Wrong> {
    let reply = |seq, op| encode(&(ReplyHead { seq, op }, Result::<_, Refusal>::Ok("sktestt1"))).unwrap();
    let refusal = encode(&(ReplyHead { seq: 1, op: 2 }, Result::<&str, _>::Err(no()))).unwrap();
    let name = |name: &str| encode(&(ReplyHead { seq: 1, op: 2 }, Result::<_, Refusal>::Ok(name))).unwrap();
    vec![
        (reply(2, 2), 1, "a reply to request 2, operation 2, which was not asked"),
        (reply(0, 2), 1, "a reply to request 0, operation 2, which was not asked"),
        (reply(1, 4), 1, "a reply to request 1, operation 4, which was not asked"),
        (and(reply(1, 2), &[0]), 1, "a record with 1 bytes after its end"),
        (reply(1, 2)[..6].to_vec(), 1, "a record that does not decode"),
        (vec![1], 1, "a record that does not decode"),
        (name("../../etc"), 1, "a record that does not decode"),
        (name("sixteen-is-a-lot"), 1, "a record that does not decode"),
        (reply(1, 2), 0, "CreateTap came with 0 descriptors"),
        (reply(1, 2), 2, "CreateTap came with 2 descriptors"),
        (refusal, 1, "CreateTap came with 1 descriptors"),
        (vec![0; MAX_RECORD + 1], 1, "a record longer than 8000 bytes"),
        (reply(1, 2), 17, "a record with more than 16 descriptors, or some were lost"),
    ]
}

/// A refusal.
pub fn no() -> Refusal {
    Refusal::new(Reason::InUse, "tap sktestt1").note("a test says so")
}

/// Serves one connection by hand: `welcome` or the right one, then `reply` to the first request. Ends when the client is gone.
pub fn wrong_server(socket: OwnedFd, welcome: Option<Wrong>, reply: Option<Wrong>) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let raw = Raw(socket);
        assert_eq!(raw.recv().unwrap().bytes, hello::<Net>());
        let (bytes, fds, _) = welcome.unwrap_or((encode(&Welcome::Ok(1)).unwrap(), 0, ""));
        raw.send(&bytes, fds);
        if let Some((bytes, fds, _)) = reply
            && raw.recv().is_ok()
        {
            raw.send(&bytes, fds);
        } else {
            // A request that will not be answered, or nothing.
            let _ = raw.recv();
        }
        assert!(raw.is_closed());
    })
}

/// The text of a failed connection's error.
pub fn gone<T>(result: Result<T, CallError>) -> String {
    match result {
        Err(CallError::Gone { helper: "net-helper", error }) => error.to_string(),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was accepted"),
    }
}

/// What happened in a server.
#[derive(Debug, PartialEq, Eq)]
pub enum Seen {
    Began(&'static str),
    Ended(&'static str),
    Closed(String),
    Stranger(u32),
    /// It works on `AttachScreen`, until it is told to go on.
    Works,
}

pub fn state() -> ConsoleState {
    ConsoleState { readers: 1, writer: false, screens: 2, received: 3, unlogged: 4 }
}

struct Proxy {
    seen: Sender<Seen>,
    go_on: Receiver<()>,
}

impl Service<Console> for Proxy {
    fn serve(&mut self, ask: Ask<'_>, request: ConsoleRequest) -> Result<Answered, ProtocolError> {
        match request {
            ConsoleRequest::AttachSerial(_) if ask.origin().seq == 1 => ask.out_of_order(),
            ConsoleRequest::AttachSerial(call) => {
                ask.answer(
                    call,
                    |_, call, [_stream]| {
                        if call.take { Err(no()) } else { Ok((Attached { writer: call.write, scrollback: 0 }, [])) }
                    },
                )
            }
            ConsoleRequest::AttachScreen(call) => ask.answer(call, |_, _, _streams| {
                self.seen.send(Seen::Works).unwrap();
                self.go_on.recv().unwrap();
                Ok((Done {}, []))
            }),
            ConsoleRequest::AttachPort(call) => ask.answer(call, |_, _, [_stream]| Err(no())),
            ConsoleRequest::Status(call) => ask.answer(call, |_, _, []| Ok((state(), []))),
        }
    }
    fn closed(&mut self, _: Peer, error: &ProtocolError) {
        self.seen.send(Seen::Closed(error.to_string())).unwrap();
    }
    fn stranger(&mut self, peer: Peer) {
        self.seen.send(Seen::Stranger(peer.uid)).unwrap();
    }
}

struct Watcher(Sender<Seen>);

impl Observer for Watcher {
    fn begin(&mut self, _: &Origin, op: &'static Op, _: &dyn std::fmt::Debug) {
        self.0.send(Seen::Began(op.name)).unwrap();
    }
    fn end(&mut self, _: &Origin, op: &'static Op, result: Result<(), &Refusal>) {
        self.0.send(Seen::Ended(if result.is_ok() { op.name } else { "refused" })).unwrap();
    }
}

/// A server of the console's protocol in a thread, which lives as long as the test.
pub struct Served {
    pub path: PathBuf,
    pub seen: Receiver<Seen>,
    pub go_on: Sender<()>,
    _dir: tempfile::TempDir,
}

/// Serves for ever.
pub fn serve(mut server: Server<Console>) -> std::io::Result<()> {
    let ((sender, _seen), (_go_on, told)) = (channel(), channel());
    server.run(&mut Proxy { seen: sender.clone(), go_on: told }, &mut Watcher(sender))
}

impl Served {
    pub fn new(allowed: Option<Vec<u32>>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("console.sock");
        let listener = sock::bind_seqpacket(&path, 0o600).unwrap();
        sock::listen(listener.as_fd()).unwrap();
        let ((sender, seen), (go_on, told)) = (channel(), channel());
        std::thread::spawn(move || {
            let mut proxy = Proxy { seen: sender.clone(), go_on: told };
            Server::<Console>::new(listener, allowed).run(&mut proxy, &mut Watcher(sender))
        });
        Self { path, seen, go_on, _dir: dir }
    }
    pub fn next(&self) -> Seen {
        self.seen.recv().unwrap()
    }
}
