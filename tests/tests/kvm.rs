//! KVM is offered where a boot has shown that it runs guests, and nowhere else.
#![cfg(target_os = "linux")]

use anyhow::{Context, Result, ensure};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode as Permission, SFlag, makedev, mknod};
use skep_tests::{Mode, Suite, is_root, skip};
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

/// A group that nothing else has.
const GROUP: u32 = 61_778;

/// From here on this thread, and what it starts, has a `/dev/kvm` of its own with this number, which the group may open.
fn device(dir: &Path, number: (u64, u64)) -> Result<()> {
    let none: Option<&str> = None;
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    mount(Some("tmpfs"), dir, Some("tmpfs"), MsFlags::empty(), Some("size=64k,mode=755"))?;
    let node = dir.join("kvm");
    mknod(&node, SFlag::S_IFCHR, Permission::empty(), makedev(number.0, number.1))?;
    chown(&node, None, Some(GROUP))?;
    fs::set_permissions(&node, fs::Permissions::from_mode(0o660))?;
    Ok(mount(Some(&node), "/dev/kvm", none, MsFlags::MS_BIND, none)?)
}

/// Why the host does not offer it; none: it does.
fn refused(suite: &Suite) -> Result<Option<String>> {
    let host = suite.json(&["host", "show"])?;
    let all = |list: &str| host[0][list].as_array().cloned().unwrap_or_default();
    let why = all("inabilities").iter().find_map(|line| Some(line.as_str()?.strip_prefix("kvm: ")?.to_owned()));
    ensure!(why.is_none() == all("abilities").iter().any(|name| name == "kvm"), "{host:?}");
    Ok(why)
}

#[test]
fn kvm_is_offered_where_it_runs_guests_and_refused_with_the_reason_elsewhere() -> Result<()> {
    if !is_root() || !Path::new("/dev/kvm").exists() {
        skip!("it takes root, and a host with /dev/kvm");
    }
    let dir = tempfile::tempdir_in("/tmp")?;
    device(dir.path(), (10, 232))?;
    let suite = Suite::start(Mode::Root)?;
    let why = refused(&suite)?;
    println!("KVM here: {}", why.as_deref().unwrap_or("it works"));
    suite.import_guest()?;
    match &why {
        None => {
            // The boot told the truth: a whole guest comes up by it.
            suite.define("k", &["--acceleration", "kvm"])?;
            suite.boot("k")?;
        }
        Some(why) => {
            let (_, message) = suite.fails(&["vm", "create", "k", "--acceleration", "kvm"])?;
            ensure!(why.len() > 10 && message.contains(why) && message.contains("use auto or tcg"), "{message}");
        }
    }
    suite.ok(&["audit"])?;
    // What it does not run is emulated.
    suite.define("m", &["--acceleration", "auto"])?;
    suite.boot("m")?;
    suite.ok(&["audit"])?;
    for name in ["k", "m"].into_iter().filter(|name| why.is_none() || *name == "m") {
        suite.ok(&["vm", "kill", name])?;
    }
    suite.finish()
}

#[test]
fn what_is_no_kvm_is_not_taken_for_it() -> Result<()> {
    if !is_root() || !Path::new("/dev/kvm").exists() {
        skip!("it takes root, and a host with /dev/kvm");
    }
    let dir = tempfile::tempdir_in("/tmp")?;
    device(dir.path(), (1, 3))?;
    let suite = Suite::start(Mode::Root)?;
    let why = refused(&suite)?.context("it is /dev/null")?;
    ensure!(why.contains("kvm"), "{why}");
    suite.finish()
}
