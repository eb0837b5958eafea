//! Users: passwords, tokens, and what a group may have.

use super::access::{open, user};
use super::requests::{reason, text};
use super::services::finish_job;
use super::suite::{Life, Session, Suite};
use crate::db::{Db, MIGRATIONS};
use skep_proto::broker::*;
use skep_proto::storage::{DiskKind, Packing, SourceFormat};
use skep_proto::{Reason, Refusal, Secret, Text, upload};
use std::io::Write;
use std::time::Instant;

const PASSWORD: &str = "correct horse";

fn secret(text: &str) -> Secret {
    text.parse().expect("a password")
}

fn password(user: &str, password: &str) -> Credential {
    Credential::Password { user: text(user), password: secret(password), peer: Text::lossy("192.0.2.1") }
}

async fn with_password(life: &Life, name: &str) -> Session {
    let mut root = life.session().await;
    let create = UserCreate { name: name.parse().expect("a name"), password: Some(secret(PASSWORD)), local_uid: None };
    root.ask(create).await.expect("made");
    root
}

fn token(name: &str, seconds: u64) -> TokenCreate {
    TokenCreate { name: text(name), user: None, seconds }
}

#[test]
fn a_password_opens_a_session_which_makes_a_token() {
    Suite::new().live(async |life: Life| {
        let mut root = with_password(&life, "alice").await;
        let mut login = open(&life, password("alice", PASSWORD)).await.expect("a session");
        let made = login.ask(token("laptop", 60)).await.expect("made");
        assert_eq!(made.user.as_str(), "alice");
        assert!(made.expires_ns > skep_service::now_ns());
        let mut alice = open(&life, Credential::Token(made.token)).await.expect("a session");
        let own = alice.ask(UserGet { user: None }).await.expect("oneself");
        assert_eq!((own.name.as_str(), own.password, own.disabled), ("alice", true, false));
        assert_eq!(reason(alice.ask(UserList { after: None }).await), Reason::PermissionDenied);
        assert_eq!(root.ask(UserList { after: None }).await.expect("a list").users, [own]);
        // Wrong, missing, without a password, by another's name: one answer.
        let none = UserCreate { name: "bob".parse().expect("a name"), password: None, local_uid: None };
        root.ask(none).await.expect("made");
        let mut said = Vec::new();
        for (name, word) in [("alice", "correct horsf"), ("carol", PASSWORD), ("bob", ""), ("uid 0", PASSWORD), ("'; --", "x")] {
            let refusal = open(&life, password(name, word)).await.err().expect("refused");
            assert_eq!(refusal.reason, Reason::Unauthenticated);
            said.push(refusal.note.to_string());
            assert!(!refusal.to_string().contains("horse"));
        }
        said.dedup();
        assert_eq!(said, ["the user or the password is wrong"]);
        let again = || UserCreate { name: "alice".parse().expect("a name"), password: None, local_uid: None };
        assert_eq!(reason(root.ask(again()).await), Reason::AlreadyExists);
        let short = UserCreate { password: Some(secret("7 chars")), ..again() };
        assert_eq!(reason(root.ask(short).await), Reason::InvalidValue);
        let of_root = UserCreate { local_uid: Some(0), ..again() };
        assert_eq!(root.ask(of_root).await.expect_err("refused").field.as_str(), "local_uid");
    });
}

#[test]
fn a_password_is_changed_by_who_knows_it() {
    Suite::new().live(async |life: Life| {
        let mut root = with_password(&life, "alice").await;
        let mut alice = open(&life, password("alice", PASSWORD)).await.expect("a session");
        let change = |old: Option<&str>, new: &str| UserPassword { user: None, old: old.map(secret), new: secret(new) };
        assert_eq!(reason(alice.ask(change(None, "another one")).await), Reason::InvalidValue);
        assert_eq!(reason(alice.ask(change(Some("wrong one"), "another one")).await), Reason::Unauthenticated);
        assert_eq!(reason(alice.ask(change(Some(PASSWORD), "short")).await), Reason::InvalidValue);
        alice.ask(change(Some(PASSWORD), "another one")).await.expect("changed");
        assert_eq!(reason(open(&life, password("alice", PASSWORD)).await.map(drop)), Reason::Unauthenticated);
        open(&life, password("alice", "another one")).await.expect("a session");
        root.ask(UserPassword { user: Some(text("alice")), old: None, new: secret("a third one") }).await.expect("changed");
        open(&life, password("alice", "a third one")).await.expect("a session");
        assert_eq!(reason(root.ask(change(None, "another one")).await), Reason::WrongState);
    });
}

#[test]
fn open_sessions_end_with_their_tokens_and_users() {
    Suite::new().live(async |life: Life| {
        let mut root = with_password(&life, "alice").await;
        let role = RoleGrant { user: text("alice"), group: None, role: Role::Viewer };
        root.ask(role).await.expect("granted");
        let session = async |name: &str, seconds| {
            let mut login = open(&life, password("alice", PASSWORD)).await.expect("a session");
            let made = login.ask(token(name, seconds)).await.expect("made");
            let session = open(&life, Credential::Token(made.token.clone())).await.expect("a session");
            (made.token, session)
        };
        let ended = async |token: Text<128>, mut session: Session| {
            assert_eq!(reason(session.ask(HostShow {}).await), Reason::Unauthenticated, "the next call");
            assert_eq!(reason(open(&life, Credential::Token(token)).await.map(drop)), Reason::Unauthenticated);
        };
        let (a, mut in_a) = session("a", 0).await;
        let (b, mut in_b) = session("b", 1).await;
        in_a.ask(HostShow {}).await.expect("shown");
        in_b.ask(HostShow {}).await.expect("shown");
        let listed = in_a.ask(TokenList { user: None, after: None }).await.expect("a list").tokens;
        let listed: Vec<_> = listed.iter().map(|t| (t.name.as_str(), t.user.as_str(), t.expires_ns > 0, t.used_ns > 0)).collect();
        assert_eq!(listed, [("a", "alice", false, true), ("b", "alice", true, true)]);
        tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
        ended(b, in_b).await;
        let delete = |name: &str| TokenDelete { name: text(name), user: None };
        assert_eq!(reason(in_a.ask(delete("none")).await), Reason::NotFound);
        in_a.ask(delete("a")).await.expect("deleted");
        ended(a, in_a).await;
        let (c, in_c) = session("c", 60).await;
        root.ask(TokenDelete { name: text("c"), user: Some(text("alice")) }).await.expect("deleted");
        ended(c, in_c).await;
        // Locked out: tokens stay, and open nothing; nor does the password.
        let (d, mut in_d) = session("d", 60).await;
        let login = open(&life, password("alice", PASSWORD)).await.expect("a session");
        let disable = |disabled| UserDisable { user: text("alice"), disabled };
        root.ask(disable(true)).await.expect("locked out");
        assert_eq!(reason(in_d.ask(HostShow {}).await), Reason::Unauthenticated);
        let mut login = login;
        assert_eq!(reason(login.ask(token("e", 0)).await), Reason::Unauthenticated);
        assert_eq!(reason(open(&life, password("alice", PASSWORD)).await.map(drop)), Reason::Unauthenticated);
        root.ask(disable(false)).await.expect("let in");
        let in_d = open(&life, Credential::Token(d.clone())).await.expect("let in");
        root.ask(UserDelete { user: text("alice") }).await.expect("deleted");
        ended(d, in_d).await;
        assert_eq!(root.ask(TokenList { user: None, after: None }).await.expect("a list").tokens, []);
        assert_eq!(root.ask(RoleList { after: None }).await.expect("a list").roles, []);
    });
}

#[test]
fn guessing_is_refused_with_a_time_before_anything_is_hashed() {
    Suite::new().live(async |life: Life| {
        let mut root = with_password(&life, "alice").await;
        let mut refused = None;
        // Before the guess that counted, and before the one that was not looked at.
        let mut before = [Instant::now(); 2];
        for _ in 0..8 {
            before = [before[1], Instant::now()];
            let refusal = open(&life, password("alice", "a wrong guess")).await.err().expect("refused");
            if refusal.reason == Reason::TooManyTries {
                refused = Some(refusal);
                break;
            }
        }
        let wait = refused.expect("slowed").wait().expect("a time");
        assert!((1..=60).contains(&wait.as_secs()), "{wait:?}");
        // The right one does not come through either before that, and says nothing about being right: nothing is hashed for it.
        let hashed = life.broker.logins.begun();
        match open(&life, password("alice", PASSWORD)).await {
            Err(refusal) => assert_eq!((refusal.reason, life.broker.logins.begun()), (Reason::TooManyTries, hashed)),
            // On a host so slow that it is over.
            Ok(_) => assert!(before[0].elapsed() >= wait, "after {:?}", before[0].elapsed()),
        }
        // Tokens and others go on.
        let create = TokenCreate { name: text("t"), user: Some(text("alice")), seconds: 60 };
        let made = root.ask(create).await.expect("made");
        open(&life, Credential::Token(made.token)).await.expect("a session");
    });
}

#[test]
fn quotas_hold_under_concurrent_additions() {
    let suite = Suite::new();
    suite.live(async |life: Life| {
        life.up().await;
        let mut root = life.session().await;
        let quota = Quota { machines: 3, cpus: 4, memory_mib: 1024, disk_bytes: 5 << 20 };
        root.ask(GroupCreate { name: "g".parse().expect("a name"), quota }).await.expect("a group");
        let mut alice = user(&life, "alice", Some((Some("g"), Role::Operator))).await;
        let used = async |s: &mut Session| s.ask(GroupList { after: None }).await.expect("a list").groups.pop().expect("g").used;
        let machine = |name: String, cpus, memory| MachineCreate {
            name: name.parse().expect("a name"),
            settings: Settings { cpus: Some(cpus), memory_mib: Some(memory), ..Settings::default() },
            group: Some(text("g")),
        };
        let disk = |name: String, size| DiskCreate {
            name: name.parse().expect("a name"),
            kind: DiskKind::Raw,
            size,
            group: Some(text("g")),
        };
        // Eight at once, of everything.
        let mut tasks = Vec::new();
        for n in 0..8 {
            let mut s = life.session().await;
            let (machine, disk) = (machine(format!("m{n}"), 1, 64), disk(format!("d{n}"), 1 << 20));
            tasks.push(tokio::task::spawn_local(async move {
                let made = s.ask(machine).await.map(drop);
                let kept = s.ask(disk).await.map(drop);
                let grown = s.ask(DiskResize { disk: text(&format!("d{n}")), size: 2 << 20, shrink: false }).await.map(drop);
                [made, kept, grown]
            }));
        }
        let mut results: Vec<Result<(), Refusal>> = Vec::new();
        for task in tasks {
            results.extend(task.await.expect("no panic"));
        }
        for refusal in results.into_iter().filter_map(Result::err) {
            assert!(matches!(refusal.reason, Reason::QuotaReached | Reason::NotFound), "{refusal}");
        }
        let now = used(&mut alice).await;
        assert_eq!((now.machines, now.cpus, now.memory_mib), (3, 3, 192));
        assert!(now.disk_bytes <= quota.disk_bytes, "{now:?}");
        // Each part says which it is.
        let field = |result: Result<(), Refusal>| result.expect_err("refused").field.to_string();
        assert_eq!(field(alice.ask(machine("more".into(), 1, 16)).await.map(drop)), "machines");
        let names = alice.ask(MachineList { after: None }).await.expect("a list").machines;
        let first = text(names.first().expect("three").name.as_str());
        let set = |cpus, memory| MachineSet {
            machine: first.clone(),
            settings: Settings { cpus, memory_mib: memory, ..Settings::default() },
            revision: 0,
        };
        assert_eq!(field(alice.ask(set(Some(3), None)).await.map(drop)), "cpus");
        assert_eq!(field(alice.ask(set(None, Some(1024))).await.map(drop)), "memory");
        alice.ask(set(Some(2), Some(512))).await.expect("within");
        assert_eq!(field(alice.ask(disk("big".into(), 6 << 20)).await.map(drop)), "disk");
        // An image that turns out larger than there is room for.
        for disk in alice.ask(DiskList { after: None, iso: None, image: None }).await.expect("a list").disks {
            alice.ask(DiskDelete { disk: text(disk.name.as_str()) }).await.expect("deleted");
        }
        let import = DiskImport {
            name: "image".parse().expect("a name"),
            kind: DiskKind::Raw,
            format: SourceFormat::Raw,
            packing: Packing::Detect,
            expect: 0,
            sha256: None,
            group: Some(text("g")),
            iso: false,
            image: None,
            description: Text::default(),
        };
        let (op, stream) = alice.import_with(import).await.expect("begun");
        alice.ask(disk("rest".into(), 5 << 20)).await.expect("there is room yet");
        let piece = [&upload::header(5000).expect("a length")[..], &[7; 5000], &upload::END].concat();
        std::fs::File::from(stream).write_all(&piece).expect("written");
        assert_eq!(alice.done(op).await.expect_err("no room").reason, Reason::QuotaReached);
        suite.settled(&life.broker).await;
        assert_eq!(used(&mut alice).await.disk_bytes, 5 << 20);
        // Copies count, and a smaller quota takes nothing away.
        let clone =
            DiskClone { disk: text("rest"), name: "copy".parse().expect("a name"), image: None, full: false, snapshot: None };
        assert_eq!(reason(alice.ask(clone).await), Reason::QuotaReached);
        let nic = |n: u32| NicCreate {
            name: format!("n{n}").parse().expect("a name"),
            switch: None,
            mac: None,
            machine: None,
            group: Some(text("g")),
            model: NicModel::VirtioNet,
            slot: None,
            address: None,
            rates: skep_proto::Rates::default(),
            isolated: false,
            forwards: Default::default(),
        };
        for n in 0..12 {
            alice.ask(nic(n)).await.expect("four for each machine");
        }
        assert_eq!(field(alice.ask(nic(12)).await.map(drop)), "nics");
        let less = Quota { machines: 1, ..Quota::default() };
        root.ask(GroupQuota { group: text("g"), quota: less }).await.expect("set");
        alice.ask(set(Some(1), None)).await.expect("less than before");
        assert_eq!(used(&mut alice).await.machines, 3);
        suite.world.lock().hold_jobs = true;
        let clone =
            DiskClone { disk: text("rest"), name: "copy".parse().expect("a name"), image: None, full: false, snapshot: None };
        let op = alice.ask(clone).await.expect("any number of bytes");
        while suite.world.lock().jobs.is_empty() {
            suite.world.news.notified().await;
        }
        let (id, channel) = suite.world.lock().jobs.pop().expect("a job");
        finish_job(&suite.world, id, &channel, 5 << 20);
        alice.done(op).await.expect("copied");
    });
}

#[test]
fn tokens_of_before_are_an_administrators() {
    let dir = tempfile::TempDir::new().expect("a directory");
    let path = dir.path().join("skep.db");
    let old = rusqlite::Connection::open(&path).expect("made");
    for sql in MIGRATIONS.iter().take(6) {
        old.execute_batch(sql).expect("migrated");
    }
    old.pragma_update(None, "user_version", 6).expect("written");
    let hash = [7u8; 32];
    old.execute("INSERT INTO tokens (hash, name, created_ns) VALUES (?, 'laptop', 5)", [hash.as_slice()]).expect("written");
    old.execute(
        "INSERT INTO machines (id, name, stage, state, cpus, memory_mib, acceleration, screen, cpu_percent, description, created_ns)
         VALUES ('00000000-0000-0000-0000-000000000001', 'web', 'ready', 'stopped', 1, 64, 0, 0, 0, '', 5),
                ('00000000-0000-0000-0000-000000000002', 'db', 'ready', 'running', 1, 64, 0, 0, 0, '', 5)",
        [],
    )
    .expect("written");
    drop(old);
    let db = Db::open(&path).expect("upgraded");
    let token = db.token(&hash).expect("read").expect("kept");
    assert_eq!((token.name.as_str(), token.user, token.expires_ns), ("laptop", None, 0));
    use crate::db::machines::Machines;
    let machine = db.find_machine("web").expect("read").expect("kept");
    assert_eq!((machine.group, machine.group_name.as_str()), (crate::db::groups::DEFAULT, "default"));
    let running = db.find_machine("db").expect("read").expect("kept");
    assert_eq!((machine.wanted, running.wanted), (false, true));
}

#[test]
fn calls_are_recorded_without_secrets() {
    let suite = Suite::new();
    let logs = tempfile::TempDir::new().expect("a directory");
    let kept = skep_service::Kept::open(logs.path(), "audit-broker").expect("open");
    suite.live_with(skep_service::Journal::new("broker", Some(kept)), async |life: Life| {
        let mut root = with_password(&life, "alice").await;
        let mut login = open(&life, password("alice", PASSWORD)).await.expect("a session");
        let made = login.ask(token("laptop", 60)).await.expect("made");
        let mut alice = open(&life, Credential::Token(made.token.clone())).await.expect("a session");
        let _ = alice.get("web\u{202e}").await;
        let _ = open(&life, password("alice", "a wrong guess")).await;
        let change = UserPassword { user: None, old: Some(secret(PASSWORD)), new: secret("another one") };
        alice.ask(change).await.expect("changed");
        root.ask(UserDelete { user: text("alice") }).await.expect("deleted");
        let record = std::fs::read_to_string(logs.path().join("audit-broker.log")).expect("a record");
        let lines: Vec<Vec<&str>> = record.lines().map(|line| line.split('\t').skip(4).collect()).collect();
        for expected in [
            ["uid 0", "UserCreate", "done", "user alice"],
            ["alice", "OpenSession", "done", "Password of alice from 192.0.2.1"],
            ["alice", "TokenCreate", "done", "token laptop"],
            ["alice", "OpenSession", "done", "Token"],
            [
                "",
                "OpenSession",
                "UNAUTHENTICATED",
                "Password of alice from 192.0.2.1: login alice: the credential is not valid: the user or the password is wrong",
            ],
            ["alice", "UserPassword", "done", ""],
            ["uid 0", "UserDelete", "done", "user alice"],
        ] {
            let name = if nix::unistd::geteuid().is_root() { expected } else { continue };
            assert!(lines.iter().any(|line| line == &name), "{expected:?} is not in\n{record}");
        }
        assert!(lines.iter().any(|line| line.get(1..3) == Some(&["MachineGet", "NOT_FOUND"])), "{record}");
        for hidden in [PASSWORD, "another one", "a wrong guess", made.token.as_str()] {
            assert!(!record.contains(hidden), "{record}");
        }
    });
}

#[test]
fn hostile_names_are_refused_or_kept_as_they_are() {
    Suite::new().live(async |life: Life| {
        let mut root = life.session().await;
        for wrong in ["", " ", "a b", "../x", "-x", "a/b", "a\0", "é", &"x".repeat(64), "uid 0", "'; DROP TABLE users; --"] {
            assert!(wrong.parse::<skep_proto::UserName>().is_err() && wrong.parse::<skep_proto::GroupName>().is_err(), "{wrong}");
        }
        // Where a name is looked up, any text may come; JSON and patterns of SQL mean nothing.
        for odd in ["%", "\"]", "' OR '1'='1", "[\"a\"]", "\u{202e}", "00000000-0000-0000-0000-000000000000x"] {
            assert_eq!(reason(root.ask(UserGet { user: Some(text(odd)) }).await), Reason::NotFound, "{odd}");
            assert_eq!(reason(root.ask(GroupDelete { group: text(odd) }).await), Reason::NotFound, "{odd}");
            assert_eq!(reason(root.ask(TokenDelete { name: text(odd), user: None }).await), Reason::NotFound, "{odd}");
            let made = root.ask(TokenCreate { name: text(odd), user: None, seconds: 0 }).await;
            assert!(made.is_ok() != odd.contains('/'), "{odd}");
            let after = Some(Text::lossy(&format!("{odd}/{odd}")));
            root.ask(TokenList { user: None, after: after.clone() }).await.expect("a list");
            root.ask(RoleList { after }).await.expect("a list");
        }
        // No machine is called like another's id, so none stands for another.
        let id = root.machine("web", &[]).await.expect("a machine").id.to_string();
        root.ask(GroupCreate { name: "g".parse().expect("a name"), quota: Quota::default() }).await.expect("a group");
        let mut alice = user(&life, "alice", Some((Some("g"), Role::Operator))).await;
        assert_eq!(reason(alice.get(&id).await), Reason::NotFound);
        let create = MachineCreate { name: id.parse().expect("a name"), settings: Settings::default(), group: Some(text("g")) };
        assert_eq!(reason(alice.ask(create).await), Reason::AlreadyExists);
        let longest = i64::MAX.unsigned_abs();
        let quota = Quota { machines: u32::MAX, cpus: u32::MAX, memory_mib: longest, disk_bytes: longest };
        assert_eq!(root.ask(GroupQuota { group: text("g"), quota }).await.expect("set").quota, quota);
        for seconds in [u64::MAX, 3650 * 24 * 3600 + 1] {
            assert_eq!(reason(root.ask(TokenCreate { name: text("t"), user: None, seconds }).await), Reason::InvalidValue);
        }
    });
}
