//! New names: who and what bears them is the same as before.

use super::access::{open, user};
use super::requests::{reason, text};
use super::suite::{Life, Suite};
use crate::db::groups::DEFAULT;
use skep_proto::broker::*;
use skep_proto::storage::DiskKind;
use skep_proto::{Reason, Secret, Text};

fn name<T: std::str::FromStr<Err: std::fmt::Debug>>(name: &str) -> T {
    name.parse().expect("a name")
}

/// What was told of renamed objects of a kind: the new name and the one before.
fn told(life: &Life, object: &str) -> Vec<(String, String)> {
    let events = life.broker.read(|db| db.events_after(0, object, None)).expect("read");
    let renamed =
        events.into_iter().filter(|event| event.what.as_str() == "renamed" || event.detail.as_str().contains("renamed"));
    renamed.map(|event| (event.name.to_string(), event.detail.to_string())).collect()
}

#[test]
fn who_is_renamed_goes_on() {
    Suite::new().live(async |life: Life| {
        life.up().await;
        let mut root = life.session().await;
        root.ask(GroupCreate { name: name("shop"), quota: Quota { machines: 1, ..Quota::default() } }).await.expect("a group");
        let mut alice = user(&life, "alice", Some((Some("shop"), Role::Operator))).await;
        let create = |vm: &str, group: Option<&str>| MachineCreate {
            name: name(vm),
            settings: Settings { memory_mib: Some(64), ..Settings::default() },
            group: group.map(text),
        };
        alice.ask(create("web", Some("shop"))).await.expect("a machine");
        let word = || "correct horse".parse::<Secret>().expect("a password");
        root.ask(UserPassword { user: Some(text("alice")), old: None, new: word() }).await.expect("set");
        let before = root.ask(UserGet { user: Some(text("alice")) }).await.expect("there");
        let group = root.ask(GroupRename { group: text("shop"), name: name("store") }).await.expect("renamed");
        let after = root.ask(UserRename { user: text("alice"), name: name("alicia") }).await.expect("renamed");
        assert!(after.id.is_some());
        assert_eq!(after, UserView { name: Text::lossy("alicia"), ..before });
        assert_eq!((group.used.machines, group.quota.machines), (1, 1));
        // The session, its token and its role are hers still; so is what the group has and may have.
        let own = alice.ask(UserGet { user: None }).await.expect("oneself");
        assert_eq!(own, after);
        assert_eq!(alice.get("web").await.expect("seen").group.as_str(), "store");
        assert_eq!(reason(alice.ask(create("two", Some("store"))).await), Reason::QuotaReached);
        let tokens = alice.ask(TokenList { user: None, after: None }).await.expect("a list").tokens;
        assert_eq!(tokens.iter().map(|token| token.key.as_str()).collect::<Vec<_>>(), ["alicia/t"]);
        let roles = alice.ask(RoleList { after: None }).await.expect("a list").roles;
        assert_eq!(roles.iter().map(|role| role.key.as_str()).collect::<Vec<_>>(), ["alicia/store"]);
        // She logs in by the new name. The old one is nobody's, and whoever gets it has nothing of hers.
        let log_in = |user: &str| Credential::Password { user: text(user), password: word(), peer: Text::lossy("192.0.2.1") };
        open(&life, log_in("alicia")).await.expect("a session");
        assert_eq!(reason(open(&life, log_in("alice")).await.map(drop)), Reason::Unauthenticated);
        let mut other = user(&life, "alice", None).await;
        root.ask(GroupCreate { name: name("shop"), quota: Quota::default() }).await.expect("a group");
        assert_eq!(reason(other.get("web").await), Reason::NotFound);
        assert_eq!(root.ask(RoleList { after: None }).await.expect("a list").roles, roles);
        // Nobody is called like another's id, and the same name again is no event.
        let id = after.id.expect("an id").to_string();
        assert_eq!(reason(root.ask(UserRename { user: text("alice"), name: name(&id) }).await), Reason::AlreadyExists);
        let rename = |to: &str| GroupRename { group: text("shop"), name: name(to) };
        assert_eq!(reason(root.ask(rename(&group.id.to_string())).await), Reason::AlreadyExists);
        root.ask(UserRename { user: text(&id), name: name("alicia") }).await.expect("as it is");
        root.ask(GroupRename { group: text("store"), name: name("store") }).await.expect("as it is");
        // The group of whatever names none is that by id.
        let first = root.ask(GroupRename { group: text("default"), name: name("first") }).await.expect("renamed");
        assert_eq!(first.id, DEFAULT);
        assert_eq!(root.ask(create("loose", None)).await.expect("a machine").group.as_str(), "first");
        root.ask(RoleGrant { user: text("alice"), group: Some(text("first")), role: Role::Operator }).await.expect("granted");
        assert_eq!(other.ask(create("own", None)).await.expect("a machine").group.as_str(), "first");
        assert_eq!(reason(root.ask(GroupDelete { group: text("first") }).await), Reason::WrongState);
        let pair = |new: &str, old: &str| (new.to_owned(), old.to_owned());
        assert_eq!(told(&life, "user"), [pair("alicia", "alice")]);
        assert_eq!(told(&life, "group"), [pair("store", "shop"), pair("first", "default")]);
    });
}

#[test]
fn snapshots_are_renamed() {
    let suite = Suite::new();
    suite.live(async |life: Life| {
        life.up().await;
        let mut s = life.session().await;
        let volume = DiskCreate { name: name("vol"), kind: DiskKind::Zvol, size: 1 << 20, group: None };
        s.ask(volume).await.expect("a disk");
        let mut made = Vec::new();
        for snapshot in ["before", "kept"] {
            made.push(s.ask(SnapshotCreate { disk: text("vol"), name: name(snapshot) }).await.expect("made"));
        }
        let rename = |from: &str, to: &str| SnapshotRename { disk: text("vol"), snapshot: text(from), name: name(to) };
        let refusal = s.ask(rename("before", "kept")).await.expect_err("taken");
        assert_eq!((refusal.reason, refusal.field.as_str()), (Reason::AlreadyExists, "name"), "{refusal}");
        let [before, kept] = made.as_slice() else { panic!("two were made") };
        assert_eq!(reason(s.ask(rename("before", &kept.id.to_string())).await), Reason::AlreadyExists);
        assert_eq!(reason(s.ask(rename("missing", "a")).await), Reason::NotFound);
        let renamed = s.ask(rename("kept", "newest")).await.expect("renamed");
        assert_eq!(renamed, SnapshotView { name: name("newest"), ..kept.clone() });
        let listed = s.ask(SnapshotList { disk: text("vol"), after: None }).await.expect("a list").snapshots;
        assert_eq!(
            listed.iter().map(|v| (v.id, v.name.as_str())).collect::<Vec<_>>(),
            [(before.id, "before"), (kept.id, "newest")]
        );
        // It is brought back to and deleted by the new name; the old one is free.
        s.ask(SnapshotRollBack { disk: text("vol"), snapshot: text("newest") }).await.expect("rolled back");
        s.ask(rename("before", "kept")).await.expect("free");
        s.ask(SnapshotDelete { disk: text("vol"), snapshot: text("newest") }).await.expect("deleted");
        s.ask(SnapshotDelete { disk: text("vol"), snapshot: text("kept") }).await.expect("deleted");
        assert_eq!(suite.world.lock().snapshots.len(), 0);
        let pair = |detail: &str| ("vol".to_owned(), detail.to_owned());
        assert_eq!(told(&life, "disk"), [pair("snapshot kept renamed to newest"), pair("snapshot before renamed to kept")]);
    });
}

#[test]
fn a_machines_snapshot_is_renamed_with_its_parts() {
    // Elsewhere only volumes have snapshots.
    if !crate::platform::LAYERS {
        return;
    }
    Suite::new().live(async |life: Life| {
        life.up().await;
        let mut s = life.session().await;
        for disk in ["root", "data"] {
            s.disk(disk).await.expect("a disk");
        }
        s.machine("web", &["root", "data"]).await.expect("a machine");
        for snapshot in ["before", "kept"] {
            s.ask(WholeCreate { machine: text("web"), name: name(snapshot) }).await.expect("made");
        }
        s.ask(SnapshotCreate { disk: text("data"), name: name("own") }).await.expect("made");
        let rename = |from: &str, to: &str| WholeRename { machine: text("web"), snapshot: text(from), name: name(to) };
        let parts = async |s: &mut super::suite::Session, disk: &str| {
            let all = s.ask(SnapshotList { disk: text(disk), after: None }).await.expect("a list").snapshots;
            all.iter().map(|v| v.name.to_string()).collect::<Vec<_>>()
        };
        // Taken: by another of the machine's, or on one of its disks; then nothing of it is done.
        assert_eq!(reason(s.ask(rename("before", "kept")).await), Reason::AlreadyExists);
        let refusal = s.ask(rename("before", "own")).await.expect_err("taken");
        assert_eq!(refusal.reason, Reason::AlreadyExists);
        assert!(refusal.to_string().contains("disk data"), "{refusal}");
        assert_eq!((parts(&mut s, "root").await, parts(&mut s, "data").await.len()), (vec!["before".into(), "kept".into()], 3));
        let renamed = s.ask(rename("before", "then")).await.expect("renamed");
        assert_eq!((renamed.name.as_str(), renamed.disks.len()), ("then", 2));
        assert_eq!(parts(&mut s, "root").await, ["kept", "then"]);
        assert_eq!(parts(&mut s, "data").await, ["kept", "own", "then"]);
        // A part has its machine's name for it.
        let part = SnapshotRename { disk: text("root"), snapshot: text("then"), name: name("other") };
        let refusal = s.ask(part).await.expect_err("a part");
        assert_eq!(refusal.reason, Reason::InUse);
        assert!(refusal.to_string().contains("skep vm snapshot rename web then"), "{refusal}");
        s.ask(WholeRollBack { machine: text("web"), snapshot: text("then") }).await.expect("rolled back");
        s.ask(WholeDelete { machine: text("web"), snapshot: text("then") }).await.expect("deleted");
        assert_eq!(reason(s.ask(rename("then", "a")).await), Reason::NotFound);
        let pair = |detail: &str| ("web".to_owned(), detail.to_owned());
        assert_eq!(told(&life, "machine"), [pair("snapshot before renamed to then")]);
    });
}
