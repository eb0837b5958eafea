//! What is measured: storage-helper alone, or a whole suite, both of the installed programs.

use anyhow::{Context, Result, bail, ensure};
use nix::unistd::{Uid, seteuid};
use skep_ipc::Client;
use skep_proto::InstanceId;
use skep_proto::storage::Storage;
use skep_tests::{Mode, Suite, is_root};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// uids as `skep up` gives them: storage-helper's, then those of the others.
const UIDS: [(&str, u32); 6] = [
    ("broker", 61_300),
    ("api-frontend", 61_301),
    ("storage-helper", 61_302),
    ("net-helper", 61_303),
    ("vm-runner", 61_304),
    ("machines", 61_310),
];

/// Where the programs are: beside this one.
pub fn programs() -> Result<PathBuf> {
    if let Some(dir) = std::env::var_os("SKEP_BIN_DIR") {
        return Ok(dir.into());
    }
    let own = std::env::current_exe()?;
    Ok(own.parent().context("no directory")?.to_owned())
}

/// A whole suite, started.
pub fn start() -> Result<Suite> {
    let programs = programs()?;
    ensure!(programs.join("skep").exists(), "{}: no skep there: cargo build --release --workspace --bins", programs.display());
    Suite::start_with(if is_root() { Mode::Root } else { Mode::User }, &programs)
}

/// Stops it. What it may leave on the host is the tests' business.
pub fn stop(suite: Suite) -> Result<()> {
    suite.ok(&["down"])?;
    Ok(())
}

/// Fails if this process has threads: it could then not fork.
pub fn single_threaded() -> Result<()> {
    let threads = crate::platform::threads()?;
    ensure!(threads == 1, "this process has {threads} threads");
    Ok(())
}

/// storage-helper as `skep up` starts it, with its own uid if we are root. Ended when this is dropped.
pub struct LocalHelper {
    child: Child,
    dir: tempfile::TempDir,
}

impl LocalHelper {
    pub fn start() -> Result<Self> {
        let program = programs()?.join("skep-storage-helper");
        let dir = tempfile::Builder::new().prefix("skb").tempdir_in("/tmp")?;
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755))?;
        let (state, run) = (dir.path().join("s"), dir.path().join("r"));
        fs::create_dir_all(state.join("logs"))?;
        let mut command = Command::new(&program);
        command.arg("--state").arg(&state).arg("--run").arg(&run).args(["--instance", &InstanceId::random().to_string()]);
        if is_root() {
            command.args(["--ids", &UIDS.map(|(name, uid)| format!("{name}={uid}")).join(",")]);
        }
        let log = fs::File::create(state.join("logs/storage-helper.log"))?;
        let child = command.stdin(Stdio::null()).stderr(log).spawn().with_context(|| program.display().to_string())?;
        Ok(Self { child, dir })
    }

    /// Where its disks are.
    pub fn disks(&self) -> PathBuf {
        self.dir.path().join("s/disks")
    }

    /// Its process id.
    pub fn pid(&self) -> Result<i32> {
        Ok(i32::try_from(self.child.id())?)
    }

    /// Connects as the broker: whose uid counts is whose it is at that moment.
    pub fn connect(&mut self) -> Result<Client<Storage>> {
        let socket = self.dir.path().join("r/storage-helper.sock");
        // Asked once: in between we are somebody else.
        let broker = is_root().then(|| Uid::from_raw(UIDS[0].1));
        loop {
            if let Some(broker) = broker {
                seteuid(broker)?;
            }
            let client = Client::connect(&socket);
            if broker.is_some() {
                seteuid(Uid::from_raw(0))?;
            }
            match client {
                Ok(client) => return Ok(client),
                // Nothing is measured yet, and nobody tells when a socket is there.
                Err(_) if self.child.try_wait()?.is_none() => std::thread::sleep(Duration::from_millis(1)),
                Err(error) => bail!("{error}\n{}", fs::read_to_string(self.dir.path().join("s/logs/storage-helper.log"))?),
            }
        }
    }
}

impl Drop for LocalHelper {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
