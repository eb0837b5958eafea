//! Disks that are ZFS volumes, as an administrator has them: in a pool of the test's own, which goes with it.
#![cfg(target_os = "freebsd")]

use anyhow::{Context, Result, ensure};
use skep_tests::platform::disk_counters;
use skep_tests::{Mode, Suite, guest, is_root, skip};
use std::io::Read;
use std::process::Command;

/// A pool in a file.
struct Pool {
    name: String,
    _dir: tempfile::TempDir,
}

fn run(program: &str, args: &[&str]) -> Result<String> {
    let output = Command::new(program).args(args).output().context(program.to_owned())?;
    ensure!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

impl Pool {
    fn make() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let (name, file) = (format!("sktv{}", std::process::id()), dir.path().join("vdev"));
        std::fs::File::create(&file)?.set_len(512 << 20)?;
        let file = file.to_string_lossy();
        run("zpool", &["create", "-f", "-o", "cachefile=none", "-O", "mountpoint=none", &name, &file])?;
        let pool = Self { name, _dir: dir };
        run("zfs", &["create", &pool.dataset()])?;
        Ok(pool)
    }

    fn dataset(&self) -> String {
        format!("{}/skep", self.name)
    }

    /// As the host sees a disk.
    fn first_bytes(&self, suite: &Suite, disk: &str, count: usize) -> Result<Vec<u8>> {
        let shown = suite.json(&["disk", "show", disk])?;
        let id = shown.first().and_then(|v| v["id"].as_str()).context("no id in disk show")?;
        let mut sector = vec![0; 512];
        std::fs::File::open(format!("/dev/zvol/{}/{id}", self.dataset()))?.read_exact(&mut sector)?;
        sector.truncate(count);
        Ok(sector)
    }

    fn below(&self) -> Result<usize> {
        Ok(run("zfs", &["list", "-H", "-o", "name", "-t", "all", "-r", &self.dataset()])?.lines().count() - 1)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let _ = run("zpool", &["destroy", "-f", &self.name]);
    }
}

#[test]
fn a_machine_lives_on_a_volume() -> Result<()> {
    if !is_root() {
        skip!("needs root");
    }
    let _ = run("kldload", &["-n", "zfs"]);
    if std::fs::File::open("/dev/zfs").is_err() {
        skip!("this host has no ZFS");
    }
    let pool = Pool::make()?;
    let suite = Suite::prepare(Mode::Root)?;
    let (_, said) = suite.fails(&["up", "--zfs-dataset", &pool.name])?;
    ensure!(said.contains("not the name of a dataset"), "{said}");
    suite.ok(&["up", "--zfs-dataset", &pool.dataset()])?;
    suite.ok(&["disk", "import", "guest", "--kind", "zvol", &guest()?.join("disk.img").to_string_lossy()])?;
    suite.ok(&["disk", "clone", "guest", "root"])?;
    suite.ok(&["vm", "create", "m", "--memory", "128M", "--loader", "--screen", "off", "--disk", "root"])?;
    suite.ok(&["disk", "create", "data", "--size", "8M", "--kind", "zvol"])?;
    suite.ok(&["vm", "set", "m", "--disk", "root", "--disk", "data"])?;
    // The original goes, the copy stays.
    suite.ok(&["disk", "delete", "guest"])?;
    suite.boot("m")?;
    let write = |word: &str| format!("echo {word} | dd of=/dev/vtbd1 conv=sync 2>/dev/null; echo wrote-$?");
    // ZFS counts what goes through it.
    let before = disk_counters(&suite, "m", 1)?;
    suite.guest_runs("m", &write("first"), "wrote-0")?;
    let counted = disk_counters(&suite, "m", 1)?;
    let written = counted.write_bytes - before.write_bytes;
    ensure!((512..65536).contains(&written) && counted.write_ops > before.write_ops, "{before:?} {counted:?}");
    ensure!(disk_counters(&suite, "m", 0)?.read_bytes > 1 << 20, "a kernel was loaded from it");
    suite.ok(&["disk", "snapshot", "create", "data", "before"])?;
    suite.guest_runs("m", &write("second"), "wrote-0")?;
    let (code, said) = suite.fails(&["disk", "snapshot", "rollback", "data", "before"])?;
    ensure!(code == 5 && said.contains("machine m runs"), "{code} {said}");
    // As it was, while it is written.
    suite.ok(&["disk", "clone", "data", "then", "--snapshot", "before"])?;
    ensure!(pool.first_bytes(&suite, "then", 7)? == *b"first\n\0");
    // Whatever dies: the machine keeps its volumes, and nobody else gets them.
    let [helper] = suite.pids("storage-helper")?[..] else { anyhow::bail!("one storage-helper") };
    skep_tests::platform::end(helper)?;
    suite.ok(&["disk", "list"])?;
    suite.ok(&["down", "--keep-machines"])?;
    suite.ok(&["up"])?;
    ensure!(suite.state_of("m")? == "running");
    let named = || -> Result<()> {
        let audit = suite.ok(&["audit"])?;
        let volumes = audit.lines().filter(|line| line.contains("/volumes/zvol/")).count();
        ensure!(volumes >= 4 && audit.contains(" 0 differ"), "runner and bhyve hold two volumes each: {audit}");
        Ok(())
    };
    named()?;
    // Refused, for the machine holds some; the kernel knows the way to them no more.
    let volumes = suite.run.join("volumes");
    ensure!(run("umount", &[&volumes.to_string_lossy()]).is_err(), "{} was unmounted", volumes.display());
    named()?;
    suite.guest_runs("m", "echo alive-$((6*7))", "alive-42")?;
    suite.ok(&["vm", "kill", "m"])?;
    ensure!(pool.first_bytes(&suite, "data", 7)? == *b"second\n");
    suite.ok(&["disk", "snapshot", "rollback", "data", "before"])?;
    ensure!(pool.first_bytes(&suite, "data", 7)? == *b"first\n\0");
    let (code, said) = suite.fails(&["disk", "delete", "data"])?;
    ensure!(code == 5, "{code} {said}");
    let listed = suite.ok(&["disk", "snapshot", "list", "data"])?;
    ensure!(listed.contains("before"), "{listed}");
    suite.ok(&["disk", "snapshot", "create", "data", "later"])?;
    suite.ok(&["disk", "snapshot", "delete", "data", "later"])?;
    suite.ok(&["disk", "snapshot", "delete", "data", "before"])?;
    let listed = suite.ok(&["disk", "snapshot", "list", "data"])?;
    ensure!(!listed.contains("before"), "{listed}");
    // Both go, and the copy of it stays.
    suite.ok(&["vm", "delete", "m", "--disks"])?;
    ensure!(pool.first_bytes(&suite, "then", 7)? == *b"first\n\0");
    suite.ok(&["disk", "delete", "then"])?;
    ensure!(pool.below()? == 0);
    suite.finish()
}
