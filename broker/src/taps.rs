//! What the taps of running machines are, after their NICs' rows: brought about at a machine's start, when a row changes, and when
//! net-helper is back.

use crate::broker::Broker;
use crate::db::Who;
use crate::db::machines::Machines;
use crate::db::nics::{NicRow, Nics};
use crate::helpers::PATIENCE;
use crate::helpers::ask;
use crate::served;
use skep_machine::Ability;
use skep_proto::net::{GuardTap, LimitTap, MoveTap, Own};
use skep_proto::runner::SetLink;
use skep_proto::{NicId, Rates, Reason, Refusal};
use std::rc::Rc;

/// What a tap is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tap {
    own: Option<Own>,
    switch: Option<u16>,
    isolated: bool,
    rates: Rates,
}

impl Tap {
    /// As it is to be.
    fn of(nic: &NicRow) -> Self {
        let own = nic.address.map(|address| Own { mac: nic.mac, address, subnet6: nic.subnet6 });
        Self { own, switch: nic.switch.as_ref().map(|(.., number)| *number), isolated: nic.isolated, rates: nic.rates }
    }
    /// As `CreateTap` makes it.
    pub fn new(switch: Option<u16>) -> Self {
        Self { own: None, switch, isolated: false, rates: Rates::default() }
    }
}

/// Brings a tap to what its NIC's row says, until that is what the helper was `told` last: the row may change meanwhile.
pub async fn bring(broker: &Broker, who: &Who, nic: NicId, mut told: Option<Tap>) -> Result<(), Refusal> {
    loop {
        let Some(row) = broker.read(|db| db.find_nic(&nic.to_string()))? else { return Ok(()) };
        let (number, tap) = (row.number, Tap::of(&row));
        if told == Some(tap) {
            return Ok(());
        }
        let guards = told.is_none_or(|told| told.own != tap.own);
        // A guest is let go only where he may do as he likes, and bound before he comes to where he may not.
        if guards && tap.own.is_some() {
            broker.net.call(who, GuardTap { number, own: tap.own }).await?;
        }
        if told.is_none_or(|told| (told.switch, told.isolated) != (tap.switch, tap.isolated)) {
            broker.net.call(who, MoveTap { number, switch: tap.switch, isolated: tap.isolated }).await?;
        }
        if guards && tap.own.is_none() {
            broker.net.call(who, GuardTap { number, own: None }).await?;
        }
        if told.is_none_or(|told| told.rates != tap.rates) {
            broker.net.call(who, LimitTap { number, rates: tap.rates }).await?;
        }
        told = Some(tap);
    }
}

/// Has the NIC of a running machine follow a change of its row, which was `old`: its tap, whoever serves its guest, and the guest, who sees
/// his cable pulled and plugged in again.
pub async fn follow(broker: &Rc<Broker>, who: &Who, old: &NicRow) -> Result<(), Refusal> {
    let _turn = broker.moves.lock().await;
    let Some(row) = broker.read(|db| db.find_nic(&old.id.to_string()))? else { return Ok(()) };
    let machine = row.machine.as_ref().map(|(id, _)| broker.read(|db| db.machine(*id))).transpose()?.flatten();
    let Some(machine) = machine.filter(|machine| machine.slot.is_some()) else { return Ok(()) };
    let place = |nic: &NicRow| (nic.switch.as_ref().map(|(id, ..)| *id), nic.address);
    let moved = place(&row) != place(old);
    if moved {
        plug(broker, who, &row, false).await;
    }
    let brought = async {
        if moved {
            served::part(broker, who, old).await?;
        }
        match bring(broker, who, row.id, None).await {
            // Whoever starts its machine just now does so after this.
            Err(refusal) if refusal.reason == Reason::NotFound && refusal.object.as_str().starts_with("interface") => Ok(()),
            result => result,
        }
    };
    let brought = brought.await;
    if moved {
        if brought.is_ok() {
            served::join(broker, who, &machine, std::slice::from_ref(&row)).await;
        }
        plug(broker, who, &row, true).await;
    }
    brought
}

/// Pulls the guest's cable, or plugs it in. A runner that is older than that, or a hypervisor that cannot, leaves him as he is.
async fn plug(broker: &Broker, who: &Who, nic: &NicRow, up: bool) {
    if !crate::platform::capabilities(0).abilities.contains(&Ability::NicMoves) {
        return;
    }
    let Some((machine, _)) = &nic.machine else { return };
    let nics = broker.read(|db| db.nics_of(*machine)).unwrap_or_default();
    let Some(slot) = nics.iter().position(|other| other.id == nic.id).and_then(|slot| u8::try_from(slot).ok()) else { return };
    if let Err(refusal) = ask(&broker.run, &format!("vm/{machine}.sock"), who, SetLink { slot, up }, [], PATIENCE).await {
        broker.info(who.trace, format_args!("nic {}: its guest does not see that it moved: {refusal}", nic.name));
    }
}

/// Brings all of those to their rows whose machines may run.
pub async fn bring_all(broker: &Broker, who: &Who) {
    let _turn = broker.moves.lock().await;
    for nic in broker.read(|db| db.all_nics_at_work()).unwrap_or_default() {
        match bring(broker, who, nic.id, None).await {
            // Whoever moved it may have died before it was plugged in again.
            Ok(()) => plug(broker, who, &nic, true).await,
            // Its machine has ended, or has just begun to start.
            Err(refusal) if refusal.reason == Reason::NotFound => {}
            Err(refusal) => broker.warn(who.trace, format_args!("nic {}: {refusal}", nic.name)),
        }
    }
}
