//! Users, and the roles that they have.

use super::sql::role;
use super::{Change, Db, Fault, Id};
use rusqlite::{Connection, OptionalExtension, Row, params};
use skep_proto::broker::Role;
use skep_proto::{GroupId, Text, UserId, UserName};

/// A user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserRow {
    /// Its id.
    pub id: UserId,
    /// Its name.
    pub name: UserName,
    /// The hash of its password.
    pub password: Option<String>,
    /// The user of the host that it is.
    pub local_uid: Option<u32>,
    /// Locked out.
    pub disabled: bool,
    /// When it was made.
    pub created_ns: i64,
}

/// A role that somebody has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleRow {
    /// Who.
    pub user: UserId,
    /// His name.
    pub name: Text<64>,
    /// Where; none: on the host.
    pub group: Option<GroupId>,
    /// The group's name.
    pub group_name: Text<63>,
    /// Which.
    pub role: Role,
}

const COLUMNS: &str = "id, name, password, local_uid, disabled, created_ns";

fn row(row: &Row<'_>) -> rusqlite::Result<UserRow> {
    Ok(UserRow {
        id: row.get::<_, Id<_>>(0)?.0,
        name: row.get::<_, Id<_>>(1)?.0,
        password: row.get(2)?,
        local_uid: row.get(3)?,
        disabled: row.get(4)?,
        created_ns: row.get(5)?,
    })
}

/// Reads about users, in or outside of a change.
pub trait Users {
    /// The connection.
    fn sql(&self) -> &Connection;

    /// By id or, if none has this one, by name.
    fn find_user(&self, name_or_id: &str) -> Result<Option<UserRow>, Fault> {
        let sql = format!("SELECT {COLUMNS} FROM users WHERE name = ?1 OR id = ?1 ORDER BY id <> ?1 LIMIT 1");
        Ok(self.sql().prepare_cached(&sql)?.query_row([name_or_id], row).optional()?)
    }

    /// By id.
    fn user(&self, id: UserId) -> Result<Option<UserRow>, Fault> {
        let sql = format!("SELECT {COLUMNS} FROM users WHERE id = ?");
        Ok(self.sql().prepare_cached(&sql)?.query_row([Id(id)], row).optional()?)
    }

    /// The one that a user of the host is.
    fn user_of_uid(&self, uid: u32) -> Result<Option<UserRow>, Fault> {
        let sql = format!("SELECT {COLUMNS} FROM users WHERE local_uid = ?");
        Ok(self.sql().prepare_cached(&sql)?.query_row([uid], row).optional()?)
    }

    /// Up to `limit`, by name, after this one.
    fn users_after(&self, name: &str, limit: u32) -> Result<Vec<UserRow>, Fault> {
        let sql = format!("SELECT {COLUMNS} FROM users WHERE name > ? ORDER BY name LIMIT ?");
        let mut statement = self.sql().prepare_cached(&sql)?;
        let rows = statement.query_map(params![name, limit], row)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// A user's roles; none as the group: on the host.
    fn roles_of(&self, user: UserId) -> Result<Vec<(Option<GroupId>, Role)>, Fault> {
        let mut statement = self.sql().prepare_cached("SELECT nullif(grp, ''), role FROM roles WHERE user = ?")?;
        let rows = statement.query_map([Id(user)], |row| {
            Ok((row.get::<_, Option<Id<_>>>(0)?.map(|Id(group)| group), role::from(row.get(1)?)?))
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Up to `limit` roles by the names of user and group, after this pair.
    fn roles_after(&self, user: &str, group: &str, limit: u32) -> Result<Vec<RoleRow>, Fault> {
        let sql =
            "SELECT r.user, u.name, nullif(r.grp, ''), coalesce(g.name, ''), r.role FROM roles r JOIN users u ON u.id = r.user
                   LEFT JOIN machine_groups g ON g.id = r.grp
                   WHERE (u.name, coalesce(g.name, '')) > (?1, ?2) ORDER BY u.name, coalesce(g.name, '') LIMIT ?3";
        let mut statement = self.sql().prepare_cached(sql)?;
        let rows = statement.query_map(params![user, group, limit], |row| {
            let (name, group_name): (String, String) = (row.get(1)?, row.get(3)?);
            Ok(RoleRow {
                user: row.get::<_, Id<_>>(0)?.0,
                name: Text::lossy(&name),
                group: row.get::<_, Option<Id<_>>>(2)?.map(|Id(group)| group),
                group_name: Text::lossy(&group_name),
                role: role::from(row.get(4)?)?,
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

impl Users for Db {
    fn sql(&self) -> &Connection {
        self.read()
    }
}
impl Users for Change<'_> {
    fn sql(&self) -> &Connection {
        self
    }
}

impl Change<'_> {
    /// Adds a user.
    pub fn add_user(&self, user: &UserRow) -> Result<(), Fault> {
        let sql = "INSERT INTO users (id, name, password, local_uid, disabled, created_ns) VALUES (?, ?, ?, ?, ?, ?)";
        self.prepare_cached(sql)?.execute(params![
            Id(user.id),
            user.name.as_str(),
            user.password,
            user.local_uid,
            user.disabled,
            user.created_ns
        ])?;
        Ok(())
    }

    /// Calls it so.
    pub fn rename_user(&self, user: UserId, name: &UserName) -> Result<(), Fault> {
        self.prepare_cached("UPDATE users SET name = ? WHERE id = ?")?.execute(params![name.as_str(), Id(user)])?;
        Ok(())
    }

    /// Locks it out or lets it in.
    pub fn set_user_disabled(&self, user: UserId, disabled: bool) -> Result<(), Fault> {
        self.prepare_cached("UPDATE users SET disabled = ? WHERE id = ?")?.execute(params![disabled, Id(user)])?;
        Ok(())
    }

    /// Keeps the hash of its new password.
    pub fn set_user_password(&self, user: UserId, password: &str) -> Result<(), Fault> {
        self.prepare_cached("UPDATE users SET password = ? WHERE id = ?")?.execute(params![password, Id(user)])?;
        Ok(())
    }

    /// Removes it, with its tokens and roles.
    pub fn remove_user(&self, user: UserId) -> Result<(), Fault> {
        self.prepare_cached("DELETE FROM requests WHERE owner = ?")?.execute([user.to_string()])?;
        self.prepare_cached("DELETE FROM users WHERE id = ?")?.execute([Id(user)])?;
        Ok(())
    }

    /// Gives it a role, or takes it away. False: it had none to take.
    pub fn set_role(&self, user: UserId, group: Option<GroupId>, to: Option<Role>) -> Result<bool, Fault> {
        let group = group.map(|group| group.to_string()).unwrap_or_default();
        let changed = match to {
            Some(to) => {
                let sql = "INSERT INTO roles (user, grp, role) VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET role = excluded.role";
                self.prepare_cached(sql)?.execute(params![Id(user), group, role::number(to)])?
            }
            None => self.prepare_cached("DELETE FROM roles WHERE user = ? AND grp = ?")?.execute(params![Id(user), group])?,
        };
        Ok(changed > 0)
    }
}
