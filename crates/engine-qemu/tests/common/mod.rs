//! Machines that several tests use.
#![allow(dead_code, reason = "each test binary takes what it needs")]

use skep_machine::*;

pub fn direct() -> MachineSpec {
    MachineSpec {
        uuid: Uuid::from_u128(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10),
        memory_mib: 256,
        boot: Boot::Direct { cmdline: "console=ttyS0 quiet".into(), initrd: true },
        acceleration: Acceleration::Tcg,
        ..MachineSpec::default()
    }
}

/// Everything at once.
pub fn full() -> MachineSpec {
    let disk = |slot, controller| Disk { slot, controller, ..Disk::default() };
    MachineSpec {
        cpu: Cpu { count: 4, topology: Some(Topology { sockets: 1, cores: 2, threads: 2 }) },
        disks: vec![
            Disk { format: Format::Qcow2, serial: "root-1".into(), ..disk(0, Controller::VirtioBlk) },
            Disk { read_only: true, ..disk(1, Controller::Nvme) },
            disk(2, Controller::Ahci),
            disk(3, Controller::VirtioScsi),
            disk(5, Controller::AhciCd),
            disk(7, Controller::VirtioBlk),
        ],
        nics: vec![
            Nic { slot: 0, mac: Mac::from_id(0xaa), ..Nic::default() },
            Nic { slot: 7, model: NicModel::E1000, mac: Mac::from_id(0xbb), at: None },
        ],
        screen: Some(Screen { width: 3840, height: 2160, tablet: true, ..Screen::default() }),
        serial_ports: [1, 2, 3, 4].into(),
        sound: true,
        channels: ["org.qemu.guest_agent.0", "b"].map(|name| Channel { name: name.into() }).into(),
        shares: [("src", true), ("out", false)].map(|(name, read_only)| Share { name: name.into(), read_only, at: None }).into(),
        ..direct()
    }
}

pub fn uefi() -> MachineSpec {
    MachineSpec {
        boot: Boot::Uefi,
        disks: vec![Disk::default()],
        nics: vec![Nic { mac: Mac::from_id(1), ..Nic::default() }],
        screen: Some(Screen::default()),
        ..direct()
    }
}
