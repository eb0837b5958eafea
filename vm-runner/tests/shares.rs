//! Directories of the host in a cell: which the spawner mounts, and how; which it refuses, and why.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[macro_use]
mod support;

use skep_proto::cell::{KillCell, ListCells, SweepCell};
use skep_proto::{Reason, Share};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use support::{Machine, Spawner};

/// Directories, and things that are none, below the spawner's own; a flag that names them.
fn flags(dir: &Path) -> Vec<String> {
    let at = |name: &str| dir.join("shared").join(name);
    fs::create_dir_all(at("in/below")).unwrap();
    fs::create_dir_all(at("out")).unwrap();
    fs::create_dir_all(at("closed")).unwrap();
    fs::set_permissions(at("closed"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(at("file"), "").unwrap();
    symlink("in", at("link")).unwrap();
    let names = ["in", "out", "closed", "file", "link", "gone"];
    let list = names.map(|name| format!("{name}={}", at(name).display()));
    let more = format!("below={}", at("link").join("below").display());
    vec!["--shares".into(), [&list[..], &[more]].concat().join(",")]
}

fn share(name: &str, read_only: bool) -> Share {
    Share { name: name.parse().unwrap(), read_only }
}

fn refused(spawner: &mut Spawner, shares: Vec<Share>) -> (Reason, String) {
    let refusal = Machine { shares, ..Machine::new("") }.make(spawner).unwrap_err();
    assert_eq!(refusal.field.as_str(), "shares", "{refusal}");
    assert!(!refusal.note.as_str().contains("/tmp"), "a path is told: {refusal}");
    (refusal.reason, refusal.note.to_string())
}

#[test]
fn shares_are_mounted_as_little_as_they_are_needed() {
    let mut spawner = spawner!("shares_are_mounted_as_little_as_they_are_needed", flags);
    let machine = Machine { shares: vec![share("in", true), share("out", false)], ..Machine::new("") };
    let made = machine.make(&mut spawner).unwrap();
    let mounts = fs::read_to_string(format!("/proc/{}/mountinfo", made.runner)).unwrap();
    let options = |point: &str| {
        let line = mounts.lines().find(|line| line.split(' ').nth(4) == Some(point));
        line.map(|line| line.split(' ').nth(5).unwrap().to_owned())
    };
    for (point, write) in [("/share/0", "ro"), ("/share/1", "rw")] {
        let has = options(point).unwrap_or_else(|| panic!("{point} is not mounted:\n{mounts}"));
        for wanted in [write, "nosuid", "nodev", "noexec", "nosymfollow"] {
            assert!(has.split(',').any(|option| option == wanted), "{point}: {has} lacks {wanted}");
        }
    }
    assert_eq!((options("/share/2"), options("/share")), (None, None));
    // The host itself sees none of it, and nothing of it stays.
    let own = spawner.dir.path().join("shared");
    let seen = |mark: &str| fs::read_to_string("/proc/self/mountinfo").unwrap().contains(mark);
    assert!(!seen(own.to_str().unwrap()));
    spawner.ask(KillCell { machine: machine.id }, []).unwrap();
    spawner.ask(SweepCell { machine: machine.id }, []).unwrap();
    assert!(spawner.ask(ListCells { after: None }, []).unwrap().cells.is_empty());
    fs::remove_dir_all(own).unwrap();
}

#[test]
fn what_cannot_be_shared_is_refused_by_name_and_reason() {
    let mut spawner = spawner!("what_cannot_be_shared_is_refused_by_name_and_reason", flags);
    for (names, reason, note) in [
        (vec!["nothing"], Reason::NotFound, "share nothing: no directory of this host has that name"),
        (vec!["in", "in"], Reason::InvalidValue, "share in is there twice"),
        (vec!["in", "out", "closed", "file", "link"], Reason::InvalidValue, "at most 4 are expected"),
        (vec!["in", "gone"], Reason::NotFound, "share gone: its directory is not there"),
        (vec!["file"], Reason::InvalidValue, "share file: it is not a directory"),
        (vec!["link"], Reason::InvalidValue, "share link: a part of its path is a symbolic link"),
        (vec!["below"], Reason::InvalidValue, "share below: a part of its path is a symbolic link"),
    ] {
        let found = refused(&mut spawner, names.iter().map(|name| share(name, true)).collect());
        assert!(found.0 == reason && found.1.starts_with(note), "{names:?}: {found:?}");
    }
    if support::is_root() {
        // The machine's uid is not root's.
        let found = refused(&mut spawner, vec![share("closed", true)]);
        assert!(found.0 == Reason::PermissionDenied && found.1.starts_with("share closed: the machine's uid"), "{found:?}");
        let below = spawner.dir.path().join("shared/in/below");
        let none: Option<&str> = None;
        nix::mount::mount(Some("tmpfs"), &below, Some("tmpfs"), nix::mount::MsFlags::empty(), none).unwrap();
        let found = refused(&mut spawner, vec![share("in", true)]);
        nix::mount::umount(&below).unwrap();
        assert!(found.0 == Reason::Unsupported && found.1.contains("another file system is mounted below"), "{found:?}");
    }
    // None of these has left anything, and what can be shared can be.
    assert!(spawner.ask(ListCells { after: None }, []).unwrap().cells.is_empty());
    Machine { shares: vec![share("in", true)], ..Machine::new("") }.make(&mut spawner).unwrap();
}
