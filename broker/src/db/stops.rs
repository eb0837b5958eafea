//! Guests that were asked to power themselves off, as rows: the wait for that outlives the broker.

use super::{Change, Db, Fault, Id};
use rusqlite::params;
use skep_proto::{MachineId, OperationId};

/// What a machine's stop waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StopRow {
    /// What its end ends.
    pub operation: OperationId,
    /// Until when, in nanoseconds since 1970.
    pub deadline_ns: i64,
    /// Whether it is ended then.
    pub force: bool,
}

impl Change<'_> {
    /// A guest was asked; what was asked before counts no longer.
    pub fn put_stop(&self, machine: MachineId, stop: &StopRow) -> Result<(), Fault> {
        let sql = "INSERT OR REPLACE INTO stops (machine, operation, deadline_ns, force) VALUES (?, ?, ?, ?)";
        let values = params![Id(machine), Id(stop.operation), stop.deadline_ns, stop.force];
        self.prepare_cached(sql)?.execute(values)?;
        Ok(())
    }

    /// It is not waited for any more.
    pub fn forget_stop(&self, machine: MachineId) -> Result<(), Fault> {
        self.prepare_cached("DELETE FROM stops WHERE machine = ?")?.execute([Id(machine)])?;
        Ok(())
    }

    /// The operation has ended.
    pub(super) fn end_stop(&self, operation: OperationId) -> Result<(), Fault> {
        self.prepare_cached("DELETE FROM stops WHERE operation = ?")?.execute([Id(operation)])?;
        Ok(())
    }
}

impl Db {
    /// All that are waited for.
    pub fn stops(&self) -> Result<Vec<(MachineId, StopRow)>, Fault> {
        let mut statement = self.read().prepare_cached("SELECT machine, operation, deadline_ns, force FROM stops")?;
        let rows = statement.query_map([], |row| {
            let stop = StopRow { operation: row.get::<_, Id<_>>(1)?.0, deadline_ns: row.get(2)?, force: row.get(3)? };
            Ok((row.get::<_, Id<_>>(0)?.0, stop))
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}
