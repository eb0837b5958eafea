//! Our types as columns.

use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
use std::fmt::Display;
use std::str::FromStr;

/// An id, name or other text that validates when it is parsed, as a TEXT column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Id<T>(pub T);

impl<T: Display> ToSql for Id<T> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.0.to_string().into())
    }
}
impl<T: FromStr> FromSql for Id<T> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        value.as_str()?.parse().map(Id).map_err(|_| FromSqlError::InvalidType)
    }
}

/// A number that has all 64 bits, as an INTEGER column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Number(pub u64);

impl ToSql for Number {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.0.cast_signed().into())
    }
}
impl FromSql for Number {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        value.as_i64().map(|n| Self(n.cast_unsigned()))
    }
}

/// Small enums as INTEGER columns: their place in the list.
/// The condition that `row`, one of `table`, has this name or id (`?1`) and is not being deleted, as its column `state` says. An index finds
/// each; of "name OR id" SQLite would look through all, and of the index of names if `state` were not said as the index says it.
pub fn named(table: &str, row: &str, state: &str) -> String {
    format!(
        "{row}.{state} <> 'deleting'
         AND {row}.id IN (SELECT id FROM {table} WHERE {state} <> 'deleting' AND name = ?1 UNION ALL SELECT ?1)"
    )
}

macro_rules! numbered {
    ($($name:ident: $type:ty = $($variant:path),*;)*) => {$(
        pub(crate) mod $name {
            #![allow(unused_imports)]
            use super::*;
            const ALL: &[$type] = &[$($variant),*];
            /// As it is stored.
            pub fn number(value: $type) -> i64 {
                ALL.iter().position(|v| *v == value).and_then(|n| i64::try_from(n).ok()).unwrap_or(-1)
            }
            /// As it was stored.
            pub fn from(number: i64) -> Result<$type, FromSqlError> {
                usize::try_from(number).ok().and_then(|n| ALL.get(n)).copied().ok_or(FromSqlError::OutOfRange(number))
            }
        }
    )*};
}

use skep_proto::broker::{Acceleration, BusKind, Controller, Gdb, NicModel, Restart, Role, SwitchKind};
use skep_proto::storage::DiskKind;

numbered! {
    switch_kind: SwitchKind = SwitchKind::Plain, SwitchKind::HostOnly, SwitchKind::Nat, SwitchKind::Netgraph;
    disk_kind: DiskKind = DiskKind::Raw, DiskKind::Qcow2, DiskKind::Zvol, DiskKind::Iscsi;
    controller: Controller = Controller::VirtioBlk, Controller::Nvme, Controller::Ahci, Controller::AhciCd,
        Controller::VirtioScsi, Controller::VirtioScsiCd;
    nic_model: NicModel = NicModel::VirtioNet, NicModel::E1000;
    bus_kind: BusKind = BusKind::Ahci, BusKind::VirtioScsi, BusKind::Nvme, BusKind::VirtioBlk;
    gdb: Gdb = Gdb::Off, Gdb::On, Gdb::Wait;
    role: Role = Role::Viewer, Role::Operator, Role::Admin;
    acceleration: Acceleration = Acceleration::Auto, Acceleration::Tcg, Acceleration::Kvm;
    restart: Restart = Restart::Never, Restart::OnFailure, Restart::Always;
}
