//! iSCSI disks on FreeBSD, with a real target (ctld) and a real guest.
#![cfg(target_os = "freebsd")]

use anyhow::{Context, Result, ensure};
use skep_tests::iscsi::{LUN, NAME};
use skep_tests::platform::{disk_counters, end, served_disks};
use skep_tests::{Mode, PATIENCE, Suite, is_root, skip};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// RFC 7143 wants 96 bits at least.
const SECRET: &str = "sixteen-letters.";

/// The host's target, with one file of 16 MiB. It goes when this does.
struct Target {
    dir: PathBuf,
    port: u16,
}

fn run(program: &str, args: &[&str]) -> Result<String> {
    let output = Command::new(program).args(args).output().context(program.to_owned())?;
    ensure!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

impl Target {
    fn start(dir: &Path) -> Result<Self> {
        let dir = dir.join("target");
        std::fs::create_dir(&dir)?;
        // Free a moment ago, and again in a moment.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let (pid, disk) = (dir.join("pid"), dir.join("disk"));
        std::fs::File::create(&disk)?.set_len(16 << 20)?;
        let (pid, disk) = (pid.display(), disk.display());
        let text = format!(
            "pidfile \"{pid}\"\nportal-group pg {{\n discovery-auth-group no-authentication\n listen 127.0.0.1:{port}\n}}\n\
             auth-group ag {{\n chap \"joe\" \"{SECRET}\"\n}}\n\
             target {NAME} {{\n auth-group ag\n portal-group pg\n lun {LUN} {{\n  path \"{disk}\"\n  blocksize 512\n }}\n}}\n"
        );
        std::fs::write(dir.join("ctl.conf"), text)?;
        let target = Self { dir, port };
        target.serve()?;
        Ok(target)
    }

    fn portal(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Is there, or again.
    fn serve(&self) -> Result<()> {
        run("ctld", &["-f", &self.dir.join("ctl.conf").to_string_lossy()])?;
        // It tells nobody when it listens, which is after it went into the background.
        let begun = Instant::now();
        while TcpStream::connect(self.portal()).is_err() {
            ensure!(begun.elapsed() < Duration::from_secs(60), "ctld does not listen");
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Goes, and its sessions with it.
    fn stop(&self) -> Result<()> {
        let pid = std::fs::read_to_string(self.dir.join("pid"))?;
        run("kill", &["-TERM", pid.trim()])?;
        // It may be gone before that is asked.
        let _ = run("pwait", &[pid.trim()]);
        Ok(())
    }

    fn has(&self, word: &str, block: u64) -> Result<()> {
        let mut bytes = vec![0; word.len()];
        std::fs::File::open(self.dir.join("disk"))?.read_exact_at(&mut bytes, block * 512)?;
        ensure!(bytes == word.as_bytes(), "{:?} instead of {word}", String::from_utf8_lossy(&bytes));
        Ok(())
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        let _ = self.stop();
    }
}

/// A command by which the guest writes a word at a block of the disk.
fn write(word: &str, block: u32) -> String {
    format!("echo {word} | dd of=/dev/vtbd1 oseek={block} conv=sync 2>/dev/null; echo {word}-$?-$((6*7))")
}

fn writes(suite: &Suite, word: &str, block: u32) -> Result<()> {
    suite.guest_runs("m", &write(word, block), &format!("{word}-0-42")).map(drop)
}

fn reads(suite: &Suite, word: &str, block: u32) -> Result<()> {
    let command = format!("set -- $(dd if=/dev/vtbd1 iseek={block} count=1 2>/dev/null); echo read:$1");
    suite.guest_runs("m", &command, &format!("read:{word}")).map(drop)
}

fn nothing_is_left(suite: &Suite) -> Result<()> {
    let sockets: Vec<_> = std::fs::read_dir(suite.run.join("console"))?.flatten().map(|e| e.file_name()).collect();
    let processes = suite.pids("iscsi-initiator")?.len() + suite.pids("disk-server")?.len();
    let devices = served_disks(suite);
    ensure!(sockets.is_empty() && processes + devices == 0, "{processes} processes, {devices} devices, sockets: {sockets:?}");
    Ok(())
}

#[test]
fn a_guest_of_bhyve_has_an_iscsi_disk() -> Result<()> {
    if !is_root() {
        skip!("needs root");
    }
    for module in ["geom_gate", "ctl", "cfiscsi"] {
        let _ = Command::new("kldload").args(["-n", module]).status();
    }
    for (needed, what) in [("/dev/ggctl", "geom_gate"), ("/dev/cam/ctl", "ctl"), ("/usr/sbin/ctld", "ctld(8)")] {
        if !Path::new(needed).exists() {
            skip!("this host has no {what}");
        }
    }
    if run("pgrep", &["-x", "ctld"]).is_ok() {
        skip!("a ctld runs here already, and there is one at a time");
    }
    let suite = Suite::prepare(Mode::Root)?;
    suite.ok(&["up", "--iscsi-portals", "127.0.0.1"])?;
    let target = Target::start(suite.dir())?;
    std::fs::OpenOptions::new().write(true).open(target.dir.join("disk"))?.write_all_at(b"before\n", 7 * 512)?;
    let (portal, secret) = (target.portal(), suite.dir().join("secret"));
    std::fs::write(&secret, format!("{SECRET}\n"))?;
    let create = ["disk", "create", "san", "--iscsi", NAME, "--portal", &portal, "--lun", LUN];
    let (_, said) = suite.fails(&create)?;
    ensure!(said.contains("--chap-user"), "{said}");
    let (_, said) = suite.fails(&["disk", "create", "x", "--iscsi", NAME, "--portal", "127.0.0.2"])?;
    ensure!(said.contains("skep up --iscsi-portals"), "{said}");
    let known = ["--chap-user", "joe", "--chap-secret-file", &secret.to_string_lossy()];
    let made = suite.json(&[&create[..], &known].concat())?;
    ensure!(made[0]["kind"] == "iscsi" && made[0]["size"] == 16 << 20, "{made:?}");
    nothing_is_left(&suite)?;

    suite.ok(&["disk", "set", "san", "--write-bps", "1M"])?;
    suite.import_guest()?;
    suite.define("m", &["--disk", "san"])?;
    // Without its target it does not start, and says why.
    target.stop()?;
    let (_, said) = suite.fails(&["vm", "start", "m"])?;
    ensure!(said.contains("disk san") && said.contains("refused"), "{said}");
    nothing_is_left(&suite)?;
    target.serve()?;
    suite.boot("m")?;
    let audit = suite.ok(&["audit"])?;
    ensure!(audit.contains(" 0 differ") && audit.contains("iscsi-initiator") && audit.contains("disk-server"), "{audit}");
    reads(&suite, "before", 7)?;
    writes(&suite, "one", 100)?;
    target.has("one\n", 100)?;

    let counted = disk_counters(&suite, "m", 1)?;
    ensure!(counted.write_bytes >= 512 && counted.write_ops >= 1 && counted.read_ops >= 1, "{counted:?}");

    // Either of the two that serve it is killed while the guest writes, for four seconds at its rate: it waits a moment, and notices nothing.
    for (turn, who) in ["iscsi-initiator", "disk-server"].into_iter().enumerate() {
        let [pid] = suite.pids(who)?[..] else { anyhow::bail!("one {who}") };
        let begun = Instant::now();
        let busy = "dd if=/dev/zero of=/dev/vtbd1 bs=64k oseek=16 count=64 2>/dev/null";
        let busy = format!("({busy}; echo zeroes-{turn}-$?-$((6*7))) & echo begun-{turn}-$((6*7))");
        suite.guest_runs("m", &busy, &format!("begun-{turn}-42"))?;
        end(pid)?;
        suite.expect("m", &format!("zeroes-{turn}-0-42"))?;
        ensure!(begun.elapsed() > Duration::from_secs(3), "{:?}", begun.elapsed());
        ensure!(suite.pids(who)?.len() == 1 && served_disks(&suite) == 1, "more than one {who}");
    }
    let later = disk_counters(&suite, "m", 1)?;
    ensure!(later.write_bytes >= counted.write_bytes + (8 << 20), "{counted:?} {later:?}");

    // Each is heard in its own name alone.
    for who in ["iscsi-initiator", "disk-server"] {
        let log = suite.ok(&["log", who, "--since", "1h", "--tail", "1000"])?;
        let said = format!(" {who} info disk {}: serves", made[0]["id"].as_str().context("no id")?);
        ensure!(log.contains(&said) && log.lines().all(|line| line.contains(&format!(" {who} "))), "{log}");
    }

    // The target goes; whoever would log in again dies meanwhile.
    target.stop()?;
    suite.guest_runs("m", &format!("({}) & echo waits-$((6*7))", write("two", 2)), "waits-42")?;
    end(suite.pids("broker")?[0])?;
    suite.up()?;
    suite.ok(&["events", "--after", "0", "--until", "lost", "--timeout", PATIENCE])?;
    target.serve()?;
    suite.expect("m", "two-0-42")?;
    target.has("two\n", 2)?;

    // Nobody hears of the secret.
    let told = [
        suite.ok(&["disk", "show", "san"])?,
        suite.logs(),
        suite.ok(&["events", "--after", "0", "--until", "created", "--timeout", "10"])?,
        run("ps", &["-axww", "-o", "args"])?,
    ];
    ensure!(told.iter().all(|text| !text.contains(SECRET)), "the secret is told");
    // A machine whose disk nobody serves is killed at once.
    target.stop()?;
    suite.guest_runs("m", &format!("({}) & echo hangs-$((6*7))", write("three", 3)), "hangs-42")?;
    suite.ok(&["vm", "kill", "m"])?;
    nothing_is_left(&suite)?;
    target.serve()?;

    // Read-only is what the machine says, and its hypervisor has no say in it.
    suite.ok(&["vm", "set", "m", "--disk", "m-root", "--disk", "san,ro"])?;
    suite.boot("m")?;
    reads(&suite, "two", 2)?;
    let failed = "echo four | dd of=/dev/vtbd1 conv=sync 2>/dev/null || echo refused-$((6*7))";
    suite.guest_runs("m", failed, "refused-42")?;
    suite.ok(&["vm", "kill", "m"])?;
    suite.ok(&["vm", "delete", "m"])?;
    suite.ok(&["disk", "delete", "san"])?;
    target.has("one\n", 100)?;
    nothing_is_left(&suite)?;
    drop(target);
    suite.finish()
}
