//! Builds roots of real programs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use skep_cellroot::{Config, Error, HYPERVISOR, Report, describe, prepare};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

struct Place {
    dir: tempfile::TempDir,
    config: Config,
}

/// A STATE, a directory with two programs (this test, twice), and a prefix.
fn place() -> Place {
    let dir = tempfile::tempdir().unwrap();
    let programs = dir.path().join("programs");
    fs::create_dir(&programs).unwrap();
    for name in [
        "skep-vm-runner",
        "skep-console-proxy",
        "skep-guest-services",
        "skep-image-fetcher",
        "skep-iscsi-initiator",
        "skep-disk-server",
    ] {
        fs::copy(std::env::current_exe().unwrap(), programs.join(name)).unwrap();
    }
    let config = Config { state: dir.path().join("state"), prefixes: vec![dir.path().join("prefix")], programs };
    Place { dir, config }
}

fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, found);
        }
        found.push(path);
    }
}

#[test]
fn a_root_holds_what_runs_and_nobody_can_change_it() {
    let Place { dir: _dir, config } = place();
    let report = prepare(&config).unwrap();
    let root = config.state.join("cell/root");
    assert!(report.rebuilt);
    let mut all = Vec::new();
    walk(&root, &mut all);
    assert!(all.iter().any(|p| p.ends_with("skep/skep-vm-runner")) && !all.iter().any(|p| p.ends_with("skep-console-proxy")));
    assert!(all.iter().any(|p| p.file_name().unwrap().to_str().unwrap().starts_with("libc.so")), "{all:?}");
    for path in &all {
        let meta = fs::symlink_metadata(path).unwrap();
        assert!(
            !meta.is_symlink() && meta.mode() & 0o022 == 0 && meta.uid() == nix::unistd::geteuid().as_raw(),
            "{}",
            path.display()
        );
    }
    let mut console = Vec::new();
    walk(&config.state.join("cell/console"), &mut console);
    // FreeBSD 15 has its system calls in a library of their own.
    let files = console.iter().filter(|p| p.is_file() && !p.parent().is_some_and(|dir| dir.ends_with("skep"))).count();
    assert!(files <= 4, "beside the programs, their linker and a few libraries: {console:?}");
}

#[test]
fn another_time_zone_is_noticed() {
    let Place { dir: _dir, config } = place();
    let etc = config.prefixes[0].join("etc");
    fs::create_dir_all(&etc).unwrap();
    // As packages have them: of one time, and some of one size.
    for zone in ["east", "west"] {
        fs::write(etc.join(zone), zone).unwrap();
        fs::File::options().write(true).open(etc.join(zone)).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    }
    for zone in ["east", "west"] {
        let _ = fs::remove_file(etc.join("localtime"));
        std::os::unix::fs::symlink(zone, etc.join("localtime")).unwrap();
        assert!(prepare(&config).unwrap().rebuilt, "{zone}");
        assert_eq!(fs::read_to_string(config.state.join("cell/root/etc/localtime")).unwrap(), zone);
    }
}

#[test]
fn the_second_time_nothing_is_built() {
    let Place { dir: _dir, config } = place();
    let first = prepare(&config).unwrap();
    let inode = |config: &Config| fs::metadata(config.state.join("cell/root")).unwrap().ino();
    let before = inode(&config);
    let second = prepare(&config).unwrap();
    assert_eq!(second, Report { rebuilt: false, ..first.clone() });
    assert_eq!((before, describe(&config.state.join("cell"))), (inode(&config), Some(second)));
    // A new program, a damaged copy, a lost manifest: each is noticed.
    let program = config.programs.join("skep-vm-runner");
    let mut bytes = fs::read(&program).unwrap();
    bytes.push(0);
    fs::write(&program, bytes).unwrap();
    assert!(prepare(&config).unwrap().rebuilt);
    fs::remove_file(config.state.join("cell/root/skep/skep-vm-runner")).unwrap();
    assert!(prepare(&config).unwrap().rebuilt);
    fs::write(config.state.join("cell/manifest"), "what\nis\tthis").unwrap();
    assert!(prepare(&config).unwrap().rebuilt);
    assert!(!prepare(&config).unwrap().rebuilt);
    // Nobody is in those of before.
    let names = fs::read_dir(config.state.join("cell")).unwrap().map(|entry| entry.unwrap().file_name());
    let kept: Vec<_> = names.filter(|name| name.to_string_lossy().contains("kept")).collect();
    assert_eq!(kept.is_empty(), std::path::Path::new("/proc/self/root").exists(), "{kept:?}");
}

#[test]
fn a_prefix_comes_before_the_system() {
    let Place { dir, config } = place();
    prepare(&config).unwrap();
    let place = dir.path().join("prefix").join(HYPERVISOR.trim_start_matches('/'));
    fs::create_dir_all(place.parent().unwrap()).unwrap();
    fs::copy(std::env::current_exe().unwrap(), &place).unwrap();
    assert!(prepare(&config).unwrap().rebuilt, "it was installed since");
    let copy = config.state.join("cell/root").join(HYPERVISOR.trim_start_matches('/'));
    assert_eq!(fs::read(copy).unwrap(), fs::read(&place).unwrap());
    // Others could have changed this one.
    fs::set_permissions(&place, fs::Permissions::from_mode(0o757)).unwrap();
    fs::remove_file(config.state.join("cell/manifest")).unwrap();
    assert!(matches!(prepare(&config), Err(Error::Untrusted { .. })));
    fs::set_permissions(&place, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(&place, "no program").unwrap();
    assert!(matches!(prepare(&config), Err(Error::Program { .. })));
}

#[test]
fn what_is_missing_is_said() {
    let Place { dir: _dir, config } = place();
    let report = prepare(&config).unwrap();
    for missing in &report.missing {
        assert!(!missing.package.is_empty() && missing.path.is_absolute());
    }
    assert_eq!(report.hypervisor.is_some(), !report.missing.iter().any(|m| m.required));
    fs::remove_file(config.programs.join("skep-console-proxy")).unwrap();
    fs::remove_file(config.state.join("cell/manifest")).unwrap();
    assert!(matches!(prepare(&config), Err(Error::OurProgram(_))));
}
