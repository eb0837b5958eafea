//! What guests are told of themselves.

use super::{Change, Db, Fault, Id};
use rusqlite::{Connection, OptionalExtension, params};
use skep_proto::broker::GuestData;
use skep_proto::{DiskId, MachineId};

/// Reads about it, in or outside of a change.
pub trait Guests {
    /// The connection.
    fn sql(&self) -> &Connection;

    /// What a machine's guest is told; nothing if nobody said anything.
    fn guest(&self, machine: MachineId) -> Result<Option<GuestData>, Fault> {
        let mut statement = self.sql().prepare_cached("SELECT data FROM machine_guests WHERE machine = ?")?;
        let bytes: Option<Vec<u8>> = statement.query_row([Id(machine)], |row| row.get(0)).optional()?;
        bytes.map(|bytes| postcard::from_bytes(&bytes).map_err(|_| Fault::Row("machine_guests"))).transpose()
    }

    /// The disk that says to its guest who he is.
    fn seed(&self, machine: MachineId) -> Result<Option<DiskId>, Fault> {
        let mut statement = self.sql().prepare_cached("SELECT seed FROM machine_guests WHERE machine = ?")?;
        let id: Option<Option<Id<DiskId>>> = statement.query_row([Id(machine)], |row| row.get(0)).optional()?;
        Ok(id.flatten().map(|Id(id)| id))
    }

    /// Whether it has said that it has done all of it.
    fn guest_is_home(&self, machine: MachineId) -> Result<bool, Fault> {
        let mut statement = self.sql().prepare_cached("SELECT home_ns FROM machine_guests WHERE machine = ?")?;
        let home: Option<i64> = statement.query_row([Id(machine)], |row| row.get(0)).optional()?;
        Ok(home.is_some_and(|home| home > 0))
    }
}

impl Guests for Db {
    fn sql(&self) -> &Connection {
        self.read()
    }
}
impl Guests for Change<'_> {
    fn sql(&self) -> &Connection {
        self
    }
}

impl Change<'_> {
    /// Writes what a machine's guest is told, and the disk that says it.
    pub fn set_guest(&self, machine: MachineId, data: &GuestData, seed: DiskId) -> Result<(), Fault> {
        let bytes = postcard::to_stdvec(data).map_err(|_| Fault::Row("machine_guests"))?;
        let sql = "INSERT INTO machine_guests (machine, data, seed) VALUES (?1, ?2, ?3)
                   ON CONFLICT (machine) DO UPDATE SET data = ?2, seed = ?3";
        self.prepare_cached(sql)?.execute(params![Id(machine), bytes, Id(seed)])?;
        Ok(())
    }

    /// A machine's guest has done all of it.
    pub fn guest_came_home(&self, machine: MachineId, when_ns: i64) -> Result<(), Fault> {
        let sql = "UPDATE machine_guests SET home_ns = ? WHERE machine = ? AND home_ns = 0";
        self.prepare_cached(sql)?.execute(params![when_ns, Id(machine)])?;
        Ok(())
    }
}
