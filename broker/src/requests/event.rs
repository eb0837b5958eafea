//! Operations and events.

use super::Cx;
use crate::broker::Broker;
use crate::page::fit;
use crate::policy::Proof;
use skep_ipc::aio::Port;
use skep_proto::broker::{Done, EventWatch, OperationCancel, OperationGet, OperationList, OperationPage, OperationView};
use skep_proto::{OneFd, Reason, Refusal, wire};
use std::rc::Rc;

/// Watches at a time.
const WATCHES: usize = 256;

/// `OperationGet`.
pub async fn get(cx: &Cx, c: OperationGet) -> Result<OperationView, Refusal> {
    if c.wait { cx.broker.operation_ended(c.id).await } else { cx.broker.operation(c.id) }
}

/// `OperationList`.
pub async fn list(cx: &Cx, c: OperationList) -> Result<OperationPage, Refusal> {
    Ok(OperationPage { operations: fit(cx.broker.operations_after(c.after, cx.user.rights.seen().as_deref())?) })
}

/// `OperationCancel`.
pub async fn cancel(cx: &Cx, c: OperationCancel) -> Result<OperationView, Refusal> {
    cx.broker.cancel_operation(c.id)
}

/// `EventWatch`.
pub async fn watch(cx: &Cx, c: EventWatch) -> Result<(Done, OneFd), Refusal> {
    let Cx { broker, .. } = cx;
    let gap = |note: &str| Refusal::new(Reason::Gap, "events").field("after").note(note);
    let after = match c.after {
        None => broker.read(|db| db.last_event())?,
        Some(token) if broker.read(|db| db.keeps_after(token))? => token,
        Some(token) => return Err(gap(&format!("token {token}"))),
    };
    if broker.news_watchers() >= WATCHES {
        return Err(Refusal::new(Reason::LimitReached, "events").note(format_args!("{WATCHES} watches at a time")));
    }
    let failed = |e| Refusal::io("events", "make a socket pair", &e);
    let (ours, theirs) = skep_sys::sock::seqpacket_pair().map_err(failed)?;
    let ours = Port::new(ours).map_err(failed)?;
    tokio::task::spawn_local(send(broker.clone(), cx.proof.clone(), ours, after, c.object.to_string()));
    Ok((Done {}, [theirs]))
}

/// Sends every event after a token, as fast as the reader takes them. It ends when the reader is gone, and when it fell so far behind
/// that events are no longer kept: its next watch with the last token is then refused as a gap.
async fn send(broker: Rc<Broker>, proof: Proof, port: Port, mut token: u64, object: String) {
    let mut news = broker.news();
    let reader = async {
        // A reader has nothing to say.
        let _ = port.recv().await;
    };
    let events = async {
        loop {
            news.mark_unchanged();
            // What he may see by now; whoever lost his session has seen the last of it.
            let Ok(user) = broker.user_of(&proof) else { return };
            let seen = user.rights.seen();
            let newest = *news.borrow();
            let batch = broker.read(|db| match db.keeps_after(token) {
                Ok(true) => db.events_after(token, &object, seen.as_deref()),
                _ => Err(crate::db::Fault::Row("events")),
            });
            let Ok(batch) = batch else { return };
            if batch.is_empty() {
                // Nothing of this kind up to now.
                token = token.max(newest);
                if news.changed().await.is_err() {
                    return;
                }
                continue;
            }
            for event in batch {
                let Ok(bytes) = wire::encode(&event) else { return };
                if port.send(&bytes, &[]).await.is_err() {
                    return;
                }
                token = event.token;
            }
        }
    };
    tokio::select! {
        () = reader => {}
        () = events => {}
    }
}
