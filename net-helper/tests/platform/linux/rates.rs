//! Limits of taps, seen at the frames that go through.

use crate::acts::{Net7, tap};
use crate::support::frames::{frame, hear, send};
use crate::support::{ask, instance};
use skep_net_helper::platform::NetHost;
use skep_proto::net::{DeleteTap, LimitTap};
use skep_proto::{Rate, Rates, Reason};
use std::os::fd::OwnedFd;

/// Frames of a burst: fewer than wait in a tap.
const BURST: usize = 400;

/// A frame of 1,000 bytes.
fn large(text: &str) -> Vec<u8> {
    let mut bytes = frame(text);
    bytes.resize(1000, 0);
    bytes
}

/// How many frames of a burst come through. `lift` has limits end before the frame that ends it.
fn burst(from: &OwnedFd, to: &OwnedFd, lift: impl FnOnce()) -> usize {
    (0..BURST).for_each(|_| send(from, &large("burst")));
    lift();
    send(from, &frame("end"));
    let mut heard = 0;
    while hear(to, |_| ()) != "end" {
        heard += 1;
    }
    heard
}

#[test]
fn what_goes_through_a_limited_tap_is_held_each_way() {
    let Some(mut net) = Net7::new() else { return };
    let slow = Some(Rate::new(Rate::LEAST).unwrap());
    let limit = |net: &mut Net7, inward, outward| {
        ask(&mut net.client, LimitTap { number: 1, rates: Rates { inward, outward } }).map(drop)
    };
    net.refused(Reason::NotFound, |n| limit(n, slow, slow));
    net.switch(0, None).unwrap();
    let (guest, other) = (net.tap(1, Some(0)).unwrap(), net.tap(2, Some(0)).unwrap());
    // The kernel learns where the two are.
    send(&guest, &frame("here"));
    while hear(&other, |_| ()) != "here" {}
    assert_eq!((burst(&guest, &other, || ()), burst(&other, &guest, || ())), (BURST, BURST), "without limits");
    // At 8,000 bytes in a second a burst is over before much of it may go.
    for _ in 0..2 {
        limit(&mut net, None, slow).unwrap();
        let heard = burst(&guest, &other, || limit(&mut net, None, None).unwrap());
        assert!((100..200).contains(&heard), "{heard} of those that it sent");
        limit(&mut net, slow, None).unwrap();
        let heard = burst(&other, &guest, || limit(&mut net, None, None).unwrap());
        assert!((10..100).contains(&heard), "{heard} of those that it was sent");
    }
    // One way is not the other's, nor one tap another's.
    limit(&mut net, slow, None).unwrap();
    assert_eq!(burst(&guest, &other, || ()), BURST);
    limit(&mut net, Some(Rate::new(Rate::MOST).unwrap()), slow).unwrap();
    assert_eq!(burst(&other, &guest, || ()), BURST);
    // All of it goes with the tap, or with the next helper's start.
    assert_eq!(net.host.tables().unwrap(), [format!("{}-rate", tap(1))]);
    ask(&mut net.client, DeleteTap { number: 1 }).unwrap();
    assert_eq!(net.host.tables().unwrap(), [] as [String; 0]);
    ask(&mut net.client, LimitTap { number: 2, rates: Rates { inward: slow, outward: slow } }).unwrap();
    drop(other);
    assert_eq!(net.host.tables().unwrap().len(), 1);
    net.host.sweep(instance()).unwrap();
    assert_eq!(net.host.tables().unwrap(), [] as [String; 0]);
}
