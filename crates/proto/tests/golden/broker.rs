//! The broker.

use super::{Golden, broker_machine, every, parse};
use skep_proto::broker::*;
use skep_proto::storage::{DiskKind, Packing, SourceFormat};
use skep_proto::{
    DiskId, Dsp, GroupId, NicId, OperationId, Rate, Rates, Reason, Refusal, SnapshotId, SoundDevice, SwitchId, TraceId, UserId,
};

const WHEN: i64 = 1_700_000_000_000_000_000;

/// An operation.
pub fn operation() -> OperationView {
    OperationView {
        id: OperationId::from_u128(11),
        kind: parse("import"),
        object: parse("disk root"),
        user: parse("uid 0"),
        trace: TraceId(5),
        state: OperationState::Running,
        progress: (300, 1 << 33),
        started_ns: WHEN,
        ended_ns: 0,
    }
}

fn facts() -> ImageFacts {
    let (source, os) = (parse("debian-12.qcow2"), parse("Debian 12"));
    ImageFacts { source, os, user: parse("debian"), min_disk: 2 << 30, min_memory: 512 }
}

fn disk() -> DiskView {
    DiskView {
        id: DiskId::from_u128(7),
        name: parse("root"),
        kind: DiskKind::Raw,
        size: 1 << 30,
        allocated: 4096,
        sha256: parse("5a"),
        machines: vec![parse("web1")],
        created_ns: WHEN,
        group: parse("default"),
        description: parse("of web1"),
        iso: true,
        image: Some(facts()),
        rates: skep_proto::DiskRates { read_bps: 1 << 20, write_bps: 0, read_iops: 100, write_iops: 10 },
        iscsi: Some(IscsiView {
            portal: parse("[2001:db8::1]:860"),
            target: parse("iqn.2001-04.com.example:disk"),
            lun: 3,
            user: parse("joe"),
            initiator: parse("iqn.2026-11.internal.skep:abcd"),
        }),
    }
}

fn nic() -> NicView {
    NicView {
        id: NicId::from_u128(4),
        name: parse("eth"),
        mac: [2, 0, 0, 1, 2, 3],
        switch: parse("lan"),
        machine: parse("web1"),
        tap: parse("skabcdt1"),
        created_ns: WHEN,
        group: parse("default"),
        model: NicModel::E1000,
        slot: Some(20),
        description: parse("of web1"),
        address: Some(std::net::Ipv4Addr::new(10, 64, 1, 2)),
        rates: Rates { inward: Some(Rate::new(10_000_000).unwrap()), outward: None },
        isolated: true,
        forwards: parse("8080:80 192.0.2.1:53:53/udp"),
        address6: Some(parse("fd12:3456:789a:1:0:ff:fe01:203")),
    }
}

#[test]
fn bytes_of_the_broker_never_change() {
    let mut golden = Golden::new("broker");
    sessions(&mut golden);
    broker_machine::machines(&mut golden);
    access(&mut golden);
    disks(&mut golden);
    firmware(&mut golden);
    networks(&mut golden);
    events(&mut golden);
    golden.covers::<Broker>();
    broker_machine::parts(&mut golden);
    every!(golden, Credential {
        LocalSocket {} => Credential::LocalSocket; Token(_) => Credential::Token(parse("secret"));
        Password { .. } => Credential::Password { user: parse("alice"), password: parse("secret"), peer: parse("192.0.2.1") };
        Metrics {} => Credential::Metrics;
        Nobody {} => Credential::Nobody;
    });
    every!(golden, OperationState {
        Running {} => OperationState::Running; Done {} => OperationState::Done;
        Failed(_) => OperationState::Failed(Refusal::new(Reason::Cancelled, "disk root"));
    });
    every!(golden, Role { Viewer {} => Role::Viewer; Operator {} => Role::Operator; Admin {} => Role::Admin; });
    every!(golden, Moved { Machine(_) => Moved::Machine(parse("web1")); Disk(_) => Moved::Disk(parse("root")); });
    golden.check();
}

fn sessions(golden: &mut Golden) {
    let told = CallTold {
        method: parse("Disks.Create"),
        from: parse("192.0.2.1"),
        reason: Some(Reason::TooLarge),
        note: parse("x"),
        untold: 3,
    };
    golden.call(told, Done {});
    golden.call(RequestKey { id: parse("00000000-0000-0000-0000-000000000007") }, Done {});
    golden.call(OpenSession { credential: Credential::LocalSocket }, SessionState { user: parse("uid 0") });
    let host = HostView {
        version: parse("0.1.0"),
        instance: parse("abcd"),
        system: parse("Linux 6.1"),
        hypervisor: parse("QEMU 7.2"),
        uefi: true,
        cpus: 2,
        memory: 1 << 34,
        space: (1 << 40, 1 << 39),
        reflink: false,
        limits: vec![parse("memory")],
        weaker: vec![parse("no cgroup")],
        helpers: vec![parse("net-helper")],
        shares: vec![parse("src")],
        abilities: vec![parse("eject")],
        inabilities: vec![parse("x2apic: no")],
        keyboards: vec![parse("de")],
        uplinks: vec![Uplink { name: parse("em0"), up: true, mtu: 1500, bridge: Some(parse("skabcdb1")) }],
        sound: vec![SoundDevice { device: Dsp(0), description: parse("Realtek"), plays: true, records: false }],
        wireguard_key: Some(parse("xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=")),
        machine_cpus: 16,
        screen: Some((1920, 1200)),
    };
    golden.call(HostShow {}, host);
    golden.call(HostRest {}, Done {});
}

fn access(golden: &mut Golden) {
    let made = TokenMade { token: parse("secret"), user: parse("alice"), expires_ns: WHEN };
    golden.call(TokenCreate { name: parse("laptop"), user: Some(parse("alice")), seconds: 43_200 }, made);
    let token = TokenView {
        key: parse("alice/laptop"),
        name: parse("laptop"),
        user: parse("alice"),
        created_ns: WHEN,
        expires_ns: 0,
        used_ns: WHEN,
    };
    golden.call(TokenList { user: None, after: Some(parse("alice/a")) }, TokenPage { tokens: vec![token] });
    golden.call(TokenDelete { name: parse("laptop"), user: None }, Done {});
    let id = Some(UserId::from_u128(5));
    let user = || UserView { id, name: parse("alice"), disabled: false, password: true, local_uid: Some(1000), created_ns: WHEN };
    golden.call(UserCreate { name: parse("alice"), password: Some(parse("secret")), local_uid: Some(1000) }, user());
    golden.call(UserGet { user: None }, user());
    golden.call(UserList { after: Some(parse("a")) }, UserPage { users: vec![user()] });
    golden.call(UserRename { user: parse("al"), name: parse("alice") }, user());
    golden.call(UserDisable { user: parse("alice"), disabled: true }, user());
    golden.call(UserPassword { user: None, old: Some(parse("old")), new: parse("new") }, Done {});
    golden.call(UserDelete { user: parse("alice") }, Done {});
    let quota = Quota { machines: 4, cpus: 8, memory_mib: 1 << 14, disk_bytes: 1 << 40 };
    let group = || GroupView {
        id: GroupId::from_u128(6),
        name: parse("shop"),
        quota,
        used: Quota { machines: 1, ..Quota::default() },
        created_ns: WHEN,
    };
    golden.call(GroupCreate { name: parse("shop"), quota }, group());
    golden.call(GroupList { after: None }, GroupPage { groups: vec![group()] });
    golden.call(GroupRename { group: parse("store"), name: parse("shop") }, group());
    golden.call(GroupQuota { group: parse("shop"), quota }, group());
    golden.call(GroupAdd { group: parse("shop"), what: Moved::Machine(parse("web1")) }, Done {});
    golden.call(GroupDelete { group: parse("shop") }, Done {});
    golden.call(RoleGrant { user: parse("alice"), group: Some(parse("shop")), role: Role::Operator }, Done {});
    golden.call(RoleRevoke { user: parse("alice"), group: None }, Done {});
    let role = RoleView { key: parse("alice/shop"), user: parse("alice"), group: parse("shop"), role: Role::Operator };
    golden.call(RoleList { after: None }, RolePage { roles: vec![role] });
}

fn disks(golden: &mut Golden) {
    let chap = Some(skep_proto::iscsi::Chap { user: parse("joe"), secret: parse("secret") });
    let (portal, target) = (parse("192.0.2.1:3260"), parse("iqn.2001-04.com.example:disk"));
    golden.call(IscsiCreate { name: parse("san"), portal, target, lun: 1, chap, group: None }, disk());
    golden.call(DiskCreate { name: parse("root"), kind: DiskKind::Raw, size: 1 << 30, group: Some(parse("shop")) }, disk());
    let import = DiskImport {
        name: parse("root"),
        kind: DiskKind::Raw,
        format: SourceFormat::Qcow2,
        packing: Packing::Detect,
        expect: 512,
        sha256: Some([0x5a; 32]),
        group: None,
        iso: true,
        image: Some(facts()),
        description: parse("ours"),
    };
    golden.call(import.clone(), operation());
    let (url, sums) = (parse("https://example.org/a.img"), Some(parse("https://example.org/SHA256SUMS")));
    let signature = Some(parse("https://example.org/SHA256SUMS.gpg"));
    golden.call(DiskFetch { import, url, sums, signed: true, signature }, operation());
    golden.call(
        DiskClone { disk: parse("root"), name: parse("copy"), image: Some(facts()), full: true, snapshot: Some(parse("before")) },
        operation(),
    );
    golden.call(DiskResize { disk: parse("root"), size: 1 << 31, shrink: false }, disk());
    let image = Some(facts());
    let rates = DiskRatesDraft { read_bps: Some(1 << 20), write_bps: Some(0), read_iops: None, write_iops: Some(10) };
    let (name, description) = (Some(parse("boot")), Some(parse("of web1")));
    golden.call(DiskSet { disk: parse("root"), name, description, image, rates }, disk());
    golden.call(DiskWipe { disk: parse("root") }, disk());
    golden.call(DiskExport { disk: parse("root") }, disk());
    golden.call(DiskGet { disk: parse("root") }, disk());
    golden.call(DiskList { after: None, iso: Some(true), image: Some(false) }, DiskPage { disks: vec![disk()] });
    golden.call(DiskDelete { disk: parse("root") }, Done {});
    let snapshot =
        SnapshotView { id: SnapshotId::from_u128(8), name: parse("before"), size: 1 << 30, used: 8192, created_ns: WHEN };
    let whole = WholeView {
        id: SnapshotId::from_u128(9),
        name: parse("before"),
        created_ns: 1,
        disks: vec![parse("root"), parse("data")],
        used: 4096,
    };
    golden.call(WholeCreate { machine: parse("web1"), name: parse("before") }, whole.clone());
    golden.call(WholeList { machine: parse("web1"), after: Some(parse("a")) }, WholePage { snapshots: vec![whole.clone()] });
    golden.call(WholeRename { machine: parse("web1"), snapshot: parse("then"), name: parse("before") }, whole);
    golden.call(WholeDelete { machine: parse("web1"), snapshot: parse("before") }, Done {});
    golden.call(SnapshotCreate { disk: parse("root"), name: parse("before") }, snapshot.clone());
    golden.call(SnapshotList { disk: parse("root"), after: None }, SnapshotPage { snapshots: vec![snapshot.clone()] });
    golden.call(SnapshotRename { disk: parse("root"), snapshot: parse("then"), name: parse("before") }, snapshot);
    golden.call(SnapshotRollBack { disk: parse("root"), snapshot: parse("before") }, disk());
    golden.call(SnapshotDelete { disk: parse("root"), snapshot: parse("before") }, Done {});
}

fn firmware(golden: &mut Golden) {
    let var = VarState { name: parse("Boot0001"), attributes: 7, size: 40, meaning: parse("Debian  PciRoot(0x0)/Pci(0x8,0x0)") };
    let page = VarPage { vars: vec![var.clone()], used: 4000, room: 262_000 };
    golden.call(FirmwareList { machine: parse("web1"), after: Some(parse("Boot0000")) }, page);
    golden.call(FirmwareGet { machine: parse("web1"), name: parse("Boot0001"), from: 6000 }, VarPiece { var, data: vec![1, 2] });
    let edited = VarsEdited { order: vec![3, 1], next: Some(1) };
    golden.call(
        FirmwareEdit { machine: parse("web1"), change: FirmwareChange::Next(Some(BootChoice::Disk(parse("data")))) },
        edited,
    );
    every!(golden, BootChoice { Entry(_) => BootChoice::Entry(3); Disk(_) => BootChoice::Disk(parse("data")); });
    every!(golden, FirmwareChange {
        Set { .. } => FirmwareChange::Set { name: parse("BootNext"), attributes: None, data: vec![3, 0] };
        Delete(_) => FirmwareChange::Delete(parse("BootNext"));
        Order(_) => FirmwareChange::Order(vec![BootChoice::Entry(3)]);
        Next(_) => FirmwareChange::Next(None);
        Reset {} => FirmwareChange::Reset;
    });
}

fn networks(golden: &mut Golden) {
    let switch = SwitchView {
        id: SwitchId::from_u128(3),
        name: parse("lan"),
        bridge: parse("skabcdb0"),
        uplink: parse("eth0"),
        nics: 1,
        created_ns: WHEN,
        open: false,
        groups: vec![parse("shop")],
        description: parse("of the shop"),
        kind: SwitchKind::Nat,
        subnet: Some(parse("10.64.1.0/24")),
        tunnel: Some(parse("42 192.0.2.1 198.51.100.2 4789")),
        subnet6: Some(parse("fd12:3456:789a:1::/64")),
    };
    golden.call(SwitchGet { switch: parse("lan") }, switch.clone());
    let set = SwitchSet { switch: parse("lan"), name: Some(parse("wan")), description: None, uplink: Some(parse("eth0")) };
    golden.call(set, switch.clone());
    let (kind, subnet) = (SwitchKind::HostOnly, Some(parse("10.64.1.0/24")));
    let (tunnel, subnet6) = (switch.tunnel.clone(), Some(skep_proto::Choice6::Auto));
    golden.call(SwitchCreate { name: parse("lan"), uplink: Some(parse("eth0")), kind, subnet, tunnel, subnet6 }, switch.clone());
    golden.call(SwitchList { after: None }, SwitchPage { switches: vec![switch.clone()] });
    golden.call(SwitchOpen { switch: parse("lan"), group: Some(parse("shop")), open: true }, switch);
    golden.call(SwitchDelete { switch: parse("lan") }, Done {});
    let create = NicCreate {
        name: parse("eth"),
        switch: Some(parse("lan")),
        mac: Some([2, 0, 0, 1, 2, 3]),
        machine: Some(parse("web1")),
        group: None,
        model: NicModel::E1000,
        slot: Some(20),
        address: Some(std::net::Ipv4Addr::new(10, 64, 1, 2)),
        rates: Rates { inward: None, outward: Some(Rate::new(5_000_000).unwrap()) },
        isolated: true,
        forwards: parse("8080:80 192.0.2.1:53:53/udp"),
    };
    golden.call(create, nic());
    golden.call(NicAttach { nic: parse("eth"), machine: parse("web1") }, nic());
    golden.call(NicDetach { nic: parse("eth") }, nic());
    golden.call(NicGet { nic: parse("eth") }, nic());
    let set = NicSet {
        nic: parse("eth"),
        name: Some(parse("eth1")),
        description: Some(parse("of web1")),
        switch: Some(parse("lan")),
        mac: Some([2, 0, 0, 1, 2, 4]),
        model: Some(NicModel::VirtioNet),
        slot: Some(0),
        address: Some(std::net::Ipv4Addr::new(10, 64, 1, 3)),
        rate_in: Some(None),
        rate_out: Some(Some(Rate::new(64_000).unwrap())),
        isolated: Some(false),
        forwards: Some(parse("8080:80")),
    };
    golden.call(set, nic());
    golden.call(NicClone { nic: parse("eth"), name: parse("eth2") }, nic());
    golden.call(NicList { after: None }, NicPage { nics: vec![nic()] });
    golden.call(NicDelete { nic: parse("eth") }, Done {});
}

fn events(golden: &mut Golden) {
    golden.call(OperationGet { id: OperationId::from_u128(11), wait: true }, operation());
    golden.call(OperationList { after: None }, OperationPage { operations: vec![operation()] });
    golden.call(OperationCancel { id: OperationId::from_u128(11) }, operation());
    golden.call(EventWatch { after: Some(300), object: parse("machine") }, Done {});
    let event = EventView {
        token: 300,
        time_ns: WHEN,
        object: parse("machine"),
        id: parse("00000000-0000-0000-0000-000000000009"),
        name: parse("web1"),
        what: parse("state"),
        detail: parse("running"),
        trace: TraceId(5),
        user: parse("uid 0"),
    };
    golden.value("EventView", &event);
}
