//! Brings intent and fact together: at the broker's start, and whenever a helper comes back.

use crate::actor::Msg;
use crate::broker::Broker;
use crate::cell;
use crate::db::disks::{Disks, Stage};
use crate::db::iscsi::Iscsi;
use crate::db::layers::Layers;
use crate::db::machines::{Machines, Which};
use crate::db::nics::Nics;
use crate::db::snapshots::Snapshots;
use crate::db::switches::Switches;
use crate::db::whole::{Whole, Wholes};
use crate::db::{Fault, Who};
use crate::disk_servers;
use crate::life::{Found, Input};
use crate::operations::Operation;
use crate::requests::machine_jobs::doom;
use crate::requests::switch::{bridge, gateway};
use crate::requests::whole::doom as doom_whole;
use crate::served;
use crate::taps;
use skep_proto::cell::{KillCell, ListCells, SweepCell};
use skep_proto::net::{DeletePair, DeleteSwitch, DeleteTunnel, ListInterfaces};
use skep_proto::storage::{DiskState, ListDisks};
use skep_proto::{IfName, MachineId, Refusal};
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use tokio::sync::watch;

impl Broker {
    /// At start, before anything is served: what was half-made is to go, what was at work has ended.
    pub fn settle(&self) -> Result<(), Fault> {
        self.settle_operations()?;
        let who = Who::broker();
        let disks = self.read(|db| db.unready_disks())?;
        let snapshots = self.read(|db| db.unready_snapshots())?;
        let machines = self.read(|db| db.machines(Which::Unsettled))?;
        self.change(&who, |change| {
            change.forget_requests()?;
            change.settle_iscsi()?;
            for snapshot in snapshots.iter().filter(|s| s.stage == Stage::Creating) {
                change.snapshot_doomed(snapshot.id)?;
            }
            for whole in change.wholes(None, Some(Whole::Creating))? {
                doom_whole(change, &whole)?;
            }
            for machine in machines.iter().filter(|m| m.stage == Stage::Creating) {
                doom(change, machine.id)?;
            }
            for disk in disks.iter().filter(|d| d.stage == Stage::Creating) {
                change.unmade(disk.id)?;
                change.disk_doomed(disk.id)?;
            }
            Ok(())
        })
    }

    /// Begins to keep intent and fact together.
    pub fn reconcile(self: &Rc<Self>) -> Result<(), Fault> {
        // Their actors refuse everything until the host was asked.
        for machine in self.read(|db| db.machines(Which::Unsettled))? {
            if machine.stage == Stage::Ready {
                self.actor(&machine);
            }
        }
        self.wait_for_stops()?;
        let broker = self.clone();
        let (known, found) = watch::channel(false);
        tokio::task::spawn_local(async move {
            while let Err(refusal) = broker.find_cells().await {
                broker.warn(Who::broker().trace, format_args!("cells: {refusal}"));
                broker.cells.wait().await;
                tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            }
            known.send_replace(true);
        });
        let (storage, net, cells) = (self.clone(), self.clone(), self.clone());
        each_time(self.cells.follow(), async move || {
            cells.forget_facilities();
            // Before cells are known, one that nobody knows is swept: that of the boot that is made here, too.
            if found.clone().wait_for(|known| *known).await.is_ok() {
                cells.try_kvm().await;
            }
        });
        each_time(self.storage.follow(), async move || storage.storage_is_back().await);
        each_time(self.net.follow(), async move || net.net_is_back().await);
        Ok(())
    }

    /// Goes on with the waits for guests that were asked to power themselves off.
    fn wait_for_stops(self: &Rc<Self>) -> Result<(), Fault> {
        for (machine, stop) in self.read(|db| db.stops())? {
            let (row, view) = self.read(|db| Ok::<_, Fault>((db.machine(machine)?, db.operation(stop.operation)?)))?;
            if let (Some(row), Some(view)) = (row, view) {
                // Before anybody can ask it anything, and before the host is asked.
                let _ = self.actor(&row).send(Msg::Waits(Operation::resume(self, view), stop));
            }
        }
        Ok(())
    }

    /// Cells on the host against machines: the living are taken over, the dead and the unknown cleared away.
    async fn find_cells(self: &Rc<Self>) -> Result<(), Refusal> {
        let who = Who::broker();
        self.cells.wait().await;
        let mut alive: HashMap<MachineId, bool> = HashMap::new();
        let mut after = None;
        loop {
            let (page, []) = self.cells.call(&who, ListCells { after }).await?;
            let Some(last) = page.cells.last() else { break };
            after = Some(last.machine);
            alive.extend(page.cells.iter().map(|cell| (cell.machine, cell.runner)));
        }
        let machines = self.read(|db| db.machines(Which::Unsettled))?;
        for machine in machines.iter().filter(|m| m.stage == Stage::Ready) {
            let runs = alive.remove(&machine.id).unwrap_or(false);
            let (broker, who, id, post) = (self.clone(), who.clone(), machine.id, self.actor(machine));
            tokio::task::spawn_local(async move {
                let (found, port) = if runs { cell::look(&broker, &who, id).await } else { (Found::Nothing, None) };
                broker.info(who.trace, format_args!("machine {id}: found {found:?}"));
                let _ = post.send(Msg::Found(Input::Found(found), port));
            });
        }
        // Guests' services of switches, whose cells go by the ids of these. Those of others are strays.
        let switches = self.read(|db| db.switches_after("", u32::MAX))?;
        for switch in switches.iter().filter(|switch| switch.subnet.is_some()) {
            if alive.remove(&switch.id.cell()).is_some() || !self.read(|db| db.nics_at_work(switch.id))?.is_empty() {
                served::keep(self, switch.id);
            }
        }
        // Their machines' actors keep or end them.
        for disk in self.read(|db| db.iscsi_at_work(None))? {
            alive.remove(&disk.cell());
        }
        for machine in alive.into_keys().filter(|cell| !self.fetches.has(*cell)) {
            // Begun by this broker, since it listed machines: it is known by now.
            if self.read(|db| db.machine(machine))?.is_some_and(|m| m.slot.is_some()) {
                continue;
            }
            if disk_servers::has(self, machine)? {
                continue;
            }
            self.warn(who.trace, format_args!("a cell of machine {machine}, which is not known to run: it is swept"));
            self.cells.call(&who, KillCell { machine }).await?;
            self.cells.call(&who, SweepCell { machine }).await?;
        }
        Ok(())
    }

    /// What has to go goes; sizes are what the files say.
    async fn storage_is_back(&self) {
        let who = Who::broker();
        let machines = self.read(|db| db.machines(Which::Unsettled)).unwrap_or_default();
        for machine in machines.iter().filter(|m| m.stage == Stage::Deleting) {
            self.delete_machine_files(&who, machine.id).await;
        }
        for whole in self.read(|db| db.wholes(None, Some(Whole::Deleting))).unwrap_or_default() {
            self.delete_whole(&who, &whole).await;
        }
        for whole in self.read(|db| db.wholes(None, Some(Whole::Returning))).unwrap_or_default() {
            if let Err(refusal) = self.finish_returning(&who, &whole).await {
                self.warn(who.trace, format_args!("snapshot {}: its machine is not back yet: {refusal}", whole.name));
            }
        }
        let snapshots = self.read(|db| db.unready_snapshots()).unwrap_or_default();
        for snapshot in snapshots.iter().filter(|s| s.stage == Stage::Deleting) {
            self.delete_snapshot(&who, snapshot).await;
        }
        let disks = self.read(|db| db.unready_disks()).unwrap_or_default();
        for disk in disks.iter().filter(|d| d.stage == Stage::Deleting) {
            self.delete_file(&who, disk.id).await;
        }
        self.delete_layers(&who).await;
        self.refresh_disks(&who).await;
    }

    /// Brings sizes in line with the files, as far as storage-helper answers.
    pub async fn refresh_disks(&self, who: &Who) {
        let mut after = None;
        while self.storage.is_up() {
            let Ok((page, [])) = self.storage.call(who, ListDisks { after }).await else { return };
            let Some(last) = page.disks.last() else { return };
            after = Some(last.disk);
            let differs = |state: &DiskState| {
                let (layer, disk) = self.read(|db| Ok::<_, Fault>((db.layer(state.disk)?, db.disk_of(state.disk)?))).ok()?;
                let disk = disk.filter(|d| d.stage == Stage::Ready && (d.size, d.allocated) != (state.size, state.allocated));
                let layer = layer.filter(|layer| layer.allocated != state.allocated);
                (disk.is_some() || layer.is_some()).then(|| (state.clone(), disk.map(|disk| disk.id)))
            };
            let changed: Vec<_> = page.disks.iter().filter_map(differs).collect();
            if changed.is_empty() {
                continue;
            }
            let written = self.change(who, |change| {
                changed.iter().try_for_each(|(state, disk)| match disk {
                    Some(disk) => change.disk_ready(*disk, state.size, state.allocated, None),
                    None => change.set_layer_allocated(state.disk, state.allocated),
                })
            });
            if let Err(fault) = written {
                return self.warn(who.trace, format_args!("disks: {fault}"));
            }
        }
    }

    /// Every switch is there, taps are as they are to be, and no bridge is there that is none.
    async fn net_is_back(&self) {
        let who = Who::broker();
        let switches = self.read(|db| db.switches_after("", u32::MAX)).unwrap_or_default();
        for switch in &switches {
            let made = bridge(self, &who, switch, switch.uplink.clone()).await;
            let made = match made {
                Ok(()) => gateway(self, &who, switch).await,
                Err(refusal) => Err(refusal),
            };
            if let Err(refusal) = made {
                self.warn(who.trace, format_args!("switch {}: {refusal}", switch.name));
            }
        }
        taps::bring_all(self, &who).await;
        let mut strays = Vec::new();
        let mut after = 0;
        while let Ok((page, [])) = self.net.call(&who, ListInterfaces { own: true, after }).await {
            let Some(last) = page.interfaces.last() else { break };
            after = last.index;
            strays.extend(page.interfaces.into_iter().map(|interface| interface.name));
        }
        let rows = self.read(|db| db.switches_after("", u32::MAX)).unwrap_or_default();
        let known: HashSet<u16> = rows.iter().map(|switch| switch.number).collect();
        let tunnels: HashSet<u16> = rows.iter().filter(|switch| switch.tunnel.is_some()).map(|switch| switch.number).collect();
        // By their names; taps go with their descriptors, or with their machine. No row has a pair. They go before the
        // bridges that they are on.
        let number = |name: &IfName, kind: char, end: &str| {
            let prefix = format!("sk{}{kind}", self.instance);
            name.as_str().strip_prefix(&prefix)?.strip_suffix(end)?.parse::<u16>().ok()
        };
        for name in &strays {
            // What is beneath a tunnel goes with it, and may be there without.
            let tunnel = number(name, 'v', "").or_else(|| number(name, 'w', ""));
            let result = if let Some(number) = tunnel.filter(|number| !tunnels.contains(number)) {
                self.net.call(&who, DeleteTunnel { number }).await
            } else if let Some(number) = number(name, 'p', "a") {
                self.net.call(&who, DeletePair { number }).await
            } else {
                continue;
            };
            if let Err(refusal) = result {
                self.warn(who.trace, format_args!("{name}: {refusal}"));
            }
        }
        for name in &strays {
            let Some(number) = number(name, 'b', "").filter(|n| !known.contains(n)) else { continue };
            if let Err(refusal) = self.net.call(&who, DeleteSwitch { number }).await {
                self.warn(who.trace, format_args!("bridge {name}: {refusal}"));
            }
        }
    }
}

/// Does something each time a helper was connected to.
fn each_time(mut up: watch::Receiver<u64>, mut act: impl AsyncFnMut() + 'static) {
    tokio::task::spawn_local(async move {
        let mut seen = 0;
        while let Ok(number) = up.wait_for(|n| n % 2 == 1 && *n > seen).await.map(|n| *n) {
            seen = number;
            act().await;
        }
    });
}
