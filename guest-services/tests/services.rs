//! The real program, started as the spawner starts it but for the cell: what it holds, and what it refuses. Its frames are in `guest.rs`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use skep_proto::services::{AddPort, ListPorts, RemovePort, SetResolvers, Subnet};
use skep_proto::{MachineId, Reason, Text, UpTo};
use skep_sys::sock;
use std::net::UdpSocket;
use std::os::fd::OwnedFd;
use support::{NIC, Process};

fn port(document: bool) -> AddPort {
    AddPort {
        nic: NIC,
        machine: MachineId::from_u128(9),
        mac: [0x52, 0x54, 0, 1, 2, 3],
        address: "10.90.0.7".parse().unwrap(),
        host: Text::lossy("web1"),
        subnet: Subnet { prefix: 24, router: None, domain: Text::lossy("lan"), mtu: 1500, v6: None },
        document,
    }
}

fn file() -> OwnedFd {
    tempfile::tempfile().unwrap().into()
}

#[test]
fn only_frames_and_documents_make_a_port() {
    let mut process = Process::start();
    let udp = || OwnedFd::from(UdpSocket::bind("127.0.0.1:0").unwrap());
    for (document, fds) in [
        (false, vec![]),
        (false, vec![file()]),
        (false, vec![udp()]),
        (false, vec![sock::seqpacket_pair().unwrap().0]),
        (false, vec![file(), file()]),
        (true, vec![file()]),
        (true, vec![file(), file()]),
    ] {
        let refusal = process.ask(port(document), UpTo(fds)).unwrap_err();
        assert_eq!(refusal.reason, Reason::InvalidValue, "{refusal}");
    }
    assert!(process.ask(ListPorts { after: None }, []).unwrap().ports.is_empty());
    // One that is not served is no error.
    process.ask(RemovePort { nic: NIC }, []).unwrap();
}

#[test]
fn only_connected_sockets_of_udp_are_resolvers() {
    let mut process = Process::start();
    let connected = || {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect("127.0.0.1:9").unwrap();
        OwnedFd::from(socket)
    };
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let stream = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let datagrams = std::os::unix::net::UnixDatagram::pair().unwrap().0;
    for wrong in [file(), UdpSocket::bind("127.0.0.1:0").unwrap().into(), stream.into(), datagrams.into()] {
        let refusal = process.ask(SetResolvers {}, UpTo(vec![connected(), wrong])).unwrap_err();
        assert_eq!(refusal.reason, Reason::InvalidValue, "{refusal}");
    }
    process.ask(SetResolvers {}, UpTo(vec![connected(), connected(), connected()])).unwrap();
    process.ask(SetResolvers {}, UpTo(vec![])).unwrap();
}

#[test]
fn watchers_have_a_limit_and_leave() {
    let mut process = Process::start();
    let held: Vec<_> = (0..8).map(|_| process.watch().unwrap()).collect();
    assert_eq!(process.watch().unwrap_err().reason, Reason::LimitReached);
    drop(held);
    while process.watch().is_err() {}
}
