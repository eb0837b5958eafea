//! How long a guest may take to power itself off, and how the wait for that outlives the broker.

use super::{Actor, Msg};
use crate::db::stops::StopRow;
use crate::life::Input;
use crate::operations::Operation;
use skep_proto::broker::{Act, Stop, Upkeep};
use std::time::Duration;

/// The longest time that a guest can be given. A clock of the host's that was set back while there was no broker makes no longer one of it.
const LONGEST: Duration = Duration::from_secs(86_400);

/// Until when, in wall-clock time, a guest may take.
pub(super) fn deadline(act: Act, upkeep: Upkeep) -> i64 {
    let own = || u64::from(upkeep.stop_timeout_s).saturating_mul(1_000);
    let ms = match act {
        Act::Stop(Stop { timeout_ms, .. }) => timeout_ms.map_or_else(own, u64::from),
        _ => own(),
    };
    skep_service::now_ns().saturating_add(i64::try_from(ms.saturating_mul(1_000_000)).unwrap_or(i64::MAX))
}

/// What is left until then.
pub(super) fn left(deadline_ns: i64) -> Duration {
    let ns = deadline_ns.saturating_sub(skep_service::now_ns());
    Duration::from_nanos(u64::try_from(ns).unwrap_or(0)).min(LONGEST)
}

impl Actor {
    /// Takes up what the broker before this one was waiting for. Its clock begins when the host was asked.
    pub(super) fn wait_on(&mut self, operation: Operation, stop: &StopRow) {
        let act = Act::Stop(Stop { timeout_ms: None, force: stop.force });
        self.who = operation.who().clone();
        self.deadline_ns = stop.deadline_ns;
        self.hear_cancel(&operation);
        self.operation = Some(operation);
        let _ = self.step(Input::Waits(act));
    }

    /// Whoever cancels the operation is heard.
    pub(super) fn hear_cancel(&self, operation: &Operation) {
        let (cancelled, post, id) = (operation.cancelled(), self.post.clone(), operation.id());
        tokio::task::spawn_local(async move {
            if cancelled.await {
                let _ = post.send(Msg::Cancel(id));
            }
        });
    }
}
