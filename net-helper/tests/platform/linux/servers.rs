//! Rules that outlive their tap, and connections that the helper makes.

use crate::acts::Net7;
use crate::support::ask;
use skep_net_helper::platform::NetHost;
use skep_proto::net::{ConnectServer, Gateway, GuardTap, OpenResolvers, Own, Reach, SetGateway};
use skep_proto::{Reason, UpTo};
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::OwnedFd;

#[test]
fn rules_of_a_tap_that_ended_by_itself_are_swept() {
    let Some(mut net) = Net7::new() else { return };
    net.switch(0, None).unwrap();
    let other = net.tap(2, Some(0)).unwrap();
    let own = Some(Own { mac: [2, 0, 0, 0, 0, 2], address: Ipv4Addr::new(10, 64, 7, 2), subnet6: None });
    // The next helper finds what it left, or the next with its number.
    ask(&mut net.client, GuardTap { number: 2, own }).unwrap();
    drop(other);
    assert_eq!(net.host.tables().unwrap().len(), 1);
    net.host.sweep(crate::support::instance()).unwrap();
    assert_eq!(net.host.tables().unwrap(), [] as [String; 0]);
}

fn connect_to(net: &mut Net7, address: &str) -> Result<OwnedFd, Reason> {
    let call = ConnectServer { address: address.parse().unwrap(), port: 4430 };
    ask(&mut net.client, call).map(|(_, [socket])| socket).map_err(|refusal| refusal.reason)
}

#[test]
fn no_connection_leads_inside() {
    let Some(mut net) = Net7::new() else { return };
    net.network.up("lo");
    let server = std::net::TcpListener::bind("127.0.0.9:4430").unwrap();
    // What the administrator named.
    let socket = connect_to(&mut net, "127.0.0.9").unwrap();
    let (mut there, _) = server.accept().unwrap();
    std::io::Write::write_all(&mut there, b"hello").unwrap();
    let mut socket = std::net::TcpStream::from(socket);
    socket.set_nonblocking(false).unwrap();
    let mut buffer = [0; 5];
    std::io::Read::read_exact(&mut socket, &mut buffer).unwrap();
    assert_eq!(&buffer, b"hello");
    drop(connect_to(&mut net, "::ffff:127.0.0.9").unwrap());
    for address in ["127.0.0.1", "::1", "::ffff:127.0.0.1", "192.168.0.1", "169.254.169.254", "64:ff9b::7f00:9", "0.0.0.0", "::"]
    {
        assert_eq!(connect_to(&mut net, address).unwrap_err(), Reason::PermissionDenied, "{address}");
    }
    // Named, and public, but without a way.
    assert_eq!(connect_to(&mut net, "10.64.7.5").unwrap_err(), Reason::Unavailable);
    assert_eq!(connect_to(&mut net, "198.21.0.1").unwrap_err(), Reason::Unavailable);
    // Public, but the host's own; named, but of the suite's guests.
    let _outside = net.network.outside("out0");
    net.network.up("out0");
    net.network.address("out0", Ipv4Addr::new(198, 20, 0, 1));
    assert_eq!(connect_to(&mut net, "198.20.0.1").unwrap_err(), Reason::PermissionDenied);
    net.switch(0, None).unwrap();
    let gateway = Some(Gateway { subnet: "10.64.7.0/24".parse().unwrap(), reach: Reach::Out, subnet6: None });
    ask(&mut net.client, SetGateway { number: 0, gateway, forwards: vec![] }).unwrap();
    assert_eq!(connect_to(&mut net, "10.64.7.5").unwrap_err(), Reason::PermissionDenied);
}

#[test]
fn a_socket_to_a_resolver_sends_to_it_alone() {
    let Some(mut net) = Net7::new() else { return };
    net.network.up("lo");
    let resolver = UdpSocket::bind("127.0.0.1:53").unwrap();
    let (_, UpTo(sockets)) = ask(&mut net.client, OpenResolvers {}).unwrap();
    let [socket]: [OwnedFd; 1] = sockets.try_into().unwrap();
    let socket = UdpSocket::from(socket);
    socket.send(b"who").unwrap();
    let mut buffer = [0; 64];
    let (got, from) = resolver.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..got], b"who");
    resolver.send_to(b"me", from).unwrap();
    socket.set_nonblocking(false).unwrap();
    let got = socket.recv(&mut buffer).unwrap();
    assert_eq!(&buffer[..got], b"me");
    assert_eq!(socket.peer_addr().unwrap(), "127.0.0.1:53".parse().unwrap());
}
