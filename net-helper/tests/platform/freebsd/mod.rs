//! What only FreeBSD does.

mod netgraph;
mod rights;
mod sandboxed;

use crate::acts::{Net7, bridge, tap};
use crate::support::{Network, any_socket, ask, instance, open};
use nix::errno::Errno;
use skep_net_helper::platform::{Host, NetHost, Switch};
use skep_proto::net::{DeleteTap, ListInterfaces};
use skep_proto::{IfName, Reason};
use skep_sys::freebsd::net;
use std::os::fd::AsFd;

/// A tap stays when it is closed, though down; then it is deleted or made anew. While it is open it is not.
#[test]
fn a_tap_ends_with_its_descriptor_or_when_deleted() {
    let Some(mut net) = Net7::new() else { return };
    let before = (net.links(), open());
    net.refused(Reason::NotFound, |n| n.tap(0, Some(0)).map(drop));
    let held = net.tap(0, None).unwrap();
    let link = net.link(&tap(0)).unwrap();
    assert!(link.up && link.held && link.is_tap(), "{link:?}");
    net.refused(Reason::InUse, |n| n.tap(0, None).map(drop));
    net.refused(Reason::InUse, |n| ask(&mut n.client, DeleteTap { number: 0 }).map(drop));
    drop(held);
    let closed = net.link(&tap(0)).unwrap();
    assert_eq!((closed.up, closed.held, closed.index), (false, false, link.index));
    let again = net.tap(0, None).unwrap();
    assert!(net.link(&tap(0)).unwrap().up);
    drop(again);
    for _ in 0..2 {
        ask(&mut net.client, DeleteTap { number: 0 }).unwrap();
        assert_eq!(net.links(), before.0);
    }
    // Many, one after the other: nothing stays open.
    for number in 0..40 {
        drop(net.tap(number, None).unwrap());
        ask(&mut net.client, DeleteTap { number }).unwrap();
    }
    ask(&mut net.client, ListInterfaces { own: true, after: 0 }).unwrap();
    assert_eq!((net.links(), open()), before);
}

/// Interfaces are marked for people: `ifconfig -g skep` lists them, and each says what it is for.
#[test]
fn an_interface_says_whose_it_is() {
    let Some(mut net) = Net7::new() else { return };
    net.switch(0, None).unwrap();
    let held = net.tap(0, Some(0)).unwrap();
    let socket = any_socket();
    for (name, kind, note) in [(bridge(0), "bridge", "skep nt7a: switch "), (tap(0), "tap", "skep nt7a: nic ")] {
        let groups = net::groups(socket.as_fd(), &name).unwrap();
        assert!(groups.iter().any(|group| group == "skep") && groups.iter().any(|group| group == kind), "{groups:?}");
        assert!(net::description(socket.as_fd(), &name).unwrap().starts_with(note));
    }
    let note = net::description(socket.as_fd(), &tap(0)).unwrap();
    assert_eq!(note.len(), "skep nt7a: nic  of machine ".len() + 2 * 36, "{note}");
    drop(held);
}

/// The MTU of a bridge is that of its first member, and the kernel takes no other: what is ours follows, what is the host's is refused.
#[test]
fn members_of_a_bridge_have_its_mtu() {
    let Some(mut net) = Net7::new() else { return };
    let (_up0, _up1) = (net.network.outside("up0"), net.network.outside("up1"));
    net::set_mtu(any_socket().as_fd(), "up0", 1400).unwrap();
    net.switch(0, Some("up0")).unwrap();
    let _tap = net.tap(0, Some(0)).unwrap();
    for name in [bridge(0), tap(0)] {
        assert_eq!(net.link(&name).unwrap().mtu, 1400, "{name}");
    }
    net.switch(1, None).unwrap();
    let _other = net.tap(1, Some(1)).unwrap();
    net::set_mtu(any_socket().as_fd(), "up1", 1400).unwrap();
    let refusal = net.switch(1, Some("up1")).unwrap_err();
    // Newer kernels give the member the bridge's MTU themselves.
    assert!(refusal.note.as_str().contains("1400"), "{refusal}");
    assert_eq!(net.link("up1").unwrap().mtu, 1400);
}

/// Between making an interface and naming it the helper may be killed. Its description tells then; that of another instance's, or of
/// an interface that no request makes, is left alone.
#[test]
fn what_was_left_half_made_goes() {
    let Some(mut network) = Network::own() else { return };
    let (socket, mut host) = (any_socket(), Host::acquire(&mut None).unwrap());
    let before = net::list(socket.as_fd()).unwrap();
    let mut made = |kind: &str, will_be: &str| {
        let name = net::create(socket.as_fd(), kind).unwrap();
        net::describe(socket.as_fd(), &name, &format!("skep makes {will_be}")).unwrap();
        network.will_end(&name);
        name
    };
    let ours: Vec<String> =
        ["bridge", "tap", "vxlan", "epair"].into_iter().map(|kind| made(kind, &format!("sk{}t9", instance()))).collect();
    let others = [made("tap", "skab3ct9"), made("lo", &format!("sk{}t9", instance())), made("tap", "no name of a kind")];
    // What got its name stays, though its description is not the last yet.
    host.make_bridge(&IfName::bridge(instance(), 1), Switch::Bridge).unwrap();
    host.sweep(instance()).unwrap();
    let after = net::list(socket.as_fd()).unwrap();
    assert!(ours.iter().all(|name| !after.contains(name)), "{after:?}");
    assert!(others.iter().all(|name| after.contains(name)), "{after:?}");
    assert_eq!(after.len(), before.len() + others.len() + 1, "{after:?}");
}

/// One end of a pair that is named while the other is not, as a killed helper may leave it.
#[test]
fn half_a_pair_is_made_anew() {
    let Some(mut net) = Net7::new() else { return };
    let socket = any_socket();
    let ends = IfName::pair(instance(), 3);
    let made = net::create(socket.as_fd(), "epair").unwrap();
    net::rename(socket.as_fd(), &made, ends[0].as_str()).unwrap();
    let other = format!("{}b", made.strip_suffix('a').unwrap());
    let call = skep_proto::net::CreatePair { number: 3, switches: [None, None] };
    ask(&mut net.client, call).unwrap();
    assert!(!net::list(socket.as_fd()).unwrap().contains(&other));
    assert!(net.link(ends[1].as_str()).unwrap().up);
    ask(&mut net.client, skep_proto::net::DeletePair { number: 3 }).unwrap();
}

/// What another took the name of meanwhile is not deleted when the step fails.
#[test]
fn a_name_that_is_taken_keeps_its_owner() {
    let Some(mut net) = Net7::new() else { return };
    let [a, b] = IfName::pair(instance(), 1);
    let _owner = net.network.outside(a.as_str());
    let before = net.links();
    let failed = net.host.make_pair(&[a.clone(), b.clone()]).unwrap_err();
    assert_eq!(failed.error.raw_os_error(), Some(Errno::EEXIST as i32), "{failed}");
    assert_eq!(net.links(), before);
    let _other = net.network.outside("up1");
    let before = net.links();
    // The second name is taken.
    let failed = net.host.make_pair(&[b, "up1".parse().unwrap()]).unwrap_err();
    assert_eq!(failed.error.raw_os_error(), Some(Errno::EEXIST as i32), "{failed}");
    net.host.make_bridge(&a, Switch::Bridge).unwrap_err();
    net.host.make_tap(&a).unwrap_err();
    assert_eq!(net.links(), before);
}

/// Whoever holds net-helper's end of the part outside gets no tap that is there already, and none of another's name.
#[test]
fn the_sender_opens_no_tap_that_it_has_not_made() {
    let Some(mut network) = Network::own() else { return };
    let socket = any_socket();
    let foreign = net::create(socket.as_fd(), "tap").unwrap();
    net::describe(socket.as_fd(), &foreign, "somebody else's").unwrap();
    network.will_end(&foreign);
    // Another suite's, by name, group and description.
    let other = net::create(socket.as_fd(), "tap").unwrap();
    net::join_group(socket.as_fd(), &other, "skep").unwrap();
    net::describe(socket.as_fd(), &other, "skep ab3c: nic").unwrap();
    net::rename(socket.as_fd(), &other, "skab3ct0").unwrap();
    network.will_end("skab3ct0");
    let mut host = crate::support::host();
    let before = host.links().unwrap();
    for name in [foreign.as_str(), "skab3ct0", "sknt7at", "sknt7at00", "sknt7ab0", "tap9"] {
        let refused = host.make_tap(&name.parse().unwrap()).unwrap_err();
        assert_eq!(refused.error.raw_os_error(), Some(Errno::EPERM as i32), "{name}: {refused}");
        assert_eq!(refused.step, "make a tap whose name is none of this instance's", "{name}");
    }
    // Nothing was opened (an open tap runs), made or renamed.
    assert_eq!(host.links().unwrap(), before);
    let held = host.make_tap(&IfName::tap(instance(), 3)).unwrap();
    let taken = host.make_tap(&IfName::tap(instance(), 3)).unwrap_err();
    assert_eq!(taken.error.raw_os_error(), Some(Errno::EEXIST as i32), "{taken}");
    assert_eq!(host.links().unwrap().len(), before.len() + 1);
    drop(held);
    host.delete(&IfName::tap(instance(), 3)).unwrap();
    assert_eq!(host.links().unwrap(), before);
}
