//! net-helper.

use super::{Golden, parse};
use skep_proto::net::*;
use skep_proto::{NicId, SwitchId};

#[test]
fn bytes_of_net_helper_never_change() {
    let mut golden = Golden::new("net-helper");
    let named = || Named { name: parse("skabcdb0") };
    golden.call(CreateSwitch { switch: SwitchId::from_u128(3), number: 300, uplink: Some(parse("eth0")) }, named());
    golden.call(DeleteSwitch { number: 2 }, Done {});
    golden.call(CreateTap { nic: NicId::from_u128(4), number: 1, switch: Some(2) }, named());
    golden.call(MoveTap { number: 1, switch: None }, Done {});
    golden.call(DeleteTap { number: 1 }, Done {});
    let interface =
        Interface { index: 5, name: parse("skabcdt1"), up: true, bridge: Some(parse("skabcdb0")), mtu: 1500, kind: parse("tun") };
    golden.call(ListInterfaces { own: true, after: 4 }, InterfacePage { interfaces: vec![interface] });
    golden.covers::<Net>();
    golden.check();
}
