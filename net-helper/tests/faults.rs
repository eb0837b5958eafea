//! Every step of every operation fails once: the host and the open descriptors are as before.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod support;

use nix::errno::Errno;
use skep_proto::net::{
    CreatePair, CreateSwitch, CreateTap, CreateTunnel, DeletePair, DeleteSwitch, DeleteTap, DeleteTunnel, ListInterfaces,
    MoveTap, Net,
};
use skep_proto::tunnel::{Far, Tunnel};
use skep_proto::{Call, IfName, MachineId, NicId, Reason, Refusal, SwitchId};
use support::fake::{Fake, State, link};
use support::{Served, ask, instance, open};

const HERE: &str = "192.0.2.1";
/// Of an interface that was not given to switches.
const SPARE: &str = "192.0.2.8";
const OTHER: &str = "192.0.2.2";

fn tunnel_to(far: &str) -> Tunnel {
    let far = Far::Host(far.parse().unwrap());
    Tunnel { vni: "7".parse().unwrap(), local: HERE.parse().unwrap(), far, port: 4789.try_into().unwrap(), peer_key: None }
}

/// Indices aside: what is made anew has another.
fn shown(state: &State) -> (Vec<String>, Vec<(String, Tunnel)>) {
    let name = |index| state.links.iter().find(|l| Some(l.index) == index).map(|l| l.name.to_string());
    let mut links: Vec<String> = state
        .links
        .iter()
        .map(|l| format!("{} {} {} {} {:?} {}", l.name, l.kind, l.up, l.isolated, name(l.bridge), l.note))
        .collect();
    links.sort();
    (links, state.tunnels.clone().into_iter().collect())
}

/// lo, eth0 (down), eth1 (a member of bridge 2), bridges 1 and 2, tap 5 on bridge 1, a tunnel on bridge 2, pair 4 from bridge 1 to
/// nothing; one address.
fn host() -> State {
    let name = |kind, number| if kind == 'b' { IfName::bridge(instance(), number) } else { IfName::tap(instance(), number) };
    let mut links = vec![link(1, "lo", ""), link(2, "eth0", ""), link(3, "eth1", "")];
    links.push(link(4, name('b', 1).as_str(), "bridge"));
    links.push(link(5, name('b', 2).as_str(), "bridge"));
    links.push(link(6, name('t', 5).as_str(), "tap"));
    links[0].loopback = true;
    links[2].bridge = Some(5);
    links[5].bridge = Some(4);
    let (tunnel, ends) = (IfName::tunnel(instance(), 2), IfName::pair(instance(), 4));
    links.push(link(7, tunnel.as_str(), "vxlan"));
    links.push(link(8, ends[0].as_str(), "veth"));
    links.push(link(9, ends[1].as_str(), "veth"));
    (links[6].bridge, links[6].up, links[6].note) = (Some(5), true, "as before".into());
    (links[7].bridge, links[7].up) = (Some(4), true);
    let tunnels = [(tunnel.to_string(), tunnel_to(OTHER))].into();
    State {
        links,
        tunnels,
        addresses: vec![(HERE.parse().unwrap(), "eth0"), (SPARE.parse().unwrap(), "spare0")],
        ..State::default()
    }
}

/// Fails step after step until the operation succeeds; says how many steps it has.
fn walk<C: Call<Helper = Net> + Clone>(call: C) -> usize
where
    C::SendFds: Default,
{
    support::own_descriptors();
    let fake = Fake::default();
    let served = Served::new(fake.clone(), true);
    let mut client = served.client();
    for errno in [Errno::EPERM, Errno::EIO, Errno::ENOSPC] {
        for step in 0.. {
            // Its answer shows that the helper has closed what it sent before.
            ask(&mut client, ListInterfaces { own: true, after: 0 }).unwrap();
            *fake.0.lock().unwrap() = State { failing: Some((step..step + 1, errno as i32)), ..host() };
            let (links, before) = (shown(&host()), open());
            match ask(&mut client, call.clone()) {
                Ok(_) => {
                    fake.0.lock().unwrap().failing = None;
                    if errno == Errno::ENOSPC {
                        return step;
                    }
                    break;
                }
                Err(refusal) => {
                    assert_eq!(shown(&fake.0.lock().unwrap()), links, "step {step}");
                    assert_eq!(open(), before, "descriptors after step {step}");
                    assert_eq!(refusal.errno, errno as i32, "{refusal}");
                    assert!(!refusal.object.as_str().is_empty());
                    fake.0.lock().unwrap().failing = None;
                }
            }
        }
    }
    unreachable!()
}

#[test]
fn a_failed_new_switch_leaves_nothing() {
    let call = CreateSwitch { switch: SwitchId::random(), number: 9, uplink: Some("eth0".parse().unwrap()) };
    // List, make, mark, join, uplink up, bridge up.
    assert_eq!(walk(call), 6);
}

#[test]
fn a_failed_change_of_uplink_keeps_the_former() {
    let call = CreateSwitch { switch: SwitchId::random(), number: 2, uplink: Some("eth0".parse().unwrap()) };
    // List, mark, release eth1, join eth0, eth0 up, bridge up.
    assert_eq!(walk(call), 6);
}

#[test]
fn a_failed_deletion_of_a_switch_keeps_it() {
    // On 2 is a tunnel.
    assert_eq!(walk(DeleteTunnel { number: 2 }), 2);
    assert_eq!(walk(DeleteSwitch { number: 3 }), 1);
}

#[test]
fn a_failed_new_tap_leaves_nothing() {
    // Look for the tap, for the bridge; make, mark, join, up.
    assert_eq!(walk(CreateTap { machine: MachineId::random(), nic: NicId::random(), number: 8, switch: Some(1) }), 6);
}

#[test]
fn a_failed_move_keeps_the_tap_where_it_was() {
    // Look for the tap, for the bridge; list, leave, join, up.
    assert_eq!(walk(MoveTap { number: 5, switch: Some(2), isolated: false }), 6);
    assert_eq!(walk(MoveTap { number: 5, switch: None, isolated: false }), 4);
    // One more each: apart from others.
    assert_eq!(walk(MoveTap { number: 5, switch: Some(2), isolated: true }), 7);
    assert_eq!(walk(MoveTap { number: 5, switch: Some(1), isolated: true }), 5);
}

#[test]
fn a_failed_deletion_of_a_tap_keeps_it() {
    assert_eq!(walk(DeleteTap { number: 5 }), 2);
}

#[test]
fn a_failed_new_tunnel_leaves_nothing() {
    // Look for the address, for the bridge; list, make, mark, join, up.
    assert_eq!(walk(CreateTunnel { switch: SwitchId::random(), number: 1, tunnel: tunnel_to(OTHER) }), 7);
}

#[test]
fn a_tunnel_that_cannot_be_changed_comes_back_as_it_was() {
    // The same: address, bridge, list, settings, mark.
    assert_eq!(walk(CreateTunnel { switch: SwitchId::random(), number: 2, tunnel: tunnel_to(OTHER) }), 5);
    // Another: the same, then delete, make, mark, join, up.
    assert_eq!(walk(CreateTunnel { switch: SwitchId::random(), number: 2, tunnel: tunnel_to("192.0.2.3") }), 9);
}

#[test]
fn a_failed_pair_leaves_nothing_or_what_it_was() {
    // List, two bridges, make; of each end mark, join, up.
    assert_eq!(walk(CreatePair { number: 1, switches: [Some(1), Some(2)] }), 10);
    // List, bridge; of the end that is there mark, leave; of the other mark, join, up.
    assert_eq!(walk(CreatePair { number: 4, switches: [None, Some(2)] }), 7);
    assert_eq!(walk(DeletePair { number: 4 }), 2);
}

#[test]
fn what_cannot_be_a_tunnel_or_a_pair_is_refused_and_nothing_done() {
    let fake = Fake::default();
    let served = Served::new(fake.clone(), true);
    let mut client = served.client();
    let mut refused = |reason, act: &mut dyn FnMut(&mut skep_ipc::Client<Net>) -> Refusal| {
        *fake.0.lock().unwrap() = host();
        let refusal = act(&mut client);
        assert_eq!(refusal.reason, reason, "{refusal}");
        assert_eq!(shown(&fake.0.lock().unwrap()), shown(&host()), "{refusal}");
        refusal
    };
    let six = Far::Host("2001:db8::1".parse().unwrap());
    let group = |uplink: &str| Far::Group { address: "239.0.0.1".parse().unwrap(), uplink: uplink.parse().unwrap() };
    let here = Far::Host(HERE.parse().unwrap());
    let mine = IfName::tap(instance(), 5).to_string();
    let cases = [
        (Reason::InvalidValue, HERE, six, "IPv6"),
        (Reason::InvalidValue, HERE, here, "itself"),
        (Reason::PermissionDenied, OTHER, Far::Host("192.0.2.9".parse().unwrap()), "--uplinks"),
        (Reason::PermissionDenied, SPARE, Far::Host(OTHER.parse().unwrap()), "--uplinks"),
        (Reason::PermissionDenied, HERE, group("spare0"), "--uplinks"),
        (Reason::PermissionDenied, HERE, group(&mine), "--uplinks"),
    ];
    for (reason, local, far, why) in cases {
        let tunnel = Tunnel { local: local.parse().unwrap(), far, ..tunnel_to(OTHER) };
        let call = CreateTunnel { switch: SwitchId::random(), number: 2, tunnel };
        let refusal = refused(reason, &mut |client| ask(client, call.clone()).unwrap_err());
        assert!(refusal.note.as_str().contains(why) && !refusal.field.as_str().is_empty(), "{refusal}");
    }
    // A switch to itself; and, with pair 4 between the two, another between them.
    for switches in [[Some(1), Some(1)], [Some(1), Some(2)], [Some(2), Some(1)]] {
        let refusal = refused(Reason::InvalidValue, &mut |client| {
            let mut state = fake.0.lock().unwrap();
            state.links[8].bridge = Some(5);
            drop(state);
            let refusal = ask(client, CreatePair { number: 1, switches }).unwrap_err();
            fake.0.lock().unwrap().links[8].bridge = None;
            refusal
        });
        assert!(refusal.note.as_str().contains("joined already"), "{refusal}");
    }
    refused(Reason::NotFound, &mut |client| ask(client, CreatePair { number: 1, switches: [Some(1), Some(9)] }).unwrap_err());
    refused(Reason::InUse, &mut |client| ask(client, DeleteSwitch { number: 2 }).unwrap_err());
}

#[test]
fn a_failed_list_is_refused() {
    assert_eq!(walk(ListInterfaces { own: true, after: 0 }), 1);
}

#[test]
fn what_cannot_be_undone_is_named() {
    let fake = Fake::default();
    let served = Served::new(fake.clone(), true);
    *fake.0.lock().unwrap() = State { failing: Some((4..100, Errno::EIO as i32)), ..host() };
    let refusal =
        ask(&mut served.client(), CreateTap { machine: MachineId::random(), nic: NicId::random(), number: 8, switch: Some(1) })
            .unwrap_err();
    let name = IfName::tap(instance(), 8);
    assert!(refusal.note.as_str().contains(&format!("{name} was left changed")), "{refusal}");
}

#[test]
fn an_ordinary_user_may_only_list() {
    let fake = Fake::default();
    *fake.0.lock().unwrap() = host();
    let served = Served::new(fake.clone(), false);
    let mut client = served.client();
    let reason = |result: Result<_, skep_proto::Refusal>| result.map(|_: skep_proto::net::Done| ()).unwrap_err().reason;
    assert_eq!(reason(ask(&mut client, DeleteSwitch { number: 1 }).map(|r| r.0)), Reason::NeedsRoot);
    assert_eq!(reason(ask(&mut client, DeleteTap { number: 1 }).map(|r| r.0)), Reason::NeedsRoot);
    assert_eq!(reason(ask(&mut client, MoveTap { number: 1, switch: None, isolated: false }).map(|r| r.0)), Reason::NeedsRoot);
    let switch = CreateSwitch { switch: SwitchId::random(), number: 7, uplink: None };
    assert_eq!(ask(&mut client, switch).unwrap_err().reason, Reason::NeedsRoot);
    let tap = CreateTap { machine: MachineId::random(), nic: NicId::random(), number: 7, switch: None };
    assert_eq!(ask(&mut client, tap).unwrap_err().reason, Reason::NeedsRoot);
    assert_eq!(fake.0.lock().unwrap().calls, 0);
    let (page, []) = ask(&mut client, ListInterfaces { own: false, after: 0 }).unwrap();
    // The loopback and what skep made cannot be an uplink.
    assert_eq!(page.interfaces.iter().map(|i| i.name.as_str()).collect::<Vec<_>>(), ["eth0", "eth1"]);
}
