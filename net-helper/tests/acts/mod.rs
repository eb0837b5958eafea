//! The real kernel, in a network of the test's own, through the real server: what is the same on both hosts.

mod cables;
mod gateway;
pub mod servers;
mod six;

use crate::support::frames::{frame, hear, send};
use crate::support::{KINDS, LOOPBACK, Network, Served, ask, host, instance, open};
use skep_ipc::Client;
use skep_net_helper::platform::{Host, Link, NetHost, Switch};
use skep_proto::net::{CountTaps, CreateSwitch, CreateTap, DeleteSwitch, DeleteTap, ListInterfaces, MoveTap, Net};
use skep_proto::{IfName, MachineId, NicId, Reason, Refusal, SwitchId};
use std::os::fd::OwnedFd;

/// A served network, and a look at it that goes around the helper.
pub struct Net7 {
    _served: Served,
    pub client: Client<Net>,
    pub host: Host,
    pub network: Network,
}

impl Net7 {
    pub fn new() -> Option<Self> {
        let network = Network::own()?;
        let served = Served::new(host(), true);
        let client = served.client();
        Some(Self { _served: served, client, host: host(), network })
    }

    /// The same, on a host that can have subnets. None, and a named skip, where its administrator's own rules are in the way.
    pub fn routed() -> Option<Self> {
        let mut net = Self::new()?;
        if let Some(why) = net.host.no_subnets() {
            println!("SKIP {}: {why}", std::thread::current().name().unwrap_or("?"));
            return None;
        }
        Some(net)
    }

    pub fn links(&mut self) -> Vec<Link> {
        self.host.links().unwrap()
    }

    pub fn link(&mut self, name: &str) -> Option<Link> {
        self.host.link(&name.parse().unwrap()).unwrap()
    }

    pub fn switch(&mut self, number: u16, uplink: Option<&str>) -> Result<IfName, Refusal> {
        let uplink = uplink.map(|name| name.parse().unwrap());
        ask(&mut self.client, CreateSwitch { switch: SwitchId::random(), number, uplink }).map(|(reply, [])| reply.name)
    }

    pub fn tap(&mut self, number: u16, switch: Option<u16>) -> Result<OwnedFd, Refusal> {
        let tap = ask(&mut self.client, CreateTap { machine: MachineId::random(), nic: NicId::random(), number, switch })
            .map(|(_, [tap])| tap);
        // Its answer shows that the helper has closed what it sent.
        ask(&mut self.client, ListInterfaces { own: true, after: 0 }).unwrap();
        tap
    }

    pub fn refused(&mut self, reason: Reason, act: impl FnOnce(&mut Self) -> Result<(), Refusal>) -> Refusal {
        let before = (self.links(), open());
        let refusal = act(self).unwrap_err();
        assert_eq!(refusal.reason, reason, "{refusal}");
        assert_eq!((self.links(), open()), before, "a refused act changed something");
        refusal
    }
}

pub fn bridge(number: u16) -> String {
    IfName::bridge(instance(), number).to_string()
}

pub fn tap(number: u16) -> String {
    IfName::tap(instance(), number).to_string()
}

#[test]
fn a_switch_takes_and_releases_its_uplink() {
    let Some(mut net) = Net7::new() else { return };
    let (_up0, _up1) = (net.network.outside("up0"), net.network.outside("up1"));
    let before = net.links();
    assert_eq!(net.switch(0, Some("up0")).unwrap().as_str(), bridge(0));
    let (made, up0) = (net.link(&bridge(0)).unwrap(), net.link("up0").unwrap());
    assert!(made.up && made.is_bridge() && made.note.starts_with("skep nt7a: switch "), "{made:?}");
    assert!(up0.up && up0.bridge == Some(made.index), "{up0:?}");
    // Again, then with another uplink, then with none.
    net.switch(0, Some("up0")).unwrap();
    assert_eq!(net.link("up0").unwrap().bridge, Some(made.index));
    net.switch(0, Some("up1")).unwrap();
    assert_eq!((net.link("up0").unwrap().bridge, net.link("up1").unwrap().bridge), (None, Some(made.index)));
    net.switch(0, None).unwrap();
    assert_eq!(net.link("up1").unwrap().bridge, None);
    net.switch(0, Some("up1")).unwrap();
    assert_eq!(net.link(&bridge(0)).unwrap().index, made.index, "it is still the same bridge");
    // Deleted, the uplink is free and stays up; deleted again, nothing happens.
    for _ in 0..2 {
        ask(&mut net.client, DeleteSwitch { number: 0 }).unwrap();
        assert!(net.link("up1").unwrap().up);
    }
    let but_for_up = |links: Vec<Link>| links.into_iter().map(|l| Link { up: false, ..l }).collect::<Vec<_>>();
    assert_eq!(but_for_up(net.links()), but_for_up(before));
}

#[test]
fn an_uplink_that_the_administrator_did_not_give_is_refused() {
    let Some(mut net) = Net7::new() else { return };
    let _there = net.network.outside("spare0");
    // Whether it is there is not told.
    for name in ["spare0", "no-such0"] {
        let refusal = net.refused(Reason::PermissionDenied, |n| n.switch(1, Some(name)).map(drop));
        assert!(refusal.field.as_str() == "uplink" && refusal.note.as_str().contains("--uplinks"), "{refusal}");
    }
}

#[test]
fn what_cannot_be_an_uplink_is_refused() {
    let Some(mut net) = Net7::new() else { return };
    let (_up0, _other) = (net.network.outside("up0"), net.network.outside("skab3ct7"));
    net.switch(0, Some("up0")).unwrap();
    net.host.make_bridge(&"br7".parse().unwrap(), Switch::Bridge).unwrap();
    net.network.will_end("br7");
    let _tap = net.tap(0, Some(0)).unwrap();
    let refusal = net.refused(Reason::NotFound, |n| n.switch(1, Some("eth9")).map(drop));
    assert_eq!(refusal.object.as_str(), "uplink eth9");
    let refusal = net.refused(Reason::InUse, |n| n.switch(1, Some("up0")).map(drop));
    assert!(refusal.note.as_str().contains(&bridge(0)), "{refusal}");
    for (name, why) in [(LOOPBACK, "loopback"), (&tap(0), "skep"), (&bridge(0), "skep"), ("skab3ct7", "skep"), ("br7", "bridge")]
    {
        let refusal = net.refused(Reason::InvalidValue, |n| n.switch(1, Some(name)).map(drop));
        assert!(refusal.note.as_str().contains(why) && refusal.field.as_str() == "uplink", "{refusal}");
    }
}

#[test]
fn what_has_a_name_of_ours_but_is_something_else_is_not_touched() {
    let Some(mut net) = Net7::new() else { return };
    let _tap_like_bridge = net.network.outside(&bridge(3));
    net.host.make_bridge(&IfName::tap(instance(), 3), Switch::Bridge).unwrap();
    net.refused(Reason::AlreadyExists, |n| n.switch(3, None).map(drop));
    net.refused(Reason::AlreadyExists, |n| ask(&mut n.client, DeleteSwitch { number: 3 }).map(drop));
    net.refused(Reason::AlreadyExists, |n| ask(&mut n.client, DeleteTap { number: 3 }).map(drop));
    net.refused(Reason::AlreadyExists, |n| ask(&mut n.client, MoveTap { number: 3, switch: None, isolated: false }).map(drop));
    net.refused(Reason::AlreadyExists, |n| n.tap(4, Some(3)).map(drop));
    net.refused(Reason::InUse, |n| n.tap(3, None).map(drop));
}

#[test]
fn a_switch_with_taps_is_not_deleted() {
    let Some(mut net) = Net7::new() else { return };
    net.switch(0, None).unwrap();
    let held = net.tap(6, Some(0)).unwrap();
    let refusal = net.refused(Reason::InUse, |n| ask(&mut n.client, DeleteSwitch { number: 0 }).map(drop));
    assert!(refusal.note.as_str().contains(&tap(6)), "{refusal}");
    drop(held);
    ask(&mut net.client, DeleteTap { number: 6 }).unwrap();
    ask(&mut net.client, DeleteSwitch { number: 0 }).unwrap();
    assert_eq!(net.link(&bridge(0)), None);
}

#[test]
fn two_taps_on_a_switch_pass_frames() {
    let Some(mut net) = Net7::new() else { return };
    let outside = net.network.outside("up0");
    net.switch(0, Some("up0")).unwrap();
    let (a, b) = (net.tap(0, Some(0)).unwrap(), net.tap(1, Some(0)).unwrap());
    let made = net.link(&tap(0)).unwrap();
    assert!(made.up && made.is_tap() && made.note.starts_with("skep nt7a: nic "), "{made:?}");
    for fd in [&a, &b] {
        let flags = nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_GETFD).unwrap();
        assert_eq!(flags & nix::libc::FD_CLOEXEC, nix::libc::FD_CLOEXEC);
    }
    send(&a, &frame("from a"));
    assert_eq!(hear(&b, |_| ()), "from a");
    assert_eq!(hear(&outside, |_| ()), "from a");
    send(&outside, &frame("from outside"));
    assert_eq!(hear(&a, |_| ()), "from outside");
    assert_eq!(hear(&b, |_| ()), "from outside");
}

#[test]
fn a_moved_tap_hears_its_new_switch_only() {
    let Some(mut net) = Net7::new() else { return };
    (0..2).for_each(|number| drop(net.switch(number, None).unwrap()));
    let (a, b, moved) = (net.tap(0, Some(0)).unwrap(), net.tap(1, Some(1)).unwrap(), net.tap(2, None).unwrap());
    assert_eq!(net.link(&tap(2)).unwrap().bridge, None);
    for (switch, text) in [(Some(0), "a"), (Some(1), "b"), (None, ""), (Some(0), "a"), (Some(0), "a")] {
        ask(&mut net.client, MoveTap { number: 2, switch, isolated: false }).unwrap();
        send(&a, &frame("a"));
        send(&b, &frame("b"));
        if switch.is_some() {
            assert_eq!(hear(&moved, |_| ()), text);
        }
    }
    net.refused(Reason::NotFound, |n| ask(&mut n.client, MoveTap { number: 2, switch: Some(9), isolated: false }).map(drop));
    net.refused(Reason::NotFound, |n| ask(&mut n.client, MoveTap { number: 9, switch: Some(0), isolated: false }).map(drop));
}

#[test]
fn interfaces_are_listed_in_pages() {
    let Some(mut net) = Net7::new() else { return };
    let _up0 = net.network.outside("up0");
    for number in 0..120 {
        net.switch(number, (number == 70).then_some("up0")).unwrap();
    }
    let (mut found, mut after, mut sizes) = (Vec::new(), 0, Vec::new());
    loop {
        let (page, []) = ask(&mut net.client, ListInterfaces { own: true, after }).unwrap();
        sizes.push(page.interfaces.len());
        let Some(last) = page.interfaces.last() else { break };
        after = last.index;
        found.extend(page.interfaces);
    }
    assert_eq!(sizes, [50, 50, 20, 0]);
    assert!(found.is_sorted_by_key(|i| i.index));
    assert!(found.iter().all(|i| i.up && i.kind.as_str() == "bridge" && i.mtu == 1500));
    let (page, []) = ask(&mut net.client, ListInterfaces { own: false, after: 0 }).unwrap();
    let up0 = page.interfaces.iter().find(|i| i.name.as_str() == "up0").unwrap();
    assert_eq!((up0.kind.as_str(), up0.up), (KINDS.0, true));
    assert!(page.interfaces.iter().all(|i| i.name.as_str() != LOOPBACK && !i.name.is_of(instance())));
    assert_eq!(up0.bridge.as_ref().unwrap().as_str(), bridge(70));
}

#[test]
fn a_taps_counters_are_those_of_its_guest() {
    let Some(mut net) = Net7::new() else { return };
    net.switch(0, None).unwrap();
    let (a, b) = (net.tap(1, Some(0)).unwrap(), net.tap(2, Some(0)).unwrap());
    let mut count = |numbers: &[u16]| {
        let counted = ask(&mut net.client, CountTaps { numbers: numbers.to_vec() });
        counted.map(|(reply, [])| reply.taps)
    };
    let before = count(&[1, 2]).unwrap();
    for _ in 0..10 {
        send(&a, &frame("counted"));
        assert_eq!(hear(&b, |_| {}), "counted");
    }
    let after = count(&[2, 9, 1]).unwrap();
    // One that is not there is left out; the order is that of the request.
    assert_eq!(after.iter().map(|tap| tap.number).collect::<Vec<_>>(), [2, 1]);
    assert_eq!((after[1].tx_packets - before[0].tx_packets, after[1].tx_bytes - before[0].tx_bytes), (10, 600));
    // The host's own frames reach it, too.
    assert!(after[0].rx_packets - before[1].rx_packets >= 10 && after[0].rx_bytes - before[1].rx_bytes >= 600, "{after:?}");
    let refusal = count(&[1; 65]).unwrap_err();
    assert_eq!((refusal.reason, refusal.field.as_str()), (Reason::InvalidValue, "numbers"));
}
