//! Directories of the host that guests mount (9p), from the command to the file: a real guest reads and writes them, and gets no further.
#![cfg(target_os = "linux")]

use anyhow::{Context, Result, ensure};
use skep_tests::platform::end;
use skep_tests::shares::{HELLO, Shared, gone, refused, suite};
use skep_tests::{Mode, Suite, guest, is_root, skip};
use std::fs;
use std::os::unix::fs::MetadataExt;

/// The guest whose kernel knows 9p; it needs more memory than the usual one.
fn machine(suite: &Suite, more: &[&str]) -> Result<()> {
    let args = ["vm", "create", "m", "--memory", "256M", "--kernel", "kernel", "--initrd", "initrd", "--screen", "off"];
    suite.ok(&[&args[..], &["--cmdline", "console=ttyS0 quiet"], more].concat()).map(drop)
}

fn import(suite: &Suite) -> Result<bool> {
    let dir = guest()?.join("shares");
    if !dir.join("initrd").exists() {
        return Ok(false);
    }
    for name in ["kernel", "initrd"] {
        suite.ok(&["disk", "import", name, &dir.join(name).to_string_lossy()])?;
    }
    Ok(true)
}

fn mount(suite: &Suite) -> Result<()> {
    let both = "for s in in out; do mkdir -p /mnt/$s; mount -t 9p -o trans=virtio,version=9p2000.L $s /mnt/$s || break; done; echo mounted-$?";
    suite.guest_runs("m", both, "mounted-0").map(drop)
}

/// What a command prints in the guest, between its echo and its end.
fn says(suite: &Suite, command: &str) -> Result<String> {
    let typed = format!("echo be''gin; {command} 2>&1; echo; echo en''d");
    let all = suite.guest_runs("m", &typed, "\nend")?;
    let all = all.replace('\r', "");
    let said = all.rsplit_once("\nbegin\n").context("no answer")?.1;
    Ok(said.rsplit_once("end").map_or(said, |(text, _)| text).trim().to_owned())
}

fn reads_and_writes(mode: Mode) -> Result<()> {
    let Shared { suite, dir } = suite(mode)?;
    if !import(&suite)? {
        skip!("no guest that mounts 9p: scripts/guest OUTDIR shares");
    }
    machine(&suite, &["--share", "in,ro", "--share", "out"])?;
    let shown = suite.json(&["vm", "show", "m"])?;
    let want = serde_json::json!([{"share": "in", "read_only": true}, {"share": "out", "read_only": false}]);
    ensure!(shown[0]["shares"] == want, "{shown:?}");
    ensure!(suite.json(&["host", "show"])?[0]["shares"] == serde_json::json!(["gone", "in", "link", "out"]));
    suite.boot("m")?;
    mount(&suite)?;
    let says = |command: &str| says(&suite, command);

    // Read-only: what is there is read, as it is; nothing is written.
    ensure!(says("cat /mnt/in/hello /mnt/in/near")? == [HELLO, HELLO].concat());
    for write in
        ["echo x > /mnt/in/new", "echo x > /mnt/in/hello", "rm /mnt/in/hello", "mkdir /mnt/in/new", "chmod 777 /mnt/in/hello"]
    {
        let said = says(write)?;
        ensure!(said.contains("Read-only") || said.contains("not permitted"), "{write}: {said}");
    }
    ensure!(fs::read(dir.join("in/hello"))? == HELLO.as_bytes() && !dir.join("in/new").exists());
    // A symbolic link is the guest's to follow, in its own tree; upwards it finds its own tree, too.
    for leak in ["cat /mnt/in/up", "cat /mnt/in/away", "cat /mnt/out/up", "cat /mnt/in/../secret", "cat /mnt/in/sub/../../secret"]
    {
        let said = says(leak)?;
        ensure!(said.starts_with("cat: can't open"), "{leak}: {said}");
    }

    // Writable: what it makes is there, belongs to the machine, and is nothing but files and directories.
    let make = "cd /mnt/out && mkdir d && echo written > new && mv new d/new && ln d/new hard && ln -s /etc/passwd soft \
                && mknod node c 1 3 && mkfifo pipe && truncate -s 3 hard && touch -t 200001010000 hard && chown 7:7 hard && chmod 4777 d/new && ls -ln; cd /; sync";
    let said = says(make)?;
    ensure!(said.contains("soft -> /etc/passwd") && said.contains("1,   3"), "{said}");
    ensure!(says("cat /mnt/out/d/new; stat -c %a-%u /mnt/out/hard")? == "wri4777-7", "{}", says("ls -lnR /mnt/out")?);
    ensure!(fs::read(dir.join("out/d/new"))? == b"wri" && fs::read(dir.join("out/hard"))? == b"wri");
    let owner = if mode == Mode::Root { suite.uid_of("machines")? } else { fs::metadata(&suite.state)?.uid() };
    for name in ["d", "d/new", "hard", "soft", "node", "pipe"] {
        let meta = fs::symlink_metadata(dir.join("out").join(name))?;
        let (kind, mode) = (meta.file_type(), meta.mode() & 0o7777);
        ensure!(meta.uid() == owner && (kind.is_dir() && mode == 0o700 || kind.is_file() && mode == 0o600), "{name}: {meta:?}");
    }
    let said = says("cd /mnt/out && rm -r d hard soft node pipe; ls; cd /")?;
    ensure!(said == "up", "{said}");
    ensure!(!dir.join("out/d").exists() && dir.join("out/up").is_symlink());

    // What is mounted and open is declared, and shown.
    says("exec 5</mnt/in/hello 6>/mnt/out/open")?;
    let audit = suite.ok(&["audit"])?;
    ensure!(audit.contains("/share/1 (") && audit.contains("shared read-only: /share/0"), "{audit}");
    says("exec 5<&- 6>&-")?;

    // After a reboot and after a start anew it is there again, and the files are the same machine's.
    suite.guest_runs("m", skep_tests::platform::REBOOT, "skep-guest ready")?;
    mount(&suite)?;
    ensure!(says("echo more >> /mnt/out/open && cat /mnt/out/open")? == "more");
    suite.ok(&["vm", "kill", "m"])?;
    gone(&dir)?;
    suite.finish()
}

#[test]
fn a_guest_reads_and_writes_what_its_host_shares() -> Result<()> {
    reads_and_writes(if is_root() { Mode::Root } else { Mode::User })
}

#[test]
fn an_ordinary_users_guest_does_too() -> Result<()> {
    if !is_root() {
        skip!("the other test is it");
    }
    reads_and_writes(Mode::User)
}

#[test]
fn what_cannot_be_shared_is_refused_with_field_and_reason() -> Result<()> {
    let Shared { suite, dir } = suite(if is_root() { Mode::Root } else { Mode::User })?;
    suite.import_guest()?;
    suite.define("m", &[])?;
    refused(
        &suite,
        &[
            ("nowhere", 3, "share nowhere: no directory of this host has that name"),
            ("gone", 3, "share gone: its directory is not there"),
            ("link", 8, "share link: a part of its path is a symbolic link"),
        ],
    )?;
    for name in ["/etc", "../etc", "", "a b"] {
        let (code, message) = suite.fails(&["vm", "set", "m", "--share", name])?;
        ensure!(code == 8 && message.contains("shares"), "{name}: {code} {message}");
    }
    let (code, message) = suite.fails(&["vm", "set", "m", "--share", "in,rw"])?;
    ensure!(code == 8 && message.contains("`rw` is not ro"), "{code} {message}");
    // Other shares need a start of the suite; what was given stays until others are.
    let (_, message) = suite.fails(&["up", "--shares", "none"])?;
    ensure!(message.contains("up already"), "{message}");
    suite.ok(&["down"])?;
    let inside = format!("s={}", suite.state.join("db").display());
    for wrong in ["in", "in=relative", "in=/a/../b", &inside, "in=/"] {
        let (_, message) = suite.fails(&["up", "--shares", wrong])?;
        ensure!(message.contains("share"), "{wrong}: {message}");
    }
    suite.ok(&["up"])?;
    suite.ok(&["vm", "set", "m", "--no-shares", "--screen", "off"])?;
    suite.ok(&["vm", "set", "m", "--share", "in,ro"])?;
    suite.boot("m")?;
    // A cell without a share has no more rights than before; one with a share dies like any other.
    for dies in ["hypervisor", "runner"] {
        end(suite.pids(dies)?[0])?;
        suite.ok(&["events", "--after", "0", "--until", "failed", "--timeout", skep_tests::PATIENCE])?;
        gone(&dir)?;
        suite.boot("m")?;
    }
    end(suite.pids("vm-runner")?[0])?;
    suite.up()?;
    suite.guest_runs("m", "echo lives-$((6*7))", "lives-42")?;
    suite.ok(&["vm", "kill", "m"])?;
    gone(&dir)?;
    suite.ok(&["down"])?;
    suite.ok(&["up", "--shares", "none"])?;
    let (code, message) = suite.fails(&["vm", "start", "m"])?;
    ensure!(code == 3 && message.contains("share in: no directory"), "{code} {message}");
    suite.finish()
}
