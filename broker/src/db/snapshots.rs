//! Snapshots as rows.

use super::disks::Stage;
use super::{Change, Db, Fault, Id, Number};
use rusqlite::{Connection, OptionalExtension, Row, params};
use skep_proto::{DiskId, SnapshotId, SnapshotName};

/// A snapshot of a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotRow {
    /// Its id.
    pub id: SnapshotId,
    /// Of which disk.
    pub disk: DiskId,
    /// Its name, among the disk's.
    pub name: SnapshotName,
    /// Bytes that the guest saw.
    pub size: u64,
    /// Bytes that it occupied alone when last asked.
    pub used: u64,
    /// How far it is.
    pub stage: Stage,
    /// When it was made.
    pub created_ns: i64,
    /// The file that it consists of, with what that stands on; none: it is a volume's.
    pub layer: Option<DiskId>,
    /// The machine's snapshot that it is a part of.
    pub whole: Option<SnapshotId>,
}

// What a file occupies, its own row says.
const COLUMNS: &str = "id, disk, name, size, coalesce((SELECT allocated FROM layers WHERE layers.id = layer), used), state, created_ns, layer, whole";

fn row(row: &Row<'_>) -> rusqlite::Result<SnapshotRow> {
    let (Number(size), Number(used)) = (row.get(3)?, row.get(4)?);
    Ok(SnapshotRow {
        id: row.get::<_, Id<_>>(0)?.0,
        disk: row.get::<_, Id<_>>(1)?.0,
        name: row.get::<_, Id<_>>(2)?.0,
        size,
        used,
        stage: Stage::from(row.get_ref(5)?.as_str()?)?,
        created_ns: row.get(6)?,
        layer: row.get::<_, Option<Id<_>>>(7)?.map(|Id(id)| id),
        whole: row.get::<_, Option<Id<_>>>(8)?.map(|Id(id)| id),
    })
}

/// Reads about snapshots, in or outside of a change.
pub trait Snapshots {
    /// The connection.
    fn sql(&self) -> &Connection;

    /// A disk's, by name or id; one that is being deleted is not found.
    fn find_snapshot(&self, disk: DiskId, name_or_id: &str) -> Result<Option<SnapshotRow>, Fault> {
        let sql = format!(
            "SELECT {COLUMNS} FROM snapshots WHERE disk = ?1 AND state <> 'deleting' AND (name = ?2 OR id = ?2)
             ORDER BY name <> ?2 LIMIT 1"
        );
        Ok(self.sql().prepare_cached(&sql)?.query_row(params![Id(disk), name_or_id], row).optional()?)
    }

    /// One of any disk, by its id, however far it is.
    fn snapshot(&self, id: &str) -> Result<Option<SnapshotRow>, Fault> {
        let sql = format!("SELECT {COLUMNS} FROM snapshots WHERE id = ?");
        Ok(self.sql().prepare_cached(&sql)?.query_row([id], row).optional()?)
    }

    /// Up to `limit` usable ones of a disk, by name, after this one.
    fn snapshots_after(&self, disk: DiskId, name: &str, limit: u32) -> Result<Vec<SnapshotRow>, Fault> {
        let sql = format!(
            "SELECT {COLUMNS} FROM snapshots WHERE disk = ? AND state = 'ready' AND state <> 'deleting' AND name > ? ORDER BY name LIMIT ?"
        );
        let mut statement = self.sql().prepare_cached(&sql)?;
        let rows = statement.query_map(params![Id(disk), name, limit], row)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Those that a machine's snapshot consists of.
    fn parts_of(&self, whole: SnapshotId) -> Result<Vec<SnapshotRow>, Fault> {
        let sql = format!("SELECT {COLUMNS} FROM snapshots WHERE whole = ? ORDER BY disk");
        let mut statement = self.sql().prepare_cached(&sql)?;
        let rows = statement.query_map([Id(whole)], row)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// All that are not ready.
    fn unready_snapshots(&self) -> Result<Vec<SnapshotRow>, Fault> {
        let sql = format!("SELECT {COLUMNS} FROM snapshots WHERE state <> 'ready'");
        let mut statement = self.sql().prepare_cached(&sql)?;
        let rows = statement.query_map([], row)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

impl Snapshots for Db {
    fn sql(&self) -> &Connection {
        self.read()
    }
}
impl Snapshots for Change<'_> {
    fn sql(&self) -> &Connection {
        self
    }
}

impl Change<'_> {
    /// Adds one that has yet to be made.
    pub fn add_snapshot(&self, snapshot: &SnapshotRow) -> Result<(), Fault> {
        let sql = "INSERT INTO snapshots (id, disk, name, state, created_ns, size, layer, whole) VALUES (?, ?, ?, ?, ?, ?, ?, ?)";
        self.prepare_cached(sql)?.execute(params![
            Id(snapshot.id),
            Id(snapshot.disk),
            snapshot.name.as_str(),
            snapshot.stage.word(),
            snapshot.created_ns,
            Number(snapshot.size),
            snapshot.layer.map(Id),
            snapshot.whole.map(Id)
        ])?;
        Ok(())
    }

    /// It is there, or occupies something else than before: as storage-helper says.
    pub fn snapshot_ready(&self, id: SnapshotId, size: u64, used: u64) -> Result<(), Fault> {
        let sql = "UPDATE snapshots SET state = 'ready', size = ?, used = ? WHERE id = ?";
        self.prepare_cached(sql)?.execute(params![Number(size), Number(used), Id(id)])?;
        Ok(())
    }

    /// Calls it so.
    pub fn rename_snapshot(&self, id: SnapshotId, name: &SnapshotName) -> Result<(), Fault> {
        self.prepare_cached("UPDATE snapshots SET name = ? WHERE id = ?")?.execute(params![name.as_str(), Id(id)])?;
        Ok(())
    }

    /// It is to be deleted: its name is free.
    pub fn snapshot_doomed(&self, id: SnapshotId) -> Result<(), Fault> {
        self.prepare_cached("UPDATE snapshots SET state = 'deleting' WHERE id = ?")?.execute([Id(id)])?;
        Ok(())
    }

    /// It is gone, and so are files that nothing else needs, or they will be.
    pub fn remove_snapshot(&self, id: SnapshotId) -> Result<(), Fault> {
        self.prepare_cached("DELETE FROM snapshots WHERE id = ?")?.execute([Id(id)])?;
        self.doom_layers()
    }
}
