//! How settings that were changed reach a machine that runs.

use super::{Actor, Msg};
use crate::cell;
use crate::db::Who;
use crate::db::machines::Machines;
use crate::layers;
use skep_proto::Refusal;

impl Actor {
    /// What was to be in a drive at its first boot only is out of it at the next.
    pub(super) fn eject_once(&self) {
        let due = |disk: &crate::spec::Disk| disk.flags.eject_after_first_boot && !disk.flags.ejected;
        let done = self.broker.read(|db| db.machine(self.id)).map_err(Refusal::from).and_then(|machine| {
            let Some(mut machine) = machine else { return Ok(()) };
            // What it was started with: one that was put in since has its boot before it.
            let began = machine.applied.iter().flat_map(|applied| &applied.disks).filter(|disk| due(disk)).map(|disk| disk.disk);
            let began: Vec<_> = began.collect();
            let disks = machine.spec.disks.iter_mut().filter(|disk| due(disk) && began.contains(&disk.disk));
            let ejected = disks.map(|disk| disk.flags.ejected = true).count();
            if ejected == 0 {
                return Ok(());
            }
            machine.revision += 1;
            self.broker.change(&Who::broker(), |change| {
                change.set_machine(&machine)?;
                Ok(change.event("machine", self.id, &machine.name, "changed", "ejected after its first boot")?)
            })
        });
        if let Err(refusal) = done {
            self.broker.warn(Who::broker().trace, format_args!("machine {}: eject: {refusal}", self.id));
        }
    }

    /// Settings that were changed while the cell was made.
    pub(super) fn catch_up(&mut self) {
        let machine = self.broker.read(|db| db.machine(self.id)).ok().flatten();
        if machine.is_some_and(|m| !m.applied.as_ref().is_some_and(|applied| applied.is_set_as(&m.spec))) {
            self.configure(Who::broker());
        }
    }

    /// Hands the settings of now to the runner, for the guest's next reboot.
    pub(super) fn configure(&mut self, who: Who) {
        if self.keepers.is_empty() {
            return;
        }
        let (broker, id, post, cell) = (self.broker.clone(), self.id, self.post.clone(), self.cell);
        tokio::task::spawn_local(async move {
            match cell::configure(&broker, &who, id).await {
                Ok(Some(spec)) => drop(post.send(Msg::Configured(cell, Box::new(spec)))),
                Ok(None) => {}
                // It then applies at the next start by the broker.
                Err(refusal) => broker.warn(who.trace, format_args!("machine {id}: configure: {refusal}")),
            }
        });
    }

    /// The hypervisor was started anew, with what it was last configured with.
    pub(super) fn restarted(&mut self) {
        let next = self.next.take();
        let who = Who::broker();
        let written = self.broker.read(|db| db.machine(self.id)).map_err(Refusal::from).and_then(|machine| {
            let Some(machine) = machine else { return Ok(()) };
            self.broker.change(&who, |change| {
                let files = machine.applied.clone();
                if let Some(mut spec) = next.or(machine.applied) {
                    // Its disks may have gone on in other files since it was configured.
                    files.iter().for_each(|applied| layers::take_files(&mut spec, applied));
                    change.set_machine_applied(self.id, &spec, skep_service::now_ns())?;
                }
                change.event("machine", self.id, &machine.name, "state", "rebooted")?;
                Ok::<_, Refusal>(())
            })
        });
        if let Err(refusal) = written {
            self.broker.warn(who.trace, format_args!("machine {}: {refusal}", self.id));
        }
    }
}
