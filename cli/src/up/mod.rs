//! `skep up` and `skep down`: the suite for oneself, without an init system.
//!
//! [`up`] starts a supervisor ([`supervisor`]) in the background, which starts the same programs with the same flags as rc.d or
//! systemd would, and starts each again when it ends. Whoever wants to know whether the suite is ready, or wants it to end, connects
//! to `RUN/up.sock` and waits; nobody polls.

mod prepare;
mod supervisor;

use crate::installed::{self, ConfError, Installed};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};

pub use prepare::{Prepared, SERVICES, dataset, prepare, programs};

/// Where a suite lives.
#[derive(Debug, Clone)]
pub struct Places {
    /// STATE.
    pub state: PathBuf,
    /// RUN.
    pub run: PathBuf,
    /// These are the places of the installed suite, whose services have system users.
    pub installed: Option<Installed>,
    /// Nobody has chosen them.
    pub by_default: bool,
}

/// Name of the API's socket in RUN.
pub const API: &str = "api.sock";

impl Places {
    /// As given, else from `SKEP_STATE` and `SKEP_RUN`, else the defaults: for root those of the installed suite, without one
    /// `/var/lib/skep` (FreeBSD `/var/db/skep`) and `/var/run/skep`; for others `~/.local/state/skep` and `STATE/run`.
    pub fn new(state: Option<PathBuf>, run: Option<PathBuf>, installed: Option<Installed>) -> Self {
        let env = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let root = nix::unistd::geteuid().is_root();
        let given = state.or_else(|| env("SKEP_STATE"));
        let given_run = run.or_else(|| env("SKEP_RUN"));
        let by_default = given.is_none() && given_run.is_none();
        let default_run = root && given.is_none();
        let state = given.unwrap_or_else(|| {
            if root {
                return installed.as_ref().map_or_else(|| PathBuf::from(crate::platform::STATE), |i| i.state.clone());
            }
            let home = || env("HOME").unwrap_or_else(|| PathBuf::from("/nonexistent")).join(".local/state");
            env("XDG_STATE_HOME").unwrap_or_else(home).join("skep")
        });
        let roots = || installed.as_ref().map_or_else(|| PathBuf::from(installed::RUN), |i| i.run.clone());
        let fallback = || if default_run { roots() } else { state.join("run") };
        let run = given_run.unwrap_or_else(fallback);
        let absolute = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
        let (state, run) = (absolute(state), absolute(run));
        let installed = installed.filter(|installed| installed.lives_in(&state, &run));
        Self { state, run, installed, by_default }
    }

    /// The API's socket.
    pub fn socket(&self) -> PathBuf {
        self.run.join(API)
    }

    fn control(&self) -> PathBuf {
        self.run.join("up.sock")
    }
}

/// Why the suite did not start or stop.
#[derive(Debug, thiserror::Error)]
pub enum UpError {
    /// A step failed.
    #[error("{what}: {error}")]
    Step {
        /// What was being done.
        what: String,
        /// Why it failed.
        error: io::Error,
    },
    /// The cell root could not be made.
    #[error("the root of the cells: {0}")]
    CellRoot(#[from] skep_cellroot::Error),
    /// The file of the installed suite, or its users.
    #[error(transparent)]
    Conf(#[from] ConfError),
    /// Said by the supervisor.
    #[error("{0}")]
    Supervisor(String),
}

/// Names a step.
pub(crate) fn step(what: impl ToString) -> impl FnOnce(io::Error) -> UpError {
    move |error| UpError::Step { what: what.to_string(), error }
}

/// With what the suite is started.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Where the API is served on TCP, too.
    pub listen: Option<String>,
    /// Where metrics are served over HTTP.
    pub metrics: Option<String>,
    /// The host's interfaces that switches may have from now on, between commas.
    pub uplinks: Option<String>,
    /// Networks inside that images may be fetched from, from now on, between commas.
    pub fetch_from: Option<String>,
    /// Networks that portals of iSCSI targets may be in from now on, between commas.
    pub iscsi_portals: Option<String>,
    /// Directories that machines may share from now on, with their names, between commas.
    pub shares: Option<String>,
    /// Below which dataset ZFS volumes are kept.
    pub dataset: Option<String>,
}

/// Starts the suite and returns when its API answers; says so if it was up already. `foreground`: this process becomes the supervisor.
pub fn up(places: &Places, foreground: bool, options: Options) -> Result<&'static str, UpError> {
    if foreground {
        let prepared = prepare(places, &options)?;
        supervisor::run(places, &prepared, &options, io::stdout())?;
        return Ok("ended");
    }
    let Options { uplinks, fetch_from, iscsi_portals, shares, dataset, .. } = &options;
    let other = [uplinks, fetch_from, iscsi_portals, shares, dataset].iter().any(|given| given.is_some());
    if other && is_up(places) {
        let mend = "the suite is up already; other uplinks, networks, shares or volumes need a start: `skep down --keep-machines`, then this again";
        return Err(UpError::Supervisor(mend.into()));
    }
    if wait_ready(places)? {
        return Ok("up already");
    }
    // The services would take their sockets away from those that run. (Those of a supervisor that was killed end with it, a moment later.)
    if places.installed.is_some() && UnixStream::connect(places.socket()).is_ok() {
        return Err(UpError::Supervisor(format!("it runs already, and not by `skep up`: {}", crate::platform::MANAGED)));
    }
    // Here, since this process ends soon: the supervisor finds it done, and does not keep the memory that it takes for as long as it lives.
    prepare(places, &options)?;
    let own = std::env::current_exe().map_err(step("own path"))?;
    let mut command = Command::new(own);
    command.arg("up").arg("--foreground").env("SKEP_STATE", &places.state).env("SKEP_RUN", &places.run);
    for (flag, value) in [("--listen", options.listen), ("--metrics", options.metrics), ("--zfs-dataset", options.dataset)] {
        if let Some(value) = value {
            command.arg(flag).arg(value);
        }
    }
    command.env("SKEP_DETACH", "1").current_dir("/").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(step("start the supervisor"))?;
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout).read_line(&mut line).map_err(step("wait for the supervisor"))?;
    }
    if line.trim() == supervisor::READY {
        return Ok("up");
    }
    let mut said = line;
    if let Some(stderr) = child.stderr.take() {
        let _ = stderr.take(64 << 10).read_to_string(&mut said);
    }
    let _ = child.wait();
    Err(UpError::Supervisor(said.trim().trim_start_matches("skep: ").to_owned()))
}

/// Whether a supervisor lives.
pub fn is_up(places: &Places) -> bool {
    matches!(connect(places), Ok(Some(_)))
}

/// Waits until a running supervisor's suite answers. False: there is none.
fn wait_ready(places: &Places) -> Result<bool, UpError> {
    let Some(mut control) = connect(places)? else { return Ok(false) };
    control.write_all(supervisor::ASK_READY).map_err(step("ask the supervisor"))?;
    let mut answer = Vec::new();
    control.read_to_end(&mut answer).map_err(step("wait for the supervisor"))?;
    Ok(!answer.is_empty())
}

/// Ends the supervisor and with it the services; returns when they have ended. False: there was none.
pub fn stop_supervisor(places: &Places) -> Result<bool, UpError> {
    let Some(mut control) = connect(places)? else { return Ok(false) };
    control.write_all(supervisor::ASK_DOWN).map_err(step("ask the supervisor"))?;
    let mut answer = Vec::new();
    control.read_to_end(&mut answer).map_err(step("wait for the supervisor"))?;
    Ok(true)
}

fn connect(places: &Places) -> Result<Option<UnixStream>, UpError> {
    match UnixStream::connect(places.control()) {
        Ok(stream) => Ok(Some(stream)),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => Ok(None),
        Err(e) => Err(step(format!("connect to {}", places.control().display()))(e)),
    }
}
