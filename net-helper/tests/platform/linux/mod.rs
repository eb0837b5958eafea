//! What only Linux does.

mod rates;
mod sandboxed;
mod servers;
mod wireguard;

use crate::acts::Net7;
use crate::support::frames::{frame, hear, receive, send};
use crate::support::{ask, instance, open};
use skep_net_helper::platform::NetHost;
use skep_proto::net::{DeleteTap, ListInterfaces, MoveTap};
use skep_proto::{IfName, Reason};
use std::net::Ipv4Addr;

#[test]
fn a_tap_ends_with_its_descriptor_or_when_deleted() {
    let Some(mut net) = Net7::new() else { return };
    let before = (net.links(), open());
    net.refused(Reason::NotFound, |n| n.tap(0, Some(0)).map(drop));
    let held = net.tap(0, None).unwrap();
    net.refused(Reason::InUse, |n| n.tap(0, None).map(drop));
    drop(held);
    assert_eq!(net.links(), before.0);
    let held = net.tap(0, None).unwrap();
    for _ in 0..2 {
        ask(&mut net.client, DeleteTap { number: 0 }).unwrap();
        assert_eq!(net.links(), before.0);
    }
    drop(held);
    // Many, one after the other: nothing stays open.
    for number in 0..40 {
        drop(net.tap(number, None).unwrap());
    }
    ask(&mut net.client, ListInterfaces { own: true, after: 0 }).unwrap();
    assert_eq!((net.links(), open()), before);
}

#[test]
fn isolated_taps_hear_the_rest_of_their_switch_and_not_each_other() {
    let Some(mut net) = Net7::new() else { return };
    let outside = net.network.outside("up0");
    net.switch(0, Some("up0")).unwrap();
    net.switch(1, None).unwrap();
    let taps = [1, 2, 3].map(|number| net.tap(number, Some(0)).unwrap());
    let [a, b, free] = &taps;
    let isolate = |net: &mut Net7, number, switch, isolated| ask(&mut net.client, MoveTap { number, switch, isolated }).unwrap();
    for number in [1, 2] {
        isolate(&mut net, number, Some(0), true);
        assert!(net.link(&IfName::tap(instance(), number).to_string()).unwrap().isolated);
    }
    // What `a` says comes to those that are not so, and to the uplink; of it `b` hears nothing until it is let in again.
    for text in ["one", "two"] {
        send(a, &frame(text));
        assert_eq!((hear(free, |_| ()), hear(&outside, |_| ())), (text.to_owned(), text.to_owned()));
    }
    send(free, &frame("to all"));
    assert_eq!((hear(a, |_| ()), hear(b, |_| ())), ("to all".to_owned(), "to all".to_owned()));
    isolate(&mut net, 2, Some(0), false);
    send(a, &frame("three"));
    assert_eq!((hear(b, |_| ()), hear(free, |_| ())), ("three".to_owned(), "three".to_owned()));
    // It is so on its switch, not for ever; and on another one from its first frame on.
    isolate(&mut net, 1, None, true);
    assert!(!net.link(&IfName::tap(instance(), 1).to_string()).unwrap().isolated);
    for number in [1, 2] {
        isolate(&mut net, number, Some(1), true);
    }
    isolate(&mut net, 3, Some(1), false);
    send(a, &frame("four"));
    assert_eq!(hear(free, |_| ()), "four");
    send(free, &frame("five"));
    assert_eq!(hear(b, |_| ()), "five");
}

/// An ARP request for `ip`, from a guest.
fn who_has(ip: Ipv4Addr) -> Vec<u8> {
    let mac = [0x02, 0, 0, 0, 0, 0x99];
    let mut bytes =
        [&[0xff; 6][..], &mac, &[0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1], &mac, &[192, 0, 2, 9], &[0; 6], &ip.octets()].concat();
    bytes.resize(60, 0);
    bytes
}

fn is_arp_reply(frame: &[u8]) -> bool {
    frame[12..14] == [0x08, 0x06] && frame[20..22] == [0, 2]
}

#[test]
fn the_host_itself_does_not_answer_guests() {
    let Some(mut net) = Net7::new() else { return };
    let ip = Ipv4Addr::new(192, 0, 2, 1);
    // The host has an address on another interface, and answers for it on any that was not marked.
    let (_inside, unmarked) = (net.network.outside("in0"), net.network.outside("raw0"));
    for name in ["in0", "raw0"] {
        net.host.set_up(&name.parse().unwrap(), true).unwrap();
    }
    net.network.address("in0", ip);
    send(&unmarked, &who_has(ip));
    while !is_arp_reply(&receive(&unmarked)) {}

    net.switch(0, None).unwrap();
    let (guest, neighbour, lonely) = (net.tap(0, Some(0)).unwrap(), net.tap(1, Some(0)).unwrap(), net.tap(2, None).unwrap());
    send(&guest, &who_has(ip));
    send(&lonely, &who_has(ip));
    send(&neighbour, &frame("after"));
    let mut seen = Vec::new();
    assert_eq!(hear(&guest, |frame| seen.push(frame.to_vec())), "after");
    // Joined, it hears the same mark; an answer would have come before.
    ask(&mut net.client, MoveTap { number: 2, switch: Some(0), isolated: false }).unwrap();
    send(&neighbour, &frame("after"));
    assert_eq!(hear(&lonely, |frame| seen.push(frame.to_vec())), "after");
    assert!(!seen.iter().any(|frame| is_arp_reply(frame)), "{seen:?}");
    // Nor has it an address of its own there.
    let addresses = std::fs::read_to_string("/proc/thread-self/net/if_inet6").unwrap();
    assert!(!addresses.contains(&format!("sk{}", instance())), "{addresses}");
    assert!(addresses.contains("in0"), "without the mark there would be one: {addresses}");
}
