//! Disks, switches and NICs that are changed after they were made.

use super::requests::{reason, text, web};
use super::suite::{Life, Suite};
use skep_proto::broker::*;
use skep_proto::{Reason, SwitchName, Text};

fn name<T: std::str::FromStr<Err: std::fmt::Debug>>(name: &str) -> Option<T> {
    Some(name.parse().expect("a name"))
}

fn disk_set(disk: &str) -> DiskSet {
    DiskSet { disk: text(disk), name: None, description: None, image: None, rates: DiskRatesDraft::default() }
}
pub fn nic_set(nic: &str) -> NicSet {
    NicSet {
        nic: text(nic),
        name: None,
        description: None,
        switch: None,
        mac: None,
        model: None,
        slot: None,
        address: None,
        rate_in: None,
        rate_out: None,
        isolated: None,
        forwards: None,
    }
}
fn switch_set(switch: &str) -> SwitchSet {
    SwitchSet { switch: text(switch), name: None, description: None, uplink: None }
}

#[test]
fn anything_is_renamed_and_described() {
    Suite::new().live(async |life: Life| {
        let (mut s, _) = web(&life).await;
        s.disk("other").await.expect("a disk");
        s.switch("dmz", None).await.expect("a switch");
        s.nic("free", None, None).await.expect("a nic");
        let refused = [
            s.ask(DiskSet { name: name("other"), ..disk_set("root") }).await.map(drop),
            s.ask(SwitchSet { name: name("dmz"), ..switch_set("lan") }).await.map(drop),
            s.ask(NicSet { name: name("free"), ..nic_set("web-0") }).await.map(drop),
        ];
        for refusal in refused {
            let refusal = refusal.expect_err("the name is taken");
            assert_eq!((refusal.reason, refusal.field.as_str()), (Reason::AlreadyExists, "name"), "{refusal}");
        }
        // While the machine runs, too: an id does not change.
        s.act("web", Act::Start).await.expect("started");
        let of_web = || Some(Text::lossy("of web"));
        let disk = s.ask(DiskSet { name: name("boot"), description: of_web(), ..disk_set("root") }).await.expect("renamed");
        let switch =
            s.ask(SwitchSet { name: name("office"), description: of_web(), ..switch_set("lan") }).await.expect("renamed");
        let nic = s.ask(NicSet { name: name("front"), description: of_web(), ..nic_set("web-0") }).await.expect("renamed");
        assert_eq!((disk.name.as_str(), disk.description.as_str()), ("boot", "of web"));
        assert_eq!((nic.name.as_str(), nic.switch.as_str(), nic.machine.as_str()), ("front", "office", "web"));
        assert_eq!(s.ask(DiskGet { disk: text("boot") }).await.expect("there"), disk);
        assert_eq!(s.ask(SwitchGet { switch: text(&switch.id.to_string()) }).await.expect("there"), switch);
        assert_eq!(s.ask(NicGet { nic: text("front") }).await.expect("there"), nic);
        assert_eq!(reason(s.ask(NicGet { nic: text("web-0") }).await), Reason::NotFound);
        // What is absent stays.
        assert_eq!(s.ask(disk_set("boot")).await.expect("nothing"), disk);
        let list = s.ask(SwitchList { after: None }).await.expect("a list").switches;
        let listed = |switch: &SwitchView| (switch.name.to_string(), switch.description.to_string());
        assert_eq!(list.iter().map(listed).collect::<Vec<_>>(), [("dmz".into(), "".into()), ("office".into(), "of web".into())]);
        s.act("web", Act::Kill).await.expect("killed");
        s.act("web", Act::Start).await.expect("it has its disk and NIC");
        // So are those who may do something here, and what they are members of.
        let group = |name: &str| GroupCreate { name: name.parse().expect("a name"), quota: Quota::default() };
        let person = |name: &str| UserCreate { name: name.parse().expect("a name"), password: None, local_uid: None };
        for name in ["shop", "kept"] {
            s.ask(group(name)).await.expect("a group");
            s.ask(person(name)).await.expect("a user");
        }
        let call_group = |new: &str| GroupRename { group: text("shop"), name: new.parse().expect("a name") };
        let call_user = |new: &str| UserRename { user: text("shop"), name: new.parse().expect("a name") };
        for refusal in [s.ask(call_group("kept")).await.map(drop), s.ask(call_user("kept")).await.map(drop)] {
            let refusal = refusal.expect_err("the name is taken");
            assert_eq!((refusal.reason, refusal.field.as_str()), (Reason::AlreadyExists, "name"), "{refusal}");
        }
        let group = s.ask(call_group("store")).await.expect("renamed");
        let user = s.ask(call_user("clerk")).await.expect("renamed");
        assert_eq!((group.name.as_str(), user.name.as_str()), ("store", "clerk"));
        assert_eq!(s.ask(UserGet { user: Some(text("clerk")) }).await.expect("there"), user);
        assert_eq!(
            (reason(s.ask(call_group("a")).await), reason(s.ask(call_user("a")).await)),
            (Reason::NotFound, Reason::NotFound)
        );
    });
}

#[test]
fn a_nic_changes_while_its_machine_stands_still() {
    Suite::new().live(async |life: Life| {
        let (mut s, _) = web(&life).await;
        s.switch("dmz", None).await.expect("a switch");
        let mac = [2, 0, 0x5e, 0, 0x53, 1];
        let to = |switch: &str| NicSet { switch: Some(text(switch)), ..nic_set("web-0") };
        let with = |mac| NicSet { mac: Some(mac), ..nic_set("web-0") };
        s.act("web", Act::Start).await.expect("started");
        // Nothing of it is done, though a move alone could be.
        assert_eq!(reason(s.ask(NicSet { mac: Some(mac), ..to("dmz") }).await), Reason::WrongState);
        assert_eq!(s.ask(NicGet { nic: text("web-0") }).await.expect("there").switch.as_str(), "lan");
        assert_eq!(reason(s.ask(with(mac)).await), Reason::WrongState);
        s.ask(to("lan")).await.expect("it is there already");
        s.act("web", Act::Kill).await.expect("killed");
        assert_eq!(reason(s.ask(to("nowhere")).await), Reason::NotFound);
        assert_eq!(reason(s.ask(with([1, 0, 0, 0, 0, 0])).await), Reason::InvalidValue);
        let view = s.ask(NicSet { mac: Some(mac), ..to("dmz") }).await.expect("changed");
        assert_eq!((view.switch.as_str(), view.mac), ("dmz", mac));
        let copy = s.ask(NicClone { nic: text("web-0"), name: "web-1".parse().expect("a name") }).await.expect("copied");
        assert_eq!((copy.switch.as_str(), copy.machine.as_str()), ("dmz", ""));
        assert_ne!(copy.mac, mac);
        let refusal = s.ask(NicSet { mac: Some(mac), ..nic_set("web-1") }).await.expect_err("it is another's");
        assert_eq!((refusal.reason, refusal.field.as_str()), (Reason::AlreadyExists, "mac"), "{refusal}");
        assert_eq!(s.ask(to("")).await.expect("disconnected").switch.as_str(), "");
        s.ask(SwitchDelete { switch: text("dmz") }).await.expect_err("the copy is on it");
    });
}

#[test]
fn a_switch_gets_another_uplink_or_stays_as_it_was() {
    let suite = Suite::new();
    suite.live(async |life: Life| {
        let (mut s, _) = web(&life).await;
        let uplink = |name: &str| SwitchSet { uplink: Some(Text::lossy(name)), ..switch_set("lan") };
        assert_eq!(s.ask(uplink("eth7")).await.expect("changed").uplink.as_str(), "eth7");
        let refusal = s.ask(SwitchSet { name: name::<SwitchName>("wan"), ..uplink("missing") }).await.expect_err("refused");
        assert_eq!(refusal.reason, Reason::NotFound);
        // All of it or nothing.
        assert_eq!(reason(s.ask(SwitchGet { switch: text("wan") }).await), Reason::NotFound);
        assert_eq!(s.ask(SwitchGet { switch: text("lan") }).await.expect("there").uplink.as_str(), "eth7");
        let own = format!("sk{}b0", life.broker.instance);
        for wrong in [own.as_str(), "a name", "../x"] {
            let refusal = s.ask(uplink(wrong)).await.expect_err(wrong);
            assert_eq!((refusal.reason, refusal.field.as_str()), (Reason::InvalidValue, "uplink"), "{refusal}");
        }
        let view = s.ask(SwitchSet { name: name::<SwitchName>("wan"), ..uplink("") }).await.expect("taken away");
        assert_eq!((view.name.as_str(), view.uplink.as_str(), view.nics), ("wan", "", 1));
        suite.settled(&life.broker).await;
    });
}

#[test]
fn a_disk_is_wiped_only_while_nobody_needs_it() {
    use skep_proto::storage::DiskKind;
    Suite::new().live(async |life: Life| {
        let (mut s, _) = web(&life).await;
        let wipe = |disk: &str| DiskWipe { disk: text(disk) };
        s.act("web", Act::Start).await.expect("started");
        assert_eq!(reason(s.ask(wipe("root")).await), Reason::InUse);
        s.act("web", Act::Kill).await.expect("killed");
        assert_eq!(s.ask(wipe("root")).await.expect("wiped").size, 1 << 20);
        let create = DiskCreate { name: "vol".parse().expect("a name"), kind: DiskKind::Zvol, size: 1 << 20, group: None };
        s.ask(create).await.expect("a disk");
        s.ask(SnapshotCreate { disk: text("vol"), name: "before".parse().expect("a name") }).await.expect("a snapshot");
        let refusal = s.ask(wipe("vol")).await.expect_err("it has a snapshot");
        assert!(refusal.to_string().contains("before"), "{refusal}");
    });
}

#[test]
fn rates_of_a_running_machines_nic_are_told_or_taken_back() {
    if !crate::platform::capabilities(0).abilities.contains(&skep_machine::Ability::NicRates) {
        return;
    }
    let rate = |bits| skep_proto::Rate::new(bits).expect("a rate");
    let suite = Suite::new();
    let world = suite.world.clone();
    let limits = || world.lock().calls.iter().filter(|call| **call == "LimitTap").count();
    suite.live(async |life: Life| {
        let (mut s, _) = web(&life).await;
        let of = |rate_in, rate_out| NicSet { rate_in, rate_out, ..nic_set("web-0") };
        // While it stands still, nobody is told.
        let nic = s.ask(of(Some(Some(rate(10_000_000))), None)).await.expect("set");
        assert_eq!((nic.rates.inward, nic.rates.outward, limits()), (Some(rate(10_000_000)), None, 0));
        s.act("web", Act::Start).await.expect("started");
        assert_eq!(limits(), 1);
        let nic = s.ask(of(Some(None), Some(Some(rate(64_000))))).await.expect("set");
        assert_eq!((nic.rates.inward, nic.rates.outward, limits()), (None, Some(rate(64_000)), 2));
        // What is the device's waits for its machine's end.
        assert_eq!(reason(s.ask(NicSet { mac: Some([2, 0, 0, 0, 0, 9]), ..of(None, Some(None)) }).await), Reason::WrongState);
        // What the host refuses is as it was.
        let most = Some(Some(rate(skep_proto::Rate::MOST)));
        assert_eq!(reason(s.ask(of(most, Some(None))).await), Reason::Unsupported);
        let nic = s.ask(NicGet { nic: text("web-0") }).await.expect("there");
        assert_eq!((nic.rates.inward, nic.rates.outward), (None, Some(rate(64_000))));
        s.act("web", Act::Kill).await.expect("ended");
        let copy = s.ask(NicClone { nic: text("web-0"), name: "copy".parse().expect("a name") }).await.expect("a copy");
        assert_eq!(copy.rates, nic.rates);
    });
}

#[test]
fn rates_of_a_disk_are_told_to_machines_that_run() {
    let suite = Suite::new();
    let world = suite.world.clone();
    let told = || world.lock().calls.iter().filter(|call| **call == "LimitDisk").count();
    suite.live(async |life: Life| {
        let (mut s, _) = web(&life).await;
        let of = |rates| DiskSet { rates, ..disk_set("root") };
        let write = |bps| DiskRatesDraft { write_bps: Some(bps), ..DiskRatesDraft::default() };
        if !crate::platform::capabilities(0).abilities.contains(&skep_machine::Ability::DiskRates) {
            assert_eq!(reason(s.ask(of(write(1 << 20))).await), Reason::Unsupported);
            return;
        }
        assert_eq!(reason(s.ask(of(write(1))).await), Reason::InvalidValue);
        // While it stands still, nobody is told.
        s.ask(of(write(1 << 20))).await.expect("set");
        s.act("web", Act::Start).await.expect("started");
        assert_eq!(told(), 0);
        let disk = s.ask(of(DiskRatesDraft { read_iops: Some(10), ..DiskRatesDraft::default() })).await.expect("set");
        assert_eq!((disk.rates.write_bps, disk.rates.read_iops, told()), (1 << 20, 10, 1));
        // What stays as it is is told to nobody.
        s.ask(of(write(1 << 20))).await.expect("set");
        s.ask(DiskSet { description: Some(Text::lossy("of web")), ..disk_set("root") }).await.expect("described");
        assert_eq!(told(), 1);
        // It is no setting of the machine's that waits for its next start.
        let machine = s.ask(MachineGet { machine: text("web") }).await.expect("there");
        assert_eq!(machine.pending, Vec::<Text<32>>::new());
        s.act("web", Act::Kill).await.expect("ended");
        s.ask(of(write(0))).await.expect("set");
        assert_eq!(told(), 1);
    });
}

#[test]
fn a_running_machines_nic_moves_and_its_guest_is_told() {
    if !crate::platform::capabilities(0).abilities.contains(&skep_machine::Ability::NicMoves) {
        return;
    }
    let suite = Suite::new();
    let world = suite.world.clone();
    let since = |from: usize| world.lock().calls.iter().skip(from).copied().collect::<Vec<_>>();
    suite.live(async |life: Life| {
        let (mut s, _) = web(&life).await;
        s.switch("dmz", None).await.expect("a switch");
        let of = || nic_set("web-0");
        s.act("web", Act::Start).await.expect("started");
        let begun = since(0).len();
        let nic = s.ask(NicSet { switch: Some(text("dmz")), isolated: Some(true), ..of() }).await.expect("moved");
        assert_eq!((nic.switch.as_str(), nic.isolated), ("dmz", true));
        // Pulled, moved, held to its addresses (none), to its rates (none), plugged in.
        assert_eq!(since(begun), ["SetLink", "MoveTap", "GuardTap", "LimitTap", "SetLink"]);
        // What is no move pulls nothing.
        let begun = since(0).len();
        s.ask(NicSet { isolated: Some(false), ..of() }).await.expect("set");
        assert_eq!(since(begun), ["MoveTap", "GuardTap", "LimitTap"]);
        // A move that the host refuses is taken back.
        let missing = Some(text("missing"));
        assert_eq!(reason(s.ask(NicSet { switch: missing, ..of() }).await), Reason::NotFound);
        let most = Some(Some(skep_proto::Rate::new(skep_proto::Rate::MOST).expect("a rate")));
        assert_eq!(reason(s.ask(NicSet { switch: Some(text("lan")), rate_in: most, ..of() }).await), Reason::Unsupported);
        let nic = s.ask(NicGet { nic: text("web-0") }).await.expect("there");
        assert_eq!((nic.switch.as_str(), nic.rates.inward), ("dmz", None));
        assert_eq!(since(0).last(), Some(&"SetLink"));
    });
}
