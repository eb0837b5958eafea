//! Snapshots of whole machines as rows.

use super::{Change, Db, Fault, Id, devices};
use crate::spec::Spec;
use rusqlite::{Connection, OptionalExtension, Row, params};
use skep_proto::{MachineId, SnapshotId, SnapshotName, wire};

/// How far one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whole {
    /// Being made: cut off, it goes.
    Creating,
    /// Whole.
    Ready,
    /// Its machine is being brought back to it: cut off, that is finished.
    Returning,
    /// To go.
    Deleting,
}

impl Whole {
    const ALL: [(Self, &'static str); 4] =
        [(Self::Creating, "creating"), (Self::Ready, "ready"), (Self::Returning, "returning"), (Self::Deleting, "deleting")];

    fn word(self) -> &'static str {
        Self::ALL.iter().find(|(state, _)| *state == self).map_or("", |(_, word)| word)
    }

    fn from(word: &str) -> Result<Self, rusqlite::types::FromSqlError> {
        let found = Self::ALL.iter().find(|(_, known)| *known == word);
        found.map(|(state, _)| *state).ok_or(rusqlite::types::FromSqlError::InvalidType)
    }
}

/// A snapshot of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WholeRow {
    /// Its id.
    pub id: SnapshotId,
    /// Of which machine.
    pub machine: MachineId,
    /// Its name, among the machine's.
    pub name: SnapshotName,
    /// The machine's settings then.
    pub spec: Spec,
    /// How far it is.
    pub state: Whole,
    /// When it was made.
    pub created_ns: i64,
}

const COLUMNS: &str = "id, machine, name, spec, state, created_ns";

fn row(row: &Row<'_>) -> rusqlite::Result<WholeRow> {
    Ok(WholeRow {
        id: row.get::<_, Id<_>>(0)?.0,
        machine: row.get::<_, Id<_>>(1)?.0,
        name: row.get::<_, Id<_>>(2)?.0,
        spec: devices::as_applied(row.get(3)?).ok_or(rusqlite::types::FromSqlError::InvalidType)?,
        state: Whole::from(row.get_ref(4)?.as_str()?)?,
        created_ns: row.get(5)?,
    })
}

/// Reads about them, in or outside of a change.
pub trait Wholes {
    /// The connection.
    fn sql(&self) -> &Connection;

    /// A machine's, by name or id; one that is being deleted is not found.
    fn find_whole(&self, machine: MachineId, name_or_id: &str) -> Result<Option<WholeRow>, Fault> {
        let sql = format!(
            "SELECT {COLUMNS} FROM machine_snapshots WHERE machine = ?1 AND state <> 'deleting' AND (name = ?2 OR id = ?2)
             ORDER BY name <> ?2 LIMIT 1"
        );
        Ok(self.sql().prepare_cached(&sql)?.query_row(params![Id(machine), name_or_id], row).optional()?)
    }

    /// One, however far it is.
    fn whole(&self, id: SnapshotId) -> Result<Option<WholeRow>, Fault> {
        let sql = format!("SELECT {COLUMNS} FROM machine_snapshots WHERE id = ?");
        Ok(self.sql().prepare_cached(&sql)?.query_row([Id(id)], row).optional()?)
    }

    /// Up to `limit` usable ones of a machine, by name, after this one.
    fn wholes_after(&self, machine: MachineId, name: &str, limit: u32) -> Result<Vec<WholeRow>, Fault> {
        let sql = format!(
            "SELECT {COLUMNS} FROM machine_snapshots WHERE machine = ? AND state IN ('ready', 'returning') AND state <> 'deleting'
             AND name > ? ORDER BY name LIMIT ?"
        );
        let mut statement = self.sql().prepare_cached(&sql)?;
        let rows = statement.query_map(params![Id(machine), name, limit], row)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// All of a machine, or of every machine; in this state, or in any.
    fn wholes(&self, machine: Option<MachineId>, state: Option<Whole>) -> Result<Vec<WholeRow>, Fault> {
        let sql = format!(
            "SELECT {COLUMNS} FROM machine_snapshots WHERE (?1 IS NULL OR machine = ?1) AND (?2 IS NULL OR state = ?2)
             ORDER BY created_ns"
        );
        let mut statement = self.sql().prepare_cached(&sql)?;
        let rows = statement.query_map(params![machine.map(Id), state.map(Whole::word)], row)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

impl Wholes for Db {
    fn sql(&self) -> &Connection {
        self.read()
    }
}
impl Wholes for Change<'_> {
    fn sql(&self) -> &Connection {
        self
    }
}

impl Change<'_> {
    /// Adds one that has yet to be made.
    pub fn add_whole(&self, whole: &WholeRow) -> Result<(), Fault> {
        let bytes = wire::encode(&whole.spec).map_err(|_| Fault::Row("machine_snapshots"))?;
        let sql = "INSERT INTO machine_snapshots (id, machine, name, spec, state, created_ns) VALUES (?, ?, ?, ?, ?, ?)";
        let (name, state) = (whole.name.as_str(), whole.state.word());
        self.prepare_cached(sql)?.execute(params![Id(whole.id), Id(whole.machine), name, bytes, state, whole.created_ns])?;
        Ok(())
    }

    /// It is this far.
    pub fn set_whole_state(&self, id: SnapshotId, state: Whole) -> Result<(), Fault> {
        self.prepare_cached("UPDATE machine_snapshots SET state = ? WHERE id = ?")?.execute(params![state.word(), Id(id)])?;
        Ok(())
    }

    /// Calls it so.
    pub fn rename_whole(&self, id: SnapshotId, name: &SnapshotName) -> Result<(), Fault> {
        self.prepare_cached("UPDATE machine_snapshots SET name = ? WHERE id = ?")?.execute(params![name.as_str(), Id(id)])?;
        Ok(())
    }

    /// It is gone. Snapshots of disks that were parts of it are on their own then.
    pub fn remove_whole(&self, id: SnapshotId) -> Result<(), Fault> {
        self.prepare_cached("DELETE FROM machine_snapshots WHERE id = ?")?.execute([Id(id)])?;
        Ok(())
    }
}
