//! Disks as rows.

use super::layers::LayerRow;
use super::sql::disk_kind;
use super::sql::named;
use super::{Change, Db, Fault, Id, Number};
use rusqlite::{Connection, OptionalExtension, Row, params};
use skep_proto::broker::ImageFacts;
use skep_proto::storage::DiskKind;
use skep_proto::{DiskId, DiskName, DiskRates, GroupId, MachineId, Text};

/// How far a disk's file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Being made or filled.
    Creating,
    /// Usable.
    Ready,
    /// To be deleted.
    Deleting,
}

impl Stage {
    pub(super) const fn word(self) -> &'static str {
        match self {
            Stage::Creating => "creating",
            Stage::Ready => "ready",
            Stage::Deleting => "deleting",
        }
    }
    pub(super) fn from(word: &str) -> Result<Self, rusqlite::types::FromSqlError> {
        match word {
            "creating" => Ok(Stage::Creating),
            "ready" => Ok(Stage::Ready),
            "deleting" => Ok(Stage::Deleting),
            _ => Err(rusqlite::types::FromSqlError::InvalidType),
        }
    }
}

/// A disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskRow {
    /// Its id.
    pub id: DiskId,
    /// Its name.
    pub name: DiskName,
    /// How it is kept.
    pub kind: DiskKind,
    /// Bytes that the guest sees.
    pub size: u64,
    /// Bytes that it occupied when last asked.
    pub allocated: u64,
    /// Of what was imported; empty for others.
    pub sha256: Text<64>,
    /// How far it is.
    pub stage: Stage,
    /// When it was made.
    pub created_ns: i64,
    /// Its group.
    pub group: GroupId,
    /// What its users say of it.
    pub description: Text<256>,
    /// It is an ISO image.
    pub iso: bool,
    /// What is known of it, if it is an image.
    pub image: Option<ImageFacts>,
    /// The file that its machine writes to; none: it is a volume.
    pub top: Option<DiskId>,
    /// What that stands on.
    pub base: Option<DiskId>,
    /// How much goes to and from it.
    pub rates: DiskRates,
}

impl DiskRow {
    /// As storage-helper knows what its machine writes to.
    pub fn file(&self) -> DiskId {
        self.top.unwrap_or(self.id)
    }

    /// What it is, if it stays as it is: no machine writes to it, and nobody changes it.
    pub fn fixed(&self) -> Option<&'static str> {
        match (self.iso, &self.image) {
            (true, _) => Some("an ISO image"),
            (false, Some(_)) => Some("an image"),
            (false, None) => None,
        }
    }
}

/// A machine that has a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskUser {
    /// Its id.
    pub machine: MachineId,
    /// Its name.
    pub name: Text<63>,
    /// It can write it.
    pub writes: bool,
    /// Something of it is on the host.
    pub active: bool,
    /// Its group.
    pub group: GroupId,
}

const COLUMNS: &str = "id, name, kind, size, allocated, sha256, state, created_ns, grp, description, iso,
                       images.disk IS NOT NULL, source, os, user, min_disk, min_memory, top,
                       (SELECT base FROM layers WHERE layers.id = disks.top), read_bps, write_bps, read_iops, write_iops";
const TABLES: &str = "disks LEFT JOIN images ON images.disk = disks.id";

fn row(row: &Row<'_>) -> rusqlite::Result<DiskRow> {
    let (Number(size), Number(allocated)) = (row.get(3)?, row.get(4)?);
    Ok(DiskRow {
        id: row.get::<_, Id<_>>(0)?.0,
        name: row.get::<_, Id<_>>(1)?.0,
        kind: disk_kind::from(row.get(2)?)?,
        size,
        allocated,
        sha256: row.get::<_, Id<_>>(5)?.0,
        stage: Stage::from(row.get_ref(6)?.as_str()?)?,
        created_ns: row.get(7)?,
        group: row.get::<_, Id<_>>(8)?.0,
        description: row.get::<_, Id<_>>(9)?.0,
        iso: row.get(10)?,
        image: if row.get(11)? { Some(facts(row)?) } else { None },
        top: row.get::<_, Option<Id<_>>>(17)?.map(|Id(id)| id),
        base: row.get::<_, Option<Id<_>>>(18)?.map(|Id(id)| id),
        rates: DiskRates {
            read_bps: row.get::<_, Number>(19)?.0,
            write_bps: row.get::<_, Number>(20)?.0,
            read_iops: row.get::<_, Number>(21)?.0,
            write_iops: row.get::<_, Number>(22)?.0,
        },
    })
}

fn facts(row: &Row<'_>) -> rusqlite::Result<ImageFacts> {
    Ok(ImageFacts {
        source: row.get::<_, Id<_>>(12)?.0,
        os: row.get::<_, Id<_>>(13)?.0,
        user: row.get::<_, Id<_>>(14)?.0,
        min_disk: row.get::<_, Number>(15)?.0,
        min_memory: row.get(16)?,
    })
}

/// Reads about disks, in or outside of a change.
pub trait Disks {
    /// The connection.
    fn sql(&self) -> &Connection;

    /// By id, whatever its stage.
    fn disk(&self, id: DiskId) -> Result<Option<DiskRow>, Fault> {
        let sql = format!("SELECT {COLUMNS} FROM {TABLES} WHERE id = ?");
        Ok(self.sql().prepare_cached(&sql)?.query_row([Id(id)], row).optional()?)
    }

    /// The one whose machine writes to this file, or that is this volume.
    fn disk_of(&self, file: DiskId) -> Result<Option<DiskRow>, Fault> {
        let sql = format!("SELECT {COLUMNS} FROM {TABLES} WHERE top = ?1 OR (id = ?1 AND top IS NULL)");
        Ok(self.sql().prepare_cached(&sql)?.query_row([Id(file)], row).optional()?)
    }

    /// By id or, if none has this one, by name; one that is being deleted is not found.
    fn find_disk(&self, name_or_id: &str) -> Result<Option<DiskRow>, Fault> {
        let named = named("disks", "disks", "state");
        let sql = format!("SELECT {COLUMNS} FROM {TABLES} WHERE {named} ORDER BY id <> ?1 LIMIT 1");
        Ok(self.sql().prepare_cached(&sql)?.query_row([name_or_id], row).optional()?)
    }

    /// Up to `limit` usable ones of groups that `seen` holds, by name, after this one; `iso`: only ISO images, or only what is none,
    /// `image` likewise.
    fn disks_after(
        &self, name: &str, limit: u32, seen: Option<&str>, (iso, image): (Option<bool>, Option<bool>),
    ) -> Result<Vec<DiskRow>, Fault> {
        let sql = format!(
            "SELECT {COLUMNS} FROM {TABLES} WHERE state = 'ready' AND state <> 'deleting' AND name > ?1
             AND (?3 IS NULL OR grp IN (SELECT value FROM json_each(?3))) AND (?4 IS NULL OR iso = ?4)
             AND (?5 IS NULL OR (images.disk IS NOT NULL) = ?5) ORDER BY name LIMIT ?2"
        );
        let mut statement = self.sql().prepare_cached(&sql)?;
        let rows = statement.query_map(params![name, limit, seen, iso, image], row)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// All that are not ready.
    fn unready_disks(&self) -> Result<Vec<DiskRow>, Fault> {
        let sql = format!("SELECT {COLUMNS} FROM {TABLES} WHERE state <> 'ready'");
        let mut statement = self.sql().prepare_cached(&sql)?;
        let rows = statement.query_map([], row)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// A machine whose kernel or initial RAM disk it is.
    fn booted_from(&self, id: DiskId) -> Result<Option<String>, Fault> {
        let sql = "SELECT name FROM machines WHERE kernel = ?1 OR initrd = ?1 LIMIT 1";
        Ok(self.sql().prepare_cached(sql)?.query_row([Id(id)], |row| row.get(0)).optional()?)
    }

    /// Machines that have it as a disk, kernel or initial RAM disk, by name.
    fn disk_users(&self, id: DiskId) -> Result<Vec<DiskUser>, Fault> {
        let sql = "SELECT m.id, m.name, max(u.writes), m.slot IS NOT NULL, m.grp FROM (
                       SELECT machine AS id, NOT read_only AS writes FROM machine_disks WHERE disk = ?1
                       UNION ALL SELECT id, 0 FROM machines WHERE kernel = ?1
                       UNION ALL SELECT id, 0 FROM machines WHERE initrd = ?1
                   ) u JOIN machines m ON m.id = u.id GROUP BY m.id ORDER BY m.name";
        let mut statement = self.sql().prepare_cached(sql)?;
        let rows = statement.query_map([Id(id)], |row| {
            let name: String = row.get(1)?;
            Ok(DiskUser {
                machine: row.get::<_, Id<_>>(0)?.0,
                name: Text::lossy(&name),
                writes: row.get(2)?,
                active: row.get(3)?,
                group: row.get::<_, Id<_>>(4)?.0,
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

impl Disks for Db {
    fn sql(&self) -> &Connection {
        self.read()
    }
}
impl Disks for Change<'_> {
    fn sql(&self) -> &Connection {
        self
    }
}

impl Change<'_> {
    /// Adds a disk, and the file that it is kept in.
    pub fn add_disk(&self, disk: &DiskRow) -> Result<(), Fault> {
        if let Some(id) = disk.top {
            let layer = LayerRow { id, kind: disk.kind, base: disk.base, allocated: disk.allocated };
            self.add_layer(&layer, disk.group, false)?;
        }
        let sql = "INSERT INTO disks (id, name, kind, size, allocated, sha256, state, created_ns, grp, description, iso, top)
                   VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
        self.prepare_cached(sql)?.execute(params![
            Id(disk.id),
            disk.name.as_str(),
            disk_kind::number(disk.kind),
            Number(disk.size),
            Number(disk.allocated),
            disk.sha256.as_str(),
            disk.stage.word(),
            disk.created_ns,
            Id(disk.group),
            disk.description.as_str(),
            disk.iso,
            disk.top.map(Id)
        ])?;
        let Some(image) = &disk.image else { return Ok(()) };
        let sql = "INSERT INTO images (disk, source, os, user, min_disk, min_memory) VALUES (?, ?, ?, ?, ?, ?)";
        self.prepare_cached(sql)?.execute(params![
            Id(disk.id),
            image.source.as_str(),
            image.os.as_str(),
            image.user.as_str(),
            Number(image.min_disk),
            image.min_memory
        ])?;
        Ok(())
    }

    /// Writes its name, what is said of it, and its rates.
    pub fn set_disk(&self, disk: &DiskRow) -> Result<(), Fault> {
        let sql = "UPDATE disks SET name = ?, description = ?, read_bps = ?, write_bps = ?, read_iops = ?, write_iops = ?
                   WHERE id = ?";
        let DiskRates { read_bps, write_bps, read_iops, write_iops } = disk.rates;
        self.prepare_cached(sql)?.execute(params![
            disk.name.as_str(),
            disk.description.as_str(),
            Number(read_bps),
            Number(write_bps),
            Number(read_iops),
            Number(write_iops),
            Id(disk.id)
        ])?;
        let Some(image) = &disk.image else { return Ok(()) };
        let sql = "UPDATE images SET os = ?, user = ?, min_disk = ?, min_memory = ? WHERE disk = ?";
        let (os, user) = (image.os.as_str(), image.user.as_str());
        self.prepare_cached(sql)?.execute(params![os, user, Number(image.min_disk), image.min_memory, Id(disk.id)])?;
        Ok(())
    }

    /// A disk is ready, or its size changed: as storage-helper says.
    pub fn disk_ready(&self, id: DiskId, size: u64, allocated: u64, sha256: Option<&str>) -> Result<(), Fault> {
        let sql = "UPDATE disks SET state = 'ready', size = ?, allocated = ?, sha256 = coalesce(?, sha256) WHERE id = ?";
        self.prepare_cached(sql)?.execute(params![Number(size), Number(allocated), sha256, Id(id)])?;
        let sql = "UPDATE layers SET allocated = ? WHERE id = (SELECT top FROM disks WHERE id = ?)";
        self.prepare_cached(sql)?.execute(params![Number(allocated), Id(id)])?;
        Ok(())
    }

    /// It is to be deleted: its name is free.
    pub fn disk_doomed(&self, id: DiskId) -> Result<(), Fault> {
        self.prepare_cached("UPDATE disks SET state = 'deleting' WHERE id = ?")?.execute([Id(id)])?;
        Ok(())
    }

    /// It is gone, and so are files that nothing else needs, or they will be.
    pub fn remove_disk(&self, id: DiskId) -> Result<(), Fault> {
        self.prepare_cached("DELETE FROM disks WHERE id = ?")?.execute([Id(id)])?;
        self.doom_layers()
    }
}
