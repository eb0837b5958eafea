//! Tokens of the remote API. Only their hashes are here.

use super::{Change, Db, Fault};
use rusqlite::{OptionalExtension, params};

impl Db {
    /// The name of the token with this hash.
    pub fn token(&self, hash: &[u8; 32]) -> Result<Option<String>, Fault> {
        // The lookup is by hash, so its timing says nothing about any token's text; what it found is compared in constant time.
        let sql = "SELECT hash, name FROM tokens WHERE hash = ?";
        let mut statement = self.read().prepare_cached(sql)?;
        let row = statement.query_row([hash.as_slice()], |row| Ok((row.get::<_, [u8; 32]>(0)?, row.get(1)?))).optional()?;
        Ok(row.filter(|(stored, _)| same(stored, hash)).map(|(_, name)| name))
    }
}

impl Change<'_> {
    /// Whether a token has this name.
    pub fn has_token(&self, name: &str) -> Result<bool, Fault> {
        Ok(self.prepare_cached("SELECT 1 FROM tokens WHERE name = ?")?.exists([name])?)
    }

    /// Keeps a token's hash.
    pub fn add_token(&self, hash: &[u8; 32], name: &str) -> Result<(), Fault> {
        let sql = "INSERT INTO tokens (hash, name, created_ns) VALUES (?, ?, ?)";
        self.prepare_cached(sql)?.execute(params![hash.as_slice(), name, skep_service::now_ns()])?;
        Ok(())
    }
}

/// Compares without a branch on the bytes.
fn same(a: &[u8; 32], b: &[u8; 32]) -> bool {
    std::hint::black_box(a.iter().zip(b).fold(0, |difference, (x, y)| difference | (x ^ y))) == 0
}
