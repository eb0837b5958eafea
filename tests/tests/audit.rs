//! The audit's answer comes from the kernel, and a process that holds too much is named.

use anyhow::{Result, ensure};
use skep_tests::{Mode, Suite, is_root, platform, programs, skip};
use std::fs;

#[test]
fn a_descriptor_and_a_capability_too_many_are_found_and_named() -> Result<()> {
    if !is_root() {
        skip!("starts a service with a capability, so root");
    }
    // The same programs, but for a storage-helper that keeps more than its table says.
    let dir = tempfile::Builder::new().prefix("skp").tempdir_in("/tmp")?;
    for entry in fs::read_dir(programs())?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let program = name == "skep" || name.starts_with("skep-") && !name.contains('.');
        if program && name != "skep-storage-helper" {
            fs::copy(entry.path(), dir.path().join(&name))?;
        }
    }
    fs::copy(programs().join("skep-too-much"), dir.path().join("skep-storage-helper"))?;

    let clean = Suite::start(Mode::Root)?;
    let output = clean.skep(&["audit"])?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    clean.finish()?;

    let suite = Suite::start_with(Mode::Root, dir.path())?;
    let output = suite.skep(&["audit"])?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.code() == Some(1), "exit {:?}\n{text}", output.status);
    ensure!(text.contains(platform::FOREIGN), "the descriptor is not named:\n{text}");
    ensure!(platform::CAPABILITY.is_none_or(|name| text.contains(name)), "the capability is not named:\n{text}");
    suite.finish()
}
