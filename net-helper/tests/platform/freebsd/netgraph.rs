//! Switches of netgraph, through the program itself: net-helper in capability mode, and the process that sends for it.

use super::sandboxed::{BROKER, Program};
use crate::support::frames::{frame, hear, send};
use crate::support::{Network, any_socket, ask, instance, program};
use skep_ipc::Client;
use skep_net_helper::platform::{Host, NetHost, Switch};
use skep_proto::net::*;
use skep_proto::{IfName, MachineId, NicId, Reason, SwitchId, Text, TraceId};
use skep_sys::freebsd::{net, netgraph};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};

/// Skips where the modules are not loaded: nothing of skep's loads any.
fn there_is_netgraph() -> bool {
    let found = netgraph::open().and_then(|socket| {
        netgraph::hooks(socket.as_fd(), "lo0:").map(drop).or_else(|e| {
            // lo0 is no Ethernet; what matters is that there are nodes of interfaces at all.
            let ether = netgraph::nodes(socket.as_fd())?.iter().any(|node| node.kind == "ether");
            if ether { Ok(()) } else { Err(e) }
        })
    });
    if let Err(error) = &found {
        println!("SKIP {}: netgraph: {error}", std::thread::current().name().unwrap_or("?"));
    }
    found.is_ok()
}

fn nodes() -> Vec<(String, String)> {
    let socket = netgraph::open().unwrap();
    let mut nodes: Vec<_> = netgraph::nodes(socket.as_fd()).unwrap().into_iter().map(|node| (node.name, node.kind)).collect();
    nodes.sort();
    nodes
}

fn tap(client: &mut Client<Net>, number: u16, switch: Option<u16>) -> OwnedFd {
    let call = CreateTap { machine: MachineId::random(), nic: NicId::random(), number, switch };
    ask(client, call).map(|(_, [tap])| tap).unwrap()
}

fn graph_switch(number: u16, uplink: Option<&str>) -> CreateGraphSwitch {
    CreateGraphSwitch { switch: SwitchId::random(), number, uplink: uplink.map(|name| name.parse().unwrap()) }
}

#[test]
fn a_switch_of_netgraph_carries_frames_and_the_host_is_not_on_it() {
    let Some(mut network) = Network::own() else { return };
    if !there_is_netgraph() {
        return;
    }
    let outside = network.outside("up0");
    network.address("up0", Ipv4Addr::new(192, 0, 2, 1));
    let before = (net::list(any_socket().as_fd()).unwrap(), nodes());
    // As whoever used it before may have left it.
    let set = std::process::Command::new("ngctl").args(["msg", "up0:", "setautosrc", "1"]).status();
    assert!(set.unwrap().success());
    let program = Program::start(None);
    let mut client = program.client(BROKER);
    for _ in 0..2 {
        let (reply, []) = ask(&mut client, graph_switch(0, Some("up0"))).unwrap();
        assert_eq!(reply.name, IfName::bridge(instance(), 0));
    }
    let (a, b) = (tap(&mut client, 0, Some(0)), tap(&mut client, 1, Some(0)));
    send(&a, &frame("from a"));
    assert_eq!(hear(&b, |_| ()), "from a");
    assert_eq!(hear(&outside, |_| ()), "from a");
    send(&outside, &frame("from outside"));
    assert_eq!(hear(&a, |_| ()), "from outside");
    assert_eq!(hear(&b, |_| ()), "from outside");
    // To one machine alone, as guests do once they know each other.
    let mut alone = frame("to b alone");
    alone[..6].copy_from_slice(&[2, 0, 0, 0, 0, 0xb]);
    send(&a, &alone);
    assert_eq!(hear(&b, |_| ()), "to b alone");
    assert_eq!(hear(&outside, |_| ()), "to b alone");
    // It is in the list like any other, with what is on it; but it is no interface.
    let (page, []) = ask(&mut client, ListInterfaces { own: true, after: 0 }).unwrap();
    let shown: Vec<_> = page.interfaces.iter().map(|i| (i.name.to_string(), i.kind.to_string(), i.bridge.is_some())).collect();
    let expected = [("sknt7at0", "tap", true), ("sknt7at1", "tap", true), ("sknt7ab0", "ng_bridge", false)];
    assert_eq!(shown, expected.map(|(name, kind, on)| (name.to_owned(), kind.to_owned(), on)));
    assert!(!net::list(any_socket().as_fd()).unwrap().contains(&"sknt7ab0".to_owned()));
    // Moved to a bridge of the other kind and back, and joined to one by a pair.
    ask(&mut client, CreateSwitch { switch: SwitchId::random(), number: 1, uplink: None }).unwrap();
    ask(&mut client, MoveTap { number: 1, switch: Some(1), isolated: false }).unwrap();
    ask(&mut client, CreatePair { number: 0, switches: [Some(0), Some(1)] }).unwrap();
    send(&a, &frame("through a pair"));
    assert_eq!(hear(&b, |_| ()), "through a pair");
    ask(&mut client, DeletePair { number: 0 }).unwrap();
    ask(&mut client, MoveTap { number: 1, switch: Some(0), isolated: false }).unwrap();
    send(&b, &frame("back"));
    assert_eq!(hear(&a, |_| ()), "back");
    // Refused: the other kind under the same number, a switch with taps on it, one that is not there.
    let other = ask(&mut client, CreateSwitch { switch: SwitchId::random(), number: 0, uplink: None }).unwrap_err();
    assert_eq!(other.reason, Reason::AlreadyExists, "{other}");
    assert_eq!(ask(&mut client, graph_switch(1, None)).unwrap_err().reason, Reason::AlreadyExists);
    assert_eq!(ask(&mut client, DeleteSwitch { number: 0 }).unwrap_err().reason, Reason::InUse);
    assert_eq!(ask(&mut client, MoveTap { number: 1, switch: Some(9), isolated: false }).unwrap_err().reason, Reason::NotFound);
    // What the audit reads of both.
    for process in [program.audit(true), program.audit_of_sender()] {
        let differs = process.lines.iter().find(|line| line.verdict.differs());
        assert!(differs.is_none(), "{process}");
    }
    drop((a, b));
    for number in 0..2 {
        ask(&mut client, DeleteTap { number }).unwrap();
    }
    for number in [0, 1, 0] {
        ask(&mut client, DeleteSwitch { number }).unwrap();
    }
    assert_eq!((net::list(any_socket().as_fd()).unwrap(), nodes()), before);
}

/// What the host has on the uplink it keeps, as with a bridge.
#[test]
fn an_uplink_of_a_netgraph_switch_stays_the_host_s_too() {
    let Some(mut network) = Network::own() else { return };
    if !there_is_netgraph() {
        return;
    }
    let outside = network.outside("up0");
    network.address("up0", Ipv4Addr::new(192, 0, 2, 1));
    // A card passes on what is for guests only if it is told to.
    let promiscuous = || net::flags(any_socket().as_fd(), "up0").unwrap() & nix::libc::IFF_PROMISC != 0;
    assert!(!promiscuous());
    let program = Program::start(None);
    let mut client = program.client(BROKER);
    ask(&mut client, graph_switch(0, Some("up0"))).unwrap();
    assert!(promiscuous());
    let guest = tap(&mut client, 0, Some(0));
    // An ARP request for the host's address is answered to outside, and to the guest, since the uplink is the host's.
    let who_has = {
        let mac = [0x02, 0, 0, 0, 0, 0x99];
        let ip = [192, 0, 2, 1];
        let mut bytes = [&[0xff; 6][..], &mac, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &mac, &[192, 0, 2, 9], &[0; 6], &ip].concat();
        bytes.resize(60, 0);
        bytes
    };
    send(&outside, &who_has);
    while crate::support::frames::receive(&outside)[12..22] != [8, 6, 0, 1, 8, 0, 6, 4, 0, 2] {}
    // Released, it is as before: the host answers still.
    drop(guest);
    ask(&mut client, DeleteTap { number: 0 }).unwrap();
    ask(&mut client, DeleteSwitch { number: 0 }).unwrap();
    assert!(!promiscuous());
    send(&outside, &who_has);
    while crate::support::frames::receive(&outside)[12..22] != [8, 6, 0, 1, 8, 0, 6, 4, 0, 2] {}
}

/// Killed, the sender takes net-helper along: started anew, it has one again, and finds the switch with what is on it.
#[test]
fn without_its_sender_net_helper_ends_and_comes_back_with_one() {
    let Some(_network) = Network::own() else { return };
    if !there_is_netgraph() {
        return;
    }
    let mut program = Program::start(None);
    let mut client = program.client(BROKER);
    ask(&mut client, graph_switch(0, None)).unwrap();
    let tap = tap(&mut client, 0, Some(0));
    let sender = nix::unistd::Pid::from_raw(program.audit_of_sender().pid.unwrap());
    nix::sys::signal::kill(sender, nix::sys::signal::Signal::SIGKILL).unwrap();
    let call = ListInterfaces { own: true, after: 0 };
    let gone = client.call(TraceId(1), &Text::lossy("tester"), call.clone(), [], crate::support::PATIENCE);
    assert!(gone.is_err());
    assert_eq!(program.child.wait().unwrap().code(), Some(1));
    let program = Program::start(None);
    let mut client = program.client(BROKER);
    let (page, []) = ask(&mut client, call).unwrap();
    assert!(page.interfaces.len() == 2 && page.interfaces[0].bridge.is_some(), "{page:?}");
    drop(tap);
    ask(&mut client, DeleteTap { number: 0 }).unwrap();
    ask(&mut client, DeleteSwitch { number: 0 }).unwrap();
}

/// What is asked of the sender by whoever holds net-helper's end: nothing that is not this instance's, and no other interface.
#[test]
fn the_sender_checks_names_for_itself_and_ends_with_net_helper() {
    let Some(mut network) = Network::own() else { return };
    if !there_is_netgraph() {
        return;
    }
    let _outside = (network.outside("up0"), network.outside("spare0"));
    let before = nodes();
    let other_host =
        || Host::acquire(&mut None).unwrap().with_outside(&program(), instance(), &["up0".parse().unwrap()]).unwrap();
    let mut one = other_host();
    let bridge = IfName::bridge(instance(), 0);
    let name = |text: &str| text.parse::<IfName>().unwrap();
    for foreign in ["skab3cb0", "br7", "sknt7at0", "sknt7ab00"] {
        one.make_bridge(&name(foreign), Switch::Netgraph).unwrap_err();
    }
    one.make_bridge(&bridge, Switch::Netgraph).unwrap();
    one.make_bridge(&bridge, Switch::Netgraph).unwrap_err();
    one.join(&name("spare0"), &bridge).unwrap_err();
    one.join(&name("lo0"), &bridge).unwrap_err();
    one.join(&name("up0"), &bridge).unwrap();
    one.join(&name("up0"), &bridge).unwrap_err();
    one.leave(&name("spare0"), &bridge).unwrap_err();
    // Another's switch is seen by its own only.
    drop(one);
    let mut other = other_host();
    let links = other.links().unwrap();
    let of = |name: &str| links.iter().find(|link| link.name.as_str() == name).unwrap();
    assert_eq!(of("up0").bridge, Some(of(bridge.as_str()).index));
    // It stays when net-helper ends; removed, nothing is left.
    other.delete(&bridge).unwrap();
    other.delete(&bridge).unwrap();
    assert_eq!(nodes(), before);
}
