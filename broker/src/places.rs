//! Where devices are on the PCI bus. Disks, NICs and shares have turns in lists, which change; each keeps the place that it got when it came.

use crate::db::Fault;
use crate::spec::{Disk, Spec};
use skep_machine::{self as model, Device};
use skep_proto::broker::{Controller, Place};
use skep_proto::{MachineId, Text};

/// What numbers of disks are counted on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lane {
    /// The PCI bus: it has a controller of its own.
    Pci,
    /// Ports of the controller that all AHCI disks share.
    Ahci,
    /// Targets of the one that all virtio SCSI disks share.
    Scsi,
}

fn lane(disk: &Disk) -> Lane {
    match disk.controller {
        Controller::VirtioBlk | Controller::Nvme => Lane::Pci,
        Controller::Ahci | Controller::AhciCd => Lane::Ahci,
        Controller::VirtioScsi | Controller::VirtioScsiCd => Lane::Scsi,
    }
}

/// Places that nothing has by its kind, the first to be given first.
pub(crate) const SPARE: [u8; 7] = [20, 21, 22, 23, 29, 30, 1];

fn byte(n: usize) -> u8 {
    u8::try_from(n).unwrap_or(u8::MAX)
}

impl Spec {
    /// The number that a disk, NIC or share keeps where none was chosen for it: of its place on the PCI bus, or its port or target on the
    /// controller that all of its kind share.
    pub fn kept_at(&self, device: Device) -> Option<u8> {
        self.kept.iter().find(|kept| kept.device == device && self.keeps(device)).map(|kept| kept.slot)
    }

    /// Whether no place was chosen for it, with or without a controller with a name.
    fn keeps(&self, device: Device) -> bool {
        match device {
            Device::Disk(at) => {
                let seated = self.seats.iter().any(|seat| seat.disk == at);
                self.disks.get(usize::from(at)).is_some_and(|d| !seated && (d.flags.slot.is_none() || lane(d) != Lane::Pci))
            }
            Device::Nic(at) => self.nics.get(usize::from(at)).is_some_and(|nic| nic.slot.is_none()),
            Device::Share(at) => {
                usize::from(at) < self.shares.len()
                    && !self.places.iter().any(|place| place.device.as_str() == device.to_string())
            }
            _ => false,
        }
    }

    /// Gives each disk, NIC and share that has no place the one that its turn in the list had always given or, if something else is there,
    /// the first that is free. Whoever has one keeps it.
    pub fn keep(&mut self) {
        let kept = std::mem::take(&mut self.kept);
        self.kept = kept.into_iter().filter(|kept| self.keeps(kept.device)).collect();
        let disks = (0..self.disks.len()).map(|at| Device::Disk(byte(at)));
        let nics = (0..self.nics.len()).map(|at| Device::Nic(byte(at)));
        let shares = (0..self.shares.len()).map(|at| Device::Share(byte(at)));
        for device in disks.chain(nics).chain(shares).collect::<Vec<_>>() {
            // A row that no model can be made of is refused elsewhere.
            if self.keeps(device)
                && self.kept_at(device).is_none()
                && let Ok(Some(slot)) = self.free(device)
            {
                self.kept.push(model::Place { device, slot });
            }
        }
        self.kept.sort_unstable_by_key(|kept| kept.device);
    }

    /// The first number that is free for a device.
    fn free(&self, device: Device) -> Result<Option<u8>, Fault> {
        let (first, lane, numbers): (Option<u8>, Lane, Vec<u8>) = match device {
            Device::Disk(at) => match self.disks.get(usize::from(at)).map_or(Lane::Pci, lane) {
                Lane::Pci => (device.usual(), Lane::Pci, (0..model::limits::DISKS).filter_map(model::place::disk).collect()),
                Lane::Ahci => (Some(at), Lane::Ahci, (0..model::limits::AHCI_PORTS).collect()),
                Lane::Scsi => (Some(at), Lane::Scsi, (0..model::limits::DISKS).collect()),
            },
            Device::Share(_) => (device.usual(), Lane::Pci, (0..u8::MAX).map_while(model::place::share).collect()),
            // Fewer than the model's: the channels are behind them.
            _ => (device.usual(), Lane::Pci, (0..byte(crate::spec::MAX_NICS)).filter_map(model::place::nic).collect()),
        };
        let in_lane = |at: u8| self.disks.get(usize::from(at)).map(self::lane) == Some(lane);
        let taken: Vec<u8> = match lane {
            Lane::Pci => self.taken()?,
            _ => {
                let kept = self.kept.iter().filter(|kept| matches!(kept.device, Device::Disk(at) if in_lane(at)));
                kept.map(|kept| kept.slot).collect()
            }
        };
        let all = numbers.iter().copied();
        let spare = SPARE.into_iter().chain(1..=30).filter(|_| lane == Lane::Pci);
        let within = |number: &u8| lane == Lane::Pci || numbers.contains(number);
        Ok(first.filter(within).into_iter().chain(all).chain(spare).find(|number| !taken.contains(number)))
    }

    /// Device numbers on the PCI bus where something is, with whichever function: not those of devices that have yet to get one.
    pub(crate) fn taken(&self) -> Result<Vec<u8>, Fault> {
        let model = self.model(MachineId::from_u128(1))?;
        let settled = |device: &Device| !self.keeps(*device) || self.kept_at(*device).is_some();
        Ok(model.devices().into_iter().filter(settled).filter_map(|device| model.place(device)).map(model::place::slot).collect())
    }

    /// After an edit of the lists: who was there before keeps its place, and who is new gets one. `chosen`: places were said for the new list
    /// of shares.
    pub(crate) fn keep_from(&mut self, old: &Self, chosen: bool) {
        let share = |at: u8| {
            let name = &old.shares.get(usize::from(at))?.name;
            self.shares.iter().position(|share| share.name == *name).map(|at| Device::Share(byte(at)))
        };
        let now = |device: Device| match device {
            Device::Disk(at) => {
                let was = old.disks.get(usize::from(at))?;
                let is = self.disks.iter().position(|disk| disk.disk == was.disk && lane(disk) == lane(was))?;
                Some(Device::Disk(byte(is)))
            }
            Device::Share(at) => share(at),
            nic => Some(nic),
        };
        let places: Vec<Place> = self
            .places
            .iter()
            .filter_map(|place| match place.device.as_str().parse() {
                // One that is not there yet has nowhere to go.
                Ok(Device::Share(at)) if !chosen && old.shares.len() > usize::from(at) => {
                    Some(Place { device: Text::lossy(&share(at)?.to_string()), slot: place.slot })
                }
                _ => Some(place.clone()),
            })
            .collect();
        let kept = old.kept.iter().filter(|kept| old.keeps(kept.device));
        let kept = kept.filter_map(|kept| Some(model::Place { device: now(kept.device)?, ..*kept })).collect();
        (self.places, self.kept) = (places, kept);
        self.keep();
    }

    /// With the NICs of another, where they are there.
    pub(crate) fn with_nics_of(mut self, other: &Self) -> Self {
        let is_nic = |kept: &&model::Place| matches!(kept.device, Device::Nic(_));
        self.nics.clone_from(&other.nics);
        self.kept.retain(|kept| !is_nic(&kept));
        self.kept.extend(other.kept.iter().filter(is_nic));
        self.keep();
        self
    }

    /// Chosen places of all devices; disks and NICs have theirs with them.
    pub(crate) fn model_places(&self) -> Vec<model::Place> {
        let named = |place: &Place| Some(model::Place { device: place.device.as_str().parse().ok()?, slot: place.slot });
        let disks = (0..).zip(&self.disks).filter_map(|(at, disk)| Some((Device::Disk(at), disk.flags.slot?)));
        let nics = (0..).zip(&self.nics).filter_map(|(at, nic)| Some((Device::Nic(at), nic.slot?)));
        let own = disks.chain(nics).map(|(device, slot)| model::Place { device, slot });
        self.places.iter().filter_map(named).chain(own).collect()
    }

    /// Where all its devices are.
    pub fn pci(&self, id: MachineId) -> Result<Vec<Place>, Fault> {
        let model = self.model(id)?;
        // The chip set's own.
        let own = |device| device == Device::Ahci && crate::platform::HYPERVISOR == model::Hypervisor::Qemu;
        let place = |device| Some((if own(device) { 31 } else { model.place(device)? }, device));
        let mut all: Vec<_> = model.devices().into_iter().filter_map(place).collect();
        all.sort_unstable_by_key(|(place, device)| (model::place::slot(*place), *place, *device));
        let name = |device: Device| match device {
            Device::Controller(at) => self.controllers.get(usize::from(at)).map(|bus| bus.name.clone()),
            _ => Some(Text::lossy(&device.to_string())),
        };
        Ok(all.into_iter().filter_map(|(slot, device)| Some(Place { device: name(device)?, slot })).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Nic;
    use skep_proto::broker::{DiskFlags, NicModel};
    use skep_proto::storage::DiskKind;
    use skep_proto::{DiskId, NicId, Share};

    fn disk(controller: Controller) -> Disk {
        let flags = DiskFlags::default();
        Disk { disk: DiskId::random(), kind: DiskKind::Raw, controller, read_only: false, flags }
    }

    fn nic(last: u8) -> Nic {
        Nic { nic: NicId::random(), mac: [2, 0, 0, 0, 0, last], model: NicModel::VirtioNet, slot: None }
    }

    fn share(name: &str) -> Share {
        Share { name: name.parse().expect("a name"), read_only: true }
    }

    fn numbers(spec: &Spec) -> Vec<(String, u8)> {
        spec.kept.iter().map(|kept| (kept.device.to_string(), kept.slot)).collect()
    }

    fn said(all: &[(&str, u8)]) -> Vec<(String, u8)> {
        all.iter().map(|(name, at)| ((*name).to_owned(), *at)).collect()
    }

    #[test]
    fn who_comes_gets_the_place_of_its_turn_and_who_is_there_keeps_its_own() {
        use Controller::{Ahci, AhciCd, VirtioBlk, VirtioScsi};
        let [a, b, c, d] = [VirtioBlk, VirtioBlk, AhciCd, VirtioScsi].map(disk);
        let (shares, nics) = (["s", "t", "u"].map(share).to_vec(), vec![nic(1), nic(2)]);
        let mut spec = Spec { disks: vec![a.clone(), b.clone(), c.clone(), d.clone()], nics, shares, ..Spec::default() };
        spec.keep();
        let all = [
            ("share0", 25),
            ("share1", 26),
            ("share2", 27),
            ("disk0", 8),
            ("disk1", 9),
            ("disk2", 2),
            ("disk3", 3),
            ("nic0", 16),
            ("nic1", 17),
        ];
        assert_eq!(numbers(&spec), said(&all));
        // The first of each goes, the others change places, and others come.
        let (e, f) = (disk(Ahci), disk(VirtioBlk));
        let shares = vec![share("v"), share("u"), share("t")];
        let mut new = Spec { disks: vec![d.clone(), c, e, b, f], shares, ..spec.clone() };
        new.keep_from(&spec, false);
        let all = [
            ("share0", 25),
            ("share1", 27),
            ("share2", 26),
            ("disk0", 3),
            ("disk1", 2),
            // Where its turn is, another one is.
            ("disk2", 0),
            ("disk3", 9),
            ("disk4", 12),
            ("nic0", 16),
            ("nic1", 17),
        ];
        assert_eq!(numbers(&new), said(&all));
        new.check(MachineId::random(), "m").expect("right");
        // A disk on a controller of another kind is a new one there; the same again changes nothing.
        let mut other = new.clone();
        other.disks.iter_mut().filter(|disk| disk.disk == d.disk).for_each(|disk| disk.controller = VirtioBlk);
        other.keep_from(&new, false);
        assert_eq!(other.kept_at(Device::Disk(0)), Some(8));
        let again = other.clone();
        other.keep_from(&again, false);
        assert_eq!(other, again);
    }

    #[test]
    fn a_chosen_place_is_left_free_and_stays_with_its_device() {
        let chosen = |slot| Disk { flags: DiskFlags { slot: Some(slot), ..DiskFlags::default() }, ..disk(Controller::VirtioBlk) };
        let place = |device: &str, slot| Place { device: Text::lossy(device), slot };
        let (a, b) = (disk(Controller::VirtioBlk), chosen(8));
        let places = vec![place("share1", 20), place("rng", 9)];
        let shares = vec![share("s"), share("t")];
        let mut spec = Spec { disks: vec![a, b], places, shares, ..Spec::default() };
        spec.keep();
        assert_eq!(numbers(&spec), said(&[("share0", 25), ("disk0", 10)]));
        spec.check(MachineId::random(), "m").expect("right");
        // Its share has another turn, and the place comes along.
        let mut new = Spec { shares: vec![share("t")], ..spec.clone() };
        new.keep_from(&spec, false);
        assert_eq!((numbers(&new), new.places.clone()), (said(&[("disk0", 10)]), vec![place("share0", 20), place("rng", 9)]));
        // What is chosen where something is, is refused with both names.
        new.places = vec![place("rng", 10)];
        let refusal = new.check(MachineId::random(), "m").expect_err("two at one place");
        assert!(refusal.note.as_str().contains("places.rng is 10: it must be another than that of disk0"), "{refusal}");
    }

    #[test]
    fn there_is_a_place_for_each_of_the_most_devices_whatever_was_chosen() {
        let places = ["screen", "rng", "usb", "scsi", "sound", "channels"];
        let places = (8..).zip(places).map(|(slot, device)| Place { device: Text::lossy(device), slot }).collect();
        let disks = (0..8).map(|_| disk(Controller::VirtioBlk)).collect();
        let shares = ["a", "b", "c", "d"].map(share).to_vec();
        let mut spec = Spec { disks, places, shares, nics: (0..4).map(nic).collect(), ..Spec::default() };
        (spec.screen, spec.sound, spec.channels) = (true, true, vec![Text::lossy("c")]);
        spec.keep();
        spec.check(MachineId::random(), "m").expect("right");
        // Ports are fewer than disks.
        spec.disks = (0..7).map(|_| disk(Controller::Ahci)).collect();
        spec.kept.clear();
        spec.keep();
        let refusal = spec.check(MachineId::random(), "m").expect_err("seven");
        assert!(refusal.note.as_str().contains("disks[6].slot is 6: it must be 0 to 5 on the AHCI controller"), "{refusal}");
    }
}
