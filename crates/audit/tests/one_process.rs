//! A process in a sandbox, held against the table that it entered, and against a smaller one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use common::platform::FREEBSD;
use common::{TABLE, WIDE, is_root, place};
use skep_audit::{Process, Report, Verdict};

fn verdict<'a>(process: &'a Process, name: &str) -> &'a Verdict {
    &process.lines.iter().find(|line| line.line == name).unwrap_or_else(|| panic!("no line {name}")).verdict
}

fn what<'a>(process: &'a Process, name: &str) -> &'a str {
    match verdict(process, name) {
        Verdict::Differs { what } => what,
        other => panic!("{name}: {other:?}"),
    }
}

#[test]
fn a_process_in_its_sandbox_is_confirmed_line_by_line() {
    let place = place();
    let child = place.child(&TABLE, 1, false, String::new);
    let process = skep_audit::process(child.pid, &TABLE, &place.options).unwrap().unwrap();
    for line in &process.lines {
        match &line.verdict {
            Verdict::Confirmed => {}
            Verdict::Declared { proved_by } => assert!(!proved_by.is_empty(), "{}", line.line),
            Verdict::Weaker { .. } => assert!(!is_root() && line.line == "uid", "{process}"),
            Verdict::Differs { what } => panic!("{}: {what}\n{process}", line.line),
        }
    }
    let network = verdict(&process, "network");
    // Of capability mode the kernel says only that a process is in it.
    let declared = FREEBSD && matches!(network, Verdict::Declared { .. });
    assert!(declared || *network == Verdict::Confirmed, "{network:?}");
    for name in ["threads", "open files", "descriptors", "descriptor log of acts", "descriptor connection"] {
        assert_eq!(*verdict(&process, name), Verdict::Confirmed, "{name}");
    }
    let lines: Vec<_> = process.descriptors.iter().map(|d| d.line.as_deref().unwrap()).collect();
    assert_eq!(lines.iter().filter(|line| **line == "standard").count(), 3);
    assert_eq!(lines.iter().filter(|line| **line == "connection").count(), 1);
    let report = Report { instance: "test".into(), processes: vec![process] };
    assert!(report.is_clean());
    assert!(report.to_string().ends_with("Nothing differs from what is declared.\n"), "{report}");
    let json: serde_json::Value = serde_json::from_str(&report.json_lines().unwrap()[0]).unwrap();
    assert_eq!(json["lines"][0]["line"], "uid");
}

#[test]
fn one_descriptor_too_many_of_a_line_is_named() {
    let place = place();
    let child = place.child(&WIDE, 3, false, String::new);
    let process = skep_audit::process(child.pid, &TABLE, &place.options).unwrap().unwrap();
    let what = what(&process, "descriptors");
    assert!(what.contains("one more than the table allows of: log of acts") && what.contains("audit-2.log"), "{what}");
    let report = Report { instance: "test".into(), processes: vec![process] };
    assert!(!report.is_clean());
    assert!(report.to_string().contains("DIFFERENT FROM WHAT IS DECLARED"), "{report}");
}

#[test]
fn a_descriptor_of_a_kind_that_the_table_lacks_is_named() {
    let place = place();
    let child = place.child(&WIDE, 1, true, String::new);
    let process = skep_audit::process(child.pid, &TABLE, &place.options).unwrap().unwrap();
    let what = what(&process, "descriptors");
    // FreeBSD does not tell what a memory file is called.
    assert!(what.contains("memory") || what.contains("too many"), "{what}");
    assert!(what.contains("is not in the table"), "{what}");
}

#[test]
fn one_capability_too_many_is_named() {
    if !is_root() || FREEBSD {
        println!("SKIP one_capability_too_many_is_named: only root's process on Linux can hold a capability of the host's");
        return;
    }
    let place = place();
    let child = place.child(&WIDE, 1, false, String::new);
    let process = skep_audit::process(child.pid, &TABLE, &place.options).unwrap().unwrap();
    let what = what(&process, "capabilities");
    assert!(what.contains("effective: CAP_SETUID too many") && what.contains("bounding: CAP_SETUID too many"), "{what}");
}

#[test]
fn a_process_outside_any_sandbox_differs_in_every_line_that_confines() {
    let place = place();
    let process = skep_audit::process(std::process::id().cast_signed(), &TABLE, &place.options).unwrap().unwrap();
    let confining: &[&str] = if FREEBSD { &["capsicum"] } else { &["namespaces", "no_new_privs", "seccomp", "network"] };
    for name in confining {
        assert!(verdict(&process, name).differs(), "{name}\n{process}");
    }
}

#[test]
fn a_process_that_has_ended_is_no_error() {
    let place = place();
    let mut child = place.child(&TABLE, 1, false, String::new);
    child.end();
    assert!(skep_audit::process(child.pid, &TABLE, &place.options).unwrap().is_none());
}

#[test]
fn a_zombie_is_a_process_that_has_ended() {
    let place = place();
    let child = std::process::Command::new("true").spawn().unwrap();
    let pid = child.id().cast_signed();
    // Wait without reaping.
    let flags = nix::sys::wait::WaitPidFlag::WEXITED | nix::sys::wait::WaitPidFlag::WNOWAIT;
    nix::sys::wait::waitid(nix::sys::wait::Id::Pid(nix::unistd::Pid::from_raw(pid)), flags).unwrap();
    assert!(skep_audit::process(pid, &TABLE, &place.options).unwrap().is_none());
    let _ = child.wait_with_output();
}

#[test]
fn a_suite_that_does_not_run_differs_in_each_service() {
    let place = place();
    let report = skep_audit::run(&place.options).unwrap();
    assert_eq!(report.totals().differs, 5, "{report}");
    let only = skep_audit::Options { only: Some("broker".into()), ..place.options.clone() };
    assert_eq!(skep_audit::run(&only).unwrap().processes.len(), 1);
    let nobody = skep_audit::Options { only: Some("nobody".into()), ..place.options.clone() };
    assert!(skep_audit::run(&nobody).unwrap_err().to_string().contains("nobody"));
}
