//! Templates: a file says where an image comes from and what its machines need.
#![cfg(target_os = "linux")]

use anyhow::{Result, ensure};
use skep_tests::https::{self, Page, noise};
use skep_tests::{Mode, Suite, is_root, skip};
use std::process::Command;
use std::sync::Arc;

#[test]
fn a_template_brings_its_image() -> Result<()> {
    if !is_root() {
        skip!("switches need root");
    }
    let suite = Suite::prepare(Mode::Root)?;
    suite.ok(&["up", "--fetch-from", "127.0.0.1"])?;
    let (server, ca) = https::start(suite.dir())?;
    let disk = std::fs::read(skep_tests::guest()?.join("disk.img"))?;
    let output = Command::new("sha512sum").arg(skep_tests::guest()?.join("disk.img")).output()?;
    let said = String::from_utf8(output.stdout)?;
    let sum = said.split_whitespace().next().unwrap_or_default();
    server.put("/guest.img", Page::File(Arc::new(disk)));
    server.put("/SUMS", Page::File(Arc::new(format!("{sum}  guest.img\n").into_bytes())));
    let templates = suite.dir().join("templates");
    std::fs::create_dir(&templates)?;
    std::fs::set_permissions(&templates, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let text =
        |more: &str| format!("description = \"Of the tests\"\nos = \"Ours 1\"\nuser = \"root\"\nmin_memory = \"192M\"\n{more}");
    let image =
        format!("[image]\nurl = \"{}\"\nsums = \"{}\"\n[machine]\ncpus = 2\n", server.url("/guest.img"), server.url("/SUMS"));
    for (name, text) in [("ours", text(&image)), ("own", text("note = \"bring your own\"\n")), ("bad", "os = 1\n".into())] {
        std::fs::write(templates.join(format!("{name}.toml")), text)?;
    }
    let run = |args: &[&str]| -> Result<(bool, String)> {
        let output = suite.command(args).env("SKEP_TEMPLATES", &templates).output()?;
        let text = [&output.stdout[..], &output.stderr].concat();
        Ok((output.status.success(), String::from_utf8_lossy(&text).into_owned()))
    };
    let (_, list) = run(&["template", "list"])?;
    ensure!(list.contains("Ours 1") && list.contains("your own") && list.contains("wrong: "), "{list}");
    let (good, shown) = run(&["template", "show", "ours"])?;
    ensure!(good && shown.contains("/guest.img"), "{shown}");
    for (name, why) in [("own", "bring your own"), ("bad", "bad.toml"), ("none", "neither an image nor a template")] {
        let (good, message) = run(&["launch", name, "web1"])?;
        ensure!(!good && message.contains(why), "{name}: {message}");
    }
    // One whose list is signed: by the key beside it, or nothing comes of it (data/signed).
    server.put("/a.img", Page::File(noise(102_400)));
    server.put("/SHA256", Page::File(Arc::new(include_bytes!("../data/signed/SHA256").to_vec())));
    server.put("/SHA256.gpg", Page::File(Arc::new(include_bytes!("../data/signed/SHA256.gpg").to_vec())));
    let url = |path: &str| server.url(path);
    let image = format!(
        "[image]\nurl = \"{}\"\nsums = \"{}\"\nsignature = \"{}\"\nkey = \"vendor.key\"\n",
        url("/a.img"),
        url("/SHA256"),
        url("/SHA256.gpg")
    );
    std::fs::write(templates.join("signed.toml"), text(&image))?;
    std::fs::create_dir(templates.join("keys"))?;
    let key = templates.join("keys/vendor.key");
    for (bytes, why) in [
        (None, "vendor.key is neither in"),
        (Some(&include_bytes!("../data/signed/other.key")[..]), "none of those that were given"),
    ] {
        bytes.map_or(Ok(()), |bytes| std::fs::write(&key, bytes))?;
        let (good, message) = run(&["launch", "signed", "web0", "--ca", &ca, "--no-wait-for-guest"])?;
        ensure!(!good && message.contains(why) && suite.json(&["image", "list"])?.is_empty(), "{message}");
    }
    std::fs::write(&key, include_bytes!("../data/signed/openpgp.key"))?;
    let (good, said) = run(&["launch", "signed", "web0", "--ca", &ca, "--no-wait-for-guest"])?;
    ensure!(good && server.asked("/a.img").len() == 1, "{said}");
    suite.ok(&["vm", "kill", "web0"])?;
    suite.ok(&["vm", "delete", "web0", "--disks"])?;
    suite.ok(&["image", "delete", "signed"])?;
    // One command: image, machine, guest at work.
    let (good, said) = run(&["launch", "ours", "web1", "--ca", &ca])?;
    ensure!(good, "{said}");
    let image = suite.json(&["image", "show", "ours"])?;
    ensure!(image[0]["image"]["os"] == "Ours 1" && image[0]["image"]["source"] == server.url("/guest.img").as_str(), "{image:?}");
    let machine = suite.json(&["vm", "show", "web1"])?;
    ensure!(machine[0]["cpus"] == 2 && machine[0]["memory_mib"].as_u64().is_some_and(|mib| mib >= 192), "{machine:?}");
    suite.guest_runs("web1", "echo here-$((6*7))", "here-42")?;
    // The second time it is there.
    let (good, said) = run(&["launch", "ours", "web2", "--no-wait-for-guest"])?;
    ensure!(good && server.asked("/guest.img").len() == 1, "{said}");
    for machine in ["web1", "web2"] {
        suite.ok(&["vm", "kill", machine])?;
        suite.ok(&["vm", "delete", machine, "--disks"])?;
    }
    suite.ok(&["image", "delete", "ours"])?;
    suite.finish()
}
