//! Connections that the helper makes for others.

use super::Net7;
use crate::support::{LOOPBACK, ask};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use skep_proto::net::{ConnectServer, DeleteSwitch, Gateway, OpenResolvers, Reach, SetGateway};
use skep_proto::{Reason, UpTo};
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};

pub fn connect_to(net: &mut Net7, address: &str) -> Result<OwnedFd, Reason> {
    connect(net, address, false)
}

fn connect(net: &mut Net7, address: &str, portal: bool) -> Result<OwnedFd, Reason> {
    let call = ConnectServer { address: address.parse().unwrap(), port: 4430, portal };
    ask(&mut net.client, call).map(|(_, [socket])| socket).map_err(|refusal| refusal.reason)
}

/// Whoever gets such a socket can wait on it, and not change it.
fn wait(socket: &impl AsFd) {
    let mut fds = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut fds, PollTimeout::NONE).unwrap(), 1);
}

#[test]
fn no_connection_leads_inside() {
    let Some(mut net) = Net7::routed() else { return };
    net.network.up(LOOPBACK);
    let server = std::net::TcpListener::bind("127.0.0.1:4430").unwrap();
    // What the administrator named.
    let socket = connect_to(&mut net, "127.0.0.1").unwrap();
    let (mut there, _) = server.accept().unwrap();
    std::io::Write::write_all(&mut there, b"hello").unwrap();
    let mut socket = std::net::TcpStream::from(socket);
    wait(&socket);
    let mut buffer = [0; 5];
    std::io::Read::read_exact(&mut socket, &mut buffer).unwrap();
    assert_eq!(&buffer, b"hello");
    drop(connect_to(&mut net, "::ffff:127.0.0.1").unwrap());
    for address in ["127.0.0.9", "::1", "::ffff:127.0.0.9", "192.168.0.1", "169.254.169.254", "64:ff9b::7f00:9", "0.0.0.0", "::"]
    {
        assert_eq!(connect_to(&mut net, address).unwrap_err(), Reason::PermissionDenied, "{address}");
    }
    // Portals are where they are said to be: neither where images come from, nor where everybody is.
    for address in ["127.0.0.1", "10.64.7.5", "198.21.0.1"] {
        assert_eq!(connect(&mut net, address, true).unwrap_err(), Reason::PermissionDenied, "{address}");
    }
    // Public, but the host's own; named, but of the suite's guests.
    let _outside = net.network.outside("out0");
    net.network.up("out0");
    net.network.address("out0", Ipv4Addr::new(198, 20, 0, 1));
    assert_eq!(connect_to(&mut net, "198.20.0.1").unwrap_err(), Reason::PermissionDenied);
    net.switch(0, None).unwrap();
    let gateway = Some(Gateway { subnet: "10.64.7.0/24".parse().unwrap(), reach: Reach::Out, subnet6: None });
    ask(&mut net.client, SetGateway { number: 0, gateway, forwards: vec![] }).unwrap();
    assert_eq!(connect_to(&mut net, "10.64.7.5").unwrap_err(), Reason::PermissionDenied);
    // With its rules, where the network is the host's own.
    ask(&mut net.client, DeleteSwitch { number: 0 }).unwrap();
}

#[test]
fn a_socket_to_a_resolver_sends_to_it_alone() {
    let Some(mut net) = Net7::new() else { return };
    net.network.up(LOOPBACK);
    let resolver = match UdpSocket::bind("127.0.0.1:53") {
        // On FreeBSD the test's network is the host's.
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            println!("SKIP acts::servers::a_socket_to_a_resolver_sends_to_it_alone: this host has a resolver of its own");
            return;
        }
        bound => bound.unwrap(),
    };
    let (_, UpTo(sockets)) = ask(&mut net.client, OpenResolvers {}).unwrap();
    let [socket]: [OwnedFd; 1] = sockets.try_into().unwrap();
    let socket = UdpSocket::from(socket);
    socket.send(b"who").unwrap();
    let mut buffer = [0; 64];
    let (got, from) = resolver.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..got], b"who");
    resolver.send_to(b"me", from).unwrap();
    wait(&socket);
    let got = socket.recv(&mut buffer).unwrap();
    assert_eq!(&buffer[..got], b"me");
    assert_eq!(socket.peer_addr().unwrap(), "127.0.0.1:53".parse().unwrap());
}
