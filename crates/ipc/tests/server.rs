//! A helper's server against clients that keep to no rule: only the offender's connection ends.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, dead_code)]

mod support;

use skep_proto::console::{AttachScreen, AttachSerial, Console};
use skep_proto::wire::{VersionRefused, Welcome, encode};
use skep_proto::{MAX_RECORD, Text};
use support::*;

#[test]
fn a_wrong_hello_ends_its_connection_and_no_other() {
    let served = Served::new(None);
    let bystander = Raw::greeted::<Console>(&served.path);
    let before = open();
    for (bytes, fds, says) in wrong_hellos() {
        let raw = Raw::connect(&served.path);
        raw.send(&bytes, fds);
        assert_eq!(served.next(), Seen::Closed(says.into()));
        // A hello that was whole is answered with what is served here.
        if bytes.len() <= MAX_RECORD && fds < 16 {
            let refused = VersionRefused { protocol: Text::lossy("console-proxy"), oldest: 1, newest: 1 };
            assert_eq!(raw.recv().unwrap().bytes, encode(&Welcome::Err(refused)).unwrap(), "{says}");
        }
        assert!(raw.is_closed(), "{says}");
        drop(raw);
        assert_eq!(open(), before, "{says}");
    }
    bystander.status(1);
}

#[test]
fn a_wrong_request_ends_its_connection_and_no_other_and_is_not_begun() {
    let served = Served::new(None);
    let bystander = Raw::greeted::<Console>(&served.path);
    let before = open();
    for (bytes, fds, says) in wrong_requests() {
        let raw = Raw::greeted::<Console>(&served.path);
        raw.send(&bytes, fds);
        assert_eq!(served.next(), Seen::Closed(says.into()));
        assert!(raw.is_closed(), "{says}");
        drop(raw);
        assert_eq!(open(), before, "{says}");
    }
    bystander.status(1);
}

#[test]
fn requests_are_answered_in_order_and_shown_to_the_observer() {
    let served = Served::new(Some(vec![nix::unistd::geteuid().as_raw()]));
    let raw = Raw::greeted::<Console>(&served.path);
    let before = open();
    raw.status(1);
    raw.send(&request(2, AttachSerial { write: true, take: false }), 1);
    raw.send(&request(3, AttachSerial { write: true, take: true }), 1);
    let (attached, refused) = (raw.recv().unwrap(), raw.recv().unwrap());
    assert_eq!(attached.bytes, [2, 0, 0, 1, 0]);
    assert!(refused.bytes.starts_with(&[3, 0, 1]), "{:?}", refused.bytes);
    let seen: Vec<Seen> = (0..6).map(|_| served.next()).collect();
    let expected = ["Status", "AttachSerial", "AttachSerial"].into_iter().zip(["Status", "AttachSerial", "refused"]);
    assert_eq!(seen, expected.flat_map(|(began, ended)| [Seen::Began(began), Seen::Ended(ended)]).collect::<Vec<_>>());
    assert_eq!(open(), before, "what came with the requests is closed");
    // One number twice.
    raw.send(&request(3, AttachScreen {}), 2);
    assert_eq!(served.next(), Seen::Closed("request 3 where 4 was expected".into()));
}

#[test]
fn a_request_out_of_order_ends_the_connection() {
    let served = Served::new(None);
    let raw = Raw::greeted::<Console>(&served.path);
    raw.send(&request(1, AttachSerial { write: false, take: false }), 1);
    assert_eq!(served.next(), Seen::Closed("AttachSerial is not permitted now".into()));
    assert!(raw.is_closed());
}

#[test]
fn a_client_that_is_gone_before_its_reply_ends_nothing_else() {
    let served = Served::new(None);
    let bystander = Raw::greeted::<Console>(&served.path);
    let before = open();
    let raw = Raw::greeted::<Console>(&served.path);
    raw.send(&request(1, AttachScreen {}), 2);
    assert_eq!((served.next(), served.next()), (Seen::Began("AttachScreen"), Seen::Works));
    drop(raw);
    served.go_on.send(()).unwrap();
    assert_eq!(served.next(), Seen::Ended("AttachScreen"));
    let Seen::Closed(error) = served.next() else { panic!() };
    assert!(error.starts_with("send: "), "{error}");
    bystander.status(1);
    assert_eq!(open(), before);
}

#[test]
fn a_client_that_says_goodbye_is_no_offender() {
    let served = Served::new(None);
    let raw = Raw::greeted::<Console>(&served.path);
    raw.status(1);
    drop(raw);
    let _ = (served.next(), served.next());
    assert_eq!(served.next(), Seen::Closed("the peer closed the connection".into()));
}

#[test]
fn a_stranger_is_turned_away() {
    let own = nix::unistd::geteuid().as_raw();
    let served = Served::new(Some(vec![own + 1]));
    let raw = Raw::connect(&served.path);
    assert_eq!(served.next(), Seen::Stranger(own));
    assert!(raw.is_closed());
}

#[test]
fn a_flood_of_connections_costs_the_others_nothing_and_passes() {
    let served = Served::new(None);
    let bystander = Raw::greeted::<Console>(&served.path);
    let before = open();
    let flood: Vec<Raw> = (0..100).map(|_| Raw::connect(&served.path)).collect();
    let (kept, refused): (Vec<Raw>, Vec<Raw>) = flood.into_iter().partition(|raw| {
        // The connection may be closed before the hello is sent.
        raw.try_send(&hello::<Console>(), 0).is_ok() && raw.recv().is_ok()
    });
    assert_eq!((kept.len(), refused.len()), (31, 69), "32 connections at a time");
    bystander.status(1);
    drop((kept, refused));
    let late = Raw::greeted::<Console>(&served.path);
    late.status(1);
    drop(late);
    for _ in 0..4 {
        let _ = served.next();
    }
    while served.next() != Seen::Ended("Status") {}
    assert!(open() <= before + 1);
}

/// On FreeBSD what is accepted begins with the listener's rights; here a limit is any function.
#[test]
fn what_cannot_be_limited_is_closed_and_nobody_else_is() {
    use skep_ipc::Server;
    use skep_sys::sock;
    use std::os::fd::AsFd;
    use std::sync::atomic::{AtomicUsize, Ordering};
    static LIMITED: AtomicUsize = AtomicUsize::new(0);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("console.sock");
    let listener = sock::bind_seqpacket(&path, 0o600).unwrap();
    sock::listen(listener.as_fd()).unwrap();
    std::thread::spawn(move || {
        let server = Server::<Console>::new(listener, None).limiting(|_| match LIMITED.fetch_add(1, Ordering::SeqCst) {
            1 => Err(std::io::Error::other("no")),
            _ => Ok(()),
        });
        serve(server)
    });
    let first = Raw::greeted::<Console>(&path);
    let second = Raw::connect(&path);
    assert!(second.is_closed());
    let third = Raw::greeted::<Console>(&path);
    first.status(1);
    third.status(1);
    assert_eq!(LIMITED.load(Ordering::SeqCst), 3);
}
