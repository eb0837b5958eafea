//! A line of a log is one line, whatever is put into it; the record of acts is appended to, and a full disk ends nobody.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use skep_ipc::Observer;
use skep_proto::storage::Storage;
use skep_proto::wire::Origin;
use skep_proto::{Helper, Op, Reason, Refusal, Text, TraceId};
use skep_service::{Journal, Kept, SharedJournal, Start};
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::PermissionsExt;

const HOSTILE: &str = "a\nb\r\n2026-01-01T00:00:00Z broker info forged\tc\x1b[31m\0\u{85}\x7f end";

/// What is written to standard error meanwhile. Each test is a process of its own (cargo-nextest).
fn errors_of(act: impl FnOnce()) -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("stderr");
    let kept = nix::unistd::dup(std::io::stderr()).unwrap();
    nix::unistd::dup2_stderr(File::create(&path).unwrap()).unwrap();
    act();
    nix::unistd::dup2_stderr(kept).unwrap();
    fs::read_to_string(path).unwrap()
}

fn origin() -> Origin {
    Origin { seq: 1, trace: TraceId(0xabc), user: Text::lossy("uid 1000\tgrace\n") }
}

fn op() -> &'static Op {
    &Storage::OPS[5]
}

fn start(dir: &std::path::Path) -> Start {
    Start { state: dir.into(), run: dir.into(), instance: "ab12".parse().unwrap(), ids: None, extra: Default::default() }
}

#[test]
fn a_line_of_the_journal_is_one_line() {
    let errors = errors_of(|| {
        let mut journal = Journal::new("broker", None);
        journal.info(Some(TraceId(0xabc)), format_args!("{HOSTILE}"));
        journal.warn(None, format_args!("{HOSTILE}"));
        journal.warn(None, format_args!("{}", "x".repeat(100_000)));
        journal.info(None, format_args!(""));
    });
    let lines: Vec<&str> = errors.split_terminator('\n').collect();
    assert_eq!(lines.len(), 4, "{errors}");
    assert!(lines[0].contains(" broker info trace=0000000000000abc a b  2026-01-01T00:00:00Z broker info forged c [31m"));
    assert!(lines[1].contains(" broker warn a b  "));
    assert!(lines.iter().all(|line| !line.chars().any(char::is_control)));
    assert!(lines[2].len() < 2100, "{}", lines[2].len());
    assert!(lines.iter().all(|line| line.starts_with("20") && line[..27].ends_with('Z')), "{errors}");
}

#[test]
fn the_record_of_acts_has_eight_fields_a_line_and_is_appended_to() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("logs/audit-storage-helper.log");
    let errors = errors_of(|| {
        for _ in 0..2 {
            let mut journal = SharedJournal::new(start(dir.path()).journal("storage-helper").unwrap());
            journal.begin(&origin(), op(), &HOSTILE);
            journal.end(&origin(), op(), Ok(()));
            journal.end(&origin(), op(), Err(&Refusal::new(Reason::InUse, HOSTILE).note(HOSTILE)));
            journal.begin(&origin(), op(), &"y".repeat(100_000));
        }
    });
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o640);
    let text = fs::read_to_string(&path).unwrap();
    let lines: Vec<Vec<&str>> = text.split_terminator('\n').map(|line| line.split('\t').collect()).collect();
    assert_eq!(lines.len(), 8);
    let pid = std::process::id().to_string();
    for line in &lines {
        assert_eq!(line.len(), 8, "{line:?}");
        assert_eq!(line[1..6], ["storage-helper", &pid, "0000000000000abc", "uid 1000 grace ", "DeleteDisk"]);
        assert!(line[7].len() <= 1000 && !line[7].chars().any(char::is_control));
    }
    assert_eq!(lines.iter().map(|line| line[6]).collect::<Vec<_>>(), ["begin", "done", "IN_USE", "begin"].repeat(2));
    // The trace leads from the record to the log.
    assert_eq!(errors.lines().filter(|line| line.contains("trace=0000000000000abc DeleteDisk for uid 1000")).count(), 4);
}

#[test]
fn a_full_disk_ends_no_service() {
    let Ok(full) = OpenOptions::new().append(true).open("/dev/full") else {
        println!("SKIP a_full_disk_ends_no_service: no /dev/full");
        return;
    };
    let kept = nix::unistd::dup(std::io::stderr()).unwrap();
    nix::unistd::dup2_stderr(&full).unwrap();
    let kept_log = || Kept::of(full.try_clone().unwrap(), full.try_clone().unwrap());
    let mut journal = Journal::new("broker", Some(kept_log())).keeping(Some(kept_log()));
    journal.begin(&origin(), op(), &"request");
    journal.end(&origin(), op(), Err(&Refusal::new(Reason::NoSpace, "disk")));
    journal.warn(None, format_args!("lost"));
    let code = skep_service::run("broker", || Err("lost, too"));
    nix::unistd::dup2_stderr(kept).unwrap();
    assert_eq!(format!("{code:?}"), format!("{:?}", std::process::ExitCode::FAILURE));
}

#[test]
fn a_link_in_place_of_a_log_is_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("logs")).unwrap();
    for name in ["audit-broker.log", "audit-broker.1.log"] {
        std::os::unix::fs::symlink("/dev/null", dir.path().join("logs").join(name)).unwrap();
        assert!(start(dir.path()).journal("broker").is_err(), "{name}");
        fs::remove_file(dir.path().join("logs").join(name)).unwrap();
    }
}

#[test]
fn a_log_is_kept_within_its_bounds_and_begins_anew_under_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let logs = dir.path().join("logs");
    fs::create_dir(&logs).unwrap();
    let log = OpenOptions::new().create(true).append(true).open(logs.join("broker.log")).unwrap();
    let kept = nix::unistd::dup(std::io::stderr()).unwrap();
    nix::unistd::dup2_stderr(&log).unwrap();
    let mut journal = start(dir.path()).journal("broker").unwrap();
    let line = "x".repeat(1900);
    for n in 0..5000 {
        journal.info(None, format_args!("{n:06} {line}"));
    }
    nix::unistd::dup2_stderr(kept).unwrap();
    let text = |name: &str| fs::read_to_string(logs.join(name)).unwrap();
    let (former, live) = (text("broker.1.log"), text("broker.log"));
    assert!(former.len() as u64 <= skep_service::FULL && live.len() as u64 <= skep_service::FULL);
    let numbers: Vec<u32> = (former + &live).lines().map(|l| l.split(' ').nth(3).unwrap().parse().unwrap()).collect();
    let first = 5000 - u32::try_from(numbers.len()).unwrap();
    assert!(numbers.len() > 2000 && numbers == (first..5000).collect::<Vec<_>>(), "{first}");
}

#[test]
fn a_journal_names_the_descriptors_that_it_holds() {
    let dir = tempfile::tempdir().unwrap();
    let journal = start(dir.path()).journal("net-helper").unwrap();
    assert!(journal.held().iter().any(|(name, _)| *name == "log of acts"));
    assert!(journal.held().iter().all(|(name, _)| ["log of acts", "own log", "syslog"].contains(name)));
}
