//! NICs as rows.

use super::sql::{Number, nic_model};
use super::{Change, Db, Fault, Id};
use rusqlite::types::FromSqlError;
use rusqlite::{Connection, OptionalExtension, Row, params};
use skep_proto::broker::NicModel;
use skep_proto::net::PortForward;
use skep_proto::{Forwards, GroupId, MachineId, NicId, NicName, Rate, Rates, Subnet6, SwitchId, Text};
use std::collections::HashSet;
use std::net::Ipv4Addr;

/// A NIC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NicRow {
    /// Its id.
    pub id: NicId,
    /// Its name.
    pub name: NicName,
    /// Of its tap.
    pub number: u16,
    /// Its address.
    pub mac: [u8; 6],
    /// Its switch: id, name, number.
    pub switch: Option<(SwitchId, Text<63>, u16)>,
    /// Its machine: id, name.
    pub machine: Option<(MachineId, Text<63>)>,
    /// When it was made.
    pub created_ns: i64,
    /// Its group.
    pub group: GroupId,
    /// Its group's name.
    pub group_name: Text<63>,
    /// What it is to the guest.
    pub model: NicModel,
    /// Its chosen place on the PCI bus.
    pub slot: Option<u8>,
    /// What its users say of it.
    pub description: Text<256>,
    /// Its address on its switch's subnet.
    pub address: Option<Ipv4Addr>,
    /// How much goes through it.
    pub rates: Rates,
    /// No frame goes between it and others on its switch that are isolated, too.
    pub isolated: bool,
    /// Ports of the host's that lead to its guest.
    pub forwards: Forwards,
    /// Its switch's IPv6 network, of which the switch's row is the truth.
    pub subnet6: Option<Subnet6>,
}

const SELECT: &str = "SELECT n.id, n.name, n.number, n.mac, s.id, s.name, s.number, m.id, m.name, n.created_ns,
    n.grp, (SELECT name FROM machine_groups WHERE id = n.grp), n.model, n.slot, n.description, n.address,
    n.rate_in, n.rate_out, n.isolated, n.forwards, s.subnet6
    FROM nics n LEFT JOIN switches s ON s.id = n.switch LEFT JOIN machines m ON m.id = n.machine";

fn row(row: &Row<'_>) -> rusqlite::Result<NicRow> {
    let text = |at: usize| row.get::<_, Option<String>>(at).map(|t| Text::lossy(&t.unwrap_or_default()));
    let switch = match row.get::<_, Option<Id<_>>>(4)? {
        Some(Id(id)) => Some((id, text(5)?, row.get(6)?)),
        None => None,
    };
    let machine = match row.get::<_, Option<Id<_>>>(7)? {
        Some(Id(id)) => Some((id, text(8)?)),
        None => None,
    };
    let rate = |at: usize| -> rusqlite::Result<Option<Rate>> {
        let bits = row.get::<_, Option<Number>>(at)?;
        Ok(bits.map(|Number(bits)| Rate::new(bits).map_err(|_| FromSqlError::InvalidType)).transpose()?)
    };
    Ok(NicRow {
        id: row.get::<_, Id<_>>(0)?.0,
        name: row.get::<_, Id<_>>(1)?.0,
        number: row.get(2)?,
        mac: row.get(3)?,
        switch,
        machine,
        created_ns: row.get(9)?,
        group: row.get::<_, Id<_>>(10)?.0,
        group_name: text(11)?,
        model: nic_model::from(row.get(12)?)?,
        slot: row.get(13)?,
        description: row.get::<_, Id<_>>(14)?.0,
        address: row.get::<_, Option<Id<_>>>(15)?.map(|Id(address)| address),
        rates: Rates { inward: rate(16)?, outward: rate(17)? },
        isolated: row.get(18)?,
        forwards: row.get::<_, Id<_>>(19)?.0,
        subnet6: match row.get::<_, Option<String>>(20)?.as_deref() {
            None | Some("") => None,
            Some(text) => Some(text.parse().map_err(|_| FromSqlError::InvalidType)?),
        },
    })
}

fn bits(rate: Rate) -> Number {
    Number(rate.bits())
}

/// Reads about NICs, in or outside of a change.
pub trait Nics {
    /// The connection.
    fn sql(&self) -> &Connection;

    /// By id or, if none has this one, by name.
    fn find_nic(&self, name_or_id: &str) -> Result<Option<NicRow>, Fault> {
        let sql = format!("{SELECT} WHERE n.name = ?1 OR n.id = ?1 ORDER BY n.id <> ?1 LIMIT 1");
        Ok(self.sql().prepare_cached(&sql)?.query_row([name_or_id], row).optional()?)
    }

    /// The one with this address.
    fn nic_with_mac(&self, mac: [u8; 6]) -> Result<Option<NicRow>, Fault> {
        let sql = format!("{SELECT} WHERE n.mac = ?");
        Ok(self.sql().prepare_cached(&sql)?.query_row([mac], row).optional()?)
    }

    /// Up to `limit` of groups that `seen` holds, by name, after this one.
    fn nics_after(&self, name: &str, limit: u32, seen: Option<&str>) -> Result<Vec<NicRow>, Fault> {
        let sql = format!(
            "{SELECT} WHERE n.name > ?1 AND (?3 IS NULL OR n.grp IN (SELECT value FROM json_each(?3))) ORDER BY n.name LIMIT ?2"
        );
        let mut statement = self.sql().prepare_cached(&sql)?;
        let rows = statement.query_map(params![name, limit, seen], row)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Addresses that NICs have on a switch.
    fn addresses_on(&self, switch: SwitchId) -> Result<HashSet<Ipv4Addr>, Fault> {
        let mut statement = self.sql().prepare_cached("SELECT address FROM nics WHERE switch = ? AND address IS NOT NULL")?;
        let rows = statement.query_map([Id(switch)], |row| row.get::<_, Id<Ipv4Addr>>(0))?;
        Ok(rows.map(|row| row.map(|Id(address)| address)).collect::<Result<_, _>>()?)
    }

    /// Ports of the host's that lead to guests on a switch.
    fn forwards_on(&self, switch: SwitchId) -> Result<Vec<PortForward>, Fault> {
        let sql = "SELECT address, forwards FROM nics WHERE switch = ? AND address IS NOT NULL AND forwards <> '' ORDER BY id";
        let mut statement = self.sql().prepare_cached(sql)?;
        let rows = statement.query_map([Id(switch)], |row| Ok((row.get::<_, Id<_>>(0)?.0, row.get::<_, Id<Forwards>>(1)?.0)))?;
        let mut all = Vec::new();
        for row in rows {
            let (guest, forwards) = row?;
            all.extend(forwards.iter().map(|forward| PortForward { forward: *forward, guest }));
        }
        Ok(all)
    }

    /// Those that have forwards.
    fn nics_with_forwards(&self) -> Result<Vec<NicRow>, Fault> {
        let sql = format!("{SELECT} WHERE n.forwards <> ''");
        let mut statement = self.sql().prepare_cached(&sql)?;
        let rows = statement.query_map([], row)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Those on a switch whose machines may run.
    fn nics_at_work(&self, switch: SwitchId) -> Result<Vec<NicRow>, Fault> {
        let sql = format!("{SELECT} WHERE n.switch = ? AND m.slot IS NOT NULL ORDER BY n.id");
        let mut statement = self.sql().prepare_cached(&sql)?;
        let rows = statement.query_map([Id(switch)], row)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Those whose machines may run, on whichever switch, or on none.
    fn all_nics_at_work(&self) -> Result<Vec<NicRow>, Fault> {
        let sql = format!("{SELECT} WHERE m.slot IS NOT NULL ORDER BY n.id");
        let mut statement = self.sql().prepare_cached(&sql)?;
        let rows = statement.query_map([], row)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Those of a machine, by slot.
    fn nics_of(&self, machine: MachineId) -> Result<Vec<NicRow>, Fault> {
        let sql = format!("{SELECT} WHERE n.machine = ? ORDER BY n.position");
        let mut statement = self.sql().prepare_cached(&sql)?;
        let rows = statement.query_map([Id(machine)], row)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

impl Nics for Db {
    fn sql(&self) -> &Connection {
        self.read()
    }
}
impl Nics for Change<'_> {
    fn sql(&self) -> &Connection {
        self
    }
}

impl Change<'_> {
    /// A number for a new NIC.
    pub fn nic_number(&self) -> Result<Option<u16>, Fault> {
        self.free_number("nics")
    }

    /// Adds a NIC, without a machine.
    pub fn add_nic(&self, nic: &NicRow) -> Result<(), Fault> {
        let sql = "INSERT INTO nics (id, name, number, mac, switch, created_ns, grp, model, slot, description, address,
                   rate_in, rate_out, isolated, forwards) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
        let switch = nic.switch.as_ref().map(|(id, ..)| Id(*id));
        self.prepare_cached(sql)?.execute(params![
            Id(nic.id),
            nic.name.as_str(),
            nic.number,
            nic.mac,
            switch,
            nic.created_ns,
            Id(nic.group),
            nic_model::number(nic.model),
            nic.slot,
            nic.description.as_str(),
            nic.address.map(Id),
            nic.rates.inward.map(bits),
            nic.rates.outward.map(bits),
            nic.isolated,
            nic.forwards.to_string()
        ])?;
        Ok(())
    }

    /// Writes what can be changed of it, which is all but whose it is.
    pub fn set_nic(&self, nic: &NicRow) -> Result<(), Fault> {
        let sql = "UPDATE nics SET name = ?, mac = ?, switch = ?, model = ?, slot = ?, description = ?, address = ?,
                   rate_in = ?, rate_out = ?, isolated = ?, forwards = ? WHERE id = ?";
        self.prepare_cached(sql)?.execute(params![
            nic.name.as_str(),
            nic.mac,
            nic.switch.as_ref().map(|(id, ..)| Id(*id)),
            nic_model::number(nic.model),
            nic.slot,
            nic.description.as_str(),
            nic.address.map(Id),
            nic.rates.inward.map(bits),
            nic.rates.outward.map(bits),
            nic.isolated,
            nic.forwards.to_string(),
            Id(nic.id)
        ])?;
        Ok(())
    }

    /// Gives it to a machine, last, or to none: what somebody does by hand, so it stays from then on.
    pub fn set_nic_machine(&self, nic: NicId, machine: Option<MachineId>) -> Result<(), Fault> {
        self.put_nic(nic, machine, None)
    }

    /// `place`: where it is on the PCI bus; none: where it is free.
    fn put_nic(&self, nic: NicId, machine: Option<MachineId>, place: Option<u8>) -> Result<(), Fault> {
        let sql = "UPDATE nics SET machine = ?1, goes_along = 0, position = (SELECT coalesce(max(position) + 1, 0) FROM nics WHERE machine = ?1),
                   place = ?3 WHERE id = ?2";
        self.prepare_cached(sql)?.execute(params![machine.map(Id), Id(nic), place])?;
        machine.map_or(Ok(()), |machine| self.keep_places(machine))
    }

    /// Gives it to a machine that it was made for, and goes along with. `place`: where it is on the PCI bus, as where another one is whose
    /// machine was copied; none: where it is free.
    pub fn set_nic_made_for(&self, nic: NicId, machine: MachineId, place: Option<u8>) -> Result<(), Fault> {
        self.put_nic(nic, Some(machine), place)?;
        self.prepare_cached("UPDATE nics SET goes_along = 1 WHERE id = ?")?.execute([Id(nic)])?;
        Ok(())
    }

    /// Whether it goes along with its machine.
    pub fn nic_goes_along(&self, nic: NicId) -> Result<bool, Fault> {
        let sql = "SELECT goes_along FROM nics WHERE id = ?";
        Ok(self.prepare_cached(sql)?.query_row([Id(nic)], |row| row.get(0)).optional()?.unwrap_or(false))
    }

    /// Removes a NIC.
    pub fn remove_nic(&self, id: NicId) -> Result<(), Fault> {
        self.prepare_cached("DELETE FROM nics WHERE id = ?")?.execute([Id(id)])?;
        Ok(())
    }
}
