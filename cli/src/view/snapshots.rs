//! Snapshots of disks and of machines.

use super::{bytes, time};
use crate::output::Column;
use serde_json::{Value, json};
use skep_api::v1;

/// A snapshot of a disk.
pub fn snapshot(snapshot: &v1::Snapshot) -> Value {
    json!({
        "name": snapshot.name,
        "id": snapshot.id,
        "size": snapshot.size_bytes,
        "used": snapshot.used_bytes,
        "created": time(snapshot.create_time.as_ref()),
    })
}

/// A snapshot of a machine.
pub fn whole(snapshot: &v1::MachineSnapshot) -> Value {
    json!({
        "name": snapshot.name,
        "id": snapshot.id,
        "disks": snapshot.disks,
        "used": snapshot.used_bytes,
        "created": time(snapshot.create_time.as_ref()),
    })
}

/// Columns of a list of them.
pub const WHOLES: &[Column] = &[Column::Left("NAME"), Column::Left("DISKS"), Column::Right("USED"), Column::Left("CREATED")];

/// A row of it.
pub fn whole_row(snapshot: &v1::MachineSnapshot) -> Vec<String> {
    let created = time(snapshot.create_time.as_ref());
    let created = created.as_str().map_or_else(|| created.to_string(), str::to_owned);
    vec![snapshot.name.clone(), snapshot.disks.join(","), bytes(snapshot.used_bytes), created]
}

/// Columns of a list of snapshots.
pub const SNAPSHOTS: &[Column] = &[Column::Left("NAME"), Column::Right("SIZE"), Column::Right("USED"), Column::Left("CREATED")];

/// A row of it.
pub fn snapshot_row(snapshot: &v1::Snapshot) -> Vec<String> {
    let created = time(snapshot.create_time.as_ref());
    let created = created.as_str().map_or_else(|| created.to_string(), str::to_owned);
    vec![snapshot.name.clone(), bytes(snapshot.size_bytes), bytes(snapshot.used_bytes), created]
}
