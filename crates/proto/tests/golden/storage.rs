//! storage-helper.

use super::{Golden, every, parse};
use skep_proto::storage::*;
use skep_proto::{DiskId, MachineId, Reason, Refusal, SnapshotId};

const DISK: DiskId = DiskId::from_u128(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff);
const OTHER: DiskId = DiskId::from_u128(7);
const MACHINE: MachineId = MachineId::from_u128(9);
const SNAPSHOT: SnapshotId = SnapshotId::from_u128(11);

fn state() -> DiskState {
    DiskState { disk: DISK, kind: DiskKind::Qcow2, size: 1 << 30, allocated: 4096 }
}

#[test]
fn bytes_of_storage_helper_never_change() {
    let mut golden = Golden::new("storage-helper");
    golden.call(CreateDisk { disk: DISK, kind: DiskKind::Raw, size: 1 << 20 }, state());
    let import = ImportDisk {
        disk: DISK,
        kind: DiskKind::Raw,
        format: SourceFormat::Detect,
        packing: Packing::Detect,
        limit: 1 << 40,
        most: u64::MAX,
        expect: 512,
        sha256: Some([0x5a; 32]),
    };
    golden.call(import, JobStarted {});
    golden.call(CloneDisk { from: DISK, snapshot: None, to: OTHER, kind: DiskKind::Raw }, JobStarted {});
    golden.call(
        OpenDisk { disk: DISK, kind: DiskKind::Qcow2, read_only: true, no_cache: true, sync: false },
        DiskOpened { disk: state(), most: 1 << 31 },
    );
    let (top, base) = (Layer { layer: DISK, kind: DiskKind::Qcow2 }, Layer { layer: OTHER, kind: DiskKind::Raw });
    golden.call(OpenLayer { layer: base, held: true, no_cache: true, sync: false }, DiskOpened { disk: state(), most: 1 << 31 });
    golden.call(MergeLayers { layers: vec![top, base], merged: 1, to: DiskId::from_u128(8), held: false }, JobStarted {});
    golden.call(WipeDisk { disk: DISK, kind: DiskKind::Raw, size: 1 << 30 }, state());
    golden.call(ResizeDisk { disk: DISK, kind: DiskKind::Raw, size: 1 << 31, shrink: true }, state());
    golden.call(MayGrow { disk: DISK, kind: DiskKind::Qcow2, size: 1 << 31 }, Growth { most: 3 << 30 });
    golden.call(DeleteDisk { disk: DISK, kind: DiskKind::Raw }, Done {});
    golden.call(ListDisks { after: Some(OTHER) }, DiskPage { disks: vec![state()] });
    golden.call(OpenVars { machine: MACHINE }, Done {});
    golden.call(CloneVars { from: MACHINE, to: MachineId::from_u128(10) }, Done {});
    golden.call(OpenLogWriter { machine: MACHINE, log: LogKind::Serial }, Done {});
    golden.call(OpenLogReader { machine: MACHINE, log: LogKind::Hypervisor, follow: true }, LogOpened { files: 2 });
    golden.call(OpenServiceLog { service: ServiceName::Net, follow: true }, LogOpened { files: 1 });
    every!(golden, ServiceName {
        Broker {} => ServiceName::Broker; Frontend {} => ServiceName::Frontend; Storage {} => ServiceName::Storage;
        Net {} => ServiceName::Net; Spawner {} => ServiceName::Spawner; Console {} => ServiceName::Console;
        GuestServices {} => ServiceName::GuestServices; Fetcher {} => ServiceName::Fetcher;
        Initiator {} => ServiceName::Initiator; DiskServer {} => ServiceName::DiskServer;
    });
    golden.call(DeleteMachineFiles { machine: MACHINE }, Done {});
    golden.call(Space {}, SpaceState { total: 100, free: 10, filesystem: parse("ext4"), reflink: false });
    golden.call(VolumeSpace {}, SpaceState { total: 100, free: 10, filesystem: parse("zfs"), reflink: true });
    let snapshot =
        SnapshotState { snapshot: SNAPSHOT, size: 1 << 30, used: 8192, order: 77, created_ns: 1_800_000_000_000_000_000 };
    golden.call(CreateSnapshot { disk: DISK, kind: DiskKind::Zvol, snapshot: SNAPSHOT }, snapshot.clone());
    golden.call(ListSnapshots { disk: DISK, kind: DiskKind::Zvol, after: None }, SnapshotPage { snapshots: vec![snapshot] });
    golden.call(RollBackDisk { disk: DISK, kind: DiskKind::Zvol, snapshot: SNAPSHOT }, state());
    golden.call(DeleteSnapshot { disk: DISK, kind: DiskKind::Zvol, snapshot: SNAPSHOT }, Done {});
    variables(&mut golden);
    golden.covers::<Storage>();
    every!(golden, DiskKind { Raw {} => DiskKind::Raw; Qcow2 {} => DiskKind::Qcow2; Zvol {} => DiskKind::Zvol; Iscsi {} => DiskKind::Iscsi; });
    every!(golden, SourceFormat {
        Detect {} => SourceFormat::Detect; Raw {} => SourceFormat::Raw; Qcow2 {} => SourceFormat::Qcow2;
        Vmdk {} => SourceFormat::Vmdk; Vhd {} => SourceFormat::Vhd; Vhdx {} => SourceFormat::Vhdx;
    });
    every!(golden, Packing {
        Detect {} => Packing::Detect; None {} => Packing::None; Gzip {} => Packing::Gzip; Xz {} => Packing::Xz;
        Zstd {} => Packing::Zstd; Bzip2 {} => Packing::Bzip2;
    });
    every!(golden, LogKind {
        Serial {} => LogKind::Serial; Hypervisor {} => LogKind::Hypervisor; Serial2 {} => LogKind::Serial2;
        Serial3 {} => LogKind::Serial3; Serial4 {} => LogKind::Serial4;
    });
    every!(golden, JobRecord {
        Progress { .. } => JobRecord::Progress { done: 300, total: 1 << 33 };
        Done(_) => JobRecord::Done(Ok(JobDone { disk: state(), sha256: None }));
    });
    golden.value("JobRecord Done refused", &JobRecord::Done(Err(Refusal::new(Reason::BadImage, "disk 7"))));
    golden.check();
}

fn variables(golden: &mut Golden) {
    let var = VarState { name: parse("Boot0001"), attributes: 7, size: 40, meaning: parse("Debian  PciRoot(0x0)/Pci(0x8,0x0)") };
    let page = VarPage { vars: vec![var.clone()], used: 4000, room: 262_000 };
    golden.call(ListVars { machine: MACHINE, after: Some(parse("Boot0000")) }, page);
    golden.call(ReadVar { machine: MACHINE, name: parse("Boot0001"), from: 6000 }, VarPiece { var, data: vec![1, 2] });
    let edited = VarsEdited { order: vec![3, 1], next: Some(1) };
    golden.call(EditVars { machine: MACHINE, edit: VarEdit::Order(vec![BootRef::Entry(3)]) }, edited);
    golden.call(WhoseOrder { machine: MACHINE }, OrderState { own: true });
    every!(golden, BootRef { Entry(_) => BootRef::Entry(3); Path(_) => BootRef::Path(vec![2, 1]); });
    every!(golden, VarEdit {
        Set { .. } => VarEdit::Set { name: parse("BootNext"), attributes: Some(7), data: vec![3, 0] };
        Delete(_) => VarEdit::Delete(parse("BootNext"));
        Order(_) => VarEdit::Order(vec![BootRef::Entry(3), BootRef::Path(vec![2, 1])]);
        Next(_) => VarEdit::Next(Some(BootRef::Entry(1)));
        Reset {} => VarEdit::Reset;
    });
}
