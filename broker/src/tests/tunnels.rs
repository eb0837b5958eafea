//! Switches that span hosts.

use super::requests::{reason, text};
use super::suite::{Life, Suite};
use skep_proto::Reason;
use skep_proto::broker::*;
use skep_proto::tunnel::Tunnel;

fn tunnel(vni: u32) -> Option<Tunnel> {
    Some(format!("{vni} 192.0.2.1 198.51.100.2 4789").parse().expect("a tunnel"))
}

fn far(name: &str, vni: u32) -> SwitchCreate {
    let name = name.parse().expect("a name");
    SwitchCreate { name, uplink: None, kind: SwitchKind::Plain, subnet: None, tunnel: tunnel(vni), subnet6: None }
}

#[test]
fn a_switch_has_its_tunnel_and_no_other_way_out() {
    let suite = Suite::new();
    // Of a switch that is no more; and of one that never had any.
    suite.world.lock().tunnels.insert(7, tunnel(7).expect("a tunnel"));
    suite.world.lock().bridges.insert(7);
    suite.live(async |life: Life| {
        life.up().await;
        suite.settled(&life.broker).await;
        let mut s = life.session().await;
        let made = s.ask(far("a", 42)).await.expect("made");
        assert_eq!(made.tunnel, tunnel(42));
        assert_eq!(s.ask(SwitchGet { switch: text("a") }).await.expect("there"), made);
        // What the host refuses leaves nothing.
        assert_eq!(reason(s.ask(far("b", 42)).await), Reason::AlreadyExists);
        suite.settled(&life.broker).await;
        assert_eq!(s.ask(SwitchList { after: None }).await.expect("a list").switches, [made]);
        // Nor is it what bridges two networks, or a subnet whose guests are held to their addresses.
        let uplink = SwitchCreate { uplink: Some("eth0".parse().expect("a name")), ..far("c", 43) };
        for wrong in [
            uplink,
            SwitchCreate { kind: SwitchKind::Nat, ..far("c", 43) },
            SwitchCreate { kind: SwitchKind::Netgraph, ..far("c", 43) },
        ] {
            let refusal = s.ask(wrong).await.expect_err("refused");
            assert_eq!((refusal.reason, refusal.field.as_str()), (Reason::InvalidValue, "tunnel"));
        }
        let set = SwitchSet { switch: text("a"), name: None, description: None, uplink: Some("eth0".parse().expect("a text")) };
        let refusal = s.ask(set).await.expect_err("refused");
        assert_eq!((refusal.reason, refusal.field.as_str()), (Reason::InvalidValue, "uplink"));
        // A switch with NICs keeps its tunnel.
        s.nic("n", Some("a"), None).await.expect("a NIC");
        assert_eq!(reason(s.ask(SwitchDelete { switch: text("a") }).await), Reason::InUse);
        suite.settled(&life.broker).await;
    });
    // It is there again after the host has lost it.
    suite.world.lock().tunnels.clear();
    suite.live(async |life: Life| {
        life.up().await;
        suite.settled(&life.broker).await;
        let mut s = life.session().await;
        s.ask(NicDelete { nic: text("n") }).await.expect("gone");
        s.ask(SwitchDelete { switch: text("a") }).await.expect("gone");
        assert!(suite.world.lock().tunnels.is_empty());
    });
}
