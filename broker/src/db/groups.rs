//! Groups as rows, and which objects are in which.

use super::sql::named;
use super::{Change, Db, Fault, Id, Number};
use rusqlite::{Connection, OptionalExtension, Row, params};
use skep_proto::broker::{Quota, Ref};
use skep_proto::{DiskId, GroupId, GroupName, MachineId, OperationId, SwitchId, Text};

/// The group that is there from the start.
pub const DEFAULT: GroupId = GroupId::from_u128(0);
/// Its name, until it is given another.
pub const DEFAULT_NAME: &str = "default";

/// A group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupRow {
    /// Its id.
    pub id: GroupId,
    /// Its name.
    pub name: GroupName,
    /// What it may have.
    pub quota: Quota,
    /// When it was made.
    pub created_ns: i64,
}

/// Kinds of objects that are in groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Member {
    /// Machines.
    Machine,
    /// Disks.
    Disk,
    /// NICs.
    Nic,
}

const COLUMNS: &str = "id, name, max_machines, max_cpus, max_memory_mib, max_disk_bytes, created_ns";

fn row(row: &Row<'_>) -> rusqlite::Result<GroupRow> {
    let (Number(memory_mib), Number(disk_bytes)) = (row.get(4)?, row.get(5)?);
    Ok(GroupRow {
        id: row.get::<_, Id<_>>(0)?.0,
        name: row.get::<_, Id<_>>(1)?.0,
        quota: Quota { machines: row.get(2)?, cpus: row.get(3)?, memory_mib, disk_bytes },
        created_ns: row.get(6)?,
    })
}

/// Reads about groups, in or outside of a change.
pub trait Groups {
    /// The connection.
    fn sql(&self) -> &Connection;

    /// By id or, if none has this one, by name.
    fn find_group(&self, name_or_id: &str) -> Result<Option<GroupRow>, Fault> {
        let sql = format!("SELECT {COLUMNS} FROM machine_groups WHERE name = ?1 OR id = ?1 ORDER BY id <> ?1 LIMIT 1");
        Ok(self.sql().prepare_cached(&sql)?.query_row([name_or_id], row).optional()?)
    }

    /// The one that a request names, or the one that is there from the start, whatever it is called by now.
    fn named_group(&self, name: Option<&Ref>) -> Result<Option<GroupRow>, Fault> {
        name.map_or_else(|| self.group(DEFAULT), |name| self.find_group(name.as_str()))
    }

    /// By id.
    fn group(&self, id: GroupId) -> Result<Option<GroupRow>, Fault> {
        let sql = format!("SELECT {COLUMNS} FROM machine_groups WHERE id = ?");
        Ok(self.sql().prepare_cached(&sql)?.query_row([Id(id)], row).optional()?)
    }

    /// Its name; empty: there is no such group.
    fn group_name(&self, id: GroupId) -> Result<Text<63>, Fault> {
        let sql = "SELECT name FROM machine_groups WHERE id = ?";
        let name = self.sql().prepare_cached(sql)?.query_row([Id(id)], |row| row.get::<_, String>(0)).optional()?;
        Ok(Text::lossy(&name.unwrap_or_default()))
    }

    /// Up to `limit` of those that `seen` holds, by name, after this one.
    fn groups_after(&self, name: &str, limit: u32, seen: Option<&str>) -> Result<Vec<GroupRow>, Fault> {
        let sql = format!(
            "SELECT {COLUMNS} FROM machine_groups WHERE name > ?1 AND (?3 IS NULL OR id IN (SELECT value FROM json_each(?3)))
             ORDER BY name LIMIT ?2"
        );
        let mut statement = self.sql().prepare_cached(&sql)?;
        let rows = statement.query_map(params![name, limit, seen], row)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// The group of an object, by its name or id, found as the object is found elsewhere.
    fn group_of(&self, kind: Member, name_or_id: &str) -> Result<Option<GroupId>, Fault> {
        let (table, named) = match kind {
            Member::Machine => ("machines", named("machines", "machines", "stage")),
            Member::Disk => ("disks", named("disks", "disks", "state")),
            Member::Nic => ("nics", "name = ?1 OR id = ?1".to_owned()),
        };
        let sql = format!("SELECT grp FROM {table} WHERE {named} ORDER BY id <> ?1 LIMIT 1");
        let found = self.sql().prepare_cached(&sql)?.query_row([name_or_id], |row| row.get::<_, Id<_>>(0)).optional()?;
        Ok(found.map(|Id(group)| group))
    }

    /// The group of an operation; none: there is no such operation, or it is the host's.
    fn group_of_operation(&self, id: OperationId) -> Result<Option<Option<GroupId>>, Fault> {
        let sql = "SELECT grp FROM operations WHERE id = ?";
        let found = self.sql().prepare_cached(sql)?.query_row([Id(id)], |row| row.get::<_, Option<Id<_>>>(0)).optional()?;
        Ok(found.map(|group| group.map(|Id(group)| group)))
    }

    /// What a group has. Disks count with their sizes until their files are gone, what snapshots and deleted disks leave under them with what it
    /// occupies. What iSCSI targets keep is not the host's.
    fn usage(&self, group: GroupId) -> Result<Quota, Fault> {
        let sql = "SELECT count(*), coalesce(sum(cpus), 0), coalesce(sum(memory_mib), 0) FROM machines
                   WHERE grp = ? AND stage <> 'deleting'";
        let mut quota = self.sql().prepare_cached(sql)?.query_row([Id(group)], |row| {
            let Number(memory_mib) = row.get(2)?;
            Ok(Quota { machines: row.get(0)?, cpus: row.get(1)?, memory_mib, disk_bytes: 0 })
        })?;
        let sql =
            "SELECT coalesce((SELECT sum(size) FROM disks WHERE grp = ?1 AND kind <> 3), 0) + coalesce((SELECT sum(allocated) FROM layers l
                   WHERE grp = ?1 AND NOT EXISTS (SELECT 1 FROM disks WHERE top = l.id)), 0)";
        let Number(bytes) = self.sql().prepare_cached(sql)?.query_row([Id(group)], |row| row.get(0))?;
        quota.disk_bytes = bytes;
        Ok(quota)
    }

    /// NICs of a group.
    fn nics_in(&self, group: GroupId) -> Result<u32, Fault> {
        Ok(self.sql().prepare_cached("SELECT count(*) FROM nics WHERE grp = ?")?.query_row([Id(group)], |row| row.get(0))?)
    }

    /// Whether a switch is open to a group.
    fn switch_is_open(&self, switch: SwitchId, group: GroupId) -> Result<bool, Fault> {
        let sql = "SELECT 1 FROM switch_groups WHERE switch = ? AND grp IN ('', ?)";
        Ok(self.sql().prepare_cached(sql)?.exists(params![Id(switch), Id(group)])?)
    }
}

impl Groups for Db {
    fn sql(&self) -> &Connection {
        self.read()
    }
}
impl Groups for Change<'_> {
    fn sql(&self) -> &Connection {
        self
    }
}

impl Change<'_> {
    /// Adds a group.
    pub fn add_group(&self, group: &GroupRow) -> Result<(), Fault> {
        let sql = "INSERT INTO machine_groups (id, name, created_ns) VALUES (?, ?, ?)";
        self.prepare_cached(sql)?.execute(params![Id(group.id), group.name.as_str(), group.created_ns])?;
        self.set_quota(group.id, group.quota)
    }

    /// Calls it so.
    pub fn rename_group(&self, group: GroupId, name: &GroupName) -> Result<(), Fault> {
        self.prepare_cached("UPDATE machine_groups SET name = ? WHERE id = ?")?.execute(params![name.as_str(), Id(group)])?;
        Ok(())
    }

    /// Changes what it may have.
    pub fn set_quota(&self, group: GroupId, quota: Quota) -> Result<(), Fault> {
        let sql = "UPDATE machine_groups SET max_machines = ?, max_cpus = ?, max_memory_mib = ?, max_disk_bytes = ? WHERE id = ?";
        let Quota { machines, cpus, memory_mib, disk_bytes } = quota;
        self.prepare_cached(sql)?.execute(params![machines, cpus, Number(memory_mib), Number(disk_bytes), Id(group)])?;
        Ok(())
    }

    /// Whether nothing is in it, not even what is being deleted.
    pub fn group_is_empty(&self, group: GroupId) -> Result<bool, Fault> {
        let sql = "SELECT 1 FROM machines WHERE grp = ?1 UNION ALL SELECT 1 FROM disks WHERE grp = ?1
                   UNION ALL SELECT 1 FROM nics WHERE grp = ?1 UNION ALL SELECT 1 FROM layers WHERE grp = ?1";
        Ok(!self.prepare_cached(sql)?.exists([Id(group)])?)
    }

    /// Removes it, with the roles in it.
    pub fn remove_group(&self, group: GroupId) -> Result<(), Fault> {
        for sql in [
            "DELETE FROM roles WHERE grp = ?",
            "DELETE FROM switch_groups WHERE grp = ?",
            "DELETE FROM machine_groups WHERE id = ?",
        ] {
            self.prepare_cached(sql)?.execute([Id(group)])?;
        }
        Ok(())
    }

    /// Moves a machine and its NICs.
    pub fn move_machine(&self, machine: MachineId, group: GroupId) -> Result<(), Fault> {
        self.prepare_cached("UPDATE machines SET grp = ? WHERE id = ?")?.execute(params![Id(group), Id(machine)])?;
        self.prepare_cached("UPDATE nics SET grp = ? WHERE machine = ?")?.execute(params![Id(group), Id(machine)])?;
        Ok(())
    }

    /// Moves a disk.
    pub fn move_disk(&self, disk: DiskId, group: GroupId) -> Result<(), Fault> {
        self.prepare_cached("UPDATE disks SET grp = ? WHERE id = ?")?.execute(params![Id(group), Id(disk)])?;
        // What only it and its snapshots need goes along.
        let sql = "WITH RECURSIVE own (id, base) AS (
                       SELECT l.id, l.base FROM layers l JOIN disks ON disks.top = l.id WHERE disks.id = ?2
                       UNION ALL SELECT l.id, l.base FROM layers l JOIN snapshots ON snapshots.layer = l.id WHERE snapshots.disk = ?2
                       UNION SELECT l.id, l.base FROM layers l JOIN own ON l.id = own.base
                       WHERE NOT EXISTS (SELECT 1 FROM disks WHERE top = l.id))
                   UPDATE layers SET grp = ?1 WHERE id IN (SELECT id FROM own)";
        self.prepare_cached(sql)?.execute(params![Id(group), Id(disk)])?;
        Ok(())
    }

    /// Opens a switch to a group (none: to all), or closes it.
    pub fn open_switch(&self, switch: SwitchId, group: Option<GroupId>, open: bool) -> Result<(), Fault> {
        let group = group.map(|group| group.to_string()).unwrap_or_default();
        let sql = if open {
            "INSERT INTO switch_groups (switch, grp) VALUES (?, ?) ON CONFLICT DO NOTHING"
        } else {
            "DELETE FROM switch_groups WHERE switch = ? AND grp = ?"
        };
        self.prepare_cached(sql)?.execute(params![Id(switch), group])?;
        Ok(())
    }
}
