//! How much goes to and from disks.

use crate::broker::Broker;
use crate::cell;
use crate::db::Who;
use crate::db::disks::{DiskRow, Disks};
use crate::disk_servers;
use skep_machine::Ability;
use skep_proto::broker::DiskRatesDraft;
use skep_proto::{DiskRates, Reason, Refusal};

/// A disk's rates with the draft's; refused, if they cannot be.
pub(super) fn edited(disk: &DiskRow, draft: DiskRatesDraft) -> Result<DiskRates, Refusal> {
    let DiskRatesDraft { read_bps, write_bps, read_iops, write_iops } = draft;
    let old = disk.rates;
    let new = DiskRates {
        read_bps: read_bps.unwrap_or(old.read_bps),
        write_bps: write_bps.unwrap_or(old.write_bps),
        read_iops: read_iops.unwrap_or(old.read_iops),
        write_iops: write_iops.unwrap_or(old.write_iops),
    };
    let object = format!("disk {}", disk.name);
    new.check().map_err(|bad| Refusal::new(Reason::InvalidValue, &object).field(&format!("rates.{}", bad.field)).note(bad))?;
    let host = crate::platform::capabilities(0);
    let held = host.abilities.contains(&Ability::DiskRates) || disk_servers::serves(disk.kind);
    if new != DiskRates::default() && !held {
        let refusal = Refusal::new(Reason::Unsupported, object).field("rates");
        return Err(refusal.note(Ability::DiskRates.why(host.hypervisor)));
    }
    Ok(new)
}

/// What an event says of them.
pub(super) fn said(rates: DiskRates) -> String {
    let DiskRates { read_bps, write_bps, read_iops, write_iops } = rates;
    let all = [("read_bps", read_bps), ("write_bps", write_bps), ("read_iops", read_iops), ("write_iops", write_iops)];
    let some: Vec<_> = all.into_iter().filter(|(_, rate)| *rate > 0).map(|(name, rate)| format!("{name} {rate}")).collect();
    if some.is_empty() { "no rates".to_owned() } else { some.join(", ") }
}

/// Machines that run have the disk held to its rates. The refusal names the first that does not.
pub(super) async fn follow(broker: &Broker, who: &Who, disk: &DiskRow) -> Result<(), Refusal> {
    let mut all = Ok(());
    for user in broker.read(|db| db.disk_users(disk.id))?.into_iter().filter(|user| user.active) {
        if let Err(refusal) = cell::configure(broker, who, user.machine).await {
            // One that has come to its end meanwhile starts with them.
            let still = broker.read(|db| db.disk_users(disk.id))?.iter().any(|now| now.active && now.machine == user.machine);
            let note = format!("they are kept, and machine {} has them from its next start on: {refusal}", user.name);
            let refusal = Refusal::new(refusal.reason, format_args!("disk {}", disk.name)).field("rates").note(note);
            all = if still { all.and(Err(refusal)) } else { all };
        }
    }
    all
}
