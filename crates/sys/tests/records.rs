//! A record arrives whole or is an error, and no descriptor stays open that nobody owns.
//!
//! Descriptors are counted for the whole process: each test is a process of its own (cargo-nextest).
#![allow(unsafe_code, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use nix::sys::stat::fstat;
use skep_sys::msg::{self, RecvError, borrow};
use skep_sys::{fd, sock};
use std::io::{ErrorKind, IoSlice, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

const MAX: usize = 8000;

/// How many descriptors this process has.
fn open() -> usize {
    fd::count()
}

fn files(count: usize) -> Vec<OwnedFd> {
    (0..count).map(|_| fd::memory_file(c"test").unwrap()).collect()
}

/// Sends as a peer would who keeps to no rule.
fn send_raw(socket: &OwnedFd, bytes: &[u8], fds: &[OwnedFd]) {
    let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let control = if raw.is_empty() { vec![] } else { vec![ControlMessage::ScmRights(&raw)] };
    sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(bytes)], &control, MsgFlags::MSG_EOR, None).unwrap();
}

/// What the receiver makes of such a record; whatever it is, no descriptor stays.
fn refused(bytes: &[u8], fds: usize, max_fds: usize) -> RecvError {
    let (ours, theirs) = sock::seqpacket_pair().unwrap();
    send_raw(&theirs, bytes, &files(fds));
    let before = open();
    // It is there already.
    let error = msg::recv(ours.as_fd(), MAX, max_fds, Some(Instant::now())).unwrap_err();
    assert_eq!(open(), before, "{error}");
    error
}

#[test]
fn records_arrive_whole_in_order_and_with_their_descriptors() {
    let (a, b) = sock::seqpacket_pair().unwrap();
    for (size, count) in [(1, 0), (1, 1), (MAX - 1, 3), (MAX, 16)] {
        let bytes: Vec<u8> = (0..size).map(|n| n as u8).collect();
        let sent = files(count);
        let before = open();
        msg::send(a.as_fd(), &bytes, &borrow(&sent), None).unwrap();
        msg::send(a.as_fd(), b"next", &[], None).unwrap();
        let record = msg::recv(b.as_fd(), MAX, 16, None).unwrap();
        assert_eq!(record.bytes, bytes);
        let inode = |fd: &OwnedFd| fstat(fd).unwrap().st_ino;
        assert_eq!(record.fds.iter().map(inode).collect::<Vec<_>>(), sent.iter().map(inode).collect::<Vec<_>>());
        for came in &record.fds {
            let flags = FdFlag::from_bits_retain(fcntl(came, FcntlArg::F_GETFD).unwrap());
            assert!(flags.contains(FdFlag::FD_CLOEXEC), "a program started by us would inherit it");
        }
        let next = msg::recv(b.as_fd(), MAX, 16, None).unwrap();
        assert_eq!((next.bytes.as_slice(), next.fds.len()), (b"next".as_slice(), 0));
        drop(record);
        assert_eq!(open(), before);
    }
}

#[test]
fn a_record_too_long_is_an_error() {
    assert!(matches!(refused(&[7; MAX + 1], 0, 16), RecvError::TooLong(MAX)));
    assert!(matches!(refused(&[7; 20_000], 16, 16), RecvError::TooLong(MAX)));
}

#[test]
fn too_many_descriptors_are_an_error() {
    assert!(matches!(refused(b"x", 1, 0), RecvError::TooManyFds(0)));
    assert!(matches!(refused(b"x", 17, 16), RecvError::TooManyFds(16)));
    // More than the receiver has room for: the kernel drops some.
    assert!(matches!(refused(b"x", 100, 16), RecvError::TooManyFds(16)));
    assert!(matches!(refused(&[7; MAX + 1], 100, 16), RecvError::TooManyFds(16)));
}

#[test]
fn descriptors_for_which_there_is_no_number_left_are_an_error() {
    let (ours, theirs) = sock::seqpacket_pair().unwrap();
    send_raw(&theirs, b"x", &files(8));
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let before = open();
    // Room for three of the eight.
    setrlimit(Resource::RLIMIT_NOFILE, nix::libc::rlim_t::try_from(before + 3).unwrap(), hard).unwrap();
    let error = msg::recv(ours.as_fd(), MAX, 16, None).unwrap_err();
    setrlimit(Resource::RLIMIT_NOFILE, 1024, hard).unwrap();
    assert!(matches!(error, RecvError::TooManyFds(16)), "{error}");
    assert_eq!(open(), before);
}

#[test]
fn an_empty_record_is_the_end() {
    let (a, _b) = sock::seqpacket_pair().unwrap();
    assert_eq!(msg::send(a.as_fd(), &[], &[], None).unwrap_err().kind(), ErrorKind::InvalidInput);
    // A kernel with end marks makes no record of nothing: nothing comes, and descriptors go with the socket.
    let (nothing, bare) = (refused(&[], 0, 16), refused(&[], 2, 16));
    if shortens() {
        assert!(matches!((&nothing, &bare), (RecvError::TimedOut, RecvError::TimedOut)), "{nothing} {bare}");
    } else {
        assert!(matches!(nothing, RecvError::Closed), "{nothing}");
        assert!(matches!(bare, RecvError::ClosedInside | RecvError::Closed), "{bare}");
    }
}

#[test]
fn a_peer_that_is_gone_or_silent_is_told_apart() {
    let (ours, theirs) = sock::seqpacket_pair().unwrap();
    assert!(matches!(msg::recv(ours.as_fd(), MAX, 0, Some(Instant::now())), Err(RecvError::TimedOut)));
    assert!(matches!(msg::recv_begun(ours.as_fd(), MAX, 0, Duration::ZERO), Err(RecvError::TimedOut)));
    send_raw(&theirs, b"first words", &[]);
    assert_eq!(msg::recv_begun(ours.as_fd(), MAX, 0, Duration::ZERO).unwrap().bytes, b"first words");
    send_raw(&theirs, b"last words", &[]);
    drop(theirs);
    assert_eq!(msg::recv(ours.as_fd(), MAX, 0, Some(Instant::now())).unwrap().bytes, b"last words");
    assert!(matches!(msg::recv(ours.as_fd(), MAX, 0, None), Err(RecvError::Closed)));
    assert!(msg::send(ours.as_fd(), b"x", &[], None).is_err(), "and no signal ends this process");
}

/// Whether this kernel takes a part of what does not fit (FreeBSD 15 and later).
fn shortens() -> bool {
    use nix::sys::socket::{MsgFlags, send};
    use std::os::fd::AsRawFd;
    let (a, _b) = sock::seqpacket_pair().unwrap();
    loop {
        match send(a.as_raw_fd(), &[7; MAX], MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_EOR) {
            Ok(MAX) => {}
            Ok(_) => return true,
            Err(error) => {
                assert_eq!(error, nix::errno::Errno::EAGAIN);
                return false;
            }
        }
    }
}

#[test]
fn a_peer_that_reads_nothing_gets_whole_records_or_none() {
    let (a, b) = sock::seqpacket_pair().unwrap();
    let sent = files(1);
    let before = open();
    let mut whole = 0;
    while msg::send_within(a.as_fd(), &[7; MAX], &borrow(&sent), Duration::ZERO).is_ok() {
        whole += 1;
        assert!(whole < 1000, "the queue has an end");
    }
    let error = msg::send(a.as_fd(), &[7; MAX], &borrow(&sent), Some(Instant::now())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    drop(a);
    for _ in 0..whole {
        let record = msg::recv(b.as_fd(), MAX, 1, None).unwrap();
        assert_eq!((record.bytes.len(), record.fds.len()), (MAX, 1));
    }
    // The beginning of one that did not fit is never taken for a record.
    let rest = msg::recv(b.as_fd(), MAX, 1, None);
    let as_expected =
        if shortens() { matches!(rest, Err(RecvError::ClosedInside)) } else { matches!(rest, Err(RecvError::Closed)) };
    assert!(as_expected, "{rest:?}");
    assert_eq!(open(), before - 1);
}

#[test]
fn descriptors_that_nobody_received_are_closed_with_the_socket() {
    let (mut reader, writer) = std::io::pipe().unwrap();
    let (a, b) = sock::seqpacket_pair().unwrap();
    msg::send(a.as_fd(), b"x", &[writer.as_fd()], None).unwrap();
    drop((writer, a, b));
    assert_eq!(reader.read(&mut [0]).unwrap(), 0, "the writing end is closed");
}
