//! The asking side against servers that keep to no rule: the call fails, and no descriptor stays.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, dead_code)]

mod support;

use skep_ipc::{CallError, Client};
use skep_proto::net::{CreateTap, DeleteTap, Net};
use skep_proto::wire::{ReplyHead, encode};
use skep_proto::{MachineId, NicId, Reason, Refusal, TraceId};
use skep_sys::sock;
use std::io::Read;
use std::time::Duration;
use support::*;

const PATIENCE: Duration = Duration::from_secs(60);

fn create_tap() -> CreateTap {
    CreateTap { machine: MachineId::from_u128(2), nic: NicId::from_u128(1), number: 1, switch: None }
}

#[test]
fn a_wrong_welcome_is_no_connection() {
    let before = open();
    for wrong in wrong_welcomes() {
        let (ours, theirs) = sock::seqpacket_pair().unwrap();
        let server = wrong_server(theirs, Some(wrong.clone()), None);
        assert_eq!(gone(Client::<Net>::over(ours)), wrong.2);
        server.join().unwrap();
        assert_eq!(open(), before, "{}", wrong.2);
    }
}

#[test]
fn a_wrong_reply_fails_the_call_and_leaves_no_descriptor() {
    let before = open();
    for wrong in wrong_replies() {
        let (ours, theirs) = sock::seqpacket_pair().unwrap();
        let server = wrong_server(theirs, None, Some(wrong.clone()));
        let mut client = Client::<Net>::over(ours).unwrap();
        assert_eq!(gone(client.call(TraceId(1), &user(), create_tap(), [], PATIENCE)), wrong.2);
        drop(client);
        server.join().unwrap();
        assert_eq!(open(), before, "{}", wrong.2);
    }
}

#[test]
fn a_good_reply_brings_its_descriptor_and_a_refusal_says_why() {
    let (ours, theirs) = sock::seqpacket_pair().unwrap();
    let good = encode(&(ReplyHead { seq: 1, op: 2 }, Result::<_, Refusal>::Ok("sktestt1"))).unwrap();
    let server = wrong_server(theirs, None, Some((good, 1, "")));
    let mut client = Client::<Net>::over(ours).unwrap();
    let (named, [file]) = client.call(TraceId(1), &user(), create_tap(), [], PATIENCE).unwrap();
    assert_eq!(named.name.as_str(), "sktestt1");
    assert_eq!(std::fs::File::from(file).read(&mut [0]).unwrap(), 0);
    drop(client);
    server.join().unwrap();

    let (ours, theirs) = sock::seqpacket_pair().unwrap();
    let refusal = encode(&(ReplyHead { seq: 1, op: 2 }, Result::<&str, _>::Err(no()))).unwrap();
    let server = wrong_server(theirs, None, Some((refusal, 0, "")));
    let mut client = Client::<Net>::over(ours).unwrap();
    match client.call(TraceId(1), &user(), create_tap(), [], PATIENCE) {
        Err(CallError::Refused(refusal)) => assert_eq!(refusal, no()),
        other => panic!("{other:?}"),
    }
    drop(client);
    server.join().unwrap();
}

#[test]
fn a_reply_that_does_not_come_in_time_fails_the_call() {
    let (ours, theirs) = sock::seqpacket_pair().unwrap();
    let server = wrong_server(theirs, None, None);
    let mut client = Client::<Net>::over(ours).unwrap();
    let error = client.call(TraceId(1), &user(), DeleteTap { number: 1 }, [], Duration::ZERO).unwrap_err();
    assert_eq!(error.to_string(), "net-helper: the deadline passed");
    assert_eq!(error.into_refusal().reason, Reason::Unavailable);
    drop(client);
    // The request is unread: the server finds the connection reset or reads it first.
    let _ = server.join();
}

#[test]
fn a_server_that_dies_within_a_call_is_unavailable() {
    let (ours, theirs) = sock::seqpacket_pair().unwrap();
    let server = std::thread::spawn(move || {
        let raw = Raw(theirs);
        let _ = raw.recv().unwrap();
        raw.send(&[0, 1], 0);
        let _ = raw.recv().unwrap();
    });
    let mut client = Client::<Net>::over(ours).unwrap();
    let error = client.call(TraceId(1), &user(), DeleteTap { number: 1 }, [], PATIENCE).unwrap_err();
    assert_eq!(error.to_string(), "net-helper: the peer closed the connection");
    assert_eq!(error.into_refusal().reason, Reason::Unavailable);
    server.join().unwrap();
    let nobody = tempfile::tempdir().unwrap();
    let error = Client::<Net>::connect(&nobody.path().join("net-helper.sock")).err().unwrap();
    assert!(matches!(&error, CallError::Connect { helper: "net-helper", .. }), "{error}");
    assert_eq!(error.into_refusal().errno, 2);
}
