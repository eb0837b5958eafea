//! Operations and events.

use crate::{OperationId, Refusal, Text, TraceId};
use serde::{Deserialize, Serialize};

/// Long work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationView {
    /// Its id.
    pub id: OperationId,
    /// What it does: `start`, `import`.
    pub kind: Text<32>,
    /// To what: `machine web1`.
    pub object: Text<128>,
    /// Who asked.
    pub user: Text<64>,
    /// The trace of the request that began it.
    pub trace: TraceId,
    /// How far it is.
    pub state: OperationState,
    /// Bytes or steps done, of how many; 0: unknown.
    pub progress: (u64, u64),
    /// When it began; nanoseconds since 1970.
    pub started_ns: i64,
    /// When it ended; 0: not yet.
    pub ended_ns: i64,
}

/// How far an operation is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum OperationState {
    /// At work.
    Running,
    /// Done.
    Done,
    /// Failed; nothing half-made was left.
    Failed(Refusal),
}

/// Looks one operation up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationGet {
    /// Which.
    pub id: OperationId,
    /// Answer when it has ended rather than at once.
    pub wait: bool,
}

/// Lists operations, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationList {
    /// Begin after this one.
    pub after: Option<OperationId>,
}

/// A page; empty at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationPage {
    /// As many as fit a record.
    pub operations: Vec<OperationView>,
}

/// Asks an operation to end early. It ends as failed, with `Cancelled`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationCancel {
    /// Which.
    pub id: OperationId,
}

/// Watches events; the descriptor is a seqpacket socket with one [`EventView`] a record, no hello.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventWatch {
    /// Begin after this token; none: with what happens from now on. A token that is no longer kept is refused with `Gap`.
    pub after: Option<u64>,
    /// Only events about this kind of object: `machine`, `disk`, `switch`, `nic`, `operation`; empty: all.
    pub object: Text<16>,
}

/// Something happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventView {
    /// Its number; the resume token.
    pub token: u64,
    /// When; nanoseconds since 1970.
    pub time_ns: i64,
    /// Kind of the object: `machine`, `disk`, `switch`, `nic`, `operation`.
    pub object: Text<16>,
    /// Its id.
    pub id: Text<36>,
    /// Its name then.
    pub name: Text<63>,
    /// What happened: `created`, `changed`, `state`, `restart`, `renamed`, `deleted`, `progress`, `ended`.
    pub what: Text<24>,
    /// Details: the new state, the old name, the reason.
    pub detail: Text<512>,
    /// The trace of the request that caused it.
    pub trace: TraceId,
    /// Who caused it.
    pub user: Text<64>,
}
