//! What is kept of calls: how often each user called what, and the audit log.

use super::access::{group, open, raw, user};
use super::requests::{reason, text};
use super::samples::samples;
use super::suite::{Life, Suite};
use crate::policy::Proof;
use skep_proto::broker::{self as proto, *};
use skep_proto::{Helper, Reason, Text, UserId};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

#[test]
fn who_calls_one_method_too_often_waits_and_nobody_else_does() {
    Suite::new().live(async |life: Life| {
        life.up().await;
        let mut alice = user(&life, "alice", Some((None, Role::Viewer))).await;
        let mut bob = user(&life, "bob", Some((None, Role::Viewer))).await;
        let list = || MachineList { after: None };
        let (op, proof) = (proto::Broker::op(&list().into()), Proof::Password(UserId::random()));
        let begin = Instant::now();
        for _ in 0..3 {
            alice.ask(list()).await.expect("allowed");
        }
        // What is left of her bucket is taken as if it were all at the time when she began: what she asked has gone from it.
        let take = |name: &str, now| life.broker.rates.borrow_mut().take(&proof, &Text::lossy(name), op, now).is_ok();
        let left = |name: &str| (0..).take_while(|_| take(name, begin)).count();
        assert_eq!(left("nobody"), 1000);
        assert!(left("alice") < 1000);
        // So empty that it does not fill again meanwhile, however slow this host is.
        assert!(take("alice", begin + Duration::from_secs(3600)));
        let refusal = alice.ask(list()).await.expect_err("too often");
        assert_eq!(refusal.reason, Reason::TooManyTries);
        assert!(refusal.wait().is_some_and(|wait| !wait.is_zero()), "{refusal}");
        assert!(refusal.to_string().starts_with("MachineList by alice: "), "{refusal}");
        alice.ask(DiskList { after: None, iso: None, image: None }).await.expect("another method");
        bob.ask(list()).await.expect("another user");
        life.session().await.ask(list()).await.expect("who started the suite");
        // In another session, too, it is she.
        let other = TokenCreate { name: text("other"), user: Some(text("alice")), seconds: 60 };
        let token = life.session().await.ask(other).await.expect("made").token;
        let mut again = open(&life, Credential::Token(token)).await.expect("a session");
        assert_eq!(reason(again.ask(list()).await), Reason::TooManyTries);
    });
}

#[test]
fn every_call_is_recorded_with_its_user() {
    let suite = Suite::new();
    let logs = tempfile::TempDir::new().expect("a directory");
    let kept = skep_service::Kept::open(logs.path(), "audit-broker").expect("open");
    suite.live_with(skep_service::Journal::new("broker", Some(kept)), async |life: Life| {
        life.up().await;
        let mut root = life.session().await;
        let operation = group(&life, &mut root, "g").await;
        for (name, role) in [("other", None), ("nobody", None), ("boss", Some((None, Role::Admin)))] {
            user(&life, name, role).await;
        }
        let mut calls = BTreeSet::new();
        for name in ["nobody", "boss"] {
            let create = TokenCreate { name: text("t2"), user: Some(text(name)), seconds: 3600 };
            let token = root.ask(create).await.expect("made").token;
            let samples = samples(operation);
            let refusals = raw(&life, token, samples.clone()).await;
            calls.insert((name, "OpenSession", "done"));
            for (sample, refusal) in samples.iter().zip(&refusals) {
                let outcome = refusal.as_ref().map_or("done", |refusal| refusal.reason.row().name);
                calls.insert((name, proto::Broker::op(sample).name, outcome));
            }
        }
        let record = std::fs::read_to_string(logs.path().join("audit-broker.log")).expect("a record");
        let lines: Vec<Vec<&str>> = record.lines().map(|line| line.split('\t').skip(4).take(3).collect()).collect();
        let missing: Vec<_> =
            calls.iter().filter(|(user, op, outcome)| !lines.iter().any(|line| line == &[*user, *op, *outcome])).collect();
        // Whoever watches counters reads them all the time. That he may not is recorded.
        assert_eq!(missing, [&("boss", "MetricsGet", "done")], "{record}");
        assert!(calls.contains(&("nobody", "MetricsGet", "PERMISSION_DENIED")));
        let names = |user: &str| calls.iter().filter(|call| call.0 == user).count();
        assert_eq!((names("nobody"), names("boss")), (proto::Broker::OPS.len(), proto::Broker::OPS.len()));
        let quiet: Vec<_> = proto::Broker::OPS.iter().filter(|op| skep_service::is_quiet(op)).map(|op| op.name).collect();
        assert_eq!(quiet, ["MetricsGet"]);
    });
}

#[test]
fn calls_that_the_frontend_answers_are_its_word() {
    let suite = Suite::new();
    let logs = tempfile::TempDir::new().expect("a directory");
    let kept = skep_service::Kept::open(logs.path(), "audit-broker").expect("open");
    suite.live_with(skep_service::Journal::new("broker", Some(kept)), async |life: Life| {
        life.up().await;
        let mut alice = user(&life, "alice", None).await;
        let told = |method: &str, from: &str, untold| CallTold {
            method: Text::lossy(method),
            from: Text::lossy(from),
            reason: Some(Reason::InvalidValue),
            note: Text::lossy("disk x: too small"),
            untold,
        };
        alice.ask(told("Disks.Create", "192.0.2.1", 3)).await.expect("heard");
        // As if another had done something.
        alice.ask(told("x\n2026\tbroker\t1\t0\tuid 0\tUserDelete\tdone\t", "192.0.2.1", 0)).await.expect("heard");
        // Strangers: as many as they like, in as many names.
        let mut nobody = open(&life, Credential::Nobody).await.expect("a session");
        for n in 0..500 {
            nobody.ask(told(&format!("M{n}"), "192.0.2.7", 0)).await.expect("heard");
        }
        nobody.ask(told("Other", "192.0.2.8", 0)).await.expect("heard");
        for _ in 0..300 {
            let _ = open(&life, Credential::Token(Text::lossy("0"))).await.map(drop).expect_err("no token");
        }
        let _ = open(
            &life,
            Credential::Password {
                user: text("alice"),
                password: "wrong one".parse().expect("fits"),
                peer: Text::lossy("192.0.2.9"),
            },
        )
        .await
        .map(drop);
        // Nothing else is theirs to ask, and nobody is called so.
        for request in samples(skep_proto::OperationId::random()) {
            let who = life.broker.user_of(&Proof::Nobody).expect("nobody");
            let permitted = life.broker.read(|db| crate::policy::permit(db, &who, &request));
            assert_eq!(permitted.is_ok(), matches!(request, BrokerRequest::CallTold(_)), "{request:?}");
        }
        assert!(crate::policy::NOBODY.parse::<skep_proto::UserName>().is_err());
        alice.ask(OperationList { after: None }).await.ok();
        let record = std::fs::read_to_string(logs.path().join("audit-broker.log")).expect("a record");
        let lines: Vec<Vec<&str>> = record.lines().map(|line| line.split('\t').skip(4).collect()).collect();
        assert!(lines.iter().all(|line| line.len() == 4), "{record}");
        let of = |user: &str, op: &str| lines.iter().filter(|line| line.get(..2) == Some(&[user, op])).collect::<Vec<_>>();
        let own = of("alice", "CallTold");
        let first = ["alice", "CallTold", "INVALID_VALUE", "api-frontend says of 192.0.2.1: Disks.Create: disk x: too small"];
        assert_eq!((own.len(), own.first().map(|line| line.as_slice())), (2, Some(&first[..])), "{record}");
        assert!(of("uid 0", "UserDelete").is_empty(), "{record}");
        let strangers = of("(nobody)", "CallTold");
        let from = |place: &str| strangers.iter().filter(|line| line.get(3).is_some_and(|text| text.contains(place))).count();
        assert_eq!((from("says of 192.0.2.7: "), from("says of 192.0.2.8: ")), (20, 1), "{record}");
        // All that have no line are counted.
        let counted = |line: &&&Vec<&str>| line.get(3)?.split_once(" calls before this one")?.0.parse::<usize>().ok();
        assert_eq!(strangers.iter().filter_map(|line| counted(&line)).sum::<usize>(), 3 + 480 + 280, "{record}");
        assert_eq!(of("", "OpenSession").len(), 21, "{record}");
    });
}
