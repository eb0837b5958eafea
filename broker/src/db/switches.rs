//! Switches as rows.

use super::sql::switch_kind;
use super::{Change, Db, Fault, Id};
use rusqlite::{Connection, OptionalExtension, Row, params};
use skep_proto::broker::SwitchKind;
use skep_proto::net::{Gateway, Reach};
use skep_proto::tunnel::Tunnel;
use skep_proto::{IfName, Subnet, Subnet6, SwitchId, SwitchName, Text};

/// A switch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SwitchRow {
    /// Its id.
    pub id: SwitchId,
    /// Its name.
    pub name: SwitchName,
    /// Of its bridge.
    pub number: u16,
    /// The host's interface that joins it.
    pub uplink: Option<IfName>,
    /// When it was made.
    pub created_ns: i64,
    /// NICs connected to it.
    pub nics: u32,
    /// Open to every group.
    pub open: bool,
    /// Names of groups that it is open to.
    pub groups: Vec<Text<63>>,
    /// What its users say of it.
    pub description: Text<256>,
    /// What it is.
    pub kind: SwitchKind,
    /// Its subnet, if it is not plain.
    pub subnet: Option<Subnet>,
    /// To the same switch on other hosts.
    pub tunnel: Option<Tunnel>,
    /// Its IPv6 network, if it is not plain and has one.
    pub subnet6: Option<Subnet6>,
}

impl SwitchRow {
    /// The host on it.
    pub fn gateway(&self) -> Option<Gateway> {
        let reach = match self.kind {
            SwitchKind::Plain | SwitchKind::Netgraph => return None,
            SwitchKind::HostOnly => Reach::Host,
            SwitchKind::Nat => Reach::Out,
        };
        Some(Gateway { subnet: self.subnet?, reach, subnet6: self.subnet6 })
    }
}

const COLUMNS: &str = "id, name, number, uplink, created_ns, (SELECT count(*) FROM nics WHERE switch = switches.id),
    EXISTS (SELECT 1 FROM switch_groups o WHERE o.switch = switches.id AND o.grp = ''),
    (SELECT group_concat(name, ' ') FROM (SELECT g.name AS name FROM switch_groups o JOIN machine_groups g ON g.id = o.grp
        WHERE o.switch = switches.id ORDER BY g.name LIMIT 50)), description, kind, subnet, tunnel, subnet6";

fn row(row: &Row<'_>) -> rusqlite::Result<SwitchRow> {
    let uplink = row.get_ref(3)?.as_str()?;
    let uplink =
        if uplink.is_empty() { None } else { Some(uplink.parse().map_err(|_| rusqlite::types::FromSqlError::InvalidType)?) };
    Ok(SwitchRow {
        id: row.get::<_, Id<_>>(0)?.0,
        name: row.get::<_, Id<_>>(1)?.0,
        number: row.get(2)?,
        uplink,
        created_ns: row.get(4)?,
        nics: row.get(5)?,
        open: row.get(6)?,
        // No name has a blank in it.
        groups: row.get::<_, Option<String>>(7)?.unwrap_or_default().split_whitespace().map(Text::lossy).collect(),
        description: row.get::<_, Id<_>>(8)?.0,
        kind: switch_kind::from(row.get(9)?)?,
        subnet: match row.get_ref(10)?.as_str()? {
            "" => None,
            text => Some(text.parse().map_err(|_| rusqlite::types::FromSqlError::InvalidType)?),
        },
        tunnel: match row.get_ref(11)?.as_str()? {
            "" => None,
            text => Some(text.parse().map_err(|_| rusqlite::types::FromSqlError::InvalidType)?),
        },
        subnet6: match row.get_ref(12)?.as_str()? {
            "" => None,
            text => Some(text.parse().map_err(|_| rusqlite::types::FromSqlError::InvalidType)?),
        },
    })
}

/// Reads about switches, in or outside of a change.
pub trait Switches {
    /// The connection.
    fn sql(&self) -> &Connection;

    /// By id or, if none has this one, by name.
    fn find_switch(&self, name_or_id: &str) -> Result<Option<SwitchRow>, Fault> {
        let sql = format!("SELECT {COLUMNS} FROM switches WHERE name = ?1 OR id = ?1 ORDER BY id <> ?1 LIMIT 1");
        Ok(self.sql().prepare_cached(&sql)?.query_row([name_or_id], row).optional()?)
    }

    /// Every subnet.
    fn subnets(&self) -> Result<Vec<Subnet>, Fault> {
        let mut statement = self.sql().prepare_cached("SELECT subnet FROM switches WHERE subnet <> ''")?;
        let rows = statement.query_map([], |row| row.get::<_, Id<Subnet>>(0))?;
        Ok(rows.map(|row| row.map(|Id(subnet)| subnet)).collect::<Result<_, _>>()?)
    }

    /// Every IPv6 network.
    fn subnets6(&self) -> Result<Vec<Subnet6>, Fault> {
        let mut statement = self.sql().prepare_cached("SELECT subnet6 FROM switches WHERE subnet6 <> ''")?;
        let rows = statement.query_map([], |row| row.get::<_, Id<Subnet6>>(0))?;
        Ok(rows.map(|row| row.map(|Id(subnet)| subnet)).collect::<Result<_, _>>()?)
    }

    /// Up to `limit`, by name, after this one.
    fn switches_after(&self, name: &str, limit: u32) -> Result<Vec<SwitchRow>, Fault> {
        let sql = format!("SELECT {COLUMNS} FROM switches WHERE name > ? ORDER BY name LIMIT ?");
        let mut statement = self.sql().prepare_cached(&sql)?;
        let rows = statement.query_map(params![name, limit], row)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

impl Switches for Db {
    fn sql(&self) -> &Connection {
        self.read()
    }
}
impl Switches for Change<'_> {
    fn sql(&self) -> &Connection {
        self
    }
}

impl Change<'_> {
    /// The smallest number that no row of `table` (`switches` or `nics`) has; none if all are taken.
    pub(super) fn free_number(&self, table: &str) -> Result<Option<u16>, Fault> {
        let sql = format!(
            "SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM {table} WHERE number = 0) UNION ALL
             SELECT min(number) + 1 FROM {table} t WHERE NOT EXISTS (SELECT 1 FROM {table} WHERE number = t.number + 1) LIMIT 1"
        );
        let number: Option<i64> = self.prepare_cached(&sql)?.query_row([], |row| row.get(0)).optional()?.flatten();
        Ok(number.and_then(|n| u16::try_from(n).ok()))
    }

    /// A number for a new switch.
    pub fn switch_number(&self) -> Result<Option<u16>, Fault> {
        self.free_number("switches")
    }

    /// Adds a switch.
    pub fn add_switch(&self, switch: &SwitchRow) -> Result<(), Fault> {
        let sql = "INSERT INTO switches (id, name, number, uplink, created_ns, kind, subnet, tunnel, subnet6)
            VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)";
        let uplink = switch.uplink.as_ref().map_or("", IfName::as_str);
        self.prepare_cached(sql)?.execute(params![
            Id(switch.id),
            switch.name.as_str(),
            switch.number,
            uplink,
            switch.created_ns,
            switch_kind::number(switch.kind),
            switch.subnet.map(|subnet| subnet.to_string()).unwrap_or_default(),
            switch.tunnel.as_ref().map(Tunnel::to_string).unwrap_or_default(),
            switch.subnet6.map(|subnet| subnet.to_string()).unwrap_or_default()
        ])?;
        Ok(())
    }

    /// Writes its name, its uplink and what is said of it.
    pub fn set_switch(&self, switch: &SwitchRow) -> Result<(), Fault> {
        let uplink = switch.uplink.as_ref().map_or("", IfName::as_str);
        let sql = "UPDATE switches SET name = ?, uplink = ?, description = ? WHERE id = ?";
        self.prepare_cached(sql)?.execute(params![switch.name.as_str(), uplink, switch.description.as_str(), Id(switch.id)])?;
        Ok(())
    }

    /// Writes its subnet.
    pub fn set_subnet(&self, id: SwitchId, subnet: Subnet) -> Result<(), Fault> {
        self.prepare_cached("UPDATE switches SET subnet = ? WHERE id = ?")?.execute(params![Id(subnet), Id(id)])?;
        Ok(())
    }

    /// Writes its IPv6 network.
    pub fn set_subnet6(&self, id: SwitchId, subnet: Subnet6) -> Result<(), Fault> {
        self.prepare_cached("UPDATE switches SET subnet6 = ? WHERE id = ?")?.execute(params![Id(subnet), Id(id)])?;
        Ok(())
    }

    /// Removes a switch.
    pub fn remove_switch(&self, id: SwitchId) -> Result<(), Fault> {
        self.prepare_cached("DELETE FROM switches WHERE id = ?")?.execute([Id(id)])?;
        Ok(())
    }
}
