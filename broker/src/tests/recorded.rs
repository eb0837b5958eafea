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
