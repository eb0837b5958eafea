//! Where a suite keeps its things.

use crate::error::Failure;
use crate::platform;
use skep_proto::Reason;
use std::env;
use std::path::{Path, PathBuf};

/// The directories of one suite.
#[derive(Debug, Clone)]
pub struct Places {
    /// STATE.
    pub state: PathBuf,
    /// RUN.
    pub run: PathBuf,
    /// The socket of its API.
    pub socket: PathBuf,
}

/// Longest path below RUN: `console/UUID.sock`.
const BELOW_RUN: usize = "/console/".len() + 36 + ".sock".len();

impl Places {
    /// From what was given, or the defaults of who asks.
    pub fn new(state: Option<PathBuf>, run: Option<PathBuf>, socket: Option<PathBuf>) -> Result<Self, Failure> {
        let is_default = state.is_none();
        let root = nix::unistd::geteuid().is_root();
        let state = match state {
            Some(state) => state,
            None if root => PathBuf::from(platform::STATE),
            None => users_state()?,
        };
        let absolute = |path: &Path| std::path::absolute(path).map_err(|e| Failure::io(path.display(), "make absolute", &e));
        let state = absolute(&state)?;
        let run = match run {
            Some(run) => absolute(&run)?,
            None if root && (is_default || state == Path::new(platform::STATE)) => PathBuf::from(platform::RUN),
            None => state.join("run"),
        };
        let socket = socket.unwrap_or_else(|| run.join("api.sock"));
        Ok(Self { state, run, socket })
    }

    /// Refuses a RUN below which sockets would have names that are too long for the kernel.
    pub fn check_length(&self) -> Result<(), Failure> {
        let most = platform::SOCKET_PATH - BELOW_RUN;
        let length = self.run.as_os_str().len();
        if length <= most {
            return Ok(());
        }
        let note = format!("{} has {length} bytes, and at most {most} leave room for the names of sockets", self.run.display());
        Err(Failure::new(Reason::InvalidValue, "RUN", note).advice("give a shorter directory with --run or SKEP_RUN"))
    }
}

fn users_state() -> Result<PathBuf, Failure> {
    if let Some(base) = env::var_os("XDG_STATE_HOME").filter(|base| !base.is_empty()) {
        return Ok(PathBuf::from(base).join("skep"));
    }
    let home = env::var_os("HOME").filter(|home| !home.is_empty());
    let home = home.ok_or_else(|| Failure::new(Reason::InvalidValue, "STATE", "HOME is not set").advice("give --state DIR"))?;
    Ok(PathBuf::from(home).join(".local/state/skep"))
}
