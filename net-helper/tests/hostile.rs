//! A client that breaks the protocol: its connection is closed, nothing is done, nothing stays open, and others are served.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod support;

use skep_ipc::Client;
use skep_proto::net::{DeleteSwitch, ListInterfaces, Net, NetRequest};
use skep_proto::wire::{self, Hello, Origin, Welcome};
use skep_proto::{Helper, Text, TraceId};
use skep_sys::{msg, sock};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;
use support::fake::Fake;
use support::{PATIENCE, Served, ask, open};

struct Hostile {
    served: Served,
    fake: Fake,
    /// A good client; its answers show that the helper is done with what came before.
    good: Client<Net>,
}

fn hello() -> Vec<u8> {
    wire::encode(&Hello { protocol: Text::lossy("net-helper"), version: Net::VERSION }).unwrap()
}

fn request(seq: u32) -> Vec<u8> {
    let origin = Origin { seq, trace: TraceId(0), user: Text::lossy("mallory") };
    wire::encode_request::<Net>(&origin, &NetRequest::DeleteSwitch(DeleteSwitch { number: 1 })).unwrap()
}

impl Hostile {
    fn new() -> Self {
        support::own_descriptors();
        let fake = Fake::default();
        let served = Served::new(fake.clone(), true);
        let good = served.client();
        Self { served, fake, good }
    }

    /// Sends these records; true if the helper closed the connection, false if it answered the last.
    fn refused(&mut self, records: &[(Vec<u8>, usize)]) -> bool {
        ask(&mut self.good, ListInterfaces { own: true, after: 0 }).unwrap();
        let before = open();
        let calls = self.fake.0.lock().unwrap().calls;
        let socket = sock::connect_seqpacket(&self.served.path()).unwrap();
        let mut closed = false;
        for (bytes, fds) in records {
            let fds: Vec<OwnedFd> = (0..*fds).map(|_| std::fs::File::open("/dev/null").unwrap().into()).collect();
            let deadline = Some(Instant::now() + PATIENCE);
            let sent = msg::send(socket.as_fd(), bytes, &msg::borrow(&fds), deadline);
            closed = sent.is_err() || msg::recv(socket.as_fd(), 8000, 16, deadline).is_err();
        }
        drop(socket);
        ask(&mut self.good, ListInterfaces { own: true, after: 0 }).unwrap();
        assert_eq!(open(), before, "descriptors");
        if closed {
            assert_eq!(self.fake.0.lock().unwrap().calls, calls + 1, "nothing was done but the list above");
        }
        closed
    }
}

#[test]
fn a_good_client_is_answered() {
    assert!(!Hostile::new().refused(&[(hello(), 0), (request(1), 0)]));
}

#[test]
fn descriptors_that_the_operation_does_not_take_are_closed() {
    let mut hostile = Hostile::new();
    assert!(hostile.refused(&[(hello(), 0), (request(1), 1)]));
    assert!(hostile.refused(&[(hello(), 0), (request(1), 16)]));
    assert!(hostile.refused(&[(hello(), 0), (request(1), 40)]));
}

#[test]
fn requests_out_of_sequence_are_refused() {
    let mut hostile = Hostile::new();
    assert!(hostile.refused(&[(hello(), 0), (request(0), 0)]));
    assert!(hostile.refused(&[(hello(), 0), (request(2), 0)]));
    assert!(hostile.refused(&[(hello(), 0), (request(u32::MAX), 0)]));
}

#[test]
fn bytes_after_the_end_and_missing_bytes_are_refused() {
    let mut hostile = Hostile::new();
    let whole = request(1);
    assert!(hostile.refused(&[(hello(), 0), ([whole.clone(), vec![0]].concat(), 0)]));
    assert!(hostile.refused(&[(hello(), 0), (vec![0xff; 9000], 0)]));
    for end in 1..whole.len() {
        assert!(hostile.refused(&[(hello(), 0), (whole[..end].to_vec(), 0)]));
    }
}

#[test]
fn a_request_before_the_hello_and_a_foreign_hello_are_refused() {
    let hostile = Hostile::new();
    let foreign = |protocol, version| wire::encode(&Hello { protocol: Text::lossy(protocol), version }).unwrap();
    for foreign in
        [request(1), foreign("storage-helper", Net::VERSION), foreign("net-helper", 1), foreign("net-helper", Net::VERSION + 1)]
    {
        let socket = sock::connect_seqpacket(&hostile.served.path()).unwrap();
        let deadline = Some(Instant::now() + PATIENCE);
        msg::send(socket.as_fd(), &foreign, &[], deadline).unwrap();
        let answer = msg::recv(socket.as_fd(), 8000, 0, deadline).unwrap();
        assert!(wire::decode::<Welcome>(&answer.bytes).unwrap().is_err());
        assert!(msg::recv(socket.as_fd(), 8000, 0, deadline).is_err());
    }
}

#[test]
fn random_records_end_no_process() {
    let mut hostile = Hostile::new();
    // xorshift, so that each run is the same.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for _ in 0..300 {
        let mut bytes = request(1);
        for _ in 0..next() % 4 + 1 {
            let at = usize::try_from(next()).unwrap() % bytes.len();
            bytes[at] = next().to_le_bytes()[0];
        }
        bytes.truncate(usize::try_from(next()).unwrap() % bytes.len() + 1);
        hostile.refused(&[(hello(), 0), (bytes, usize::try_from(next() % 3).unwrap())]);
    }
}
