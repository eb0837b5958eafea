//! The real program, started as the spawner starts it but for the cell.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use skep_ipc::{CallError, Client};
use skep_proto::console::{AttachPort, AttachScreen, AttachSerial, Attached, Console, ConsoleState, Status};
use skep_proto::{Call, Reason, Refusal, Text, TraceId};
use skep_sys::process::{Fork, fork};
use skep_sys::{fd, msg, sock};
use std::ffi::CString;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// The program under test: a bundle's, or the one built along.
fn program() -> CString {
    let built = || env!("CARGO_BIN_EXE_skep-console-proxy").into();
    let path = std::env::var_os("SKEP_BIN_DIR").map_or_else(built, |dir| Path::new(&dir).join("skep-console-proxy"));
    CString::new(path.into_os_string().into_encoded_bytes()).unwrap()
}

struct Proxy {
    pid: nix::unistd::Pid,
    client: Client<Console>,
    /// The hypervisor's end of the first line.
    line: Option<UnixStream>,
    /// Those of others.
    others: Vec<UnixStream>,
    /// Both halves of the log of each that has one.
    logs: Vec<OwnedFd>,
    _dir: tempfile::TempDir,
}

impl Proxy {
    fn start() -> Self {
        Self::with(&["1"])
    }

    fn with(ports: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = sock::bind_seqpacket(&path, 0o600).unwrap();
        let (report, report_theirs) = sock::seqpacket_pair().unwrap();
        let (mut lines, mut theirs, mut logs) = (Vec::new(), Vec::new(), Vec::new());
        for port in ports {
            let (line, their_end) = UnixStream::pair().unwrap();
            lines.push(line);
            theirs.push(OwnedFd::from(their_end));
            if !port.ends_with("nolog") {
                let halves = [(); 2].map(|()| OwnedFd::from(tempfile::tempfile().unwrap()));
                logs.extend(halves.each_ref().map(|half| half.try_clone().unwrap()));
                theirs.extend(halves);
            }
        }
        let program = program();
        let args = ports.iter().map(|port| CString::new(*port).unwrap());
        let args: Vec<CString> = std::iter::once(program.clone()).chain(args).collect();
        let plan = [report_theirs.as_fd(), listener.as_fd()].into_iter().chain(theirs.iter().map(AsFd::as_fd));
        let plan: Vec<_> = plan.collect();
        let pid = match fork().unwrap() {
            Fork::Parent(pid) => nix::unistd::Pid::from_raw(pid),
            Fork::Child => {
                let plan: Vec<_> = plan.into_iter().zip(3..).collect();
                fd::arrange(&plan).unwrap();
                let environment: [&CString; 0] = [];
                let Err(error) = nix::unistd::execve(&program, &args, &environment);
                panic!("execve: {error}")
            }
        };
        assert_eq!(msg::recv(report.as_fd(), 100, 0, None).unwrap().bytes, b"ready");
        let line = Some(lines.remove(0));
        Self { pid, client: Client::connect(&path).unwrap(), line, others: lines, logs, _dir: dir }
    }

    fn ask<C: Call<Helper = Console>>(&mut self, call: C, fds: C::SendFds) -> Result<C::Reply, Refusal> {
        match self.client.call(TraceId::random(), &Text::lossy("tester"), call, fds, Duration::from_secs(20)) {
            Ok((reply, _)) => Ok(reply),
            Err(CallError::Refused(refusal)) => Err(refusal),
            Err(e) => panic!("{e}"),
        }
    }

    fn attach(&mut self, write: bool) -> (UnixStream, Attached) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let attached = self.ask(AttachSerial { write, take: false }, [theirs.into()]).unwrap();
        (ours, attached)
    }

    fn attach_port(&mut self, port: u8) -> UnixStream {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let attached = self.ask(AttachPort { port, write: true, take: false }, [theirs.into()]).unwrap();
        assert!(attached.writer);
        ours
    }

    fn say(&mut self, bytes: &[u8]) {
        self.line.as_mut().unwrap().write_all(bytes).unwrap();
    }

    /// Waits until it has read so much.
    fn until_received(&mut self, bytes: u64) -> ConsoleState {
        loop {
            let state = self.ask(Status {}, []).unwrap();
            if state.received >= bytes {
                return state;
            }
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = nix::sys::signal::kill(self.pid, nix::sys::signal::Signal::SIGKILL);
        let _ = nix::sys::wait::waitpid(self.pid, None);
    }
}

#[test]
fn each_port_has_a_line_readers_and_a_log_of_its_own() {
    let mut proxy = Proxy::with(&["1", "2,nolog", "4"]);
    let (mut first, _) = proxy.attach(true);
    let (mut second, mut fourth) = (proxy.attach_port(2), proxy.attach_port(4));
    proxy.say(b"one");
    proxy.others[0].write_all(b"two").unwrap();
    proxy.others[1].write_all(b"for").unwrap();
    for (stream, says) in [(&mut first, b"one"), (&mut second, b"two"), (&mut fourth, b"for")] {
        let mut got = [0; 3];
        stream.read_exact(&mut got).unwrap();
        assert_eq!(got, *says);
        stream.write_all(says).unwrap();
    }
    let Proxy { line, others, .. } = &mut proxy;
    for (line, says) in line.iter_mut().chain(others).zip([b"one", b"two", b"for"]) {
        let mut got = [0; 3];
        line.read_exact(&mut got).unwrap();
        assert_eq!(got, *says);
    }
    assert_eq!(proxy.until_received(9).readers, 3);
    let logged = |half: &OwnedFd| {
        let mut text = String::new();
        let mut file = std::fs::File::from(half.try_clone().unwrap());
        // Times come before it.
        file.seek(std::io::SeekFrom::Start(skep_proto::marks::TABLE)).unwrap();
        file.read_to_string(&mut text).unwrap();
        text
    };
    assert_eq!(proxy.logs.iter().map(logged).collect::<Vec<_>>(), ["one", "", "for", ""]);
    let (_ours, theirs) = UnixStream::pair().unwrap();
    let none = proxy.ask(AttachPort { port: 3, write: true, take: false }, [theirs.into()]).unwrap_err();
    assert_eq!((none.reason, none.note.as_str()), (Reason::WrongState, "the machine runs without it"));
}

#[test]
fn a_line_is_held_to_its_speed_both_ways_and_no_other_waits_for_it() {
    let mut proxy = Proxy::with(&["1,speed=2400", "2"]);
    let (mut slow, _) = proxy.attach(true);
    let mut fast = proxy.attach_port(2);
    // 120 bytes take half a second each way, but for what a quiet line may have saved: 50 ms.
    let (begun, bytes) = (std::time::Instant::now(), [b'x'; 120]);
    proxy.say(&bytes);
    slow.write_all(&bytes).unwrap();
    proxy.others[0].write_all(&bytes).unwrap();
    let mut got = [0; 120];
    fast.read_exact(&mut got).unwrap();
    // It has had all of the other line before the slow one can have had all of its own.
    let state = proxy.ask(Status {}, []).unwrap();
    assert!((120..240).contains(&state.received) || begun.elapsed() > Duration::from_millis(449), "{state:?}");
    slow.read_exact(&mut got).unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(449), "{:?}", begun.elapsed());
    proxy.line.as_mut().unwrap().read_exact(&mut got).unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(449), "{:?}", begun.elapsed());
}

#[test]
fn the_line_is_read_whether_or_not_anybody_listens() {
    let mut proxy = Proxy::start();
    let flood: Vec<u8> = (0..8u32 << 20).map(|n| (n % 253) as u8).collect();
    proxy.say(&flood);
    let state = proxy.until_received(flood.len() as u64);
    assert_eq!((state.readers, state.unlogged), (0, 0));
    let (mut late, attached) = proxy.attach(false);
    assert_eq!(attached.scrollback, 256 << 10);
    let mut got = vec![0; 256 << 10];
    late.read_exact(&mut got).unwrap();
    assert!(got == flood[flood.len() - got.len()..]);
}

#[test]
fn a_slow_reader_misses_bytes_and_is_told() {
    let mut proxy = Proxy::start();
    let (mut slow, _) = proxy.attach(false);
    let (mut fast, _) = proxy.attach(false);
    let copy = std::thread::spawn(move || {
        let mut all = Vec::new();
        fast.read_to_end(&mut all).unwrap();
        all
    });
    let flood = vec![b'x'; 4 << 20];
    for piece in flood.chunks(4096) {
        proxy.say(piece);
    }
    proxy.until_received(flood.len() as u64);
    proxy.line = None;
    let mut all = Vec::new();
    slow.read_to_end(&mut all).unwrap();
    let text = String::from_utf8(all).unwrap();
    assert!(text.contains("bytes were skipped: this terminal is too slow]"), "{} bytes", text.len());
    assert!(copy.join().unwrap().len() >= 256 << 10);
}

#[test]
fn it_ends_when_the_line_is_closed_and_everybody_has_got_everything() {
    let mut proxy = Proxy::start();
    let (mut reader, _) = proxy.attach(false);
    proxy.say(&[b'y'; 100_000]);
    proxy.say(b"last words");
    proxy.line = None;
    let mut all = Vec::new();
    reader.read_to_end(&mut all).unwrap();
    assert!(all.len() == 100_010 && all.ends_with(b"last words"));
    let status = nix::sys::wait::waitpid(proxy.pid, None).unwrap();
    assert_eq!(status, nix::sys::wait::WaitStatus::Exited(proxy.pid, 0));
}

#[test]
fn the_writer_types_and_a_guest_that_does_not_read_hinders_nobody() {
    let mut proxy = Proxy::start();
    let (mut writer, attached) = proxy.attach(true);
    assert!(attached.writer);
    writer.write_all(b"typed\n").unwrap();
    let mut got = [0; 6];
    proxy.line.as_mut().unwrap().read_exact(&mut got).unwrap();
    assert_eq!(&got, b"typed\n");
    // Nobody reads this: it stays with the one who types.
    writer.set_nonblocking(true).unwrap();
    let mut typed = 0;
    while let Ok(n) = writer.write(&[b'z'; 4096]) {
        typed += n;
        proxy.ask(Status {}, []).unwrap();
    }
    assert!(typed < 4 << 20, "{typed} bytes were taken");
    proxy.say(b"still said");
    let mut heard = [0; 10];
    writer.set_nonblocking(false).unwrap();
    writer.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"still said");
}

#[test]
fn a_screen_is_joined_both_ways() {
    let mut proxy = Proxy::start();
    let (client, client_theirs) = UnixStream::pair().unwrap();
    let (hypervisor, hypervisor_theirs) = UnixStream::pair().unwrap();
    proxy.ask(AttachScreen {}, [client_theirs.into(), hypervisor_theirs.into()]).unwrap();
    let picture: Vec<u8> = (0..3u32 << 20).map(|n| (n % 241) as u8).collect();
    let keys: Vec<u8> = (0..200_000u32).map(|n| (n % 239) as u8).collect();
    let send = |mut stream: UnixStream, bytes: Vec<u8>| {
        std::thread::spawn(move || {
            stream.write_all(&bytes).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
        })
    };
    let receive = |mut stream: UnixStream| {
        std::thread::spawn(move || {
            let mut all = Vec::new();
            stream.read_to_end(&mut all).unwrap();
            all
        })
    };
    let there = receive(client.try_clone().unwrap());
    let back = receive(hypervisor.try_clone().unwrap());
    let senders = [send(hypervisor, picture.clone()), send(client, keys.clone())];
    assert!(there.join().unwrap() == picture);
    assert!(back.join().unwrap() == keys);
    senders.into_iter().for_each(|s| s.join().unwrap());
}

#[test]
fn only_streams_are_attached() {
    let mut proxy = Proxy::start();
    let file = || OwnedFd::from(tempfile::tempfile().unwrap());
    let (_ours, packets) = sock::seqpacket_pair().unwrap();
    for wrong in [file(), packets] {
        let refusal = proxy.ask(AttachSerial { write: false, take: false }, [wrong]).unwrap_err();
        assert_eq!(refusal.reason, Reason::InvalidValue);
    }
    let (stream, _other) = UnixStream::pair().unwrap();
    assert_eq!(proxy.ask(AttachScreen {}, [stream.into(), file()]).unwrap_err().reason, Reason::InvalidValue);
}

#[test]
fn terminals_have_a_limit() {
    let mut proxy = Proxy::start();
    let held: Vec<_> = (0..32).map(|_| proxy.attach(false)).collect();
    let (_ours, theirs) = UnixStream::pair().unwrap();
    let refusal = proxy.ask(AttachSerial { write: false, take: false }, [theirs.into()]).unwrap_err();
    assert_eq!(refusal.reason, Reason::LimitReached);
    drop(held);
    while proxy.ask(Status {}, []).unwrap().readers > 0 {}
    proxy.attach(false);
}
