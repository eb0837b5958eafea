//! Requests that made something, as long as they may be repeated.

use super::{Change, Db, Fault, Id};
use rusqlite::{OptionalExtension, params};
use skep_proto::RequestId;
use skep_proto::broker::{REMEMBERED, REPEATED};

/// What a request is known by when it comes again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Once {
    /// Whose: ids of others say nothing.
    pub owner: String,
    /// The client's own id of it.
    pub id: RequestId,
    /// SHA-256 of its contents, without secrets.
    pub digest: [u8; 32],
}

/// The oldest that still counts.
fn since(now: i64) -> i64 {
    now.saturating_sub(i64::try_from(REPEATED.as_nanos()).unwrap_or(i64::MAX))
}

impl Db {
    /// What this request made, if it did before: whether its contents were the same, and the id of the object or operation.
    pub fn made_by(&self, once: &Once) -> Result<Option<(bool, String)>, Fault> {
        let sql = "SELECT digest, object FROM requests WHERE owner = ? AND id = ? AND made_ns > ?";
        let mut statement = self.read().prepare_cached(sql)?;
        let found = statement.query_row(params![once.owner, Id(once.id), since(skep_service::now_ns())], |row| {
            Ok((row.get::<_, [u8; 32]>(0)? == once.digest, row.get(1)?))
        });
        Ok(found.optional()?)
    }
}

impl Change<'_> {
    /// Remembers what this request makes, together with it. Of requests without an id nothing.
    pub fn made(&self, object: impl std::fmt::Display) -> Result<(), Fault> {
        let Some(once) = &self.who().once else { return Ok(()) };
        let now = skep_service::now_ns();
        self.prepare_cached("DELETE FROM requests WHERE owner = ? AND made_ns <= ?")?.execute(params![once.owner, since(now)])?;
        let sql = "DELETE FROM requests WHERE owner = ?1 AND id IN
                   (SELECT id FROM requests WHERE owner = ?1 ORDER BY made_ns DESC LIMIT -1 OFFSET ?2)";
        self.prepare_cached(sql)?.execute(params![once.owner, REMEMBERED - 1])?;
        let sql = "INSERT OR REPLACE INTO requests (owner, id, digest, object, made_ns) VALUES (?, ?, ?, ?, ?)";
        let digest = once.digest.as_slice();
        self.prepare_cached(sql)?.execute(params![once.owner, Id(once.id), digest, object.to_string(), now])?;
        Ok(())
    }

    /// Forgets all that is too old to be repeated, whoever asked it.
    pub fn forget_requests(&self) -> Result<(), Fault> {
        self.prepare_cached("DELETE FROM requests WHERE made_ns <= ?")?.execute([since(skep_service::now_ns())])?;
        Ok(())
    }

    /// It was not made after all: a repeat tries anew.
    pub fn unmade(&self, object: impl std::fmt::Display) -> Result<(), Fault> {
        self.prepare_cached("DELETE FROM requests WHERE object = ?")?.execute([object.to_string()])?;
        Ok(())
    }
}
