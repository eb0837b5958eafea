//! A machine with something in it, and its parts.

use skep_machine::*;

pub fn sound() -> MachineSpec {
    MachineSpec {
        uuid: Uuid::from_u128(0x1111_2222_3333_4444_5555_6666_7777_8888),
        disks: vec![Disk { slot: 0, ..Disk::default() }, Disk { slot: 3, controller: Controller::Nvme, ..Disk::default() }],
        nics: vec![Nic { slot: 1, mac: Mac::from_id(7), ..Nic::default() }],
        ..MachineSpec::default()
    }
}

pub fn share(name: &str, read_only: bool) -> Share {
    Share { name: name.into(), read_only, at: None }
}

pub fn item(name: &str, value: &str) -> FwCfg {
    FwCfg { name: name.into(), value: value.into() }
}

pub fn at(device: Device, slot: u8) -> Place {
    Place { device, slot }
}

pub fn channel(name: &str) -> Channel {
    Channel { name: name.into() }
}
