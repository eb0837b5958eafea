//! Rules that outlive their tap, and servers that nobody reaches.

use crate::acts::Net7;
use crate::acts::servers::connect_to;
use crate::support::ask;
use skep_net_helper::platform::NetHost;
use skep_proto::Reason;
use skep_proto::net::{GuardTap, Own};
use std::net::Ipv4Addr;

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

#[test]
fn a_server_that_the_host_does_not_reach_is_unavailable() {
    let Some(mut net) = Net7::new() else { return };
    net.network.up("lo");
    // One that was named, and a public one.
    for address in ["10.64.7.5", "198.21.0.1"] {
        assert_eq!(connect_to(&mut net, address).unwrap_err(), Reason::Unavailable);
    }
}
