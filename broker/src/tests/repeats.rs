//! Requests that come again, because their clients do not know whether they arrived.

use super::access::user;
use super::requests::{reason, text};
use super::suite::{Life, Session, Suite};
use skep_proto::broker::{self as proto, *};
use skep_proto::storage::{DiskKind, Packing, SourceFormat};
use skep_proto::{Call, Reason, Refusal, RequestId, UpTo, upload};
use std::io::Write;
use std::os::fd::OwnedFd;

async fn once<C: Call<Helper = proto::Broker, SendFds = [OwnedFd; 0]>>(
    s: &mut Session, id: RequestId, call: C,
) -> Result<(C::Reply, C::ReplyFds), Refusal> {
    s.ask(RequestKey { id }).await.expect("marked");
    s.ask_with(call, []).await
}

fn machine(name: &str, memory: u64) -> MachineCreate {
    let settings = Settings { memory_mib: Some(memory), ..Settings::default() };
    MachineCreate { name: name.parse().expect("a name"), settings, group: None }
}

fn disk(name: &str) -> DiskCreate {
    DiskCreate { name: name.parse().expect("a name"), kind: DiskKind::Raw, size: 1 << 20, group: None }
}

#[test]
fn a_repeated_request_is_answered_with_what_it_made() {
    let suite = Suite::new();
    let (vm, dk) = (RequestId::random(), RequestId::random());
    let (made, stored) = suite.live(async |life: Life| {
        life.up().await;
        let mut s = life.session().await;
        let (made, []) = once(&mut s, vm, machine("web", 64)).await.expect("made");
        let (again, []) = once(&mut s, vm, machine("web", 64)).await.expect("the same");
        assert_eq!(made, again);
        // As it is by now, whatever it is called.
        s.ask(MachineRename { machine: text("web"), name: "www".parse().expect("a name") }).await.expect("renamed");
        assert_eq!(once(&mut s, vm, machine("web", 64)).await.expect("the same").0.name.as_str(), "www");
        for other in [machine("web", 128), machine("other", 64)] {
            let refusal = once(&mut s, vm, other).await.expect_err("another request");
            assert_eq!((refusal.reason, refusal.field.as_str()), (Reason::AlreadyExists, "request_id"));
            assert!(refusal.object.as_str().contains(&vm.to_string()), "{refusal}");
        }
        assert_eq!(reason(once(&mut s, vm, disk("root")).await), Reason::AlreadyExists);
        // It counts for the next request alone.
        assert_eq!(reason(s.ask(machine("www", 64)).await), Reason::AlreadyExists);
        let (stored, []) = once(&mut s, dk, disk("root")).await.expect("made");
        assert_eq!(once(&mut s, dk, disk("root")).await.expect("the same").0.id, stored.id);
        // What failed is tried anew.
        let id = RequestId::random();
        assert_eq!(reason(once(&mut s, id, machine("www", 64)).await), Reason::AlreadyExists);
        s.ask(MachineRename { machine: text("www"), name: "web".parse().expect("a name") }).await.expect("renamed");
        assert_ne!(once(&mut s, id, machine("www", 64)).await.expect("made").0.id, made.id);
        (made.id, stored.id)
    });
    // The broker's next life knows it, too.
    suite.live(async |life: Life| {
        life.up().await;
        let mut s = life.session().await;
        assert_eq!(once(&mut s, vm, machine("web", 64)).await.expect("the same").0.id, made);
        assert_eq!(once(&mut s, dk, disk("root")).await.expect("the same").0.id, stored);
        s.ask(DiskDelete { disk: text("root") }).await.expect("deleted");
        assert_eq!(reason(once(&mut s, dk, disk("root")).await), Reason::NotFound);
        suite.settled(&life.broker).await;
    });
}

#[test]
fn a_repeat_shows_nothing_that_its_user_may_not_see_by_now() {
    Suite::new().live(async |life: Life| {
        life.up().await;
        let mut root = life.session().await;
        for group in ["g", "h"] {
            let name = group.parse().expect("a name");
            root.ask(GroupCreate { name, quota: Quota::default() }).await.expect("a group");
        }
        let mut alice = user(&life, "alice", Some((Some("g"), Role::Operator))).await;
        let (id, create) = (RequestId::random(), || DiskCreate { group: Some(text("g")), ..disk("root") });
        let (made, []) = once(&mut alice, id, create()).await.expect("made");
        root.ask(GroupAdd { group: text("h"), what: Moved::Disk(text("root")) }).await.expect("moved");
        assert_eq!(reason(once(&mut alice, id, create()).await), Reason::NotFound);
        root.ask(GroupAdd { group: text("g"), what: Moved::Disk(text("root")) }).await.expect("moved back");
        assert_eq!(once(&mut alice, id, create()).await.expect("the same").0.id, made.id);
    });
}

#[test]
fn every_kind_of_create_can_be_repeated() {
    let suite = Suite::new();
    suite.live(async |life: Life| {
        life.up().await;
        let mut s = life.session().await;
        s.machine("web", &[]).await.expect("a machine");
        s.disk("root").await.expect("a disk");
        macro_rules! twice {
            ($call:expr) => {{
                let id = RequestId::random();
                let first = once(&mut s, id, $call).await.expect("made").0;
                let second = once(&mut s, id, $call).await.expect("the same").0;
                (first, second)
            }};
        }
        let name = || "lan".parse().expect("a name");
        let (a, b) = twice!(SwitchCreate {
            name: name(),
            uplink: None,
            kind: SwitchKind::Plain,
            subnet: None,
            tunnel: None,
            subnet6: None
        });
        assert_eq!(a, b);
        let nic = || "n".parse().expect("a name");
        let (a, b) = twice!(NicCreate {
            name: nic(),
            switch: None,
            mac: None,
            machine: None,
            group: None,
            model: NicModel::VirtioNet,
            slot: None,
            address: None,
            rates: skep_proto::Rates::default(),
            isolated: false,
            forwards: Default::default(),
        });
        assert_eq!(a, b);
        let (a, b) = twice!(NicClone { nic: text("n"), name: "n2".parse().expect("a name") });
        assert_eq!(a, b);
        let (a, b) = twice!(GroupCreate { name: "shop".parse().expect("a name"), quota: Quota::default() });
        assert_eq!(a, b);
        let password = || Some("correct horse".parse().expect("a password"));
        let (a, b) = twice!(UserCreate { name: "alice".parse().expect("a name"), password: password(), local_uid: None });
        assert_eq!(a, b);
        let (a, b) =
            twice!(MachineClone { machine: text("web"), name: "copy".parse().expect("a name"), snapshot: None, full: false });
        assert_eq!(a.id, b.id);
        s.done(a).await.expect("copied");
        let (a, b) = twice!(DiskClone {
            disk: text("root"),
            name: "copy".parse().expect("a name"),
            image: None,
            full: false,
            snapshot: None
        });
        assert_eq!(a.id, b.id);
        s.done(a).await.expect("copied");
        // Files have snapshots where layers are.
        if crate::platform::LAYERS {
            let (a, b) = twice!(SnapshotCreate { disk: text("root"), name: "s".parse().expect("a name") });
            assert_eq!(a.id, b.id);
            let (a, b) = twice!(WholeCreate { machine: text("web"), name: "w".parse().expect("a name") });
            assert_eq!(a.id, b.id);
            // By what it was made of: another disk that has the name by now is nobody's answer, and what is deleted is not found.
            let id = RequestId::random();
            let create = || SnapshotCreate { disk: text("root"), name: "t".parse().expect("a name") };
            let (made, []) = once(&mut s, id, create()).await.expect("made");
            s.ask(DiskSet {
                disk: text("root"),
                name: Some("was-root".parse().expect("a name")),
                description: None,
                image: None,
                rates: DiskRatesDraft::default(),
            })
            .await
            .expect("renamed");
            s.disk("root").await.expect("a disk");
            assert_eq!(once(&mut s, id, create()).await.expect("the same").0.id, made.id);
            let other = SnapshotCreate { disk: text("root"), name: "u".parse().expect("a name") };
            assert_eq!(reason(once(&mut s, id, other).await), Reason::AlreadyExists);
            s.ask(SnapshotDelete { disk: text("was-root"), snapshot: text("t") }).await.expect("deleted");
            assert_eq!(reason(once(&mut s, id, create()).await), Reason::NotFound);
        }
        suite.settled(&life.broker).await;
    });
}

#[test]
fn an_import_is_repeated_until_it_succeeds() {
    let suite = Suite::new();
    suite.live(async |life: Life| {
        life.up().await;
        let mut s = life.session().await;
        let (name, format) = ("image".parse::<skep_proto::DiskName>().expect("a name"), SourceFormat::Raw);
        let import = || DiskImport {
            name: name.clone(),
            kind: DiskKind::Raw,
            format,
            packing: Packing::Detect,
            expect: 0,
            sha256: None,
            group: None,
            iso: false,
            image: None,
            description: Default::default(),
        };
        let id = RequestId::random();
        // Its client goes away: nothing was made, so the repeat begins anew.
        let (first, UpTo(stream)) = once(&mut s, id, import()).await.expect("begun");
        s.ask(OperationCancel { id: first.id }).await.expect("asked");
        s.done(first.clone()).await.expect_err("cancelled");
        drop(stream);
        suite.settled(&life.broker).await;
        let (second, UpTo(stream)) = once(&mut s, id, import()).await.expect("begun");
        assert_ne!(first.id, second.id);
        let piece = [&upload::header(5000).expect("a length")[..], &[7; 5000], &upload::END].concat();
        let stream = stream.into_iter().next().expect("a stream");
        std::fs::File::from(stream).write_all(&piece).expect("written");
        s.done(second.clone()).await.expect("imported");
        let (third, UpTo(none)) = once(&mut s, id, import()).await.expect("the same");
        assert_eq!((third.id, none.len()), (second.id, 0));
        assert_eq!(third.state, OperationState::Done);
    });
}

#[test]
fn of_anothers_request_nothing_is_learnt() {
    Suite::new().live(async |life: Life| {
        let mut s = life.session().await;
        s.ask(GroupCreate { name: "shop".parse().expect("a name"), quota: Quota::default() }).await.expect("made");
        let mut alice = user(&life, "alice", Some((Some("shop"), Role::Operator))).await;
        let mut bob = user(&life, "bob", Some((Some("shop"), Role::Operator))).await;
        let id = RequestId::random();
        let make = |name, memory| MachineCreate { group: Some(text("shop")), ..machine(name, memory) };
        let (hers, []) = once(&mut alice, id, make("hers", 64)).await.expect("made");
        // The same id and the same contents: what would be said without it.
        let told = once(&mut bob, id, make("hers", 64)).await.map(drop);
        assert_eq!(told, bob.ask(make("hers", 64)).await.map(drop));
        let (his, []) = once(&mut bob, id, make("his", 128)).await.expect("made");
        assert_ne!(hers.id, his.id);
        assert_eq!(once(&mut alice, id, make("hers", 64)).await.expect("the same").0.id, hers.id);
        // A repeat gives nothing to whoever may not make it any more.
        s.ask(RoleRevoke { user: text("alice"), group: Some(text("shop")) }).await.expect("revoked");
        assert_eq!(reason(once(&mut alice, id, make("hers", 64)).await), Reason::NotFound);
    });
}

#[test]
fn a_disk_that_was_not_made_after_all_is_made_by_the_repeat() {
    let suite = Suite::new();
    let id = RequestId::random();
    // The broker dies while storage-helper makes it.
    suite.live(async |life: Life| {
        life.up().await;
        let mut s = life.session().await;
        let at = suite.world.lock().calls.len();
        suite.world.lock().block = Some("CreateDisk");
        tokio::select! {
            _ = once(&mut s, id, disk("root")) => panic!("it was answered"),
            () = suite.world.die.notified() => {}
        }
        assert!(suite.world.lock().calls.len() > at);
    });
    suite.world.resume();
    suite.live(async |life: Life| {
        life.up().await;
        let mut s = life.session().await;
        suite.settled(&life.broker).await;
        let (made, []) = once(&mut s, id, disk("root")).await.expect("made");
        assert_eq!(once(&mut s, id, disk("root")).await.expect("the same").0.id, made.id);
        suite.settled(&life.broker).await;
    });
}
