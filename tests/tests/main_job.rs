//! The main job, as an administrator would do it.

use anyhow::{Result, ensure};
use skep_tests::{Mode, Suite, guest, is_root, platform, skip};

fn whole_life(suite: Suite) -> Result<()> {
    suite.import_guest()?;
    suite.define("web1", &[])?;
    ensure!(suite.state_of("web1")? == "stopped");
    suite.boot("web1")?;
    ensure!(suite.state_of("web1")? == "running");
    let answer = suite.guest_runs("web1", "echo $((6*7))-answer", "42-answer")?;
    ensure!(answer.contains("42-answer"), "{answer}");
    let audit = suite.skep(&["audit"])?;
    let text = String::from_utf8_lossy(&audit.stdout).into_owned();
    ensure!(audit.status.success(), "{text}{}", String::from_utf8_lossy(&audit.stderr));
    suite.ok(&["vm", "stop", "web1"])?;
    ensure!(suite.state_of("web1")? == "stopped");
    suite.ok(&["vm", "delete", "web1", "--disks"])?;
    suite.finish()
}

#[test]
fn a_machine_boots_answers_and_goes_as_root() -> Result<()> {
    if !is_root() {
        skip!("needs root");
    }
    whole_life(Suite::start(Mode::Root)?)
}

#[test]
fn a_machine_boots_answers_and_goes_as_an_ordinary_user() -> Result<()> {
    if let Some(why) = platform::ORDINARY_USER {
        skip!("{why}");
    }
    whole_life(Suite::start(Mode::User)?)
}

#[test]
fn a_machine_boots_through_uefi_from_an_imported_disk() -> Result<()> {
    if let Some(why) = platform::no_uefi() {
        skip!("{why}");
    }
    let mode = if is_root() { Mode::Root } else { Mode::User };
    let suite = Suite::start(mode)?;
    let disk = guest()?.join("disk.img");
    suite.ok(&["disk", "import", "root", &disk.to_string_lossy()])?;
    suite.ok(&["vm", "create", "efi", "--memory", "256M", "--disk", "root"])?;
    suite.ok(&["vm", "start", "efi"])?;
    suite.ok(&["vm", "console", "efi", "--expect", "skep-guest ready", "--timeout", skep_tests::PATIENCE])?;
    suite.ok(&["vm", "kill", "efi"])?;
    suite.finish()
}

#[test]
fn two_machines_on_one_switch_reach_each_other_and_the_host_is_as_before() -> Result<()> {
    if !is_root() {
        skip!("switches need root");
    }
    let suite = Suite::start(Mode::Root)?;
    suite.import_guest()?;
    suite.ok(&["switch", "create", "lan"])?;
    suite.two_reach_each_other()?;
    let (code, message) = suite.fails(&["switch", "delete", "lan"])?;
    ensure!(code == 5 && message.contains("switch lan"), "{code} {message}");
    suite.ok(&["vm", "kill", "a"])?;
    suite.ok(&["vm", "kill", "b"])?;
    suite.finish()
}

#[test]
fn the_bridges_go_with_the_suite_and_come_back() -> Result<()> {
    if !is_root() {
        skip!("switches need root");
    }
    let suite = Suite::start(Mode::Root)?;
    suite.ok(&["switch", "create", "lan"])?;
    let bridge = format!("sk{}b0", suite.instance());
    ensure!(platform::has_link(&bridge)?, "{bridge}");
    suite.ok(&["down"])?;
    ensure!(!platform::has_link(&bridge)?, "{bridge} stays");
    suite.up()?;
    // Deleted is what is there: the request waits until net-helper has made it anew.
    suite.ok(&["switch", "delete", "lan"])?;
    ensure!(!platform::has_link(&bridge)?, "{bridge} stays");
    suite.finish()
}
