//! What the taps of running machines are, after their NICs' rows: brought about at a machine's start, when a row changes, and when
//! net-helper is back.

use crate::broker::Broker;
use crate::db::Who;
use crate::db::nics::Nics;
use skep_proto::net::LimitTap;
use skep_proto::{NicId, Rates, Reason, Refusal};

/// Brings a tap to what its NIC's row says, until that is what the helper was `told` last: the row may change meanwhile.
pub async fn bring(broker: &Broker, who: &Who, nic: NicId, mut told: Option<Rates>) -> Result<(), Refusal> {
    loop {
        let Some(row) = broker.read(|db| db.find_nic(&nic.to_string()))? else { return Ok(()) };
        if told == Some(row.rates) {
            return Ok(());
        }
        broker.net.call(who, LimitTap { number: row.number, rates: row.rates }).await?;
        told = Some(row.rates);
    }
}

/// The same of every machine that may run.
pub async fn bring_all(broker: &Broker, who: &Who) {
    for nic in broker.read(|db| db.all_nics_at_work()).unwrap_or_default() {
        match bring(broker, who, nic.id, None).await {
            // Its machine has ended, or has just begun to start.
            Err(refusal) if refusal.reason != Reason::NotFound => {
                broker.warn(who.trace, format_args!("nic {}: {refusal}", nic.name))
            }
            _ => {}
        }
    }
}
