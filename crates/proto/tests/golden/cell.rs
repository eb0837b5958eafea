//! The spawner, and console-proxies.

use super::{Golden, every, parse};
use skep_proto::cell::*;
use skep_proto::console::{self, AttachPort, AttachScreen, AttachSerial, Attached, Console, ConsoleState};
use skep_proto::storage::DiskKind;
use skep_proto::{DiskCounts, DiskRates, Dsp, MachineId, Share, SoundDevice};

const MACHINE: MachineId = MachineId::from_u128(9);

#[test]
fn bytes_of_the_spawner_never_change() {
    let mut golden = Golden::new("vm-runner");
    let make = MakeCell {
        machine: MACHINE,
        slot: 300,
        limits: Limits {
            memory: Some(1 << 30),
            cpu_percent: Some(150),
            tasks: None,
            pcpu: Some(50),
            read_bps: Some(1 << 20),
            write_bps: None,
            read_iops: None,
            write_iops: Some(100),
            cpus: parse("0-1,3"),
            bound: parse("3"),
            priority: -5,
            protect: true,
            wired: Some(3 << 30),
        },
        fds: vec![FdRole::Config, FdRole::Disk(0), FdRole::Tap(1)],
        kvm: false,
        file_limit: 1 << 30,
        shares: vec![Share { name: parse("src"), read_only: true }],
        serial: vec![1, 3],
        sound: vec![Dsp(0), Dsp(7)],
        remote: vec![2],
    };
    golden.call(make, CellMade { runner: 4711 });
    golden.call(StartServices { switch: skep_proto::SwitchId::from_u128(3), number: 2 }, Started { pid: 4713 });
    golden.call(StartFetcher { disk: skep_proto::DiskId::from_u128(7), slot: 3 }, Started { pid: 4714 });
    golden.call(StartInitiator { disk: skep_proto::DiskId::from_u128(7), number: 5 }, Started { pid: 4715 });
    let served = StartDiskServer {
        disk: skep_proto::DiskId::from_u128(7),
        slot: 3,
        size: 1 << 30,
        block: 4096,
        read_only: false,
        file_limit: 1 << 31,
        rates: DiskRates { read_bps: 1 << 20, write_bps: 0, read_iops: 0, write_iops: 100 },
        kinds: vec![DiskKind::Qcow2, DiskKind::Raw],
        again: true,
    };
    golden.call(served, Started { pid: 4716 });
    golden.call(
        StartConsole { machine: MACHINE, slot: 1, ports: vec![parse("1"), parse("3,speed=9600,nolog")] },
        Started { pid: 4712 },
    );
    golden.call(KillCell { machine: MACHINE }, Done {});
    golden.call(SweepCell { machine: MACHINE }, Done {});
    golden
        .call(ListCells { after: None }, CellPage { cells: vec![CellState { machine: MACHINE, runner: true, console: false }] });
    let disk = DiskCounts { read_bytes: 4096, write_bytes: 1 << 33, read_ops: 2, write_ops: 3 };
    golden.call(CellUsage { machine: MACHINE, volume: true }, Usage { memory: Some(1 << 28), cpu_ns: None, disk: Some(disk) });
    let facilities = FacilitiesState {
        hypervisor: parse("7.2.22"),
        uefi: true,
        limits: vec![parse("cpu")],
        own_uids: true,
        weaker: vec![parse("no cgroup")],
        shares: vec![parse("src")],
        can_share: true,
        sound: vec![SoundDevice { device: Dsp(0), description: parse("Realtek"), plays: true, records: false }],
        cpus: Some(16),
        keyboards: vec![parse("de")],
        lacks: vec![(parse("iscsi-disks"), parse("no geom_gate"))],
    };
    golden.call(Facilities {}, facilities);
    golden.covers::<Cell>();
    every!(golden, FdRole {
        Config {} => FdRole::Config; Kernel {} => FdRole::Kernel; Initrd {} => FdRole::Initrd; Vars {} => FdRole::Vars;
        Disk(_) => FdRole::Disk(3); Tap(_) => FdRole::Tap(2); Log {} => FdRole::Log;
    });
    golden.check();
}

#[test]
fn bytes_of_a_console_proxy_never_change() {
    let mut golden = Golden::new("console-proxy");
    golden.call(AttachSerial { write: true, take: false }, Attached { writer: true, scrollback: 65_536 });
    golden.call(AttachScreen {}, console::Done {});
    golden.call(console::Status {}, ConsoleState { readers: 2, writer: true, screens: 1, received: 1 << 33, unlogged: 0 });
    golden.call(AttachPort { port: 2, write: true, take: false }, Attached { writer: true, scrollback: 65_536 });
    golden.covers::<Console>();
    golden.check();
}
