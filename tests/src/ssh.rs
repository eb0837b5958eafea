//! A guest with a server of SSH.

use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A key of ours, made for one test.
pub struct Key(PathBuf);

impl Key {
    /// None: this host has no ssh.
    pub fn make(dir: &Path) -> Result<Option<Self>> {
        if Command::new("ssh").arg("-V").output().is_err() {
            return Ok(None);
        }
        let path = dir.join("id");
        let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&path).status()?;
        ensure!(made.success(), "ssh-keygen failed");
        Ok(Some(Self(path)))
    }

    /// The file of its public half.
    pub fn public(&self) -> String {
        format!("{}.pub", self.0.display())
    }

    /// Runs a command as a guest's user; how it ended, and what it said.
    pub fn run(&self, user: &str, address: &str, command: &str) -> Result<(bool, String)> {
        by_ssh(&self.0, user, address, command)
    }

    /// The same, which must succeed.
    pub fn says(&self, user: &str, address: &str, command: &str) -> Result<String> {
        let (done, said) = self.run(user, address, command)?;
        ensure!(done, "{command}: {said}");
        Ok(said)
    }
}

/// Runs a command as a guest's user who has this key; how it ended, and what it said.
pub fn by_ssh(key: &Path, user: &str, address: &str, command: &str) -> Result<(bool, String)> {
    let known =
        ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "-o", "BatchMode=yes"];
    // An emulated processor takes seconds for the keys. One that boots refuses at first: ssh tries again each second.
    let patience = ["-o", "ConnectTimeout=120", "-o", "ConnectionAttempts=300"];
    let to = format!("{user}@{address}");
    let mut ssh = Command::new("ssh");
    ssh.arg("-i").arg(key).args(known).args(patience).args([&to, command]);
    let output = ssh.output().context("ssh")?;
    let said = [output.stdout, output.stderr].concat();
    Ok((output.status.success(), String::from_utf8_lossy(&said).trim().to_owned()))
}
