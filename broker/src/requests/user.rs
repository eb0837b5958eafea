//! Users, tokens and roles.

use super::{Cx, not_found, taken};
use crate::broker::Broker;
use crate::db::groups::Groups;
use crate::db::tokens::TokenRow;
use crate::db::users::{UserRow, Users};
use crate::page::{ROWS, fit};
use sha2::{Digest, Sha256};
use skep_proto::broker::{
    Done, Ref, RoleGrant, RoleList, RolePage, RoleRevoke, RoleView, TokenCreate, TokenDelete, TokenList, TokenMade, TokenPage,
    UserCreate, UserDelete, UserDisable, UserGet, UserList, UserPage, UserPassword, UserRename, UserView,
};
use skep_proto::{OperationId, Reason, Refusal, Text, UserId};

/// Tokens of one user, at most.
const TOKENS: u32 = 200;
/// Longest life of a token that ends, in seconds: ten years.
const LONGEST: u64 = 3650 * 24 * 3600;

fn view(row: &UserRow) -> UserView {
    UserView {
        id: Some(row.id),
        name: Text::lossy(row.name.as_str()),
        disabled: row.disabled,
        password: row.password.is_some(),
        local_uid: row.local_uid,
        created_ns: row.created_ns,
    }
}

fn find(db: &impl Users, name: &str) -> Result<UserRow, Refusal> {
    db.find_user(name)?.ok_or_else(|| not_found("user", name))
}

/// Whose: somebody's, or one's own.
fn whose(cx: &Cx, user: Option<&Ref>) -> Result<Option<UserRow>, Refusal> {
    match (user, cx.user.id) {
        (Some(name), _) => cx.broker.read(|db| find(db, name.as_str())).map(Some),
        // Nobody's would be an administrator's.
        (None, Some(id)) => cx.broker.read(|db| db.user(id))?.ok_or_else(|| not_found("user", id)).map(Some),
        (None, None) => Ok(None),
    }
}

/// Whom nobody is told apart by (user_namespaces(7)).
const OVERFLOW: u32 = 65_534;

/// `UserCreate`.
pub async fn create(cx: &Cx, c: UserCreate) -> Result<UserView, Refusal> {
    let Cx { broker, who, .. } = cx;
    if let Some(id) = cx.before::<UserId>(|user| UserGet { user: Some(user) }.into())? {
        return Ok(view(&broker.read(|db| find(db, &id.to_string()))?));
    }
    let object = format!("user {}", c.name);
    if let Some(uid) = c.local_uid
        && (uid == 0 || uid == broker.owner)
    {
        let refusal = Refusal::new(Reason::InvalidValue, &object).field("local_uid");
        return Err(refusal.note(format_args!("uid {uid} is an administrator already")));
    }
    // In a user namespace the kernel calls everybody so who has no uid there.
    if c.local_uid == Some(OVERFLOW) {
        let refusal = Refusal::new(Reason::InvalidValue, object).field("local_uid");
        return Err(refusal.note(format_args!("uid {OVERFLOW} is whoever has none in a namespace")));
    }
    let password = match c.password {
        Some(password) => Some(broker.new_password(c.name.as_str(), password).await?),
        None => None,
    };
    let row = UserRow {
        id: UserId::random(),
        name: c.name,
        password,
        local_uid: c.local_uid,
        disabled: false,
        created_ns: skep_service::now_ns(),
    };
    broker.change(who, |change| {
        if change.find_user(row.name.as_str())?.is_some() {
            return Err(taken("user", &row.name));
        }
        if let Some(uid) = row.local_uid
            && let Some(other) = change.user_of_uid(uid)?
        {
            let refusal = Refusal::new(Reason::AlreadyExists, format_args!("user {}", other.name)).field("local_uid");
            return Err(refusal.note(format_args!("it is uid {uid}")));
        }
        change.add_user(&row)?;
        change.made(row.id)?;
        Ok(change.event("user", row.id, &row.name, "created", "")?)
    })?;
    Ok(view(&row))
}

/// `UserGet`.
pub async fn get(cx: &Cx, c: UserGet) -> Result<UserView, Refusal> {
    let of_host =
        UserView { id: None, name: cx.user.name.clone(), disabled: false, password: false, local_uid: None, created_ns: 0 };
    Ok(whose(cx, c.user.as_ref())?.as_ref().map_or(of_host, view))
}

/// `UserList`.
pub async fn list(cx: &Cx, c: UserList) -> Result<UserPage, Refusal> {
    let after = c.after.as_ref().map_or("", Text::as_str);
    let rows = cx.broker.read(|db| db.users_after(after, ROWS))?;
    Ok(UserPage { users: fit(rows.iter().map(view)) })
}

/// `UserRename`.
pub async fn rename(cx: &Cx, c: UserRename) -> Result<UserView, Refusal> {
    cx.broker.change(&cx.who, |change| {
        let mut row = find(change, c.user.as_str())?;
        if row.name != c.name {
            if change.find_user(c.name.as_str())?.is_some() {
                return Err(taken("user", &c.name));
            }
            let old = std::mem::replace(&mut row.name, c.name);
            change.rename_user(row.id, &row.name)?;
            change.event("user", row.id, &row.name, "renamed", old)?;
        }
        Ok(view(&row))
    })
}

/// `UserDisable`.
pub async fn disable(cx: &Cx, c: UserDisable) -> Result<UserView, Refusal> {
    cx.broker.change(&cx.who, |change| {
        let mut row = find(change, c.user.as_str())?;
        if row.disabled != c.disabled {
            row.disabled = c.disabled;
            change.set_user_disabled(row.id, c.disabled)?;
            let what = if c.disabled { "locked out" } else { "let in" };
            change.event("user", row.id, &row.name, "changed", what)?;
        }
        Ok(view(&row))
    })
}

/// `UserPassword`.
pub async fn password(cx: &Cx, c: UserPassword) -> Result<Done, Refusal> {
    let Cx { broker, who, user, .. } = cx;
    let wrong = |note: &str| Refusal::new(Reason::WrongState, format_args!("user {}", user.name)).note(note);
    let row = whose(cx, c.user.as_ref())?.ok_or_else(|| wrong("it has no password: it is a user of the host"))?;
    if Some(row.id) == user.id {
        // Whoever found an open session is not to keep it so.
        let Some(old) = c.old else {
            let refusal = Refusal::new(Reason::InvalidValue, format_args!("user {}", row.name)).field("old");
            return Err(refusal.note("the present password is needed"));
        };
        let named = |mut refusal: Refusal| {
            refusal.object = Text::lossy(&format!("user {}", row.name));
            refusal
        };
        broker.log_in(&Text::lossy(row.name.as_str()), old, &Text::lossy(&format!("user {}", row.name))).await.map_err(named)?;
    }
    let password = broker.new_password(row.name.as_str(), c.new).await?;
    broker.change(who, |change| {
        let row = find(change, &row.id.to_string())?;
        change.set_user_password(row.id, &password)?;
        change.event("user", row.id, &row.name, "changed", "password").map_err(Refusal::from)
    })?;
    Ok(Done {})
}

/// `UserDelete`.
pub async fn delete(cx: &Cx, c: UserDelete) -> Result<Done, Refusal> {
    cx.broker.change(&cx.who, |change| {
        let row = find(change, c.user.as_str())?;
        change.remove_user(row.id)?;
        Ok::<_, Refusal>(change.event("user", row.id, &row.name, "deleted", "")?)
    })?;
    Ok(Done {})
}

/// `TokenCreate`: 244 random bits, of which the hash is kept.
pub async fn token(cx: &Cx, c: TokenCreate) -> Result<TokenMade, Refusal> {
    let Cx { broker, who, user, .. } = cx;
    let name = c.name.as_str();
    let invalid =
        |field: &str, note: &str| Refusal::new(Reason::InvalidValue, format_args!("token {name}")).field(field).note(note);
    if name.is_empty() || name.contains('/') {
        return Err(invalid("name", "1 to 63 bytes without / are expected"));
    }
    if c.seconds > LONGEST {
        return Err(invalid("lifetime", "at most 3650 days are expected"));
    }
    let owner = whose(cx, c.user.as_ref())?;
    // Two random UUIDs: from the kernel's generator, 122 bits each.
    let (high, low) = (OperationId::random().as_u128(), OperationId::random().as_u128());
    let text = format!("skep_{high:032x}{low:032x}");
    let hash: [u8; 32] = Sha256::digest(text.as_bytes()).into();
    let now = skep_service::now_ns();
    let life = i64::try_from(c.seconds).unwrap_or(i64::MAX).saturating_mul(1_000_000_000);
    let expires_ns = if c.seconds == 0 { 0 } else { now.saturating_add(life) };
    let id = owner.as_ref().map(|owner| owner.id);
    broker.change(who, |change| {
        change.remove_ended_tokens(now)?;
        if change.has_token(id, name)? {
            return Err(taken("token", name));
        }
        if change.count_tokens(id)? >= TOKENS {
            return Err(Refusal::new(Reason::LimitReached, format_args!("token {name}"))
                .note(format_args!("a user has at most {TOKENS}")));
        }
        change.add_token(&hash, &TokenRow { name: c.name.clone(), user: id, expires_ns, used_ns: 0 })?;
        match &owner {
            Some(owner) => change.event("user", owner.id, &owner.name, "changed", format_args!("token {name} made"))?,
            None => change.event("user", "", &user.name, "changed", format_args!("token {name} made"))?,
        }
        Ok(())
    })?;
    let user = owner.map_or_else(|| user.name.clone(), |owner| Text::lossy(owner.name.as_str()));
    Ok(TokenMade { token: Text::lossy(&text), user, expires_ns })
}

/// `user/name` of a page before.
fn pair(after: Option<&Text<128>>) -> (&str, &str) {
    after.and_then(|after| after.as_str().split_once('/')).unwrap_or_default()
}

/// `TokenList`.
pub async fn tokens(cx: &Cx, c: TokenList) -> Result<TokenPage, Refusal> {
    let of = match &c.user {
        None if cx.user.is_admin() => None,
        user => Some(whose(cx, user.as_ref())?.map(|row| row.id)),
    };
    let (user, name) = pair(c.after.as_ref());
    Ok(TokenPage { tokens: fit(cx.broker.read(|db| db.tokens_after(of, user, name, ROWS))?) })
}

/// `TokenDelete`.
pub async fn delete_token(cx: &Cx, c: TokenDelete) -> Result<Done, Refusal> {
    let owner = whose(cx, c.user.as_ref())?;
    cx.broker.change(&cx.who, |change| {
        let name = c.name.as_str();
        if !change.remove_token(owner.as_ref().map(|owner| owner.id), name)? {
            return Err(not_found("token", name));
        }
        match &owner {
            Some(owner) => change.event("user", owner.id, &owner.name, "changed", format_args!("token {name} deleted"))?,
            None => change.event("user", "", &cx.user.name, "changed", format_args!("token {name} deleted"))?,
        }
        Ok(Done {})
    })
}

fn place(broker: &Broker, group: Option<&Ref>) -> Result<(Option<skep_proto::GroupId>, String), Refusal> {
    match group {
        None => Ok((None, "on the host".into())),
        Some(name) => {
            let row = broker.read(|db| db.find_group(name.as_str()))?.ok_or_else(|| not_found("group", name).field("group"))?;
            Ok((Some(row.id), format!("in group {}", row.name)))
        }
    }
}

/// `RoleGrant`.
pub async fn grant(cx: &Cx, c: RoleGrant) -> Result<Done, Refusal> {
    let (group, place) = place(&cx.broker, c.group.as_ref())?;
    cx.broker.change(&cx.who, |change| {
        let user = find(change, c.user.as_str())?;
        change.set_role(user.id, group, Some(c.role))?;
        Ok::<_, Refusal>(change.event("user", user.id, &user.name, "changed", format_args!("{} {place}", c.role))?)
    })?;
    Ok(Done {})
}

/// `RoleRevoke`.
pub async fn revoke(cx: &Cx, c: RoleRevoke) -> Result<Done, Refusal> {
    let (group, place) = place(&cx.broker, c.group.as_ref())?;
    cx.broker.change(&cx.who, |change| {
        let user = find(change, c.user.as_str())?;
        if !change.set_role(user.id, group, None)? {
            return Err(not_found("role", format_args!("of user {} {place}", user.name)));
        }
        Ok::<_, Refusal>(change.event("user", user.id, &user.name, "changed", format_args!("no role {place}"))?)
    })?;
    Ok(Done {})
}

/// `RoleList`.
pub async fn roles(cx: &Cx, c: RoleList) -> Result<RolePage, Refusal> {
    use skep_proto::broker::Role::Admin;
    let rights = &cx.user.rights;
    let (mut user, mut group) = pair(c.after.as_ref());
    let mut shown = Vec::new();
    let mut last;
    while shown.is_empty() {
        let rows = cx.broker.read(|db| db.roles_after(user, group, ROWS))?;
        last = match rows.last() {
            Some(last) => (last.name.clone(), last.group_name.clone()),
            None => break,
        };
        (user, group) = (last.0.as_str(), last.1.as_str());
        let may = |row: &crate::db::users::RoleRow| {
            Some(row.user) == cx.user.id
                || rights.host >= Some(Admin)
                || row.group.is_some_and(|g| rights.within(g) >= Some(Admin))
        };
        shown.extend(rows.iter().filter(|row| may(row)).map(|row| RoleView {
            key: Text::lossy(&format!("{}/{}", row.name, row.group_name)),
            user: row.name.clone(),
            group: row.group_name.clone(),
            role: row.role,
        }));
    }
    Ok(RolePage { roles: fit(shown) })
}
