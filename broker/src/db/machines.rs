//! Machines as rows.

use super::disks::Stage;
use super::groups::{DEFAULT, DEFAULT_NAME};
use super::sql::{acceleration, controller, disk_kind, named, nic_model, restart};
use super::{Change, Db, Fault, Id, Number, devices};
use crate::spec::{Boot, Disk, Nic, Seat, Spec};
use rusqlite::{Connection, Row, params};
use skep_machine::{Device, Place};
use skep_proto::broker::{DiskFlags, Limits, MachineState, Upkeep};
use skep_proto::{GroupId, MachineId, MachineName, Text, wire};
use std::collections::{BTreeSet, HashMap};

/// A machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineRow {
    /// Its id.
    pub id: MachineId,
    /// Its name.
    pub name: MachineName,
    /// How far its definition is.
    pub stage: Stage,
    /// What it is doing.
    pub state: MachineState,
    /// Why it failed, or how it ended last.
    pub note: String,
    /// Raised by every change.
    pub revision: u64,
    /// What it is.
    pub spec: Spec,
    /// Free text.
    pub description: Text<256>,
    /// Whether it starts with the host, and again.
    pub upkeep: Upkeep,
    /// Its user wants it to run: it was started, and nobody stopped it.
    pub wanted: bool,
    /// Its number as long as anything of it may be on the host.
    pub slot: Option<u16>,
    /// What the running hypervisor was configured with.
    pub applied: Option<Spec>,
    /// When it was defined.
    pub created_ns: i64,
    /// When the hypervisor was started last; 0: never.
    pub started_ns: i64,
    /// Names of kernel and initial RAM disk.
    pub files: (Text<63>, Text<63>),
    /// Names of its disks, by slot.
    pub disk_names: Vec<Text<63>>,
    /// Name of each NIC, and of its switch.
    pub nic_names: Vec<(Text<63>, Text<63>)>,
    /// Its group.
    pub group: GroupId,
    /// Its group's name.
    pub group_name: Text<63>,
}

impl MachineRow {
    /// A new one.
    pub fn new(name: MachineName) -> Self {
        Self {
            id: MachineId::random(),
            name,
            stage: Stage::Ready,
            state: MachineState::Stopped,
            note: String::new(),
            revision: 1,
            spec: Spec::default(),
            description: Text::default(),
            upkeep: Upkeep::default(),
            wanted: false,
            slot: None,
            applied: None,
            created_ns: skep_service::now_ns(),
            started_ns: 0,
            files: Default::default(),
            disk_names: Vec::new(),
            nic_names: Vec::new(),
            group: DEFAULT,
            group_name: Text::lossy(DEFAULT_NAME),
        }
    }
}

/// Where to look.
#[derive(Debug, Clone, Copy)]
pub enum Which<'a> {
    /// This one, whatever its stage.
    Id(MachineId),
    /// By name or id, unless it is being deleted.
    Named(&'a str),
    /// Those that are ready, by name, after this name, up to so many, of the groups that the last one holds.
    After(&'a str, u32, Option<&'a str>),
    /// All that are not ready, or of which something may be on the host, or that should be doing something or be started again.
    Unsettled,
}

const COLUMNS: &str = "m.id, m.name, m.stage, m.state, m.note, m.revision, m.cpus, m.memory_mib, m.kernel, m.initrd, m.cmdline,
    m.acceleration, m.screen, m.cpu_percent, m.description, m.slot, m.applied, m.created_ns, m.started_ns,
    (SELECT name FROM disks WHERE id = m.kernel), (SELECT name FROM disks WHERE id = m.initrd), m.loader,
    m.limit_memory_mib, m.limit_tasks, m.limit_pcpu, m.limit_read_bps, m.limit_write_bps, m.limit_read_iops, m.limit_write_iops,
    m.limit_cpus, m.limit_pins, m.limit_priority, m.limit_protect, m.limit_wired,
    m.autostart, m.start_order, m.start_delay_s, m.restart, m.wanted, m.stop_timeout_s,
    m.grp, (SELECT name FROM machine_groups WHERE id = m.grp) AS group_name";

fn state(word: &str) -> Result<MachineState, rusqlite::types::FromSqlError> {
    MachineState::ALL.into_iter().find(|s| s.word() == word).ok_or(rusqlite::types::FromSqlError::InvalidType)
}

fn row(row: &Row<'_>) -> rusqlite::Result<MachineRow> {
    let text = |at: usize| row.get::<_, Option<String>>(at).map(|t| Text::lossy(&t.unwrap_or_default()));
    let boot = match row.get::<_, Option<Id<_>>>(8)? {
        None if row.get(21)? => Boot::Loader,
        None if row.get("bios")? => Boot::Bios,
        None => Boot::Uefi,
        Some(Id(kernel)) => {
            Boot::Direct { kernel, initrd: row.get::<_, Option<Id<_>>>(9)?.map(|Id(id)| id), cmdline: row.get::<_, Id<_>>(10)?.0 }
        }
    };
    let applied = row.get::<_, Option<Vec<u8>>>(16)?;
    let number = |at: usize| row.get::<_, Number>(at).map(|Number(n)| n);
    Ok(MachineRow {
        id: row.get::<_, Id<_>>(0)?.0,
        name: row.get::<_, Id<_>>(1)?.0,
        stage: Stage::from(row.get_ref(2)?.as_str()?)?,
        state: state(row.get_ref(3)?.as_str()?)?,
        note: row.get(4)?,
        revision: row.get::<_, Number>(5)?.0,
        spec: Spec {
            cpus: row.get(6)?,
            memory_mib: row.get::<_, Number>(7)?.0,
            boot,
            acceleration: acceleration::from(row.get(11)?)?,
            screen: row.get(12)?,
            cpu_percent: row.get(13)?,
            limits: Limits {
                memory_mib: row.get(22)?,
                tasks: row.get(23)?,
                pcpu: row.get(24)?,
                read_bps: number(25)?,
                write_bps: number(26)?,
                read_iops: number(27)?,
                write_iops: number(28)?,
                cpus: row.get::<_, Id<_>>(29)?.0,
                pins: row.get::<_, Id<_>>(30)?.0,
                priority: row.get(31)?,
                protect: row.get(32)?,
                wired: row.get(33)?,
            },
            ..devices::read(row)?
        },
        description: row.get::<_, Id<_>>(14)?.0,
        upkeep: Upkeep {
            autostart: row.get("autostart")?,
            order: row.get("start_order")?,
            delay_s: row.get("start_delay_s")?,
            restart: restart::from(row.get("restart")?)?,
            stop_timeout_s: row.get("stop_timeout_s")?,
        },
        wanted: row.get("wanted")?,
        slot: row.get(15)?,
        // One that an older broker wrote otherwise: unknown.
        applied: applied.and_then(devices::as_applied),
        created_ns: row.get(17)?,
        started_ns: row.get(18)?,
        files: (text(19)?, text(20)?),
        disk_names: Vec::new(),
        nic_names: Vec::new(),
        group: row.get::<_, Id<_>>("grp")?.0,
        group_name: Text::lossy(&row.get::<_, Option<String>>("group_name")?.unwrap_or_default()),
    })
}

/// Reads about machines, in or outside of a change.
pub trait Machines {
    /// The connection.
    fn sql(&self) -> &Connection;

    /// The highest slot that no machine has, nor had last.
    fn last_free_slot(&self, slots: u16) -> Result<Option<u16>, Fault> {
        let mut statement =
            self.sql().prepare_cached("SELECT slot, home FROM machines WHERE slot IS NOT NULL OR home IS NOT NULL")?;
        let mut taken = BTreeSet::new();
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            taken.extend(row.get::<_, Option<u16>>(0)?);
            taken.extend(row.get::<_, Option<u16>>(1)?);
        }
        Ok((0..slots).rev().find(|slot| !taken.contains(slot)))
    }

    /// Some machines, with their disks and NICs: three statements, however many there are.
    fn machines(&self, which: Which<'_>) -> Result<Vec<MachineRow>, Fault> {
        // The third parameter stands in each, so that one list of them serves all.
        let (filter, text, limit, seen) = match which {
            Which::Id(id) => ("m.id = ?1 AND ?3 IS NULL".to_owned(), id.to_string(), 1, None),
            Which::Named(name) => (named("machines", "m", "stage") + " AND ?3 IS NULL", name.to_owned(), 2, None),
            Which::After(name, limit, seen) => (
                // The second condition is what the index of names says.
                "m.stage = 'ready' AND m.stage <> 'deleting' AND m.name > ?1
                 AND (?3 IS NULL OR m.grp IN (SELECT value FROM json_each(?3)))"
                    .to_owned(),
                name.to_owned(),
                limit,
                seen,
            ),
            Which::Unsettled => (
                "?1 = '' AND ?3 IS NULL
                 AND NOT (m.stage = 'ready' AND m.slot IS NULL AND m.state IN ('stopped', 'failed') AND NOT m.wanted)"
                    .to_owned(),
                String::new(),
                u32::MAX,
                None,
            ),
        };
        let chosen = format!("SELECT m.id FROM machines m WHERE {filter} ORDER BY m.name LIMIT ?2");
        let sql = format!("SELECT {COLUMNS}, {} FROM machines m WHERE {filter} ORDER BY m.name LIMIT ?2", devices::COLUMNS);
        let mut statement = self.sql().prepare_cached(&sql)?;
        let mut machines = statement.query_map(params![text, limit, seen], row)?.collect::<Result<Vec<_>, _>>()?;
        let at: HashMap<MachineId, usize> = machines.iter().enumerate().map(|(at, m)| (m.id, at)).collect();

        let sql = format!(
            "SELECT u.machine, u.disk, u.controller, u.read_only, d.kind, d.name, u.no_cache, u.sync, u.slot, u.ejected, u.eject_once,
             u.seat_controller, u.seat_port, u.place FROM machine_disks u JOIN disks d ON d.id = u.disk
             WHERE u.machine IN ({chosen}) ORDER BY u.machine, u.position"
        );
        let mut statement = self.sql().prepare_cached(&sql)?;
        let mut rows = statement.query(params![text, limit, seen])?;
        while let Some(row) = rows.next()? {
            let Id(machine) = row.get(0)?;
            let Some(machine) = at.get(&machine).and_then(|at| machines.get_mut(*at)) else { continue };
            let disk = u8::try_from(machine.spec.disks.len()).map_err(|_| Fault::Row("machine_disks"))?;
            if let (Some(controller), Some(port)) = (row.get(11)?, row.get(12)?) {
                machine.spec.seats.push(Seat { disk, controller, port });
            }
            let kept = |slot| Place { device: Device::Disk(disk), slot };
            machine.spec.kept.extend(row.get::<_, Option<u8>>(13)?.map(kept));
            machine.spec.disks.push(Disk {
                disk: row.get::<_, Id<_>>(1)?.0,
                controller: controller::from(row.get(2)?).map_err(rusqlite::Error::from)?,
                read_only: row.get(3)?,
                kind: disk_kind::from(row.get(4)?).map_err(rusqlite::Error::from)?,
                flags: DiskFlags {
                    no_cache: row.get(6)?,
                    sync: row.get(7)?,
                    slot: row.get(8)?,
                    ejected: row.get(9)?,
                    eject_after_first_boot: row.get(10)?,
                },
            });
            machine.disk_names.push(row.get::<_, Id<_>>(5)?.0);
        }

        let sql = format!(
            "SELECT n.machine, n.id, n.mac, n.name, s.name, n.model, n.slot, n.place FROM nics n LEFT JOIN switches s ON s.id = n.switch
             WHERE n.machine IN ({chosen}) ORDER BY n.machine, n.position"
        );
        let mut statement = self.sql().prepare_cached(&sql)?;
        let mut rows = statement.query(params![text, limit, seen])?;
        while let Some(row) = rows.next()? {
            let Id(machine) = row.get(0)?;
            let Some(machine) = at.get(&machine).and_then(|at| machines.get_mut(*at)) else { continue };
            let model = nic_model::from(row.get(5)?).map_err(rusqlite::Error::from)?;
            let at = u8::try_from(machine.spec.nics.len()).map_err(|_| Fault::Row("nics"))?;
            let kept = |slot| Place { device: Device::Nic(at), slot };
            machine.spec.kept.extend(row.get::<_, Option<u8>>(7)?.map(kept));
            machine.spec.nics.push(Nic { nic: row.get::<_, Id<_>>(1)?.0, mac: row.get(2)?, model, slot: row.get(6)? });
            let switch: Option<String> = row.get(4)?;
            machine.nic_names.push((row.get::<_, Id<_>>(3)?.0, Text::lossy(&switch.unwrap_or_default())));
        }
        Ok(machines)
    }

    /// One machine.
    fn machine(&self, id: MachineId) -> Result<Option<MachineRow>, Fault> {
        Ok(self.machines(Which::Id(id))?.pop())
    }

    /// One machine by id or, if none has this one, by name: nobody gets what is another's by a name that looks like its id.
    fn find_machine(&self, name: &str) -> Result<Option<MachineRow>, Fault> {
        let mut found = self.machines(Which::Named(name))?;
        let by_id = found.iter().position(|m| m.id.to_string() == name).unwrap_or(0);
        Ok(if found.is_empty() { None } else { Some(found.swap_remove(by_id)) })
    }
}

impl Machines for Db {
    fn sql(&self) -> &Connection {
        self.read()
    }
}
impl Machines for Change<'_> {
    fn sql(&self) -> &Connection {
        self
    }
}

impl Change<'_> {
    /// Adds a machine, without NICs.
    pub fn add_machine(&self, machine: &MachineRow) -> Result<(), Fault> {
        let sql = "INSERT INTO machines (id, name, stage, state, note, cpus, memory_mib, acceleration, screen, cpu_percent, description,
                   created_ns, grp) VALUES (?, ?, ?, ?, ?, 1, 16, 0, 0, 0, '', ?, ?)";
        let (stage, state) = (machine.stage.word(), machine.state.word());
        self.prepare_cached(sql)?.execute(params![
            Id(machine.id),
            machine.name.as_str(),
            stage,
            state,
            machine.note,
            machine.created_ns,
            Id(machine.group)
        ])?;
        self.set_machine(machine)
    }

    /// Writes name, settings and disks. NICs are changed one by one, but for their places.
    pub fn set_machine(&self, machine: &MachineRow) -> Result<(), Fault> {
        let spec = &machine.spec;
        let (kernel, initrd, cmdline) = match &spec.boot {
            Boot::Uefi | Boot::Loader | Boot::Bios => (None, None, ""),
            Boot::Direct { kernel, initrd, cmdline } => (Some(Id(*kernel)), initrd.map(Id), cmdline.as_str()),
        };
        let sql = "UPDATE machines SET name = ?, revision = ?, cpus = ?, memory_mib = ?, kernel = ?, initrd = ?, cmdline = ?, loader = ?,
                   acceleration = ?, screen = ?, cpu_percent = ?, description = ?, limit_memory_mib = ?, limit_tasks = ?, limit_pcpu = ?,
                   limit_read_bps = ?, limit_write_bps = ?, limit_read_iops = ?, limit_write_iops = ?, limit_cpus = ?,
                   limit_pins = ?, limit_priority = ?, limit_protect = ?, limit_wired = ? WHERE id = ?";
        let limits = &spec.limits;
        self.prepare_cached(sql)?.execute(params![
            machine.name.as_str(),
            Number(machine.revision),
            spec.cpus,
            Number(spec.memory_mib),
            kernel,
            initrd,
            cmdline,
            spec.boot == Boot::Loader,
            acceleration::number(spec.acceleration),
            spec.screen,
            spec.cpu_percent,
            machine.description.as_str(),
            limits.memory_mib,
            limits.tasks,
            limits.pcpu,
            Number(limits.read_bps),
            Number(limits.write_bps),
            Number(limits.read_iops),
            Number(limits.write_iops),
            Id(&limits.cpus),
            Id(&limits.pins),
            limits.priority,
            limits.protect,
            limits.wired,
            Id(machine.id)
        ])?;
        self.set_devices(machine)?;
        self.prepare_cached("DELETE FROM machine_disks WHERE machine = ?")?.execute([Id(machine.id)])?;
        let sql = "INSERT INTO machine_disks (machine, position, disk, controller, read_only, no_cache, sync, slot, ejected, eject_once,
                   seat_controller, seat_port) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
        let mut statement = self.prepare_cached(sql)?;
        for (position, disk) in (0i64..).zip(&spec.disks) {
            let controller = controller::number(disk.controller);
            let DiskFlags { no_cache, sync, slot, ejected, eject_after_first_boot: once } = disk.flags;
            let (id, drive, read_only) = (Id(machine.id), Id(disk.disk), disk.read_only);
            let seat = spec.seats.iter().find(|seat| i64::from(seat.disk) == position);
            let (on, port) = (seat.map(|seat| seat.controller), seat.map(|seat| seat.port));
            statement
                .execute(params![id, position, drive, controller, read_only, no_cache, sync, slot, ejected, once, on, port])?;
        }
        self.set_places(machine)
    }

    /// Writes whether its user wants it to run.
    pub fn set_machine_wanted(&self, id: MachineId, wanted: bool) -> Result<(), Fault> {
        self.prepare_cached("UPDATE machines SET wanted = ? WHERE id = ?")?.execute(params![wanted, Id(id)])?;
        Ok(())
    }

    /// Writes what it is doing. Without a slot nothing of it is on the host.
    pub fn set_machine_state(&self, id: MachineId, state: MachineState, note: &str, slot: Option<u16>) -> Result<(), Fault> {
        let sql = "UPDATE machines SET state = ?1, note = ?2, slot = ?3, home = coalesce(?3, home),
                   applied = iif(?3 IS NULL, NULL, applied) WHERE id = ?4";
        self.prepare_cached(sql)?.execute(params![state.word(), note, slot, Id(id)])?;
        Ok(())
    }

    /// Writes what a hypervisor that was started at this time runs with.
    pub fn set_machine_applied(&self, id: MachineId, applied: &Spec, started_ns: i64) -> Result<(), Fault> {
        let bytes = wire::encode(applied).map_err(|_| Fault::Row("machines"))?;
        let sql = "UPDATE machines SET applied = ?, started_ns = ? WHERE id = ?";
        self.prepare_cached(sql)?.execute(params![bytes, started_ns, Id(id)])?;
        Ok(())
    }

    /// Writes how far its definition is.
    pub fn set_machine_stage(&self, id: MachineId, stage: Stage) -> Result<(), Fault> {
        self.prepare_cached("UPDATE machines SET stage = ? WHERE id = ?")?.execute(params![stage.word(), Id(id)])?;
        Ok(())
    }

    /// A slot that no machine has, of so many: the one that this machine had last, so that it keeps its uid; else the smallest that no
    /// machine had last; else the smallest. With it go the uids `machines + 2N` of the suite's block.
    pub fn free_slot(&self, machine: MachineId, slots: u16) -> Result<Option<u16>, Fault> {
        let mut statement =
            self.prepare_cached("SELECT id = ?, slot, home FROM machines WHERE slot IS NOT NULL OR home IS NOT NULL")?;
        let (mut taken, mut homes, mut own) = (BTreeSet::new(), BTreeSet::new(), None);
        let mut rows = statement.query([Id(machine)])?;
        while let Some(row) = rows.next()? {
            let (is_it, slot, home): (bool, Option<u16>, Option<u16>) = (row.get(0)?, row.get(1)?, row.get(2)?);
            taken.extend(slot);
            if is_it { own = home } else { homes.extend(home) }
        }
        let free = |slot: &u16| !taken.contains(slot);
        let smallest = || (0..slots).find(|slot| free(slot) && !homes.contains(slot)).or_else(|| (0..slots).find(free));
        Ok(own.filter(|slot| *slot < slots && free(slot)).or_else(smallest))
    }

    /// Removes a machine; its NICs stay, without one.
    pub fn remove_machine(&self, id: MachineId) -> Result<(), Fault> {
        self.prepare_cached("DELETE FROM machines WHERE id = ?")?.execute([Id(id)])?;
        Ok(())
    }
}
