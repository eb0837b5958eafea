//! Users, tokens, roles and groups.

use super::{invalid, known, time, values, within};
use prost_types::Duration;
use skep_api::v1;
use skep_proto::broker::{GroupView, Quota, Role, RoleView, TokenView, UserView};
use skep_proto::{Refusal, Secret};
use zeroize::Zeroize;

/// A user.
pub fn user(view: UserView) -> v1::User {
    v1::User {
        id: view.id.map(|id| id.to_string()).unwrap_or_default(),
        name: view.name.to_string(),
        disabled: view.disabled,
        password: view.password,
        local_uid: view.local_uid,
        create_time: time(view.created_ns),
    }
}

/// A token.
pub fn token(view: TokenView) -> v1::Token {
    v1::Token {
        name: view.name.to_string(),
        user: view.user.to_string(),
        create_time: time(view.created_ns),
        expire_time: time(view.expires_ns),
        use_time: time(view.used_ns),
    }
}

/// A role that somebody has.
pub fn role_of_user(view: RoleView) -> v1::RoleOfUser {
    let role = match view.role {
        Role::Viewer => v1::Role::Viewer,
        Role::Operator => v1::Role::Operator,
        Role::Admin => v1::Role::Admin,
    };
    v1::RoleOfUser { user: view.user.to_string(), group: view.group.to_string(), role: role.into() }
}

/// A role that is granted.
pub fn role(number: i32) -> Result<Role, Refusal> {
    match known("role", "role", number)? {
        v1::Role::Unspecified => Err(invalid("role", "role", format_args!("0 is none of {}", values::<v1::Role>()))),
        v1::Role::Viewer => Ok(Role::Viewer),
        v1::Role::Operator => Ok(Role::Operator),
        v1::Role::Admin => Ok(Role::Admin),
    }
}

/// A group.
pub fn group(view: GroupView) -> v1::Group {
    let quota = |q: Quota| v1::Quota { machines: q.machines, cpus: q.cpus, memory_mib: q.memory_mib, disk_bytes: q.disk_bytes };
    v1::Group {
        id: view.id.to_string(),
        name: view.name.to_string(),
        quota: Some(quota(view.quota)),
        used: Some(quota(view.used)),
        create_time: time(view.created_ns),
    }
}

/// What a group may have.
pub fn quota(quota: Option<&v1::Quota>) -> Result<Quota, Refusal> {
    let q = quota.copied().unwrap_or_default();
    // As large as the database's numbers.
    let bounded = |field: &str, n: u64| within("group", field, n, &(0..=i64::MAX.unsigned_abs()));
    Ok(Quota {
        machines: q.machines,
        cpus: q.cpus,
        memory_mib: bounded("quota.memory_mib", q.memory_mib)?,
        disk_bytes: bounded("quota.disk_bytes", q.disk_bytes)?,
    })
}

/// A password. It is not repeated in the refusal, and wiped where it came from.
pub fn secret(field: &str, mut text: String) -> Result<Secret, Refusal> {
    let secret = text.parse().map_err(|e| invalid("password", field, e));
    text.zeroize();
    secret
}

/// Whole seconds of a time that something is good for.
pub fn seconds(lifetime: Duration) -> Result<u64, Refusal> {
    match u64::try_from(lifetime.seconds) {
        Ok(seconds) if seconds > 0 && lifetime.nanos == 0 => Ok(seconds),
        _ => {
            let (seconds, nanos) = (lifetime.seconds, lifetime.nanos);
            Err(invalid("token", "lifetime", format_args!("{seconds} s and {nanos} ns are not whole seconds, at least one")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_password_is_not_repeated() {
        let text = "x".repeat(257);
        let refusal = secret("password", text).expect_err("too long");
        assert!(!refusal.to_string().contains("xxx"), "{refusal}");
        assert_eq!(refusal.field.as_str(), "password");
        assert!(secret("password", "a\nb".into()).is_err());
    }

    #[test]
    fn a_role_and_a_lifetime_are_said() {
        for number in [0, 4] {
            let refusal = role(number).expect_err("refused");
            assert_eq!(refusal.note.as_str(), format!("{number} is none of 1 (Viewer), 2 (Operator), 3 (Admin)"));
        }
        let much = v1::Quota { disk_bytes: u64::MAX, ..Default::default() };
        let refusal = quota(Some(&much)).expect_err("refused");
        assert_eq!(refusal.field.as_str(), "quota.disk_bytes");
        assert_eq!(refusal.note.as_str(), "18446744073709551615 is not 0 to 9223372036854775807");
        assert_eq!(role(3), Ok(Role::Admin));
        for (seconds, nanos) in [(0, 0), (-1, 0), (1, 1), (i64::MIN, 0)] {
            let refusal = super::seconds(Duration { seconds, nanos }).expect_err("refused");
            assert_eq!(refusal.note.as_str(), format!("{seconds} s and {nanos} ns are not whole seconds, at least one"));
        }
        assert_eq!(super::seconds(Duration { seconds: 60, nanos: 0 }), Ok(60));
    }
}
