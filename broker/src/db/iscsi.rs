//! What is known of iSCSI disks besides what every disk has.

use super::{Change, Db, Fault, Id};
use rusqlite::{Connection, OptionalExtension, Row, params};
use skep_proto::iscsi::{Chap, IscsiName, Portal};
use skep_proto::{DiskId, MachineId, Text};

/// Where its bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IscsiRow {
    /// Which disk.
    pub disk: DiskId,
    /// Where the target is reached.
    pub portal: Portal,
    /// The target.
    pub target: IscsiName,
    /// The logical unit.
    pub lun: u16,
    /// Who we are to it.
    pub chap: Option<Chap>,
    /// Of the process that is between it and a machine.
    pub number: Option<u16>,
    /// That machine.
    pub machine: Option<MachineId>,
}

fn row(row: &Row<'_>) -> rusqlite::Result<IscsiRow> {
    let chap = match (row.get::<_, Option<Id<Text<223>>>>(4)?, row.get::<_, Option<Id<skep_proto::Secret>>>(5)?) {
        (Some(Id(user)), Some(Id(secret))) => Some(Chap { user, secret }),
        _ => None,
    };
    Ok(IscsiRow {
        disk: row.get::<_, Id<_>>(0)?.0,
        portal: row.get::<_, Id<_>>(1)?.0,
        target: row.get::<_, Id<_>>(2)?.0,
        lun: row.get(3)?,
        chap,
        number: row.get(6)?,
        machine: row.get::<_, Option<Id<_>>>(7)?.map(|Id(id)| id),
    })
}

const COLUMNS: &str = "disk, portal, target, lun, user, secret, number, machine";

/// Reads about them, in or outside of a change.
pub trait Iscsi {
    /// The connection.
    fn sql(&self) -> &Connection;

    /// Of this disk.
    fn iscsi(&self, disk: DiskId) -> Result<Option<IscsiRow>, Fault> {
        let sql = format!("SELECT {COLUMNS} FROM iscsi WHERE disk = ?");
        Ok(self.sql().prepare_cached(&sql)?.query_row([Id(disk)], row).optional()?)
    }

    /// Name of the disk that has this logical unit of a target.
    fn iscsi_taken(&self, target: &IscsiName, lun: u16) -> Result<Option<String>, Fault> {
        let sql = "SELECT name FROM iscsi JOIN disks ON disks.id = iscsi.disk WHERE target = ? AND lun = ?";
        Ok(self.sql().prepare_cached(sql)?.query_row(params![target.as_str(), lun], |row| row.get(0)).optional()?)
    }

    /// Those that have a process for this machine; no machine: for any.
    fn iscsi_at_work(&self, machine: Option<MachineId>) -> Result<Vec<DiskId>, Fault> {
        let sql = "SELECT disk FROM iscsi WHERE number IS NOT NULL AND machine IS NOT NULL AND (?1 IS NULL OR machine = ?1)";
        let mut statement = self.sql().prepare_cached(sql)?;
        let rows = statement.query_map([machine.map(Id)], |row| Ok(row.get::<_, Id<_>>(0)?.0))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

impl Iscsi for Db {
    fn sql(&self) -> &Connection {
        self.read()
    }
}
impl Iscsi for Change<'_> {
    fn sql(&self) -> &Connection {
        self
    }
}

impl Change<'_> {
    /// Adds what is known of a disk that was added.
    pub fn add_iscsi(&self, iscsi: &IscsiRow) -> Result<(), Fault> {
        let sql = "INSERT INTO iscsi (disk, portal, target, lun, user, secret) VALUES (?, ?, ?, ?, ?, ?)";
        self.prepare_cached(sql)?.execute(params![
            Id(iscsi.disk),
            iscsi.portal.to_string(),
            iscsi.target.as_str(),
            iscsi.lun,
            iscsi.chap.as_ref().map(|chap| chap.user.as_str()),
            iscsi.chap.as_ref().map(|chap| chap.secret.expose())
        ])?;
        Ok(())
    }

    /// Gives the disk a process for this machine, or to be looked at; the process's number, below `most`. `None`: there is no place.
    pub fn begin_iscsi(&self, disk: DiskId, machine: Option<MachineId>, most: u16) -> Result<Option<u16>, Fault> {
        let sql = "SELECT number FROM iscsi WHERE disk <> ? AND number IS NOT NULL";
        let mut statement = self.prepare_cached(sql)?;
        let taken = statement.query_map([Id(disk)], |row| row.get(0))?.collect::<Result<Vec<u16>, _>>()?;
        let Some(number) = (0..most).find(|number| !taken.contains(number)) else { return Ok(None) };
        let sql = "UPDATE iscsi SET number = ?, machine = ? WHERE disk = ?";
        self.prepare_cached(sql)?.execute(params![number, machine.map(Id), Id(disk)])?;
        Ok(Some(number))
    }

    /// Its process is gone.
    pub fn end_iscsi(&self, disk: DiskId) -> Result<(), Fault> {
        self.prepare_cached("UPDATE iscsi SET number = NULL, machine = NULL WHERE disk = ?")?.execute([Id(disk)])?;
        Ok(())
    }

    /// At the broker's start: nobody looks at any.
    pub fn settle_iscsi(&self) -> Result<(), Fault> {
        self.prepare_cached("UPDATE iscsi SET number = NULL WHERE machine IS NULL")?.execute([])?;
        Ok(())
    }
}
