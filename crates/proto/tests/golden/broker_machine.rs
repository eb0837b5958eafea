//! The broker's messages about machines.

use super::{Golden, every, parse};
use skep_proto::broker::*;
use skep_proto::runner::DiskStats;
use skep_proto::storage::LogKind;
use skep_proto::{DiskId, Dsp, MachineId, NicId, Reason, Refusal, Share};

fn share(name: &str, read_only: bool) -> Share {
    Share { name: parse(name), read_only }
}

fn settings() -> Settings {
    let disk = DiskDraft { disk: parse("root"), controller: Controller::Nvme, read_only: false, flags: flags(), on: Some(on()) };
    Settings {
        cpus: Some(2),
        memory_mib: Some(512),
        boot: Some(BootDraft::Uefi),
        acceleration: Some(Acceleration::Tcg),
        screen: Some(true),
        disks: Some(vec![disk]),
        cpu_percent: Some(150),
        description: Some(parse("a machine")),
        limits: LimitsDraft {
            memory_mib: Some(1024),
            tasks: Some(64),
            pcpu: Some(50),
            read_bps: Some(1 << 20),
            write_bps: Some(0),
            read_iops: None,
            write_iops: Some(100),
            cpus: Some(parse("0-1,3")),
            pins: Some(parse("0:3")),
            priority: Some(-5),
            protect: Some(true),
            wired: Some(false),
        },
        sound: Some(true),
        sound_out: Some(Some(Dsp(0))),
        sound_in: Some(None),
        tpm: Some(false),
        channels: Some(vec![parse("org.qemu.guest_agent.0")]),
        upkeep: UpkeepDraft {
            autostart: Some(true),
            order: Some(9),
            delay_s: None,
            restart: Some(Restart::OnFailure),
            stop_timeout_s: Some(90),
        },
        shares: Some(vec![share("src", true), share("out", false)]),
        screen_properties: ScreenDraft {
            width: Some(1280),
            height: None,
            wait: Some(false),
            keyboard: Some(parse("de")),
            tablet: Some(true),
        },
        board: BoardDraft {
            local_time: Some(true),
            acpi: Some(false),
            amd_host_bridge: None,
            exit_on_halt: Some(false),
            exit_on_pause: None,
            strict_msr: Some(true),
            x2apic: Some(false),
        },
        fw_cfg: Some(vec![FwCfg { name: parse("opt/a"), value: parse("b=c") }]),
        places: Some(vec![Place { device: parse("screen"), slot: 20 }]),
        serial: Some(vec![parse("2,speed=9600,nolog")]),
        gdb: Some(Gdb::Wait),
        controllers: Some(vec![Bus { name: parse("sata"), kind: BusKind::Ahci, slot: 0 }]),
        topology: Some(Some(Topology { sockets: 1, cores: 1, threads: 2 })),
    }
}

fn on() -> DiskSeat {
    DiskSeat { controller: parse("sata"), port: Some(1) }
}

fn flags() -> DiskFlags {
    DiskFlags { no_cache: true, sync: false, slot: Some(20), ejected: false, eject_after_first_boot: true }
}

fn view() -> MachineView {
    MachineView {
        id: MachineId::from_u128(9),
        name: parse("web1"),
        state: MachineState::Running,
        note: parse("powered off"),
        revision: 3,
        cpus: 2,
        memory_mib: 512,
        boot: direct(),
        acceleration: Acceleration::Auto,
        screen: false,
        cpu_percent: 0,
        description: parse("a machine"),
        disks: vec![MachineDisk {
            id: DiskId::from_u128(7),
            name: parse("root"),
            controller: Controller::VirtioBlk,
            read_only: true,
            flags: flags(),
            on: Some(on()),
        }],
        nics: vec![MachineNic {
            id: NicId::from_u128(4),
            name: parse("eth"),
            switch: parse("lan"),
            mac: [2, 0, 0, 1, 2, 3],
            model: NicModel::E1000,
        }],
        pending: vec![parse("memory_mib")],
        created_ns: 1_700_000_000_000_000_000,
        started_ns: -1,
        limits: Limits {
            memory_mib: 1024,
            tasks: 64,
            pcpu: 50,
            read_bps: 1 << 20,
            write_bps: 0,
            read_iops: 0,
            write_iops: 100,
            cpus: parse("0-1,3"),
            pins: parse("0:3"),
            priority: -5,
            protect: true,
            wired: false,
        },
        sound: true,
        sound_out: Some(Dsp(0)),
        sound_in: None,
        tpm: false,
        channels: vec![parse("a"), parse("b")],
        upkeep: Upkeep { autostart: true, order: 9, delay_s: 30, restart: Restart::Always, stop_timeout_s: 86_400 },
        shares: vec![share("src", true)],
        group: parse("default"),
        screen_properties: Screen { width: 1280, height: 1024, wait: true, keyboard: parse("de"), tablet: false },
        board: Board { local_time: true, x2apic: true, ..Board::default() },
        fw_cfg: vec![FwCfg { name: parse("opt/a"), value: parse("b=c") }],
        places: vec![Place { device: parse("rng"), slot: 30 }],
        pci: vec![Place { device: parse("disk0"), slot: 8 }],
        serial: vec![parse("1"), parse("2,speed=9600,nolog")],
        gdb: Gdb::On,
        controllers: vec![Bus { name: parse("sata"), kind: BusKind::Nvme, slot: 20 }],
        topology: Some(Topology { sockets: 1, cores: 2, threads: 1 }),
    }
}

fn direct() -> BootDraft {
    BootDraft::Direct { kernel: parse("kernel"), initrd: Some(parse("initrd")), cmdline: parse("console=ttyS0") }
}

/// All that is about machines.
pub fn machines(golden: &mut Golden) {
    let web1 = || -> Ref { parse("web1") };
    golden.call(MachineCreate { name: parse("web1"), settings: settings(), group: Some(parse("shop")) }, view());
    golden.call(MachineGet { machine: web1() }, view());
    golden.call(MachineList { after: Some(parse("web0")) }, MachinePage { machines: vec![view()] });
    let edited = MachineEdited { machine: view(), changes: vec![(parse("cpus"), Applies::NextStart)] };
    golden.call(MachineSet { machine: web1(), settings: Settings::default(), revision: 3 }, edited);
    golden.call(MachineRename { machine: web1(), name: parse("web2") }, view());
    golden.call(MachineAct { machine: web1(), act: Act::Start }, super::broker::operation());
    golden.call(MachineEject { machine: web1(), disk: parse("disc") }, view());
    golden.call(WholeRollBack { machine: web1(), snapshot: parse("before") }, view());
    golden.call(
        MachineClone { machine: web1(), name: parse("web2"), snapshot: Some(parse("before")), full: true },
        super::broker::operation(),
    );
    let launch = MachineLaunch {
        name: parse("web2"),
        image: parse("debian-12"),
        settings: settings(),
        size: 4 << 30,
        switch: Some(parse("default")),
        group: Some(parse("shop")),
        wait: true,
    };
    golden.call(launch, super::broker::operation());
    golden.value("GuestData", &GuestData { keys: vec!["ssh-ed25519 AAAA me".into()], user_data: b"#cloud-config".to_vec() });
    golden.call(MachineDelete { machine: web1(), disks: true }, super::broker::operation());
    golden.call(
        MachineConsole { machine: web1(), write: true, take: true, port: 2 },
        ConsoleAttached { writer: true, scrollback: 65_536 },
    );
    golden.call(MachineScreen { machine: web1() }, Done {});
    golden.call(MachineGdb { machine: web1() }, Done {});
    golden.call(MachineChannel { machine: web1(), channel: parse("org.qemu.guest_agent.0") }, Done {});
    golden.call(MachineLog { machine: web1(), log: LogKind::Serial, follow: false }, LogOpened { files: 2 });
    golden.call(HostLog { service: ServiceName::Broker, follow: true }, LogOpened { files: 2 });
    let disk = DiskStats { slot: 1, read_bytes: 4096, write_bytes: 1 << 33, read_ops: 2, write_ops: 3 };
    let nic = NicStats {
        id: parse("00000000-0000-0000-0000-000000000009"),
        name: parse("web1-1"),
        rx_bytes: 1 << 34,
        rx_packets: 5,
        tx_bytes: 1 << 35,
        tx_packets: 6,
    };
    let stats = StatsView { read_ns: 1 << 60, cpu_ns: 1 << 40, memory: 1 << 28, disks: vec![disk], nics: vec![nic] };
    golden.call(MachineStats { machine: web1() }, stats.clone());
    golden.call(StatsWatch { machine: web1(), interval_ms: 2_000 }, Done {});
    every!(golden, StatsNews {
        Reading(_) => StatsNews::Reading(stats.clone()); Ended(_) => StatsNews::Ended(Refusal::new(Reason::WrongState, "machine web1"));
    });
    let machine = MachineMetrics {
        id: view().id,
        name: parse("web1"),
        group: parse("shop"),
        state: MachineState::Running,
        cpus: 2,
        memory_mib: 1024,
        started_ns: 1 << 59,
        stats: Some(stats),
    };
    golden.call(MetricsGet { after: Some(parse("web0")) }, MetricsPage { machines: vec![machine] });
}

/// Each variant of what they are made of.
pub fn parts(golden: &mut Golden) {
    every!(golden, BootDraft { Uefi {} => BootDraft::Uefi; Direct { .. } => direct(); Loader {} => BootDraft::Loader;
        Bios {} => BootDraft::Bios; });
    every!(golden, BusKind {
        Ahci {} => BusKind::Ahci; VirtioScsi {} => BusKind::VirtioScsi; Nvme {} => BusKind::Nvme; VirtioBlk {} => BusKind::VirtioBlk;
    });
    every!(golden, Gdb { Off {} => Gdb::Off; On {} => Gdb::On; Wait {} => Gdb::Wait; });
    every!(golden, NicModel { VirtioNet {} => NicModel::VirtioNet; E1000 {} => NicModel::E1000; });
    every!(golden, Controller {
        VirtioBlk {} => Controller::VirtioBlk; Nvme {} => Controller::Nvme; Ahci {} => Controller::Ahci;
        AhciCd {} => Controller::AhciCd; VirtioScsi {} => Controller::VirtioScsi; VirtioScsiCd {} => Controller::VirtioScsiCd;
    });
    every!(golden, Acceleration { Auto {} => Acceleration::Auto; Tcg {} => Acceleration::Tcg; Kvm {} => Acceleration::Kvm; });
    every!(golden, MachineState {
        Stopped {} => MachineState::Stopped; Starting {} => MachineState::Starting; Running {} => MachineState::Running;
        Paused {} => MachineState::Paused; Stopping {} => MachineState::Stopping; Failed {} => MachineState::Failed;
    });
    every!(golden, Applies { Now {} => Applies::Now; NextStart {} => Applies::NextStart; });
    every!(golden, Act {
        Start {} => Act::Start; Stop { .. } => Act::Stop(Stop { timeout_ms: Some(60_000), force: true }); Kill {} => Act::Kill; Reboot {} => Act::Reboot; Reset {} => Act::Reset;
        Pause {} => Act::Pause; Resume {} => Act::Resume;
    });
}
