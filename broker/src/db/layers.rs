//! Files that disks are kept in, as rows: what stands on what.

use super::sql::disk_kind;
use super::{Change, Db, Fault, Id, Number};
use rusqlite::{Connection, OptionalExtension, Row, params};
use skep_proto::storage::{DiskKind, Layer};
use skep_proto::{DiskId, GroupId};

/// A file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerRow {
    /// Its name.
    pub id: DiskId,
    /// How it is kept.
    pub kind: DiskKind,
    /// What it stands on.
    pub base: Option<DiskId>,
    /// Bytes that it occupied when last asked.
    pub allocated: u64,
}

impl From<&LayerRow> for Layer {
    fn from(row: &LayerRow) -> Self {
        Self { layer: row.id, kind: row.kind }
    }
}

fn row(row: &Row<'_>) -> rusqlite::Result<LayerRow> {
    Ok(LayerRow {
        id: row.get::<_, Id<_>>(0)?.0,
        kind: disk_kind::from(row.get(1)?)?,
        base: row.get::<_, Option<Id<_>>>(2)?.map(|Id(id)| id),
        allocated: row.get::<_, Number>(3)?.0,
    })
}

/// What needs a layer `l`.
const NEEDED: &str = "EXISTS (SELECT 1 FROM disks WHERE top = l.id) OR EXISTS (SELECT 1 FROM snapshots WHERE layer = l.id)
                      OR EXISTS (SELECT 1 FROM layers WHERE base = l.id)";

/// Reads about layers, in or outside of a change.
pub trait Layers {
    /// The connection.
    fn sql(&self) -> &Connection;

    /// One.
    fn layer(&self, id: DiskId) -> Result<Option<LayerRow>, Fault> {
        let sql = "SELECT id, kind, base, allocated FROM layers WHERE id = ?";
        Ok(self.sql().prepare_cached(sql)?.query_row([Id(id)], row).optional()?)
    }

    /// A layer and all that it stands on, itself first.
    fn layers_from(&self, id: DiskId) -> Result<Vec<LayerRow>, Fault> {
        let sql = "WITH RECURSIVE chain (id, kind, base, allocated, at) AS (
                       SELECT id, kind, base, allocated, 0 FROM layers WHERE id = ?
                       UNION ALL SELECT l.id, l.kind, l.base, l.allocated, at + 1 FROM layers l JOIN chain ON l.id = chain.base)
                   SELECT id, kind, base, allocated FROM chain ORDER BY at";
        let mut statement = self.sql().prepare_cached(sql)?;
        let rows = statement.query_map([Id(id)], row)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Whether anything but the disk whose top it is needs it.
    fn is_stood_on(&self, id: DiskId) -> Result<bool, Fault> {
        let sql = "SELECT EXISTS (SELECT 1 FROM layers WHERE base = ?1) OR EXISTS (SELECT 1 FROM snapshots WHERE layer = ?1)";
        Ok(self.sql().prepare_cached(sql)?.query_row([Id(id)], |row| row.get(0))?)
    }

    /// Bytes that nothing but the disk with this top, and snapshots, needs: of its layers as far as no other stands on them.
    fn own_bytes(&self, top: DiskId) -> Result<u64, Fault> {
        let sql = "WITH RECURSIVE own (id, base, allocated) AS (
                       SELECT id, base, allocated FROM layers WHERE id = ?1
                       UNION ALL SELECT l.id, l.base, l.allocated FROM layers l JOIN own ON l.id = own.base
                       WHERE NOT EXISTS (SELECT 1 FROM disks WHERE top = l.id)
                       AND (SELECT count(*) FROM layers WHERE base = l.id) = 1)
                   SELECT coalesce(sum(allocated), 0) FROM own";
        let Number(bytes) = self.sql().prepare_cached(sql)?.query_row([Id(top)], |row| row.get(0))?;
        Ok(bytes)
    }

    /// Whether nothing needs it any more.
    fn is_layer_to_go(&self, id: DiskId) -> Result<bool, Fault> {
        let sql = "SELECT 1 FROM layers WHERE id = ? AND state = 'deleting'";
        Ok(self.sql().prepare_cached(sql)?.exists([Id(id)])?)
    }

    /// Those that nothing needs any more.
    fn layers_to_go(&self) -> Result<Vec<LayerRow>, Fault> {
        let sql = "SELECT id, kind, base, allocated FROM layers WHERE state = 'deleting'";
        let mut statement = self.sql().prepare_cached(sql)?;
        let rows = statement.query_map([], row)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

impl Layers for Db {
    fn sql(&self) -> &Connection {
        self.read()
    }
}
impl Layers for Change<'_> {
    fn sql(&self) -> &Connection {
        self
    }
}

impl Change<'_> {
    /// Adds one; `to_go`: it is for the moment only, and nothing of it stays.
    pub fn add_layer(&self, layer: &LayerRow, group: GroupId, to_go: bool) -> Result<(), Fault> {
        let sql = "INSERT INTO layers (id, kind, base, allocated, grp, state) VALUES (?, ?, ?, ?, ?, ?)";
        let state = if to_go { "deleting" } else { "ready" };
        self.prepare_cached(sql)?.execute(params![
            Id(layer.id),
            disk_kind::number(layer.kind),
            layer.base.map(Id),
            Number(layer.allocated),
            Id(group),
            state
        ])?;
        Ok(())
    }

    /// One that was for the moment only is needed from now on.
    pub fn keep_layer(&self, layer: &LayerRow) -> Result<(), Fault> {
        let sql = "UPDATE layers SET state = 'ready', base = ? WHERE id = ?";
        self.prepare_cached(sql)?.execute(params![layer.base.map(Id), Id(layer.id)])?;
        Ok(())
    }

    /// It occupies something else than before.
    pub fn set_layer_allocated(&self, id: DiskId, allocated: u64) -> Result<(), Fault> {
        self.prepare_cached("UPDATE layers SET allocated = ? WHERE id = ?")?.execute(params![Number(allocated), Id(id)])?;
        Ok(())
    }

    /// A disk's machine writes to another one from now on.
    pub fn set_disk_top(&self, disk: DiskId, top: &LayerRow) -> Result<(), Fault> {
        let sql = "UPDATE disks SET top = ?, kind = ? WHERE id = ?";
        self.prepare_cached(sql)?.execute(params![Id(top.id), disk_kind::number(top.kind), Id(disk)])?;
        Ok(())
    }

    /// What nothing needs any more is to go, and with it what only that stood on.
    pub fn doom_layers(&self) -> Result<(), Fault> {
        let sql = format!("UPDATE layers AS l SET state = 'deleting', base = NULL WHERE state = 'ready' AND NOT ({NEEDED})");
        while self.prepare_cached(&sql)?.execute([])? > 0 {}
        Ok(())
    }

    /// Its file is gone.
    pub fn remove_layer(&self, id: DiskId) -> Result<(), Fault> {
        self.prepare_cached("DELETE FROM layers WHERE id = ? AND state = 'deleting'")?.execute([Id(id)])?;
        Ok(())
    }
}
