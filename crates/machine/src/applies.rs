//! What an edit of a running machine changes, and when.

use crate::MachineSpec;
use serde::{Deserialize, Serialize};
use std::fmt;

/// When an edit takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum When {
    /// At once.
    Now,
    /// When the hypervisor starts next: at the guest's next reboot, or at the next start.
    NextStart,
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Now => "now",
            Self::NextStart => "at the next start",
        })
    }
}

/// A field that an edit changes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Change {
    /// Path of the field, as in [`crate::Invalid`].
    pub field: String,
    /// When.
    pub when: When,
}

/// Compares two specifications of one machine, field by field, in the order of the fields. Limits that the cell enforces act now;
/// everything else is read by the hypervisor when it starts.
pub fn applies(old: &MachineSpec, new: &MachineSpec) -> Vec<Change> {
    let mut changes = Vec::new();
    let mut note = |field: String, when, differs: bool| {
        if differs {
            changes.push(Change { field, when });
        }
    };
    // Taken apart, so that a new field does not compile until it is said here when it applies.
    let MachineSpec {
        uuid,
        cpu,
        memory_mib,
        boot,
        acceleration,
        disks,
        nics,
        screen,
        serial_ports,
        rng,
        clock,
        limits,
        sound,
        sound_out,
        sound_in,
        tpm,
        channels,
        firmware_order,
        shares,
        board,
        fw_cfg,
        places,
        gdb,
        controllers,
    } = old;
    let next = When::NextStart;
    note("uuid".into(), next, *uuid != new.uuid);
    note("cpu.count".into(), next, cpu.count != new.cpu.count);
    note("cpu.topology".into(), next, cpu.topology != new.cpu.topology);
    note("memory_mib".into(), next, *memory_mib != new.memory_mib);
    note("boot".into(), next, *boot != new.boot);
    note("acceleration".into(), next, *acceleration != new.acceleration);
    for slot in 0..=u8::MAX {
        let find = |list: &[crate::Disk]| list.iter().find(|d| d.slot == slot).cloned();
        note(format!("disks[{slot}]"), next, find(disks) != find(&new.disks));
    }
    for slot in 0..=u8::MAX {
        let find = |list: &[crate::Nic]| list.iter().find(|n| n.slot == slot).cloned();
        note(format!("nics[{slot}]"), next, find(nics) != find(&new.nics));
    }
    note("screen".into(), next, *screen != new.screen);
    note("serial_ports".into(), next, *serial_ports != new.serial_ports);
    note("rng".into(), next, *rng != new.rng);
    note("clock".into(), next, *clock != new.clock);
    note("sound".into(), next, *sound != new.sound);
    note("sound_out".into(), next, *sound_out != new.sound_out);
    note("sound_in".into(), next, *sound_in != new.sound_in);
    note("tpm".into(), next, *tpm != new.tpm);
    note("channels".into(), next, *channels != new.channels);
    note("firmware_order".into(), next, *firmware_order != new.firmware_order);
    note("shares".into(), next, *shares != new.shares);
    note("board".into(), next, *board != new.board);
    note("fw_cfg".into(), next, *fw_cfg != new.fw_cfg);
    note("places".into(), next, *places != new.places);
    note("gdb".into(), next, *gdb != new.gdb);
    note("controllers".into(), next, *controllers != new.controllers);
    let crate::Limits {
        cpu_percent,
        memory_mib,
        tasks,
        pcpu,
        read_bps,
        write_bps,
        read_iops,
        write_iops,
        cpus,
        pins,
        priority,
        protect,
        wired,
    } = limits;
    let new = &new.limits;
    note("limits.cpu_percent".into(), When::Now, *cpu_percent != new.cpu_percent);
    note("limits.memory_mib".into(), When::Now, *memory_mib != new.memory_mib);
    note("limits.tasks".into(), When::Now, *tasks != new.tasks);
    note("limits.pcpu".into(), When::Now, *pcpu != new.pcpu);
    note("limits.read_bps".into(), When::Now, *read_bps != new.read_bps);
    note("limits.write_bps".into(), When::Now, *write_bps != new.write_bps);
    note("limits.read_iops".into(), When::Now, *read_iops != new.read_iops);
    note("limits.write_iops".into(), When::Now, *write_iops != new.write_iops);
    note("limits.cpus".into(), When::Now, *cpus != new.cpus);
    note("limits.pins".into(), next, *pins != new.pins);
    note("limits.priority".into(), When::Now, *priority != new.priority);
    note("limits.protect".into(), When::Now, *protect != new.protect);
    note("limits.wired".into(), next, *wired != new.wired);
    changes
}
