//! Every step of every operation fails once: the host and the open descriptors are as before.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod support;

use nix::errno::Errno;
use skep_proto::net::{CreateSwitch, CreateTap, DeleteSwitch, DeleteTap, ListInterfaces, MoveTap, Net};
use skep_proto::{Call, IfName, NicId, Reason, SwitchId};
use support::fake::{Fake, State, link};
use support::{Served, ask, instance, open};

/// lo, eth0 (down), eth1 (a member of bridge 2), bridges 1 and 2, tap 5 on bridge 1.
fn host() -> State {
    let name = |kind, number| if kind == 'b' { IfName::bridge(instance(), number) } else { IfName::tap(instance(), number) };
    let mut links = vec![link(1, "lo", ""), link(2, "eth0", ""), link(3, "eth1", "")];
    links.push(link(4, name('b', 1).as_str(), "bridge"));
    links.push(link(5, name('b', 2).as_str(), "bridge"));
    links.push(link(6, name('t', 5).as_str(), "tap"));
    links[0].loopback = true;
    links[2].bridge = Some(5);
    links[5].bridge = Some(4);
    State { links, ..State::default() }
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
            let (links, before) = (host().links, open());
            match ask(&mut client, call.clone()) {
                Ok(_) => {
                    fake.0.lock().unwrap().failing = None;
                    if errno == Errno::ENOSPC {
                        return step;
                    }
                    break;
                }
                Err(refusal) => {
                    assert_eq!(fake.0.lock().unwrap().links, links, "step {step}");
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
    assert_eq!(walk(DeleteSwitch { number: 2 }), 4);
}

#[test]
fn a_failed_new_tap_leaves_nothing() {
    // Look for the tap, for the bridge; make, mark, join, up.
    assert_eq!(walk(CreateTap { nic: NicId::random(), number: 8, switch: Some(1) }), 6);
}

#[test]
fn a_failed_move_keeps_the_tap_where_it_was() {
    // Look for the tap, for the bridge; list, leave, join.
    assert_eq!(walk(MoveTap { number: 5, switch: Some(2) }), 5);
    assert_eq!(walk(MoveTap { number: 5, switch: None }), 3);
}

#[test]
fn a_failed_deletion_of_a_tap_keeps_it() {
    assert_eq!(walk(DeleteTap { number: 5 }), 2);
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
    let refusal = ask(&mut served.client(), CreateTap { nic: NicId::random(), number: 8, switch: Some(1) }).unwrap_err();
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
    assert_eq!(reason(ask(&mut client, MoveTap { number: 1, switch: None }).map(|r| r.0)), Reason::NeedsRoot);
    let switch = CreateSwitch { switch: SwitchId::random(), number: 7, uplink: None };
    assert_eq!(ask(&mut client, switch).unwrap_err().reason, Reason::NeedsRoot);
    let tap = CreateTap { nic: NicId::random(), number: 7, switch: None };
    assert_eq!(ask(&mut client, tap).unwrap_err().reason, Reason::NeedsRoot);
    assert_eq!(fake.0.lock().unwrap().calls, 0);
    let (page, []) = ask(&mut client, ListInterfaces { own: false, after: 0 }).unwrap();
    // The loopback and what skep made cannot be an uplink.
    assert_eq!(page.interfaces.iter().map(|i| i.name.as_str()).collect::<Vec<_>>(), ["eth0", "eth1"]);
}
