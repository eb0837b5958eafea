//! Tokens of the remote API. Only their hashes are here.

use super::{Change, Db, Fault, Id};
use rusqlite::{OptionalExtension, params};
use skep_proto::broker::TokenView;
use skep_proto::{Text, UserId};

/// A token that was shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRow {
    /// Its name.
    pub name: Text<63>,
    /// Whose it is; none: an administrator's who is no user.
    pub user: Option<UserId>,
    /// When it ends; 0: never.
    pub expires_ns: i64,
    /// When it opened a session last.
    pub used_ns: i64,
}

impl Db {
    /// The token with this hash, whether it has ended or not.
    pub fn token(&self, hash: &[u8; 32]) -> Result<Option<TokenRow>, Fault> {
        // The lookup is by hash, so its timing says nothing about any token's text; what it found is compared in constant time.
        let sql = "SELECT hash, name, user, expires_ns, used_ns FROM tokens WHERE hash = ?";
        let mut statement = self.read().prepare_cached(sql)?;
        let found = statement.query_row([hash.as_slice()], |row| {
            let name: String = row.get(1)?;
            let user = row.get::<_, Option<Id<_>>>(2)?.map(|Id(user)| user);
            let token = TokenRow { name: Text::lossy(&name), user, expires_ns: row.get(3)?, used_ns: row.get(4)? };
            Ok((row.get::<_, [u8; 32]>(0)?, token))
        });
        Ok(found.optional()?.filter(|(stored, _)| same(stored, hash)).map(|(_, token)| token))
    }

    /// Up to `limit`, by the names of user and token, after this pair; of one user (`Some(None)`: those of nobody), or all.
    pub fn tokens_after(&self, of: Option<Option<UserId>>, user: &str, name: &str, limit: u32) -> Result<Vec<TokenView>, Fault> {
        let sql = "SELECT coalesce(u.name, ''), t.name, t.created_ns, t.expires_ns, t.used_ns
                   FROM tokens t LEFT JOIN users u ON u.id = t.user
                   WHERE (?1 IS NULL OR coalesce(t.user, '') = ?1) AND (coalesce(u.name, ''), t.name) > (?2, ?3)
                   ORDER BY coalesce(u.name, ''), t.name LIMIT ?4";
        let of = of.map(|user| user.map(|user| user.to_string()).unwrap_or_default());
        let mut statement = self.read().prepare_cached(sql)?;
        let rows = statement.query_map(params![of, user, name, limit], |row| {
            let (user, name): (String, String) = (row.get(0)?, row.get(1)?);
            Ok(TokenView {
                key: Text::lossy(&format!("{user}/{name}")),
                name: Text::lossy(&name),
                user: Text::lossy(&user),
                created_ns: row.get(2)?,
                expires_ns: row.get(3)?,
                used_ns: row.get(4)?,
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

impl Change<'_> {
    /// Whether a token of this user has this name.
    pub fn has_token(&self, user: Option<UserId>, name: &str) -> Result<bool, Fault> {
        let sql = "SELECT 1 FROM tokens WHERE coalesce(user, '') = coalesce(?, '') AND name = ?";
        Ok(self.prepare_cached(sql)?.exists(params![user.map(Id), name])?)
    }

    /// How many a user has.
    pub fn count_tokens(&self, user: Option<UserId>) -> Result<u32, Fault> {
        let sql = "SELECT count(*) FROM tokens WHERE coalesce(user, '') = coalesce(?, '')";
        Ok(self.prepare_cached(sql)?.query_row([user.map(Id)], |row| row.get(0))?)
    }

    /// Keeps a token's hash.
    pub fn add_token(&self, hash: &[u8; 32], token: &TokenRow) -> Result<(), Fault> {
        let sql = "INSERT INTO tokens (hash, name, user, created_ns, expires_ns) VALUES (?, ?, ?, ?, ?)";
        let now = skep_service::now_ns();
        self.prepare_cached(sql)?.execute(params![
            hash.as_slice(),
            token.name.as_str(),
            token.user.map(Id),
            now,
            token.expires_ns
        ])?;
        Ok(())
    }

    /// It opened a session.
    pub fn token_used(&self, hash: &[u8; 32], now: i64) -> Result<(), Fault> {
        self.prepare_cached("UPDATE tokens SET used_ns = ? WHERE hash = ?")?.execute(params![now, hash.as_slice()])?;
        Ok(())
    }

    /// Removes one. False: there is none.
    pub fn remove_token(&self, user: Option<UserId>, name: &str) -> Result<bool, Fault> {
        let sql = "DELETE FROM tokens WHERE coalesce(user, '') = coalesce(?, '') AND name = ?";
        Ok(self.prepare_cached(sql)?.execute(params![user.map(Id), name])? > 0)
    }

    /// Removes those that ended before this.
    pub fn remove_ended_tokens(&self, now: i64) -> Result<(), Fault> {
        self.prepare_cached("DELETE FROM tokens WHERE expires_ns BETWEEN 1 AND ?")?.execute([now])?;
        Ok(())
    }
}

/// Compares without a branch on the bytes.
fn same(a: &[u8; 32], b: &[u8; 32]) -> bool {
    std::hint::black_box(a.iter().zip(b).fold(0, |difference, (x, y)| difference | (x ^ y))) == 0
}
