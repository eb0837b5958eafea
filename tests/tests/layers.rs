//! Disks that stand on others: several on one image at once, each with what its own machine wrote.
#![cfg(target_os = "linux")]

use anyhow::{Context, Result, ensure};
use skep_tests::{Mode, Suite, is_root};
use std::path::PathBuf;
use std::process::Command;

fn files(suite: &Suite) -> Result<Vec<PathBuf>> {
    let mut all: Vec<_> = std::fs::read_dir(suite.state.join("disks"))?.map(|e| Ok(e?.path())).collect::<Result<_>>()?;
    all.sort();
    Ok(all)
}

fn disk(suite: &Suite, name: &str) -> Result<serde_json::Value> {
    suite.json(&["disk", "show", name])?.pop().context("no disk")
}

/// The disk's bytes, whatever its file is.
fn bytes(suite: &Suite, name: &str) -> Result<Vec<u8>> {
    let (kept, raw) = (suite.dir().join("kept"), suite.dir().join("bytes"));
    let _ = std::fs::remove_file(&kept);
    suite.ok(&["disk", "export", name, &kept.to_string_lossy()])?;
    let format = if std::fs::read(&kept)?.starts_with(b"QFI") { "qcow2" } else { "raw" };
    let mut convert = Command::new("qemu-img");
    ensure!(convert.args(["convert", "-f", format, "-O", "raw"]).args([&kept, &raw]).status()?.success());
    Ok(std::fs::read(&raw)?)
}

/// A file that begins with a word, imported as an image.
fn image(suite: &Suite, name: &str, size: u64, word: &str) -> Result<()> {
    let file = suite.dir().join(format!("{name}.img"));
    std::fs::write(&file, word)?;
    std::fs::File::options().write(true).open(&file)?.set_len(size)?;
    suite.ok(&["image", "import", name, &file.to_string_lossy()]).map(drop)
}

#[test]
fn machines_stand_on_one_image_at_once() -> Result<()> {
    let suite = Suite::start(if is_root() { Mode::Root } else { Mode::User })?;
    suite.import_guest()?;
    image(&suite, "ours", 64 << 20, "of-the-image")?;
    for name in ["one", "two"] {
        suite.ok(&["disk", "clone", "ours", name])?;
        let made = disk(&suite, name)?;
        ensure!(made["kind"] == "qcow2" && made["size"] == 64 << 20, "{made}");
        ensure!(made["allocated"].as_u64().is_some_and(|bytes| bytes < 1 << 20), "{made}");
        suite.define(name, &["--disk", name])?;
        suite.boot(name)?;
        suite.guest_runs(name, "head -c 12 /dev/vda; echo -$((6*7))", "of-the-image-42")?;
    }
    for name in ["one", "two"] {
        let command = format!("echo own-{name}-$((6*7)) | dd of=/dev/vda bs=1M seek=3 2>/dev/null; sync; echo wrote-$((6*7))");
        suite.guest_runs(name, &command, "wrote-42")?;
    }
    let audit = suite.skep(&["audit"])?;
    ensure!(audit.status.success(), "{}", String::from_utf8_lossy(&audit.stdout));
    // A reboot starts the hypervisor anew, upon the same.
    let reboot = ["vm", "console", "two", "--from-now", "--send", skep_tests::platform::REBOOT, "--expect", "skep-guest ready"];
    suite.ok(&[&reboot[..], &["--timeout", skep_tests::PATIENCE]].concat())?;
    suite.guest_runs("two", "dd if=/dev/vda bs=1M skip=3 count=1 2>/dev/null | head -c 10", "own-two-42")?;
    // The image can go: what stands on it stays.
    suite.ok(&["image", "delete", "ours"])?;
    for name in ["one", "two"] {
        suite.ok(&["vm", "kill", name])?;
    }
    suite.ok(&["vm", "start", "one"])?;
    suite.expect_anew("one", "skep-guest ready")?;
    suite.guest_runs(
        "one",
        "head -c 12 /dev/vda; dd if=/dev/vda bs=1M skip=3 count=1 2>/dev/null | head -c 10",
        "imageown-one-42",
    )?;
    suite.ok(&["vm", "kill", "one"])?;

    for (name, word) in [("one", "own-one-42"), ("two", "own-two-42")] {
        let whole = bytes(&suite, name)?;
        ensure!(whole.len() == 64 << 20 && whole.starts_with(b"of-the-image"), "{name}");
        ensure!(whole[3 << 20..].starts_with(word.as_bytes()), "{name}");
    }
    // A copy of what stands on something stands on it, too; a full one on nothing.
    suite.ok(&["disk", "clone", "one", "three"])?;
    suite.ok(&["disk", "clone", "one", "four", "--full"])?;
    suite.ok(&["disk", "resize", "three", "--size", "80M"])?;
    suite.ok(&["disk", "wipe", "two"])?;
    ensure!(bytes(&suite, "two")?.iter().all(|byte| *byte == 0), "not wiped");
    suite.ok(&["vm", "delete", "one", "--disks"])?;
    suite.ok(&["vm", "delete", "two"])?;
    for (name, size) in [("three", 80 << 20), ("four", 64 << 20)] {
        let whole = bytes(&suite, name)?;
        ensure!(whole.len() == size && whole.starts_with(b"of-the-image"), "{name}");
        ensure!(whole[3 << 20..].starts_with(b"own-one-42"), "{name}");
    }
    for name in ["two", "three", "four", "kernel", "initrd"] {
        suite.ok(&["disk", "delete", name])?;
    }
    ensure!(files(&suite)?.is_empty(), "{:?}", files(&suite)?);
    suite.finish()
}

#[test]
fn what_a_hypervisor_writes_into_its_header_is_not_followed() -> Result<()> {
    let suite = Suite::start(if is_root() { Mode::Root } else { Mode::User })?;
    suite.import_guest()?;
    image(&suite, "ours", 8 << 20, "of-the-image")?;
    suite.ok(&["disk", "clone", "ours", "root"])?;
    let id = disk(&suite, "root")?["id"].as_str().context("no id")?.to_owned();
    let file = suite.state.join("disks").join(format!("{id}.qcow2"));
    let file = std::fs::File::options().write(true).open(file)?;
    use std::os::unix::fs::FileExt;
    file.write_all_at(&200u64.to_be_bytes(), 8)?;
    file.write_all_at(&11u32.to_be_bytes(), 16)?;
    file.write_all_at(b"/etc/shadow", 200)?;
    suite.define("m", &["--disk", "root"])?;
    for args in [&["vm", "start", "m"][..], &["disk", "export", "root", &suite.dir().join("x").to_string_lossy()]] {
        let (_, message) = suite.fails(args)?;
        ensure!(message.contains("names a backing file"), "{message}");
    }
    suite.ok(&["vm", "delete", "m", "--disks"])?;
    suite.finish()
}
