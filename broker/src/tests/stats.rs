//! Counters: a watch, metrics, and what whoever reads metrics may do.

use super::access::{open, user};
use super::requests::{reason, text};
use super::suite::{Life, Suite};
use skep_ipc::aio::Port;
use skep_proto::broker::*;
use skep_proto::{Reason, Refusal, wire};

async fn news(port: &Port) -> StatsNews {
    wire::decode(&port.recv().await.expect("news").bytes).expect("decodes")
}

/// Why it ended. What was read before that may come first.
async fn end(port: &Port) -> Refusal {
    loop {
        if let StatsNews::Ended(refusal) = news(port).await {
            return refusal;
        }
    }
}

#[test]
fn a_watch_reads_counters_until_the_machine_ends() {
    Suite::new().live(async |life: Life| {
        life.up().await;
        let mut s = life.session().await;
        s.machine("web", &[]).await.expect("a machine");
        s.switch("lan", None).await.expect("a switch");
        s.nic("web-0", Some("lan"), Some("web")).await.expect("a nic");
        let watch = |interval_ms| StatsWatch { machine: text("web"), interval_ms };
        assert_eq!(reason(s.ask_with(watch(1000), []).await), Reason::WrongState);
        s.act("web", Act::Start).await.expect("started");
        for wrong in [0, 999, 3_600_001, u32::MAX] {
            let refusal = s.ask_with(watch(wrong), []).await.expect_err("refused");
            assert_eq!((refusal.reason, refusal.field.as_str()), (Reason::InvalidValue, "interval"));
        }
        let (_, [socket]) = s.ask_with(watch(1000), []).await.expect("a watch");
        let port = Port::new(socket).expect("a port");
        let StatsNews::Reading(first) = news(&port).await else { panic!("no reading") };
        let StatsNews::Reading(second) = news(&port).await else { panic!("no reading") };
        // What the fakes say; its tap's bytes as the guest sees them.
        let nic = second.nics.first().expect("a NIC");
        assert_eq!((second.cpu_ns, second.memory, nic.name.as_str(), nic.tx_packets), (7, 1, "web-0", 4));
        assert!(second.read_ns - first.read_ns >= 900_000_000, "{first:?} {second:?}");
        s.act("web", Act::Kill).await.expect("killed");
        let refusal = end(&port).await;
        assert_eq!((refusal.reason, refusal.object.as_str()), (Reason::WrongState, "machine web"));
        assert!(port.recv().await.is_err(), "closed");
    });
}

#[test]
fn a_watch_waits_for_a_runner_that_is_gone_for_now() {
    let suite = Suite::new();
    let run = suite.dir.path().to_owned();
    suite.live(async |life: Life| {
        life.up().await;
        let mut s = life.session().await;
        let id = s.machine("web", &[]).await.expect("a machine").id;
        s.act("web", Act::Start).await.expect("started");
        let socket = run.join(format!("vm/{id}.sock"));
        let aside = socket.with_extension("aside");
        std::fs::rename(&socket, &aside).expect("hidden");
        let watch = StatsWatch { machine: text("web"), interval_ms: 1000 };
        let (_, [theirs]) = s.ask_with(watch, []).await.expect("a watch");
        let port = Port::new(theirs).expect("a port");
        // A question of one's own says it at once, and after it the watch has asked in vain, too.
        assert_eq!(reason(s.ask(MachineStats { machine: text("web") }).await), Reason::Unavailable);
        std::fs::rename(&aside, &socket).expect("shown");
        assert!(matches!(news(&port).await, StatsNews::Reading(_)));
        s.act("web", Act::Kill).await.expect("killed");
        assert_eq!(end(&port).await.reason, Reason::WrongState);
    });
}

#[test]
fn a_watch_ends_with_the_right_to_see() {
    Suite::new().live(async |life: Life| {
        life.up().await;
        let mut s = life.session().await;
        s.machine("web", &[]).await.expect("a machine");
        s.act("web", Act::Start).await.expect("started");
        let mut alice = user(&life, "alice", Some((Some("default"), Role::Viewer))).await;
        let watch = StatsWatch { machine: text("web"), interval_ms: 1000 };
        let (_, [socket]) = alice.ask_with(watch, []).await.expect("a watch");
        let port = Port::new(socket).expect("a port");
        assert!(matches!(news(&port).await, StatsNews::Reading(_)));
        s.ask(RoleRevoke { user: text("alice"), group: Some(text("default")) }).await.expect("revoked");
        let refusal = end(&port).await;
        assert_eq!(refusal.reason, Reason::NotFound);
    });
}

#[test]
fn whoever_reads_metrics_can_ask_for_nothing_else() {
    Suite::new().live(async |life: Life| {
        life.up().await;
        let mut s = life.session().await;
        for n in 0..100 {
            s.machine(&format!("m{n:02}"), &[]).await.expect("a machine");
        }
        for n in 0..10 {
            s.act(&format!("m{n:02}"), Act::Start).await.expect("started");
        }
        let mut metrics = open(&life, Credential::Metrics).await.expect("a session");
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let page = metrics.ask(MetricsGet { after }).await.expect("a page").machines;
            let Some(last) = page.last() else { break };
            after = Some(last.name.clone());
            all.extend(page);
        }
        assert_eq!((all.len(), all.iter().filter(|m| m.stats.is_some()).count()), (100, 10));
        for request in super::samples::samples(skep_proto::OperationId::random()) {
            let who = life.broker.user_of(&crate::policy::Proof::Metrics).expect("a reader");
            let permitted = life.broker.read(|db| crate::policy::permit(db, &who, &request));
            let is_metrics = matches!(request, BrokerRequest::MetricsGet(_));
            assert_eq!(
                permitted.map_err(|refusal| refusal.reason),
                if is_metrics { Ok(()) } else { Err(Reason::PermissionDenied) }
            );
        }
        // A viewer of the host may see the same; one of a group not.
        let mut viewer = user(&life, "alice", Some((None, Role::Viewer))).await;
        viewer.ask(MetricsGet { after: None }).await.expect("a page");
        let mut bob = user(&life, "bob", Some((Some("default"), Role::Viewer))).await;
        assert_eq!(reason(bob.ask(MetricsGet { after: None }).await), Reason::PermissionDenied);
    });
}

#[test]
fn a_frontend_that_serves_no_metrics_gets_none() {
    let mut suite = Suite::new();
    suite.metrics = false;
    suite.live(async |life: Life| {
        assert_eq!(reason(open(&life, Credential::Metrics).await.map(drop)), Reason::Unauthenticated);
    });
}
