//! Operations as rows: written when they begin and when they end. How far they are in between is in memory.

use super::{Change, Db, Fault, Id, Number};
use rusqlite::{OptionalExtension, Row, params};
use skep_proto::broker::{OperationState, OperationView};
use skep_proto::{GroupId, OperationId, Refusal, TraceId, wire};

/// Ended operations that are kept.
const KEPT: i64 = 10_000;
const COLUMNS: &str = "id, kind, object, user, trace, result, done, total, started_ns, ended_ns";

fn view(row: &Row<'_>) -> rusqlite::Result<OperationView> {
    let (Number(trace), Number(done), Number(total)) = (row.get(4)?, row.get(6)?, row.get(7)?);
    let state = match row.get::<_, Option<Vec<u8>>>(5)? {
        None => OperationState::Running,
        Some(result) if result.is_empty() => OperationState::Done,
        Some(result) => match wire::decode::<Refusal>(&result) {
            Ok(refusal) => OperationState::Failed(refusal),
            Err(_) => return Err(rusqlite::types::FromSqlError::InvalidType.into()),
        },
    };
    Ok(OperationView {
        id: row.get::<_, Id<_>>(0)?.0,
        kind: row.get::<_, Id<_>>(1)?.0,
        object: row.get::<_, Id<_>>(2)?.0,
        user: row.get::<_, Id<_>>(3)?.0,
        trace: TraceId(trace),
        state,
        progress: (done, total),
        started_ns: row.get(8)?,
        ended_ns: row.get(9)?,
    })
}

impl Change<'_> {
    /// An operation begins, in a group.
    pub fn begin_operation(&self, op: &OperationView, group: GroupId) -> Result<(), Fault> {
        let sql = "INSERT INTO operations (id, kind, object, user, trace, started_ns, grp) VALUES (?, ?, ?, ?, ?, ?, ?)";
        self.prepare_cached(sql)?.execute(params![
            Id(op.id),
            op.kind.as_str(),
            op.object.as_str(),
            op.user.as_str(),
            Number(op.trace.0),
            op.started_ns,
            Id(group)
        ])?;
        let number = self.last_insert_rowid();
        if number % 100 == 0 {
            let sql = "DELETE FROM operations WHERE number <= ? AND result IS NOT NULL";
            self.prepare_cached(sql)?.execute([number - KEPT])?;
        }
        Ok(())
    }

    /// An operation has ended, as `op` says.
    pub fn end_operation(&self, op: &OperationView) -> Result<(), Fault> {
        let (result, detail) = match &op.state {
            OperationState::Running => return Ok(()),
            OperationState::Done => (Vec::new(), "done".to_owned()),
            OperationState::Failed(refusal) => {
                self.unmade(op.id)?;
                (wire::encode(refusal).map_err(|_| Fault::Row("operations"))?, refusal.to_string())
            }
        };
        self.end_stop(op.id)?;
        let sql = "UPDATE operations SET result = ?, done = ?, total = ?, ended_ns = ? WHERE id = ?";
        let (done, total) = (Number(op.progress.0), Number(op.progress.1));
        self.prepare_cached(sql)?.execute(params![result, done, total, op.ended_ns, Id(op.id)])?;
        self.event("operation", op.id, &op.kind, "ended", format_args!("{}: {detail}", op.object))
    }
}

impl Db {
    /// One operation.
    pub fn operation(&self, id: OperationId) -> Result<Option<OperationView>, Fault> {
        let sql = format!("SELECT {COLUMNS} FROM operations WHERE id = ?");
        Ok(self.read().prepare_cached(&sql)?.query_row([Id(id)], view).optional()?)
    }

    /// Those whose end nobody has written.
    pub fn operations_at_work(&self) -> Result<Vec<OperationView>, Fault> {
        let sql = format!("SELECT {COLUMNS} FROM operations WHERE result IS NULL ORDER BY number");
        let mut statement = self.read().prepare_cached(&sql)?;
        let rows = statement.query_map([], view)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Up to 64 of groups that `seen` holds, newest first, after this one.
    pub fn operations(&self, after: Option<OperationId>, seen: Option<&str>) -> Result<Vec<OperationView>, Fault> {
        let sql = format!(
            "SELECT {COLUMNS} FROM operations
             WHERE (?1 IS NULL OR number < (SELECT number FROM operations WHERE id = ?1))
             AND (?2 IS NULL OR grp IN (SELECT value FROM json_each(?2))) ORDER BY number DESC LIMIT 64"
        );
        let mut statement = self.read().prepare_cached(&sql)?;
        let rows = statement.query_map(params![after.map(Id), seen], view)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}
