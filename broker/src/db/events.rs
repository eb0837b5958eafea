//! Events: rows written in the transaction of the change that they tell of.

use super::{Change, Db, Fault, Id, Number};
use rusqlite::params;
use skep_proto::Text;
use skep_proto::broker::EventView;
use std::fmt::Display;

/// Rows that are kept.
pub const KEPT: i64 = 100_000;
/// The oldest are removed when there are this many more, so that not every event pays for it.
const SLACK: i64 = 1_000;

impl Change<'_> {
    /// Tells of this change.
    pub fn event(
        &self, object: &str, id: impl Display, name: impl Display, what: &str, detail: impl Display,
    ) -> Result<(), Fault> {
        // The group of its object at this time. Of a switch all may know; of users, those alone who have a role on the host.
        let sql = "INSERT INTO events (time_ns, object, id, name, what, detail, trace, user, grp) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8,
                   CASE ?2 WHEN 'machine' THEN (SELECT grp FROM machines WHERE id = ?3) WHEN 'disk' THEN (SELECT grp FROM disks WHERE id = ?3)
                   WHEN 'nic' THEN (SELECT grp FROM nics WHERE id = ?3) WHEN 'operation' THEN (SELECT grp FROM operations WHERE id = ?3)
                   WHEN 'group' THEN ?3 WHEN 'switch' THEN '' END)";
        let detail = Text::<512>::lossy(&detail.to_string());
        let who = self.who();
        let now = skep_service::now_ns();
        let trace = Number(who.trace.0);
        self.prepare_cached(sql)?.execute(params![
            now,
            object,
            id.to_string(),
            name.to_string(),
            what,
            detail.as_str(),
            trace,
            who.user.as_str()
        ])?;
        let token = self.last_insert_rowid();
        if token % SLACK == 0 {
            self.prepare_cached("DELETE FROM events WHERE token <= ?")?.execute([token - KEPT])?;
        }
        Ok(())
    }
}

impl Db {
    /// The newest token; 0: nothing ever happened.
    pub fn last_event(&self) -> Result<u64, Fault> {
        let sql = "SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'events'), 0)";
        let Number(token) = self.read().prepare_cached(sql)?.query_row([], |row| row.get(0))?;
        Ok(token)
    }

    /// Whether every event after `token` is still kept. A token that was never given out is treated like one that is not.
    pub fn keeps_after(&self, token: u64) -> Result<bool, Fault> {
        let sql = "SELECT coalesce(min(token), 0) FROM events";
        let Number(oldest) = self.read().prepare_cached(sql)?.query_row([], |row| row.get(0))?;
        let newest = self.last_event()?;
        Ok(token <= newest && (token == newest || (oldest > 0 && oldest <= token + 1)))
    }

    /// Up to 64 events after `token`, about `object` or, if that is empty, about anything, in groups that `seen` holds.
    pub fn events_after(&self, token: u64, object: &str, seen: Option<&str>) -> Result<Vec<EventView>, Fault> {
        let sql = "SELECT token, time_ns, object, id, name, what, detail, trace, user FROM events WHERE token > ?1
                   AND (?2 = '' OR object = ?2) AND (?3 IS NULL OR grp = '' OR grp IN (SELECT value FROM json_each(?3)))
                   ORDER BY token LIMIT 64";
        let mut statement = self.read().prepare_cached(sql)?;
        let rows = statement.query_map(params![Number(token), object, seen], |row| {
            let Number(token) = row.get(0)?;
            let Number(trace) = row.get(7)?;
            Ok(EventView {
                token,
                time_ns: row.get(1)?,
                object: row.get::<_, Id<_>>(2)?.0,
                id: row.get::<_, Id<_>>(3)?.0,
                name: row.get::<_, Id<_>>(4)?.0,
                what: row.get::<_, Id<_>>(5)?.0,
                detail: row.get::<_, Id<_>>(6)?.0,
                trace: skep_proto::TraceId(trace),
                user: row.get::<_, Id<_>>(8)?.0,
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}
