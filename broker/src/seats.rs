//! Controllers with names, and which disks sit on them.

use crate::places::SPARE;
use crate::spec::{Seat, Spec};
use skep_machine as model;
use skep_proto::broker::{Bus, BusKind, Controller, DiskSeat};
use skep_proto::{DiskId, Reason, Refusal, Text};

impl Spec {
    /// Disks on controllers with names: which, the controller's name, the port.
    pub(crate) fn seated(&self) -> impl Iterator<Item = (DiskId, Text<31>, u8)> {
        self.seats.iter().filter_map(|seat| {
            let bus = self.controllers.get(usize::from(seat.controller))?;
            Some((self.disks.get(usize::from(seat.disk))?.disk, bus.name.clone(), seat.port))
        })
    }

    /// Where a disk sits, by its place among the machine's.
    pub fn on(&self, at: usize) -> Option<DiskSeat> {
        let seat = self.seats.iter().find(|seat| usize::from(seat.disk) == at)?;
        let controller = self.controllers.get(usize::from(seat.controller))?.name.clone();
        Some(DiskSeat { controller, port: Some(seat.port) })
    }

    /// Gives disks their seats: the one that was asked for, else the one that the disk had there, else the first that is free.
    pub(crate) fn sit(&mut self, on: &[Option<DiskSeat>], before: &[(DiskId, Text<31>, u8)]) -> Result<(), Refusal> {
        let byte = |n: usize| u8::try_from(n).unwrap_or(u8::MAX);
        let (mut seats, mut later): (Vec<Seat>, Vec<(u8, u8)>) = (Vec::new(), Vec::new());
        for (at, (on, disk)) in on.iter().zip(&self.disks).enumerate() {
            let Some(on) = on else { continue };
            let Some(controller) = self.controllers.iter().position(|bus| bus.name == on.controller) else {
                let note = format!("disks are on controller {}, which goes", on.controller);
                return Err(Refusal::new(Reason::InvalidValue, "machine").field("controllers").note(note));
            };
            let had = before.iter().find(|(id, name, _)| *id == disk.disk && *name == on.controller).map(|(.., port)| *port);
            match on.port.or(had) {
                Some(port) => seats.push(Seat { disk: byte(at), controller: byte(controller), port }),
                None => later.push((byte(at), byte(controller))),
            }
        }
        for (disk, controller) in later {
            let free = |port: &u8| !seats.iter().any(|seat| (seat.controller, seat.port) == (controller, *port));
            let port = (0..u8::MAX).find(free).unwrap_or(u8::MAX);
            seats.push(Seat { disk, controller, port });
        }
        seats.sort_by_key(|seat| seat.disk);
        self.seats = seats;
        Ok(())
    }

    /// Gives new controllers their places on the PCI bus.
    pub(crate) fn place_controllers(&mut self) -> Result<(), Refusal> {
        while let Some(at) = self.controllers.iter().position(|bus| bus.slot == 0) {
            let taken = self.taken().map_err(Refusal::from)?;
            let free = SPARE.into_iter().chain(1..=30).find(|slot| !taken.contains(slot));
            let full = || Refusal::new(Reason::InvalidValue, "machine").field("controllers").note("the PCI bus is full");
            let free = free.ok_or_else(full)?;
            self.controllers.get_mut(at).into_iter().for_each(|bus| bus.slot = free);
        }
        Ok(())
    }
}

/// A controller as the engines read it.
pub fn model_bus(bus: &Bus) -> model::Bus {
    let kind = match bus.kind {
        BusKind::Ahci => model::BusKind::Ahci,
        BusKind::VirtioScsi => model::BusKind::VirtioScsi,
        BusKind::Nvme => model::BusKind::Nvme,
        BusKind::VirtioBlk => model::BusKind::VirtioBlk,
    };
    model::Bus { name: bus.name.as_str().to_owned(), kind, slot: bus.slot }
}

/// What a disk, or a CD, on a controller is attached to; none: it has no CDs.
pub fn held(kind: BusKind, cd: bool) -> Option<Controller> {
    Some(match (kind, cd) {
        (BusKind::Ahci, false) => Controller::Ahci,
        (BusKind::Ahci, true) => Controller::AhciCd,
        (BusKind::VirtioScsi, false) => Controller::VirtioScsi,
        (BusKind::VirtioScsi, true) => Controller::VirtioScsiCd,
        (BusKind::Nvme, false) => Controller::Nvme,
        (BusKind::VirtioBlk, false) => Controller::VirtioBlk,
        (BusKind::Nvme | BusKind::VirtioBlk, true) => return None,
    })
}
