//! A whole suite in a directory of its own.

use crate::guard::Guard;
use crate::{Snapshot, is_root, platform, programs};
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use skep_proto::marks::{MAGIC, TABLE};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// As whom the suite runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Started by root: uids of its own, capabilities, cgroups, switches.
    Root,
    /// Started by an ordinary user.
    User,
}

/// The uid that ordinary-user suites get when the tests run as root.
const ORDINARY: u32 = 61_234;

/// A running suite. Dropped, it is stopped, and whatever is left is a failure of the test.
pub struct Suite {
    /// STATE.
    pub state: PathBuf,
    /// RUN.
    pub run: PathBuf,
    /// As whom it runs.
    pub mode: Mode,
    programs: PathBuf,
    dir: Option<tempfile::TempDir>,
    before: Snapshot,
    guard: Option<Guard>,
}

impl Suite {
    /// Starts one. `Mode::Root` needs root.
    pub fn start(mode: Mode) -> Result<Self> {
        let suite = Self::prepare(mode)?;
        suite.up()?;
        Ok(suite)
    }

    /// Starts one with the programs in another directory.
    pub fn start_with(mode: Mode, programs: &Path) -> Result<Self> {
        let suite = Self::prepare_with(mode, programs)?;
        suite.up()?;
        Ok(suite)
    }

    /// Runs the programs in another directory from now on: after an upgrade.
    pub fn upgrade(&mut self, programs: &Path) {
        self.programs = programs.to_owned();
    }

    /// Makes the directory, starts nothing.
    pub fn prepare(mode: Mode) -> Result<Self> {
        Self::prepare_with(mode, &programs())
    }

    fn prepare_with(mode: Mode, programs: &Path) -> Result<Self> {
        ensure!(mode == Mode::User || is_root(), "this test needs root");
        // Short, since paths of UNIX sockets have 107 bytes.
        let dir = tempfile::Builder::new().prefix("skt").tempdir_in("/tmp")?;
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755))?;
        let state = dir.path().join("s");
        std::fs::create_dir(&state)?;
        if mode == Mode::User && is_root() {
            for path in [dir.path(), &state] {
                std::os::unix::fs::chown(path, Some(ORDINARY), Some(ORDINARY))?;
            }
        }
        let before = Snapshot::take(dir.path(), None);
        let (run, path) = (dir.path().join("r"), dir.path().to_owned());
        let mut suite = Self { run, state, mode, programs: programs.to_owned(), dir: Some(dir), before, guard: None };
        suite.guard = Some(Guard::over(&path, &suite.command(&[]), suite.user())?);
        Ok(suite)
    }

    /// The socket of its API.
    pub fn api_socket(&self) -> PathBuf {
        self.run.join("api.sock")
    }

    /// `skep up`.
    pub fn up(&self) -> Result<()> {
        self.ok(&["up"]).map(drop)
    }

    /// A `skep` command that is not yet run.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(self.programs.join("skep"));
        command.args(args).env("SKEP_STATE", &self.state).env("SKEP_RUN", &self.run).env_remove("SKEP_SOCKET");
        command.stdin(Stdio::null());
        if let Some(user) = self.user() {
            command.uid(user).gid(user);
        }
        command
    }

    /// As whom `skep` is run, if not as ourselves.
    fn user(&self) -> Option<u32> {
        (self.mode == Mode::User && is_root()).then_some(ORDINARY)
    }

    /// Runs `skep` and gives its output, whatever its exit code.
    pub fn skep(&self, args: &[&str]) -> Result<Output> {
        self.command(args).output().with_context(|| format!("skep {}", args.join(" ")))
    }

    /// Runs `skep`, which must succeed; its standard output.
    pub fn ok(&self, args: &[&str]) -> Result<String> {
        let output = self.skep(args)?;
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        if !output.status.success() {
            bail!("skep {}: {}\n{out}{err}\n{}", args.join(" "), output.status, self.logs());
        }
        Ok(out.into_owned())
    }

    /// Runs `skep --json`, which must succeed; one value a line.
    pub fn json(&self, args: &[&str]) -> Result<Vec<Value>> {
        let out = self.ok(&[&["--json"], args].concat())?;
        out.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
    }

    /// Runs `skep`, which must fail; exit code and standard error.
    pub fn fails(&self, args: &[&str]) -> Result<(i32, String)> {
        let output = self.skep(args)?;
        ensure!(!output.status.success(), "skep {} succeeded, and should not", args.join(" "));
        let code = output.status.code().context("killed by a signal")?;
        Ok((code, String::from_utf8_lossy(&output.stderr).into_owned()))
    }

    /// The id that marks this suite's things on the host.
    pub fn instance(&self) -> String {
        std::fs::read_to_string(self.state.join("instance")).unwrap_or_default().trim().to_owned()
    }

    /// Imports what machines boot.
    pub fn import_guest(&self) -> Result<()> {
        platform::import_guest(self)
    }

    /// Defines a machine that boots the test guest, with further settings.
    pub fn define(&self, name: &str, more: &[&str]) -> Result<()> {
        platform::define(self, name, more)
    }

    /// Starts it and waits for the guest.
    pub fn boot(&self, name: &str) -> Result<()> {
        self.ok(&["vm", "start", name])?;
        self.expect(name, "skep-guest ready")
    }

    /// Waits until `text` appears on the console.
    pub fn expect(&self, name: &str, text: &str) -> Result<()> {
        self.ok(&["vm", "console", name, "--expect", text, "--timeout", crate::PATIENCE]).map(drop)
    }

    /// Waits until `text` appears on the console from now on, whatever was there before.
    pub fn expect_anew(&self, name: &str, text: &str) -> Result<()> {
        self.ok(&["vm", "console", name, "--from-now", "--expect", text, "--timeout", crate::PATIENCE]).map(drop)
    }

    /// The uid that a service has (root mode), or `machines`: the first of the machines'.
    pub fn uid_of(&self, service: &str) -> Result<u32> {
        let ids = std::fs::read_to_string(self.state.join("ids"))?;
        let id = ids.trim().split(',').find_map(|part| part.split_once('=').filter(|(name, _)| *name == service));
        Ok(id.context("no such service in STATE/ids")?.1.parse()?)
    }

    /// Runs a command in the guest's shell and waits until `answer` appears.
    pub fn guest_runs(&self, name: &str, command: &str, answer: &str) -> Result<String> {
        self.ok(&["vm", "console", name, "--send", command, "--expect", answer, "--timeout", crate::PATIENCE])
    }

    /// Boots machines a and b on the switch lan, with addresses 10.9.9.1 and 10.9.9.2; a has an answer from b.
    pub fn two_reach_each_other(&self) -> Result<()> {
        for (name, address) in [("a", "10.9.9.1/24"), ("b", "10.9.9.2/24")] {
            self.define(name, &[])?;
            self.ok(&["nic", "create", &format!("{name}-0"), "--switch", "lan", "--machine", name])?;
            self.boot(name)?;
            self.guest_runs(name, &platform::set_address(address), "set-0")?;
        }
        self.guest_runs("a", &platform::ping("10.9.9.2"), "ping-0").map(drop)
    }

    /// The state of a machine.
    pub fn state_of(&self, name: &str) -> Result<String> {
        let show = self.json(&["vm", "show", name])?;
        let state = show.first().and_then(|v| v["state"].as_str()).context("no state in vm show")?;
        Ok(state.to_owned())
    }

    /// Process ids of the suite's programs by the name of their socket or role, from the audit (which reads the kernel).
    pub fn pids(&self, name: &str) -> Result<Vec<i32>> {
        let output = self.skep(&["--json", "audit"])?;
        let mut pids = Vec::new();
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            let value: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
            if value["process"].as_str() == Some(name)
                && let Some(pid) = value["pid"].as_i64()
            {
                pids.push(i32::try_from(pid)?);
            }
        }
        pids.dedup();
        Ok(pids)
    }

    /// All logs, for a failed test.
    pub fn logs(&self) -> String {
        let mut text = String::new();
        // What hypervisors said comes last, where a reader of the end finds it; of guests' own lines tests show what they waited for.
        let dirs = [self.state.join("logs"), self.state.join("logs/machines")].map(std::fs::read_dir);
        let entries = dirs.into_iter().flatten().flatten().flatten().map(|entry| entry.path());
        for path in entries.filter(|path| path.is_file() && !path.to_string_lossy().contains(".serial")) {
            let all = std::fs::read(&path).unwrap_or_default();
            if !all.is_empty() {
                // What is before the text of a machine's are its times.
                let all = if all.starts_with(&MAGIC) { all.get(TABLE as usize..).unwrap_or_default() } else { &all };
                let from = all.len().saturating_sub(3000);
                text += &format!("--- {}\n{}\n", path.display(), String::from_utf8_lossy(&all[from..]));
            }
        }
        text
    }

    /// Stops the suite and compares the host with how it was.
    pub fn finish(mut self) -> Result<()> {
        self.ok(&["down", "--timeout", "30s"])?;
        let dir = self.dir.take().context("finished twice")?;
        let left = Snapshot::take(dir.path(), Some(&self.instance())).since(&self.before);
        ensure!(left.is_empty(), "left behind on the host: {left:#?}");
        Ok(())
    }

    /// Where the suite's directory is.
    pub fn dir(&self) -> &Path {
        self.state.parent().unwrap_or(&self.state)
    }
}

impl Drop for Suite {
    fn drop(&mut self) {
        if self.dir.is_some() {
            if std::thread::panicking() {
                eprintln!("{}", self.logs());
            }
            let _ = self.skep(&["down", "--timeout", "30s"]);
        }
    }
}
