//! What a host cannot do, from the spawner's word to a user's refusal.

use super::requests::{text, web};
use super::suite::{Life, Suite};
use skep_proto::broker::{Act, HostShow, MachineCreate, MachineSet, MachineView, Settings};
use skep_proto::{Reason, Refusal, Text};

#[test]
fn what_is_beyond_a_machine_of_this_host_is_refused_when_it_is_set_and_when_it_is_started() {
    let suite = Suite::new();
    suite.live(async |life: Life| {
        let (mut s, _) = web(&life).await;
        let set = |settings| MachineSet { machine: text("web"), settings, revision: 0 };
        let cpus = |cpus| Settings { cpus: Some(cpus), ..Settings::default() };
        // By an older host.
        s.ask(set(cpus(5))).await.expect("set");
        suite.world.lock().most_cpus = Some(4);
        life.broker.forget_facilities();
        let shown = s.ask(HostShow {}).await.expect("shown");
        assert_eq!(shown.machine_cpus, 4);
        let refused = |result: Result<_, Refusal>| {
            let refusal = result.map(|_: MachineView| ()).expect_err("refused");
            let note = refusal.note.as_str();
            assert!(note.starts_with("cpu.count asks for ") && note.contains("gives a machine at most 4: "), "{refusal}");
            assert_eq!((refusal.reason, refusal.field.as_str()), (Reason::Unsupported, "cpus"), "{refusal}");
        };
        refused(s.ask(set(cpus(6))).await.map(|edited| edited.machine));
        let create = MachineCreate { name: "more".parse().expect("a name"), settings: cpus(64), group: None };
        refused(s.ask(create).await);
        // What is as it was keeps nobody from changing the rest; but it does not start.
        let settings = Settings { description: Some(Text::lossy("as it was")), ..Settings::default() };
        s.ask(set(settings)).await.expect("set");
        let refusal = s.act("web", Act::Start).await.expect_err("refused");
        assert_eq!((refusal.reason, refusal.field.as_str()), (Reason::Unsupported, "cpus"), "{refusal}");
        s.ask(set(cpus(4))).await.expect("set");
        // What was found out once is found out again before it counts.
        suite.world.lock().lacks = vec![(Text::lossy("tpm"), Text::lossy("not here"))];
        s.act("web", Act::Start).await.expect("started");
    });
}
