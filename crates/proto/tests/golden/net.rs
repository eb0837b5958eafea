//! net-helper.

use super::{Golden, parse};
use skep_proto::net::*;
use skep_proto::tunnel::{Far, PublicKey, Tunnel};
use skep_proto::{MachineId, NicId, SwitchId};

#[test]
fn bytes_of_net_helper_never_change() {
    let mut golden = Golden::new("net-helper");
    let named = || Named { name: parse("skabcdb0") };
    golden.call(CreateSwitch { switch: SwitchId::from_u128(3), number: 300, uplink: Some(parse("eth0")) }, named());
    golden.call(DeleteSwitch { number: 2 }, Done {});
    golden.call(CreateTap { machine: MachineId::from_u128(5), nic: NicId::from_u128(4), number: 1, switch: Some(2) }, named());
    golden.call(MoveTap { number: 1, switch: None, isolated: true }, Done {});
    golden.call(DeleteTap { number: 1 }, Done {});
    let interface =
        Interface { index: 5, name: parse("skabcdt1"), up: true, bridge: Some(parse("skabcdb0")), mtu: 1500, kind: parse("tun") };
    golden.call(ListInterfaces { own: true, after: 4 }, InterfacePage { interfaces: vec![interface] });
    let tunnel =
        |local, far| Tunnel { vni: parse("70000"), local: parse(local), far, port: 4789.try_into().unwrap(), peer_key: None };
    let host = tunnel("192.0.2.1", Far::Host(parse("198.51.100.2")));
    golden.call(CreateTunnel { switch: SwitchId::from_u128(3), number: 300, tunnel: host.clone() }, named());
    let group = tunnel("2001:db8::1", Far::Group { address: parse("ff05::7"), uplink: parse("eth0") });
    golden.value("Tunnel to a group", &group);
    let key: PublicKey = parse("xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=");
    golden.value("Tunnel through WireGuard", &Tunnel { peer_key: Some(key), ..host.clone() });
    golden.call(HostKey {}, HostKeyed { key });
    golden.call(DeleteTunnel { number: 300 }, Done {});
    let ends = [parse("skabcdp1a"), parse("skabcdp1b")];
    golden.call(CreatePair { number: 1, switches: [Some(300), None] }, PairNamed { ends });
    golden.call(DeletePair { number: 1 }, Done {});
    golden.call(CreateGraphSwitch { switch: SwitchId::from_u128(3), number: 300, uplink: Some(parse("eth0")) }, named());
    let count = TapCount { number: 1, rx_bytes: 1 << 40, rx_packets: 2, tx_bytes: 3, tx_packets: 4 };
    golden.call(CountTaps { numbers: vec![1, 300] }, TapCounts { taps: vec![count] });
    let gateway =
        Some(Gateway { subnet: parse("10.64.1.0/24"), reach: Reach::Out, subnet6: Some(parse("fd12:3456:789a:1::/64")) });
    let forward = parse("192.0.2.1:8080:80/udp");
    golden
        .call(SetGateway { number: 2, gateway, forwards: vec![PortForward { forward, guest: [10, 64, 1, 2].into() }] }, Done {});
    golden.call(CheckPort { forward: parse("53:5353") }, Done {});
    golden.call(OpenPort { number: 1, v6: true }, Done {});
    golden.call(OpenResolvers {}, Done {});
    golden.call(ConnectServer { address: [192, 0, 2, 1].into(), port: 443, portal: true }, Done {});
    let own =
        Some(Own { mac: [2, 0, 0, 1, 2, 3], address: [10, 64, 1, 2].into(), subnet6: Some(parse("fd12:3456:789a:1::/64")) });
    golden.call(GuardTap { number: 1, own }, Done {});
    let rates = skep_proto::Rates { inward: Some(skep_proto::Rate::new(10_000_000).unwrap()), outward: None };
    golden.call(LimitTap { number: 1, rates }, Done {});
    golden.covers::<Net>();
    golden.check();
}
