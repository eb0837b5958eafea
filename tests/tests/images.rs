//! Images that machines are made from: a library of disks that stay as they are.
#![cfg(target_os = "linux")]

use anyhow::{Context, Result, ensure};
use skep_tests::{Mode, Suite, is_root, skip};
use std::process::Command;

#[test]
fn machines_are_launched_from_images_that_stay_as_they_are() -> Result<()> {
    if !is_root() {
        skip!("switches need root");
    }
    let suite = Suite::start(Mode::Root)?;
    let disk = skep_tests::guest()?.join("disk.img").to_string_lossy().into_owned();
    let facts = ["--os", "Our own 1", "--user", "root", "--min-memory", "192M", "--description", "of the tests"];
    suite.ok(&[&["image", "import", "ours", &disk][..], &facts].concat())?;
    let listed = suite.json(&["image", "list"])?;
    let image = &listed.first().context("no image")?["image"];
    ensure!(listed.len() == 1 && image["source"] == "disk.img" && image["os"] == "Our own 1", "{listed:?}");
    let sum = listed[0]["sha256"].as_str().context("no checksum")?.to_owned();
    let (_, message) = suite.fails(&["disk", "resize", "ours", "--size", "1G"])?;
    ensure!(message.contains("it stays as it is"), "{message}");
    let (_, message) = suite.fails(&["vm", "create", "m", "--disk", "ours"])?;
    ensure!(message.contains("which machines only read"), "{message}");
    let (_, message) = suite.fails(&["launch", "ours", "web1", "--memory", "64M"])?;
    ensure!(message.contains("image ours needs 192"), "{message}");

    suite.ok(&["launch", "ours", "web1"])?;
    suite.guest_runs("web1", "echo kept-$((6*7)) > /dev/vda; sync; head -c 7 /dev/vda", "kept-42")?;
    suite.ok(&["vm", "kill", "web1"])?;
    // What its guest wrote is in its own disk; of that an image is made in turn.
    suite.ok(&["image", "create", "golden", "web1-root", "--os", "Our own 2"])?;
    let golden = suite.json(&["image", "show", "golden"])?;
    ensure!(golden[0]["image"]["source"] == "disk web1-root", "{golden:?}");
    let export = |name: &str| -> Result<Vec<u8>> {
        let file = suite.dir().join(name);
        suite.ok(&["image", "export", name, &file.to_string_lossy()])?;
        let raw = suite.dir().join(format!("{name}.raw"));
        let format = if std::fs::read(&file)?.starts_with(b"QFI") { "qcow2" } else { "raw" };
        let convert =
            std::process::Command::new("qemu-img").args(["convert", "-f", format, "-O", "raw"]).args([&file, &raw]).status()?;
        ensure!(convert.success(), "qemu-img");
        Ok(std::fs::read(raw)?)
    };
    ensure!(export("ours")? == std::fs::read(&disk)?, "the image was written to");
    ensure!(export("golden")?.starts_with(b"kept-42"), "not what the guest wrote");

    // The same image in another format, packed.
    let vmdk = suite.dir().join("ours.vmdk").to_string_lossy().into_owned();
    let convert =
        Command::new("qemu-img").args(["convert", "-O", "vmdk", "-o", "subformat=streamOptimized", &disk, &vmdk]).status()?;
    ensure!(convert.success() && Command::new("xz").args(["-0", &vmdk]).status()?.success(), "no VMDK");
    suite.ok(&["image", "import", "foreign", &format!("{vmdk}.xz")])?;
    ensure!(export("foreign")? == std::fs::read(&disk)?, "the disk in the VMDK is another");
    let (_, message) = suite.fails(&["image", "import", "wrong", &format!("{vmdk}.xz"), "--format", "vhdx"])?;
    ensure!(message.contains("the stream is not VHDX"), "{message}");

    suite.ok(&["image", "set", "golden", "--user", "me"])?;
    suite.ok(&["image", "rename", "golden", "gold"])?;
    let gold = suite.json(&["image", "show", "gold"])?;
    ensure!(gold[0]["image"]["user"] == "me" && gold[0]["image"]["os"] == "Our own 2", "{gold:?}");
    let (_, message) = suite.fails(&["image", "delete", "web1-root"])?;
    ensure!(message.contains("it is no image"), "{message}");
    ensure!(suite.json(&["image", "show", "ours"])?[0]["sha256"] == sum.as_str());
    for image in ["gold", "ours", "foreign"] {
        suite.ok(&["image", "delete", image])?;
    }
    suite.ok(&["vm", "delete", "web1", "--disks"])?;
    ensure!(suite.json(&["disk", "list"])?.is_empty(), "something is left");
    suite.finish()
}
