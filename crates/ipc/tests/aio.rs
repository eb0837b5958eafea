//! The same for tokio: the broker's server and its clients.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, dead_code)]

mod support;

use skep_ipc::aio::{Client, Connection};
use skep_ipc::{CallError, ProtocolError};
use skep_proto::console::{AttachSerial, Attached, Console, ConsoleRequest, Status};
use skep_proto::net::{CreateTap, DeleteTap, Net};
use skep_proto::wire::{ReplyHead, encode};
use skep_proto::{MachineId, NicId, Refusal, TraceId};
use skep_sys::sock;
use std::os::fd::OwnedFd;
use std::time::Duration;
use support::*;

const PATIENCE: Duration = Duration::from_secs(60);

fn create_tap() -> CreateTap {
    CreateTap { machine: MachineId::from_u128(2), nic: NicId::from_u128(1), number: 1, switch: None }
}

async fn accepted(socket: OwnedFd) -> Connection<Console> {
    Connection::accept(socket).await.unwrap()
}

#[tokio::test]
async fn a_wrong_hello_is_no_connection() {
    let before = open();
    for (bytes, fds, says) in wrong_hellos() {
        let (ours, theirs) = sock::seqpacket_pair().unwrap();
        let raw = Raw(theirs);
        raw.send(&bytes, fds);
        let error = Connection::<Console>::accept(ours).await.err().unwrap();
        assert_eq!(error.to_string(), says);
        drop(raw);
    }
    // The runtime itself holds some.
    let (ours, theirs) = sock::seqpacket_pair().unwrap();
    assert_eq!(open(), before + 2);
    drop((ours, theirs));
}

#[tokio::test]
async fn a_wrong_request_is_not_served_and_leaves_no_descriptor() {
    let before = open();
    for (bytes, fds, says) in wrong_requests() {
        let (ours, theirs) = sock::seqpacket_pair().unwrap();
        let raw = Raw(theirs);
        raw.send(&hello::<Console>(), 0);
        let mut connection = accepted(ours).await;
        raw.send(&bytes, fds);
        let error = connection.next().await.err().unwrap();
        assert_eq!(error.to_string(), says);
        drop((connection, raw));
        assert_eq!(open(), before, "{says}");
    }
}

#[tokio::test]
async fn a_request_is_answered_with_its_own_reply() {
    let (ours, theirs) = sock::seqpacket_pair().unwrap();
    let raw = Raw(theirs);
    raw.send(&hello::<Console>(), 0);
    let mut connection = accepted(ours).await;
    assert_eq!(raw.recv().unwrap().bytes, [0, 1]);
    assert_eq!(connection.peer().unwrap().pid, std::process::id() as i32);
    raw.send(&request(1, AttachSerial { write: true, take: false }), 1);
    let asked = connection.next().await.unwrap();
    assert_eq!((asked.op.name, asked.fds.len(), asked.origin.user.as_str()), ("AttachSerial", 1, "tester"));
    assert!(matches!(asked.request, ConsoleRequest::AttachSerial(_)));
    let attached = Attached { writer: true, scrollback: 0 };
    connection.answer::<AttachSerial>(asked.origin.seq, Ok((attached, []))).await.unwrap();
    assert_eq!(raw.recv().unwrap().bytes, [1, 0, 0, 1, 0]);
    connection.answer::<AttachSerial>(2, Err(no())).await.unwrap();
    assert!(raw.recv().unwrap().bytes.starts_with(&[2, 0, 1]));
}

#[tokio::test]
async fn a_client_that_is_gone_is_noticed_between_requests_and_in_the_reply() {
    let (ours, theirs) = sock::seqpacket_pair().unwrap();
    let raw = Raw(theirs);
    raw.send(&hello::<Console>(), 0);
    let mut connection = accepted(ours).await;
    // With the next request there, it is not gone.
    raw.send(&request(1, Status {}), 0);
    assert!(tokio::time::timeout(Duration::ZERO, connection.hung_up()).await.is_err());
    let asked = connection.next().await.unwrap();
    drop(raw);
    connection.hung_up().await;
    let error = connection.answer::<Status>(asked.origin.seq, Ok((state(), []))).await.unwrap_err();
    assert!(matches!(error, ProtocolError::Send(_)), "{error}");
    assert!(connection.next().await.unwrap_err().is_goodbye());
}

#[tokio::test]
async fn a_wrong_welcome_is_no_connection() {
    for wrong in wrong_welcomes() {
        let (ours, theirs) = sock::seqpacket_pair().unwrap();
        let server = wrong_server(theirs, Some(wrong.clone()), None);
        assert_eq!(gone(Client::<Net>::over(ours).await), wrong.2);
        server.join().unwrap();
    }
}

#[tokio::test]
async fn a_wrong_reply_fails_the_call_and_leaves_no_descriptor() {
    let before = open();
    for wrong in wrong_replies() {
        let (ours, theirs) = sock::seqpacket_pair().unwrap();
        let server = wrong_server(theirs, None, Some(wrong.clone()));
        let mut client = Client::<Net>::over(ours).await.unwrap();
        assert_eq!(gone(client.call(TraceId(1), &user(), create_tap(), [], PATIENCE).await), wrong.2);
        drop(client);
        server.join().unwrap();
        assert_eq!(open(), before, "{}", wrong.2);
    }
}

#[tokio::test]
async fn a_reply_that_does_not_come_in_time_fails_the_call() {
    let (ours, theirs) = sock::seqpacket_pair().unwrap();
    let server = wrong_server(theirs, None, None);
    let mut client = Client::<Net>::over(ours).await.unwrap();
    let error = client.call(TraceId(1), &user(), DeleteTap { number: 1 }, [], Duration::ZERO).await.unwrap_err();
    assert_eq!(error.to_string(), "net-helper: the deadline passed");
    drop(client);
    let _ = server.join();
}

#[tokio::test]
async fn a_helper_that_is_gone_or_speaks_unasked_ends_the_connection() {
    for unasked in [None, Some((vec![1, 2, 3], 0, ""))] {
        let (ours, theirs) = sock::seqpacket_pair().unwrap();
        let server = std::thread::spawn(move || {
            let raw = Raw(theirs);
            let _ = raw.recv().unwrap();
            raw.send(&[0, 1], 0);
            if let Some((bytes, fds, _)) = unasked {
                raw.send(&bytes, fds);
                let _ = raw.recv();
            }
        });
        let mut client = Client::<Net>::over(ours).await.unwrap();
        client.ended().await;
        drop(client);
        server.join().unwrap();
    }
}

#[tokio::test]
async fn a_good_reply_and_a_refusal_arrive() {
    for (bytes, fds) in [
        (encode(&(ReplyHead { seq: 1, op: 2 }, Result::<_, Refusal>::Ok("sktestt1"))).unwrap(), 1),
        (encode(&(ReplyHead { seq: 1, op: 2 }, Result::<&str, _>::Err(no()))).unwrap(), 0),
    ] {
        let (ours, theirs) = sock::seqpacket_pair().unwrap();
        let server = wrong_server(theirs, None, Some((bytes, fds, "")));
        let mut client = Client::<Net>::over(ours).await.unwrap();
        match client.call(TraceId(1), &user(), create_tap(), [], PATIENCE).await {
            Ok((named, [_tap])) => assert_eq!((named.name.as_str(), fds), ("sktestt1", 1)),
            Err(CallError::Refused(refusal)) => assert_eq!((refusal, fds), (no(), 0)),
            Err(other) => panic!("{other}"),
        }
        drop(client);
        server.join().unwrap();
    }
}
