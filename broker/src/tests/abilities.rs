//! What a host cannot do, from the spawner's word to a user's refusal.

use super::requests::{text, web};
use super::suite::{Life, Suite};
use skep_proto::broker::{Acceleration, Act, HostShow, MachineCreate, MachineSet, MachineView, Settings};
use skep_proto::runner::End;
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

#[test]
fn a_machine_that_its_host_cannot_run_says_why_when_it_is_started() {
    Suite::new().live(async |life: Life| {
        let (mut s, _) = web(&life).await;
        let settings = Settings { tpm: Some(true), ..Settings::default() };
        s.ask(MachineSet { machine: text("web"), settings, revision: 0 }).await.expect("set");
        let refusal = s.act("web", Act::Start).await.expect_err("refused");
        assert!(refusal.reason == Reason::Unsupported && refusal.note.as_str().starts_with("tpm asks for a TPM: "), "{refusal}");
    });
}

#[test]
fn kvm_is_used_where_a_boot_has_shown_that_it_works_and_refused_with_the_reason_elsewhere() {
    if crate::platform::HYPERVISOR != skep_machine::Hypervisor::Qemu {
        println!(
            "SKIP kvm_is_used_where_a_boot_has_shown_that_it_works_and_refused_with_the_reason_elsewhere: bhyve has no other way"
        );
        return;
    }
    let crash = |words| Some(End::Crash { code: 134, words: Text::lossy(words) });
    let internal = "KVM internal error. Suberror: 1 RAX=0 skep: KVM could not go on";
    let cases = [
        (None, Some("no device in this test")),
        (Some(Some(End::PowerOff)), None),
        (Some(crash("error: failed to set MSR 0x10a to 0x69")), Some("error: failed to set MSR 0x10a to 0x69")),
        (Some(crash(internal)), Some("KVM could not go on")),
        (Some(crash("")), Some("QEMU ended with code 134")),
        (Some(Some(End::Reboot)), Some("instructions do not do there")),
        (Some(Some(End::Panic)), Some("ended by Panic")),
        // It hangs.
        (Some(None), Some("did not come to its end within 1 s")),
    ];
    for (kvm, wrong) in cases {
        let suite = Suite::new();
        suite.world.lock().kvm = kvm;
        suite.live(async |life: Life| {
            let (mut s, _) = web(&life).await;
            let host = s.ask(HostShow {}).await.expect("shown");
            let names: Vec<_> = host.abilities.iter().map(Text::as_str).collect();
            let why = host.inabilities.iter().find_map(|line| line.as_str().strip_prefix("kvm: "));
            if skep_machine::Hypervisor::Bhyve == crate::platform::HYPERVISOR {
                return assert!(names.contains(&"kvm") && why.is_none(), "vmm(4) is asked nothing");
            }
            assert_eq!((names.contains(&"kvm"), why.is_some()), (wrong.is_none(), wrong.is_some()), "{host:?}");
            assert!(why.unwrap_or_default().contains(wrong.unwrap_or_default()), "{why:?}");
            assert!(suite.world.lock().cells.is_empty(), "the cell of the boot is swept");
            let set = |acceleration| {
                let settings = Settings { acceleration: Some(acceleration), ..Settings::default() };
                MachineSet { machine: text("web"), settings, revision: 0 }
            };
            let asked = s.ask(set(Acceleration::Kvm)).await;
            match (wrong, asked) {
                (None, asked) => drop(asked.expect("set")),
                (Some(wrong), asked) => {
                    let refusal = asked.expect_err("refused");
                    assert_eq!((refusal.reason, refusal.field.as_str()), (Reason::Unsupported, "acceleration"), "{refusal}");
                    let note = refusal.note.as_str();
                    assert!(note.starts_with("acceleration asks for kvm: ") && note.contains(wrong), "{note}");
                    assert!(note.ends_with("; use auto or tcg"), "{note}");
                }
            }
            for (acceleration, accelerated) in [(Acceleration::Auto, wrong.is_none()), (Acceleration::Tcg, false)] {
                s.ask(set(acceleration)).await.expect("set");
                s.act("web", Act::Start).await.expect("started");
                assert_eq!(suite.world.lock().accelerated, accelerated, "{acceleration:?}");
                s.act("web", Act::Kill).await.expect("stopped");
            }
        });
    }
}
