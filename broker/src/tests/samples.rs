//! One request of each kind.

use super::requests::text;
use super::suite::nic_create;
use skep_proto::broker::*;
use skep_proto::storage::{DiskKind, LogKind, Packing, SourceFormat};
use skep_proto::{OperationId, Text};

/// One request of each kind, about the group `g` or its things.
pub fn samples(operation: OperationId) -> Vec<BrokerRequest> {
    let (vm, disk, nic, group) = (|| text("g-vm"), || text("g-disk"), || text("g-nic"), || Some(text("g")));
    let settings = || Settings {
        disks: Some(vec![DiskDraft {
            disk: disk(),
            controller: Controller::Nvme,
            read_only: false,
            flags: DiskFlags::default(),
            on: None,
        }]),
        ..Settings::default()
    };
    fn name<T: std::str::FromStr<Err: std::fmt::Debug>>() -> T {
        "new".parse().expect("a name")
    }
    let import = DiskImport {
        name: name(),
        kind: DiskKind::Raw,
        format: SourceFormat::Raw,
        packing: Packing::Detect,
        expect: 0,
        sha256: None,
        group: group(),
        iso: false,
        image: None,
        description: Text::default(),
    };
    let other = || Some(text("other"));
    vec![
        DiskFetch {
            import: import.clone(),
            url: Text::lossy("https://example.org/a.img"),
            sums: None,
            signed: false,
            signature: None,
        }
        .into(),
        RequestKey { id: skep_proto::RequestId::random() }.into(),
        CallTold { method: Text::default(), from: Text::default(), reason: None, note: Text::default(), untold: 0 }.into(),
        HostShow {}.into(),
        HostRest {}.into(),
        HostLog { service: ServiceName::Broker, follow: false }.into(),
        TokenCreate { name: name(), user: other(), seconds: 1 }.into(),
        TokenList { user: other(), after: None }.into(),
        TokenDelete { name: name(), user: other() }.into(),
        MachineCreate { name: name(), settings: settings(), group: group() }.into(),
        MachineGet { machine: vm() }.into(),
        MachineList { after: None }.into(),
        MachineSet { machine: vm(), settings: settings(), revision: 0 }.into(),
        MachineRename { machine: vm(), name: name() }.into(),
        MachineAct { machine: vm(), act: Act::Start }.into(),
        MachineEject { machine: vm(), disk: disk() }.into(),
        MachineClone { machine: vm(), name: name(), snapshot: None, full: false }.into(),
        MachineLaunch {
            name: name(),
            image: disk(),
            settings: Settings { disks: None, ..settings() },
            size: 0,
            switch: Some(name()),
            group: group(),
            wait: false,
        }
        .into(),
        MachineDelete { machine: vm(), disks: true }.into(),
        MachineConsole { machine: vm(), write: false, take: false, port: 1 }.into(),
        MachineGdb { machine: vm() }.into(),
        MachineScreen { machine: vm() }.into(),
        MachineChannel { machine: vm(), channel: name() }.into(),
        MachineLog { machine: vm(), log: LogKind::Serial, follow: false }.into(),
        MachineStats { machine: vm() }.into(),
        StatsWatch { machine: vm(), interval_ms: 1000 }.into(),
        MetricsGet { after: None }.into(),
        FirmwareList { machine: vm(), after: None }.into(),
        FirmwareGet { machine: vm(), name: "BootOrder".parse().expect("a name"), from: 0 }.into(),
        FirmwareEdit { machine: vm(), change: FirmwareChange::Reset }.into(),
        DiskCreate { name: name(), kind: DiskKind::Raw, size: 512, group: group() }.into(),
        IscsiCreate {
            name: name(),
            portal: "192.0.2.1".parse().expect("a portal"),
            target: "iqn.2001-04.com.example".parse().expect("a target"),
            lun: 0,
            chap: None,
            group: group(),
        }
        .into(),
        import.into(),
        DiskClone { disk: disk(), name: name(), image: None, full: false, snapshot: None }.into(),
        DiskResize { disk: disk(), size: 1 << 21, shrink: false }.into(),
        DiskSet { disk: disk(), name: None, description: None, image: None, rates: DiskRatesDraft::default() }.into(),
        DiskWipe { disk: disk() }.into(),
        DiskExport { disk: disk() }.into(),
        DiskGet { disk: disk() }.into(),
        DiskList { after: None, iso: None, image: None }.into(),
        DiskDelete { disk: disk() }.into(),
        SnapshotCreate { disk: disk(), name: name() }.into(),
        SnapshotList { disk: disk(), after: None }.into(),
        SnapshotRollBack { disk: disk(), snapshot: name() }.into(),
        SnapshotRename { disk: disk(), snapshot: name(), name: name() }.into(),
        SnapshotDelete { disk: disk(), snapshot: name() }.into(),
        WholeCreate { machine: vm(), name: name() }.into(),
        WholeList { machine: vm(), after: None }.into(),
        WholeRollBack { machine: vm(), snapshot: name() }.into(),
        WholeRename { machine: vm(), snapshot: name(), name: name() }.into(),
        WholeDelete { machine: vm(), snapshot: name() }.into(),
        SwitchCreate { name: name(), uplink: None, kind: SwitchKind::Plain, subnet: None, tunnel: None, subnet6: None }.into(),
        SwitchList { after: None }.into(),
        SwitchGet { switch: name() }.into(),
        SwitchSet { switch: name(), name: None, description: None, uplink: None }.into(),
        SwitchDelete { switch: name() }.into(),
        SwitchOpen { switch: name(), group: group(), open: true }.into(),
        nic_create("new", None, Some("g-vm"), None).into(),
        NicAttach { nic: nic(), machine: vm() }.into(),
        NicDetach { nic: nic() }.into(),
        NicGet { nic: nic() }.into(),
        super::changes::nic_set(nic().as_str()).into(),
        NicClone { nic: nic(), name: name() }.into(),
        NicList { after: None }.into(),
        NicDelete { nic: nic() }.into(),
        OperationGet { id: operation, wait: false }.into(),
        OperationList { after: None }.into(),
        OperationCancel { id: operation }.into(),
        EventWatch { after: None, object: Text::default() }.into(),
        UserCreate { name: name(), password: None, local_uid: None }.into(),
        UserGet { user: other() }.into(),
        UserList { after: None }.into(),
        UserRename { user: text("other"), name: name() }.into(),
        UserDisable { user: text("other"), disabled: true }.into(),
        UserPassword { user: other(), old: None, new: "correct horse".parse().expect("a password") }.into(),
        UserDelete { user: text("other") }.into(),
        GroupCreate { name: name(), quota: Quota::default() }.into(),
        GroupList { after: None }.into(),
        GroupRename { group: text("g"), name: name() }.into(),
        GroupQuota { group: text("g"), quota: Quota::default() }.into(),
        GroupAdd { group: text("default"), what: Moved::Machine(vm()) }.into(),
        GroupDelete { group: text("g") }.into(),
        RoleGrant { user: text("other"), group: group(), role: Role::Admin }.into(),
        RoleRevoke { user: text("other"), group: group() }.into(),
        RoleList { after: None }.into(),
    ]
}
