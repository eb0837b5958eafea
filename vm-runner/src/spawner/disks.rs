//! Starts what serves disks to a hypervisor that reads nothing but files and devices.

use super::Spawner;
use super::make::{kind_of, unheard};
use crate::platform::{CellHost, Gate, UNLOADED};
use nix::sys::stat::SFlag;
use skep_proto::cell::{StartDiskServer, Started};
use skep_proto::storage::{DiskKind, ServiceName};
use skep_proto::{DiskOrder, MAX_FDS, OneFd, Reason, Refusal, UpTo};
use std::io;
use std::os::fd::AsFd;

impl Spawner {
    pub(super) fn start_disk_server(
        &mut self, c: StartDiskServer, UpTo(files): UpTo<MAX_FDS>,
    ) -> Result<(Started, OneFd), Refusal> {
        let StartDiskServer { disk, slot, size, block, read_only, file_limit, rates, kinds, again } = c;
        let (cell, object) = (disk.cell(), format!("disk {disk}"));
        let wrong = |note: &str| Refusal::new(Reason::InvalidValue, &object).field("kinds").note(note);
        let remote = kinds == [DiskKind::Iscsi];
        if kinds.is_empty() || files.len() != if remote { 0 } else { kinds.len() } {
            return Err(wrong("as many descriptors are expected, and at least one, or none of an iSCSI disk"));
        }
        for file in &files {
            if kind_of(cell, file.as_fd())? != SFlag::S_IFREG {
                return Err(wrong("files are expected"));
            }
        }
        let identity = if remote { self.initiator(disk, slot)? } else { self.identity(slot, 1)? };
        let failed = |what: &'static str| {
            let object = object.clone();
            move |e: io::Error| match e.kind() {
                io::ErrorKind::AlreadyExists => Refusal::new(Reason::InUse, object).note("it is served to another machine"),
                io::ErrorKind::Unsupported => Refusal::new(Reason::Unsupported, object).note("QEMU needs nobody for it"),
                io::ErrorKind::NotFound => Refusal::new(Reason::Unsupported, object).note(UNLOADED),
                _ => Refusal::io(object, what, &e),
            }
        };
        let gate = if again {
            let taken = self.host.gate_again(cell, read_only).map_err(failed("take over its device"))?;
            taken.ok_or_else(|| Refusal::new(Reason::NotFound, &object).note("its device is gone"))?
        } else {
            self.host.gate(cell, size, block, read_only).map_err(failed("make its device"))?
        };
        let Gate { unit, control, device, counts } = gate;
        let order = DiskOrder { unit, size, read_only, file_limit, rates, kinds };
        let kept = device.try_clone().map_err(failed("keep its device"));
        let started = kept.and_then(|kept| {
            // iscsi-initiator, which it starts, is not heard in its name.
            let second =
                remote.then(|| self.words.open(ServiceName::Initiator, cell)).transpose().map_err(|e| unheard(cell, &e))?;
            let fds: Vec<_> = [control, kept, counts].into_iter().chain(files).chain(second).collect();
            self.start_alone(ServiceName::DiskServer, cell, order.to_args(), identity, &fds)
        });
        match started {
            Ok((started, [])) => Ok((started, [device])),
            Err(refusal) => {
                if !again {
                    // What cannot be taken away now, the next sweep will.
                    let _ = self.host.sweep(cell);
                }
                Err(Refusal { object: skep_proto::Text::lossy(&object), ..refusal })
            }
        }
    }
}
