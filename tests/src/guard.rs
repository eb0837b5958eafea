//! Ends what a test leaves that cannot do so itself any more: one that was killed.

use anyhow::{Context, Result};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Waits for a line, or for the end of whoever holds the other end of its standard input. Then the suite is ended; its directory stays
/// if that fails, for something may still be mounted below it.
const SCRIPT: &str = r#"trap "" HUP INT TERM; read -r _ && exit 0; "$0" down && rm -rf -- "$SKEP_TEST_DIR""#;

/// A process that outlives this one only to end a suite. Dropped, it has nothing to do.
pub struct Guard(Child);

impl Guard {
    /// Guards the suite whose directory is `dir`, and which this user's `skep down`, run with the settings of `like`, ends.
    pub fn over(dir: &Path, like: &Command, user: Option<u32>) -> Result<Self> {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", SCRIPT]).arg(like.get_program()).env("SKEP_TEST_DIR", dir);
        if let Some(user) = user {
            command.uid(user).gid(user);
        }
        for (name, value) in like.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        // A runner of tests that ends this process's group leaves it.
        command.stdin(Stdio::piped()).stdout(Stdio::null()).process_group(0);
        let guard = Self(command.spawn().context("/bin/sh")?);
        if let Some(list) = std::env::var_os("SKEP_GUARDS") {
            // Whom the runner of tests has to wait for.
            let mut list = std::fs::File::options().append(true).create(true).open(list)?;
            writeln!(list, "{}", guard.0.id())?;
        }
        Ok(guard)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(mut line) = self.0.stdin.take() {
            let _ = line.write_all(b"\n");
        }
        let _ = self.0.wait();
    }
}
