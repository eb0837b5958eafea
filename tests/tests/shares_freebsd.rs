//! Directories of the host that guests mount (9p) on FreeBSD: a real guest reads them, and gets no further.
#![cfg(target_os = "freebsd")]

use anyhow::{Result, ensure};
use skep_tests::platform::end;
use skep_tests::shares::{HELLO, SECRET, Shared, gone, refused, suite};
use skep_tests::{Mode, Suite, guest, is_root, skip};
use std::process::Command;

/// What mount(8) says of the cell's directory.
fn mounted(suite: &Suite) -> Result<String> {
    let text = String::from_utf8(Command::new("mount").output()?.stdout)?;
    let mark = suite.run.canonicalize()?.join("cells").display().to_string();
    let lines = text.lines().filter(|line| line.contains(&mark) && line.contains("/share/"));
    Ok(lines.collect::<Vec<_>>().join("\n"))
}

#[test]
fn a_guest_reads_what_its_host_shares() -> Result<()> {
    if !is_root() {
        skip!("needs root");
    }
    let Shared { suite, dir } = suite(Mode::Root)?;
    suite.import_guest()?;
    suite.define("m", &[])?;
    refused(
        &suite,
        &[
            ("nowhere,ro", 3, "share nowhere: no directory of this host has that name"),
            ("gone,ro", 3, "share gone: its directory is not there"),
            ("link,ro", 8, "share link: a part of its path is a symbolic link"),
            ("out", 11, "add `ro`"),
        ],
    )?;
    ensure!(mounted(&suite)?.is_empty(), "{}", mounted(&suite)?);
    suite.ok(&["vm", "set", "m", "--share", "in,ro"])?;
    suite.boot("m")?;
    let shown = mounted(&suite)?;
    let all = ["nullfs", "/share/0", "read-only", "nosuid", "noexec"];
    ensure!(shown.lines().count() == 1 && all.iter().all(|word| shown.contains(word)), "{shown}");
    let audit = suite.skep(&["audit"])?;
    ensure!(audit.status.success(), "{}", String::from_utf8_lossy(&audit.stdout));
    let client = guest()?.join("p9fs").exists();
    if client {
        suite.guest_runs("m", "mount -t p9fs -o ro in /mnt && cat /mnt/hello; echo; echo read-$?", HELLO)?;
        for leak in ["cat /mnt/up", "cat /mnt/away", "cat /mnt/../secret", "echo x > /mnt/new"] {
            let said = suite.guest_runs("m", &format!("{leak}; echo ended-$((6*7))"), "ended-42")?;
            ensure!(!said.contains(SECRET), "{leak}: {said}");
        }
        ensure!(!dir.join("in/new").exists());
    }
    for dies in ["hypervisor", "runner", "vm-runner"] {
        end(suite.pids(dies)?[0])?;
        suite.up()?;
        if dies != "vm-runner" {
            suite.ok(&["events", "--after", "0", "--until", "failed", "--timeout", skep_tests::PATIENCE])?;
            suite.boot("m")?;
        }
        ensure!(mounted(&suite)?.lines().count() == 1, "after {dies}: {}", mounted(&suite)?);
    }
    suite.ok(&["vm", "kill", "m"])?;
    ensure!(mounted(&suite)?.is_empty(), "{}", mounted(&suite)?);
    gone(&dir)?;
    suite.finish()?;
    if !client {
        skip!("the guest has no client of 9p: all but its reading was seen");
    }
    Ok(())
}
