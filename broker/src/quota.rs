//! What a group may have: held against what it has within the transaction that adds to it, so that no two additions fit one place.

use crate::broker::Broker;
use crate::db::Change;
use crate::db::groups::Groups;
use skep_proto::broker::Quota;
use skep_proto::{GroupId, Reason, Refusal};
use std::rc::Rc;

/// Bytes that a disk of a group is about to grow by; taken back when this is dropped.
pub struct Growing {
    broker: Rc<Broker>,
    group: GroupId,
    bytes: u64,
}

impl Drop for Growing {
    fn drop(&mut self) {
        let mut growing = self.broker.growing.borrow_mut();
        if let Some(at) = growing.iter().position(|(group, bytes)| (*group, *bytes) == (self.group, self.bytes)) {
            growing.swap_remove(at);
        }
    }
}

impl Broker {
    fn usage(&self, change: &Change<'_>, group: GroupId) -> Result<Quota, Refusal> {
        let mut used = change.usage(group)?;
        let growing = self.growing.borrow();
        for (_, bytes) in growing.iter().filter(|(of, _)| *of == group) {
            used.disk_bytes = used.disk_bytes.saturating_add(*bytes);
        }
        Ok(used)
    }

    /// Makes an addition to a group, and refuses it if the group then has more than it may. What it had too much of before does
    /// not count: only what grew.
    pub fn within_quota<T>(
        &self, change: &Change<'_>, group: GroupId, add: impl FnOnce() -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let row = change.group(group)?.ok_or_else(|| Refusal::new(Reason::NotFound, "group").field("group"))?;
        // What nobody has bounded is not summed up.
        if row.quota == Quota::default() {
            return add();
        }
        let before = self.usage(change, group)?;
        let value = add()?;
        let after = self.usage(change, group)?;
        over(row.name.as_str(), row.quota, before, after).map_or(Ok(value), Err)
    }

    /// Keeps room for a disk that is to grow, as long as the guard lives.
    pub fn grow(self: &Rc<Self>, change: &Change<'_>, group: GroupId, bytes: u64) -> Result<Growing, Refusal> {
        self.within_quota(change, group, || {
            self.growing.borrow_mut().push((group, bytes));
            Ok(Growing { broker: self.clone(), group, bytes })
        })
    }

    /// Bytes that disks of a group may still take; none: any number.
    pub fn disk_room(&self, change: &Change<'_>, group: GroupId) -> Result<Option<u64>, Refusal> {
        let quota = change.group(group)?.map_or(0, |row| row.quota.disk_bytes);
        let used = self.usage(change, group)?.disk_bytes;
        Ok((quota > 0).then(|| quota.saturating_sub(used)))
    }
}

/// A field, what it counts, and where that is.
type Part = (&'static str, &'static str, fn(&Quota) -> u64);

/// Refuses what grew beyond its bound.
fn over(group: &str, most: Quota, before: Quota, after: Quota) -> Option<Refusal> {
    let parts: [Part; 4] = [
        ("machines", "machines", |q| q.machines.into()),
        ("cpus", "CPUs", |q| q.cpus.into()),
        ("memory", "MiB of memory", |q| q.memory_mib),
        ("disk", "bytes of disks", |q| q.disk_bytes),
    ];
    parts.into_iter().find_map(|(field, what, part)| {
        let (most, before, after) = (part(&most), part(&before), part(&after));
        let refusal = Refusal::new(Reason::QuotaReached, format_args!("group {group}")).field(field);
        (most > 0 && after > most && after > before)
            .then(|| refusal.note(format_args!("{after} {what} would be in it; {most} is the most, {before} are there")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_grows_beyond_its_bound_is_refused() {
        let quota = |machines, cpus, memory_mib, disk_bytes| Quota { machines, cpus, memory_mib, disk_bytes };
        let none = Quota::default();
        assert_eq!(over("g", none, none, quota(u32::MAX, u32::MAX, u64::MAX, u64::MAX)), None);
        assert_eq!(over("g", quota(1, 1, 1, 1), none, quota(1, 1, 1, 1)), None);
        assert_eq!(over("g", quota(1, 1, 1, 1), quota(9, 9, 9, 9), quota(9, 8, 9, 9)), None);
        for (field, after) in [
            ("machines", quota(2, 0, 0, 0)),
            ("cpus", quota(0, 2, 0, 0)),
            ("memory", quota(0, 0, 2, 0)),
            ("disk", quota(0, 0, 0, 2)),
        ] {
            let refusal = over("g", quota(1, 1, 1, 1), none, after).expect("refused");
            assert_eq!((refusal.reason, refusal.field.as_str()), (Reason::QuotaReached, field), "{refusal}");
        }
    }
}
