//! A real Debian that is launched by one command, reached by SSH, snapshotted, broken, brought back, and cloned into two.
#![cfg(target_os = "linux")]

use anyhow::{Context, Result, ensure};
use skep_tests::beyond::Beyond;
use skep_tests::ssh::{Key, by_ssh};
use skep_tests::{Mode, Suite, is_root, skip};

/// The address of a machine's only NIC.
fn address(suite: &Suite, machine: &str) -> Result<String> {
    let all = suite.json(&["nic", "list"])?;
    let own = all.iter().find(|nic| nic["machine"] == machine).with_context(|| format!("no NIC of {machine}: {all:?}"))?;
    Ok(own["address"].as_str().context("no address")?.to_owned())
}

#[test]
fn a_debian_is_launched_broken_brought_back_and_cloned_into_two() -> Result<()> {
    if !is_root() {
        skip!("switches need root");
    }
    let image = skep_tests::guest()?.join("debian.qcow2");
    if !image.exists() {
        skip!("no Debian for clouds: scripts/guest-debian OUTDIR");
    }
    let suite = Suite::start(Mode::Root)?;
    let Some(key) = Key::make(suite.dir())? else {
        suite.finish()?;
        skip!("ssh is not installed");
    };
    let beyond = Beyond::new(&suite)?;
    let data = suite.dir().join("user-data");
    let told = "#cloud-config\ndisable_root: false\nwrite_files:\n- path: /etc/told\n  content: told-42\n";
    std::fs::write(&data, format!("{told}runcmd:\n- [ sh, -c, 'echo ran > /etc/ran' ]\n"))?;
    suite.ok(&["image", "import", "debian-12", &image.to_string_lossy()])?;
    let launch = ["launch", "debian-12", "web1", "--ssh-key", &key.public(), "--user-data", &data.to_string_lossy()];
    suite.ok(&[&launch[..], &["--memory", "512M"]].concat())?;
    // It ended when cloud-init had done what it was told, and phoned home.
    let first = address(&suite, "web1")?;
    ensure!(key.says("debian", &first, "hostname; cat /etc/told /etc/ran")? == "web1\ntold-42ran");
    // Its lease, its own name, what the host reaches, and not the host.
    ensure!(key.says("debian", &first, "ip -4 -o address show eth0 | grep -o 'inet [0-9.]*'")? == format!("inet {first}"));
    ensure!(key.says("debian", &first, "getent hosts web1.default.internal | cut -d' ' -f1")? == first);
    let fetch = |host: &str| {
        format!("python3 -c \"import urllib.request as u; print(u.urlopen('http://{host}/', timeout=60).read().decode())\"")
    };
    ensure!(key.says("debian", &first, &fetch(&beyond.address))? == "beyond-the-nat");
    let (reached, said) = key.run("debian", &first, &fetch(&beyond.host))?;
    ensure!(!reached, "it reached the host: {said}");
    let (_, said) = by_ssh("/nowhere".as_ref(), "debian", &first, "true")?;
    ensure!(said.contains("Permission denied"), "{said}");
    suite.ok(&["audit"])?;

    // What is to come back: its own keys, its system, what it was told.
    let own = "sync; cat /etc/told /etc/machine-id /etc/ssh/ssh_host_ed25519_key.pub && ls /usr/bin | cksum";
    let before = key.says("root", &first, own)?;
    ensure!(before.starts_with("told-42"), "{before}");
    suite.ok(&["vm", "snapshot", "create", "web1", "before"])?;
    key.says("root", &first, "cp /bin/sync /root; rm -rf /etc/told /etc/ssh/ssh_host_* /usr/bin; /root/sync")?;
    let (reached, said) = key.run("root", &first, "true")?;
    ensure!(!reached, "it is as it was: {said}");
    suite.ok(&["vm", "kill", "web1"])?;

    suite.ok(&["vm", "snapshot", "rollback", "web1", "before"])?;
    suite.ok(&["vm", "start", "web1"])?;
    ensure!(key.says("root", &first, own)? == before);
    ensure!(key.says("root", &first, "hostname")? == "web1");

    // Two of it as it was then, each another instance: with a name, an address and keys of its own, and told what the first one was told.
    for name in ["web2", "web3"] {
        suite.ok(&["vm", "clone", "web1", name, "--snapshot", "before"])?;
    }
    suite.ok(&["vm", "stop", "web1"])?;
    let mut seen = vec![(first, before)];
    for name in ["web2", "web3"] {
        suite.ok(&["vm", "start", name])?;
    }
    for (name, other) in [("web2", "web3"), ("web3", "web2")] {
        let (address, others) = (address(&suite, name)?, address(&suite, other)?);
        ensure!(key.says("root", &address, "hostname; cat /etc/told")? == format!("{name}\ntold-42"));
        let leased = key.says("root", &address, "ip -4 -o address show eth0 | grep -o 'inet [0-9.]*'")?;
        ensure!(leased == format!("inet {address}"), "{leased}");
        let known = key.says("root", &address, &format!("getent hosts {other}.default.internal | cut -d' ' -f1"))?;
        ensure!(known == others, "{name} takes {other} for {known}");
        let keys = key.says("root", &address, "cat /etc/ssh/ssh_host_ed25519_key.pub")?;
        ensure!(seen.iter().all(|(there, said)| *there != address && !said.contains(&keys)), "{name}: {address} {keys} {seen:?}");
        seen.push((address, keys));
    }
    for name in ["web2", "web3"] {
        suite.ok(&["vm", "kill", name])?;
    }
    drop(beyond);
    suite.finish()
}
