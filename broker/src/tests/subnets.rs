//! Switches that are subnets, the addresses of NICs on them, and machines that are launched.

use super::changes::nic_set;
use super::requests::{reason, text};
use super::suite::{Life, Session, Suite, nic_create};
use skep_proto::broker::*;
use skep_proto::{Reason, Refusal, UpTo, upload};
use std::io::Write;
use std::net::Ipv4Addr;

fn subnet(name: &str, kind: SwitchKind, subnet: Option<&str>) -> SwitchCreate {
    let subnet = subnet.map(|subnet| subnet.parse().expect("a subnet"));
    SwitchCreate { name: name.parse().expect("a name"), uplink: None, kind, subnet, tunnel: None, subnet6: None }
}

fn last(address: Option<Ipv4Addr>) -> Option<u8> {
    address.map(|address| address.octets()[3])
}

#[test]
fn a_subnet_collides_with_nothing_on_the_host_and_with_no_other() {
    let suite = Suite::new();
    suite.live(async |life: Life| {
        life.up().await;
        let mut s = life.session().await;
        let first = s.ask(subnet("a", SwitchKind::Nat, None)).await.expect("made");
        let first = first.subnet.expect("a subnet");
        // The host reaches the next one otherwise, so that the one after it is chosen.
        let next = |subnet: skep_proto::Subnet| {
            let net = Ipv4Addr::from(u32::from(subnet.net()) + 256);
            skep_proto::Subnet::new(net, 24).expect("a subnet")
        };
        suite.world.lock().reached.push(next(first));
        let second = s.ask(subnet("b", SwitchKind::HostOnly, None)).await.expect("made").subnet;
        assert_eq!(second, Some(next(next(first))));
        // One that was asked for is not exchanged for another.
        let taken = next(first).to_string();
        let bridges = suite.world.lock().bridges.clone();
        assert_eq!(reason(s.ask(subnet("c", SwitchKind::Nat, Some(&taken))).await), Reason::InUse);
        assert_eq!(suite.world.lock().bridges, bridges, "a bridge stayed of a switch that was refused");
        let within = s.ask(subnet("c", SwitchKind::Nat, Some("10.64.0.0/16"))).await;
        assert!(within.is_ok() || reason(within) == Reason::AlreadyExists);
        assert_eq!(reason(s.ask(subnet("d", SwitchKind::Nat, Some(&first.to_string()))).await), Reason::AlreadyExists);
        // What makes no sense.
        let mut wrong = subnet("d", SwitchKind::Nat, None);
        wrong.uplink = Some("eth0".parse().expect("a name"));
        let refusal = s.ask(wrong).await.expect_err("refused");
        assert_eq!((refusal.reason, refusal.field.as_str()), (Reason::InvalidValue, "uplink"));
        let refusal = s.ask(subnet("d", SwitchKind::Plain, Some("10.1.2.0/24"))).await.expect_err("refused");
        assert_eq!((refusal.reason, refusal.field.as_str()), (Reason::InvalidValue, "subnet"));
        let names: Vec<String> =
            s.ask(SwitchList { after: None }).await.expect("a list").switches.iter().map(|s| s.name.to_string()).collect();
        assert!(!names.contains(&"d".to_owned()), "{names:?}");
    });
}

fn six(name: &str, kind: SwitchKind, choice: &str) -> SwitchCreate {
    SwitchCreate { subnet6: Some(choice.parse().expect("a network")), ..subnet(name, kind, None) }
}

#[test]
fn a_network_of_ipv6_is_a_switchs_where_it_is_asked_for() {
    let suite = Suite::new();
    suite.live(async |life: Life| {
        life.up().await;
        let mut s = life.session().await;
        let net = s.ask(six("net", SwitchKind::Nat, "fd12:3456:789a:1::/64")).await.expect("made").subnet6;
        assert_eq!(net, Some("fd12:3456:789a:1::/64".parse().expect("a network")));
        // Without being asked for there is none.
        let plain = s.ask(subnet("plain", SwitchKind::Nat, None)).await.expect("made");
        assert_eq!(plain.subnet6, None);
        // One that the host reaches without us is drawn again; each is another.
        suite.world.lock().reaches_next_six = true;
        let auto = s.ask(six("auto", SwitchKind::HostOnly, "auto")).await.expect("made").subnet6;
        let more = s.ask(six("more", SwitchKind::HostOnly, "auto")).await.expect("made").subnet6;
        assert!(auto.is_some() && more.is_some() && auto != more && !suite.world.lock().reaches_next_six);
        let told: Vec<_> = (0..4).map(|number| suite.world.lock().sixes[&number]).collect();
        assert_eq!(told, [net, None, auto, more]);
        // One that was asked for is not exchanged for another.
        suite.world.lock().reaches_next_six = true;
        let refusal = s.ask(six("taken", SwitchKind::Nat, "fd12:3456:789a:2::/64")).await.expect_err("refused");
        assert_eq!((refusal.reason, refusal.field.as_str()), (Reason::InUse, "subnet6"));
        let refusal = s.ask(six("again", SwitchKind::Nat, "fd12:3456:789a:1::/64")).await.expect_err("refused");
        assert_eq!((refusal.reason, refusal.field.as_str()), (Reason::AlreadyExists, "subnet6"));
        let refusal = s.ask(six("none", SwitchKind::Plain, "auto")).await.expect_err("refused");
        assert_eq!((refusal.reason, refusal.field.as_str()), (Reason::InvalidValue, "subnet6"));
        // A NIC has an address there, as its MAC address says, and none elsewhere.
        let nic = s.ask(NicCreate { mac: Some([2, 0, 0x5e, 0, 0x53, 0x11]), ..nic_create("a", Some("net"), None, None) }).await;
        let address = "fd12:3456:789a:1:0:5eff:fe00:5311".parse().expect("an address");
        assert_eq!(nic.expect("made").address6, Some(address));
        assert_eq!(s.ask(NicGet { nic: text("a") }).await.expect("shown").address6, Some(address));
        s.ask(NicSet { switch: Some(text("plain")), ..nic_set("a") }).await.expect("set");
        assert_eq!(s.ask(NicGet { nic: text("a") }).await.expect("shown").address6, None);
    });
}

#[test]
fn a_port_of_the_host_leads_to_one_guest_and_follows_him() {
    let suite = Suite::new();
    suite.live(async |life: Life| {
        life.up().await;
        let mut s = life.session().await;
        let led = || {
            let mut all: Vec<String> = Vec::new();
            for to in suite.world.lock().forwards.values().flatten() {
                all.push(format!("{} to {}", to.forward, to.guest));
            }
            all.sort();
            all
        };
        for (name, net, kind) in [
            ("net", "10.1.2.0/29", SwitchKind::Nat),
            ("other", "10.1.3.0/29", SwitchKind::Nat),
            ("home", "10.1.4.0/29", SwitchKind::HostOnly),
        ] {
            s.ask(subnet(name, kind, Some(net))).await.expect("made");
        }
        let with = |name: &str, switch: Option<&str>, list: &str| NicCreate {
            forwards: list.parse().expect("forwards"),
            ..nic_create(name, switch, None, None)
        };
        for (wrong, why) in [
            (with("a", Some("home"), "80:80"), Reason::InvalidValue),
            (with("a", None, "80:80"), Reason::InvalidValue),
            (with("a", Some("net"), "22:22"), Reason::InUse),
        ] {
            let refusal = s.ask(wrong).await.expect_err("refused");
            assert_eq!((refusal.reason, refusal.field.as_str()), (why, "forwards"), "{refusal}");
        }
        assert!(s.ask(NicList { after: None }).await.expect("a list").nics.is_empty());
        s.ask(with("a", Some("net"), "80:8080 53:53/udp")).await.expect("made");
        assert_eq!(led(), ["53:53/udp to 10.1.2.2", "80:8080/tcp to 10.1.2.2"]);
        // Taken by another NIC, on whichever switch.
        for list in ["80:80", "192.0.2.1:80:80"] {
            let refusal = s.ask(with("b", Some("other"), list)).await.expect_err("refused");
            assert_eq!((refusal.reason, refusal.field.as_str()), (Reason::InUse, "forwards"), "{refusal}");
        }
        s.ask(with("b", Some("other"), "81:80")).await.expect("made");
        // With his address, and to another switch.
        s.ask(NicSet { address: Some([10, 1, 2, 5].into()), ..nic_set("a") }).await.expect("set");
        assert_eq!(led(), ["53:53/udp to 10.1.2.5", "80:8080/tcp to 10.1.2.5", "81:80/tcp to 10.1.3.2"]);
        s.ask(NicSet { switch: Some(text("other")), ..nic_set("a") }).await.expect("set");
        assert_eq!(led(), ["53:53/udp to 10.1.3.3", "80:8080/tcp to 10.1.3.3", "81:80/tcp to 10.1.3.2"]);
        let refusal = s.ask(NicSet { switch: Some(text("home")), ..nic_set("a") }).await.expect_err("refused");
        assert_eq!((refusal.reason, refusal.field.as_str()), (Reason::InvalidValue, "forwards"));
        // A copy has none; what is in place of others is in place of them.
        let copy = s.ask(NicClone { nic: text("a"), name: "c".parse().expect("a name") }).await.expect("made");
        assert!(copy.forwards.is_empty());
        s.ask(NicSet { forwards: Some("82:82".parse().expect("forwards")), ..nic_set("a") }).await.expect("set");
        assert_eq!(led(), ["81:80/tcp to 10.1.3.2", "82:82/tcp to 10.1.3.3"]);
        s.ask(NicDelete { nic: text("a") }).await.expect("deleted");
        assert_eq!(led(), ["81:80/tcp to 10.1.3.2"]);
    });
}

#[test]
fn each_nic_has_an_address_of_its_own_on_its_switch() {
    let suite = Suite::new();
    suite.live(async |life: Life| {
        life.up().await;
        let mut s = life.session().await;
        s.ask(subnet("net", SwitchKind::Nat, Some("10.1.2.0/29"))).await.expect("made");
        s.ask(subnet("other", SwitchKind::Nat, Some("10.1.3.0/29"))).await.expect("made");
        s.switch("plain", None).await.expect("made");
        let mut addresses = Vec::new();
        for name in ["a", "b", "c"] {
            addresses.push(last(s.ask(nic_create(name, Some("net"), None, None)).await.expect("made").address));
        }
        assert_eq!(addresses, [Some(2), Some(3), Some(4)]);
        let chosen = |name: &str, address: [u8; 4]| NicCreate {
            address: Some(address.into()),
            ..nic_create(name, Some("net"), None, None)
        };
        for (address, why) in [
            ([10, 1, 2, 1], Reason::InvalidValue),
            ([10, 1, 2, 0], Reason::InvalidValue),
            ([10, 1, 2, 7], Reason::InvalidValue),
            ([10, 1, 3, 2], Reason::InvalidValue),
            ([10, 1, 2, 3], Reason::AlreadyExists),
        ] {
            let refusal = s.ask(chosen("x", address)).await.expect_err("refused");
            assert_eq!((refusal.reason, refusal.field.as_str()), (why, "address"), "{refusal}");
        }
        assert_eq!(last(s.ask(chosen("x", [10, 1, 2, 6])).await.expect("made").address), Some(6));
        // What is free again is given again; when nothing is, that is said.
        s.ask(NicDelete { nic: text("a") }).await.expect("deleted");
        for (name, address) in [("d", 2), ("e", 5)] {
            assert_eq!(last(s.ask(nic_create(name, Some("net"), None, None)).await.expect("made").address), Some(address));
        }
        assert_eq!(reason(s.ask(nic_create("f", Some("net"), None, None)).await), Reason::LimitReached);
        // It goes with the switch.
        let moved = |switch: &str, address: Option<[u8; 4]>| NicSet {
            switch: Some(text(switch)),
            address: address.map(Into::into),
            ..nic_set("b")
        };
        let view = s.ask(moved("other", None)).await.expect("moved");
        assert_eq!(view.address, Some([10, 1, 3, 2].into()));
        assert_eq!(s.ask(moved("other", Some([10, 1, 3, 5]))).await.expect("set").address, Some([10, 1, 3, 5].into()));
        assert_eq!(s.ask(moved("plain", None)).await.expect("moved").address, None);
        assert_eq!(reason(s.ask(moved("plain", Some([10, 1, 3, 5]))).await), Reason::InvalidValue);
        assert_eq!(s.ask(moved("net", None)).await.expect("moved").address, Some([10, 1, 2, 3].into()));
    });
}

/// Launches, and says what the guest is to be told; nothing: says that it is too much.
pub async fn launch(
    s: &mut Session, name: &str, told: &[u8], change: impl FnOnce(&mut MachineLaunch),
) -> Result<OperationView, Refusal> {
    let mut launch = MachineLaunch {
        name: name.parse().expect("a name"),
        image: text("image"),
        settings: Settings::default(),
        size: 0,
        switch: None,
        group: None,
        wait: false,
    };
    change(&mut launch);
    let (view, UpTo(pipe)) = s.ask_with(launch, []).await?;
    let mut pipe = std::fs::File::from(pipe.into_iter().next().expect("a pipe"));
    let length = if told.is_empty() { MAX_GUEST_DATA + 1 } else { told.len() };
    // All of it fits the pipe: nobody reads in between.
    let bytes = [&upload::header(length).expect("a length")[..], told, &upload::END].concat();
    pipe.write_all(&bytes).expect("written");
    drop(pipe);
    s.done(view).await
}

#[test]
fn a_machine_is_launched_whole_or_not_at_all() {
    let suite = Suite::new();
    suite.live(async |life: Life| {
        life.up().await;
        let mut s = life.session().await;
        s.disk("image").await.expect("a disk");
        let data = postcard::to_stdvec(&GuestData { keys: vec!["ssh-ed25519 A".into()], user_data: Vec::new() }).expect("bytes");
        launch(&mut s, "web", &data, |_| {}).await.expect("launched");
        let machine = s.get("web").await.expect("there");
        assert_eq!((machine.state, machine.disks.len()), (MachineState::Running, 2));
        let switches = s.ask(SwitchList { after: None }).await.expect("a list").switches;
        assert_eq!(switches.iter().map(|s| (s.name.as_str(), s.kind)).collect::<Vec<_>>(), [("default", SwitchKind::Nat)]);
        assert!(s.ask(NicGet { nic: text("web") }).await.expect("there").address.is_some());
        // Refused before anything is begun.
        for (change, why, field) in [
            (
                Box::new(|l: &mut MachineLaunch| l.image = text("none")) as Box<dyn FnOnce(&mut MachineLaunch)>,
                Reason::NotFound,
                "",
            ),
            (Box::new(|l| l.switch = Some(text("none"))), Reason::NotFound, ""),
            (Box::new(|l| l.size = 4096), Reason::InvalidValue, "size_bytes"),
            (Box::new(|l| l.name = "web".parse().expect("a name")), Reason::AlreadyExists, "name"),
            (Box::new(|l| l.image = text("web-root")), Reason::InUse, ""),
            (Box::new(|l| l.settings.cpus = Some(0)), Reason::InvalidValue, "cpus"),
        ] {
            let refusal = launch(&mut s, "two", &data, change).await.expect_err("refused");
            assert_eq!((refusal.reason, refusal.field.as_str()), (why, field), "{refusal}");
        }
        // Refused when it comes to that.
        let refusal = launch(&mut s, "two", b"\xff\xff\xff\xff nothing that can be read", |_| {}).await.expect_err("refused");
        assert_eq!((refusal.reason, refusal.field.as_str()), (Reason::InvalidValue, "user_data"));
        let refusal = launch(&mut s, "two", &[], |_| {}).await.expect_err("refused");
        assert_eq!((refusal.reason, refusal.field.as_str()), (Reason::InvalidValue, "user_data"));
        suite.settled(&life.broker).await;
        let disks = s.ask(DiskList { after: None, iso: None, image: None }).await.expect("a list").disks;
        let names: Vec<&str> = disks.iter().map(|disk| disk.name.as_str()).collect();
        assert_eq!(names, ["image", "web-root", "web-seed"]);
        assert_eq!(s.ask(NicList { after: None }).await.expect("a list").nics.len(), 1);
        // And with it goes all that was made for it.
        s.act("web", Act::Kill).await.expect("killed");
        let gone = s.ask(MachineDelete { machine: text("web"), disks: true }).await.expect("begun");
        s.done(gone).await.expect("deleted");
        suite.settled(&life.broker).await;
        assert_eq!(s.ask(DiskList { after: None, iso: None, image: None }).await.expect("a list").disks.len(), 1);
        assert_eq!(s.ask(NicList { after: None }).await.expect("a list").nics, []);
    });
}
