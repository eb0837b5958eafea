//! `make install` puts down what the packages' lists say, and `make uninstall` takes it away again.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Where `cargo build --workspace --bins` has put the programs.
fn programs() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let dir = own.ancestors().nth(2).unwrap();
    assert!(dir.join("skep").exists(), "no skep in {}: cargo build --workspace --bins", dir.display());
    dir.to_owned()
}

/// Every `make` of this host: GNU's, and FreeBSD's where it is installed.
fn makes() -> Vec<&'static str> {
    let runs = |name: &&str| Command::new(name).args(["-n", "-f", "/dev/null"]).output().is_ok();
    let all: Vec<_> = ["make", "bmake", "gmake"].into_iter().filter(runs).collect();
    assert!(!all.is_empty(), "there is no make");
    all
}

fn make(program: &str, target: &str, os: &str, dest: &Path) {
    let mut command = Command::new(program);
    command.current_dir(root()).env_remove("MAKEFLAGS").env_remove("MFLAGS");
    command.args([target, &format!("OS={os}"), "PREFIX=/usr/local"]);
    command.arg(format!("DESTDIR={}", dest.display())).arg(format!("BUILT={}", programs().display()));
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {target}: {}\n{said}", output.status);
}

/// Every file below a directory.
fn files(dir: &Path) -> BTreeSet<String> {
    fn walk(top: &Path, dir: &Path, found: &mut BTreeSet<String>) {
        for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                walk(top, &entry.path(), found);
            } else {
                found.insert(entry.path().strip_prefix(top).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    let mut found = BTreeSet::new();
    walk(dir, dir, &mut found);
    found
}

fn differences(installed: &BTreeSet<String>, listed: &BTreeSet<String>) -> Vec<String> {
    let unlisted = installed.difference(listed).map(|f| format!("not in the list: {f}"));
    unlisted.chain(listed.difference(installed).map(|f| format!("not installed: {f}"))).collect()
}

/// The files of `pkg-plist`, whose `.sample`s pkg(8) copies, and whose pages the ports' tree compresses.
fn plist() -> BTreeSet<String> {
    let text = fs::read_to_string(root().join("packaging/freebsd/pkg-plist")).unwrap();
    let files = text.lines().map(|line| line.strip_prefix("@sample ").unwrap_or(line));
    files
        .map(|line| format!("usr/local/{}", line.strip_suffix(".1.gz").map_or(line.into(), |page| format!("{page}.1"))))
        .collect()
}

/// Every place that a text names was filled in, what is run can be run, and nothing can be written by others.
fn no_holes(dest: &Path, installed: &BTreeSet<String>) {
    for file in installed {
        let path = dest.join(file);
        let bytes = fs::read(&path).unwrap();
        let program = bytes.starts_with(b"\x7fELF");
        let text = String::from_utf8_lossy(&bytes);
        assert!(program || file.contains("/doc/") || !text.contains("%%"), "{file}: {text}");
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        let runs = program || bytes.starts_with(b"#!");
        assert!(if runs { [0o755, 0o555].contains(&mode) } else { mode == 0o644 }, "{file}: mode {mode:o}");
    }
}

#[test]
fn the_port_s_list_is_what_is_installed() {
    for program in makes() {
        let dest = tempfile::tempdir().unwrap();
        // Twice is as once.
        make(program, "install", "FreeBSD", dest.path());
        make(program, "install", "FreeBSD", dest.path());
        let installed = files(dest.path());
        let wrong = differences(&installed, &plist());
        assert!(wrong.is_empty(), "{program}: {wrong:#?}");
        no_holes(dest.path(), &installed);
        make(program, "uninstall", "FreeBSD", dest.path());
        assert_eq!(files(dest.path()), BTreeSet::new(), "{program} uninstall");
    }
}

#[test]
fn linux_gets_units_users_and_directories() {
    for program in makes() {
        let dest = tempfile::tempdir().unwrap();
        make(program, "install", "Linux", dest.path());
        let installed = files(dest.path());
        // As on FreeBSD, but for what the service manager reads.
        let freebsd = ["/etc/rc.d/", "/jail.conf.d/", "/newsyslog.conf.d/", "/rc.subr", ".sample"];
        let mut listed: BTreeSet<String> = plist().into_iter().filter(|f| !freebsd.iter().any(|part| f.contains(part))).collect();
        for unit in fs::read_dir(root().join("systemd")).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()) {
            listed.insert(match unit.as_str() {
                "sysusers.conf" => "usr/local/lib/sysusers.d/skep.conf".into(),
                "tmpfiles.conf" => "usr/local/lib/tmpfiles.d/skep.conf".into(),
                unit => format!("usr/local/lib/systemd/system/{unit}"),
            });
        }
        listed.insert("etc/skep/skep.conf".into());
        let wrong = differences(&installed, &listed);
        assert!(wrong.is_empty(), "{program}: {wrong:#?}");
        no_holes(dest.path(), &installed);
        make(program, "uninstall", "Linux", dest.path());
        assert_eq!(files(dest.path()), BTreeSet::new(), "{program} uninstall");
    }
}

/// Configuration that somebody has changed outlives `make uninstall`.
#[test]
fn changed_configuration_stays() {
    let program = makes()[0];
    for (os, place) in [("Linux", "etc/skep/skep.conf"), ("FreeBSD", "usr/local/etc/skep/skep.conf")] {
        let dest = tempfile::tempdir().unwrap();
        make(program, "install", os, dest.path());
        fs::write(dest.path().join(place), "state = /data\n").unwrap();
        make(program, "uninstall", os, dest.path());
        assert_eq!(files(dest.path()), BTreeSet::from([place.to_owned()]), "{os}");
    }
}
