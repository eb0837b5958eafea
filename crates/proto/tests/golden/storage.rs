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
        limit: 1 << 40,
        expect: 512,
        sha256: Some([0x5a; 32]),
    };
    golden.call(import, JobStarted {});
    golden.call(CloneDisk { from: DISK, to: OTHER, kind: DiskKind::Raw }, JobStarted {});
    golden.call(OpenDisk { disk: DISK, kind: DiskKind::Qcow2, read_only: true }, DiskOpened { disk: state(), most: 1 << 31 });
    golden.call(ResizeDisk { disk: DISK, kind: DiskKind::Raw, size: 1 << 31 }, state());
    golden.call(DeleteDisk { disk: DISK, kind: DiskKind::Raw }, Done {});
    golden.call(ListDisks { after: Some(OTHER) }, DiskPage { disks: vec![state()] });
    golden.call(OpenVars { machine: MACHINE }, Done {});
    golden.call(CloneVars { from: MACHINE, to: MachineId::from_u128(10) }, Done {});
    golden.call(OpenLogWriter { machine: MACHINE, log: LogKind::Serial }, Done {});
    golden.call(OpenLogReader { machine: MACHINE, log: LogKind::Hypervisor }, Done {});
    golden.call(DeleteMachineFiles { machine: MACHINE }, Done {});
    golden.call(Space {}, SpaceState { total: 100, free: 10, filesystem: parse("ext4"), reflink: false });
    golden.call(VolumeSpace {}, SpaceState { total: 100, free: 10, filesystem: parse("zfs"), reflink: true });
    let snapshot =
        SnapshotState { snapshot: SNAPSHOT, size: 1 << 30, used: 8192, order: 77, created_ns: 1_800_000_000_000_000_000 };
    golden.call(CreateSnapshot { disk: DISK, kind: DiskKind::Zvol, snapshot: SNAPSHOT }, snapshot.clone());
    golden.call(ListSnapshots { disk: DISK, kind: DiskKind::Zvol, after: None }, SnapshotPage { snapshots: vec![snapshot] });
    golden.call(RollBackDisk { disk: DISK, kind: DiskKind::Zvol, snapshot: SNAPSHOT }, state());
    golden.call(DeleteSnapshot { disk: DISK, kind: DiskKind::Zvol, snapshot: SNAPSHOT }, Done {});
    golden.covers::<Storage>();
    every!(golden, DiskKind { Raw {} => DiskKind::Raw; Qcow2 {} => DiskKind::Qcow2; Zvol {} => DiskKind::Zvol; });
    every!(golden, SourceFormat {
        Detect {} => SourceFormat::Detect; Raw {} => SourceFormat::Raw; Qcow2 {} => SourceFormat::Qcow2;
    });
    every!(golden, LogKind { Serial {} => LogKind::Serial; Hypervisor {} => LogKind::Hypervisor; });
    every!(golden, JobRecord {
        Progress { .. } => JobRecord::Progress { done: 300, total: 1 << 33 };
        Done(_) => JobRecord::Done(Ok(JobDone { disk: state(), sha256: None }));
    });
    golden.value("JobRecord Done refused", &JobRecord::Done(Err(Refusal::new(Reason::BadImage, "disk 7"))));
    golden.check();
}
