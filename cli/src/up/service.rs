//! One service: started, watched, started again.

use super::log_file;
use crate::args::UpArgs;
use crate::error::Failure;
use crate::places::Places;
use skep_proto::{InstanceId, Reason};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};

/// In the order in which they are started: who is asked before who asks.
pub const SERVICES: [&str; 5] = ["storage-helper", "net-helper", "vm-runner", "broker", "api-frontend"];

/// A service that lives shorter than this is started again more slowly each time.
const SHORT: Duration = Duration::from_secs(10);
/// The longest pause.
const LONGEST: Duration = Duration::from_secs(5);

/// How a service is started.
#[derive(Debug, Clone)]
pub struct Service {
    /// Which.
    pub name: &'static str,
    program: PathBuf,
    places: Places,
    arguments: Vec<String>,
}

impl Service {
    /// The service `name` of the suite in `places`.
    pub fn new(name: &'static str, places: &Places, programs: &std::path::Path, instance: InstanceId, args: &UpArgs) -> Self {
        let path = |path: &PathBuf| path.to_string_lossy().into_owned();
        let mut arguments = vec!["--state".into(), path(&places.state), "--run".into(), path(&places.run)];
        arguments.extend(["--instance".into(), instance.to_string()]);
        if nix::unistd::geteuid().is_root() {
            arguments.extend(["--ids".into(), super::ids::flag(args.uid_base)]);
        }
        if let (Some(listen), "api-frontend") = (args.listen, name) {
            arguments.extend(["--listen".into(), listen.to_string()]);
        }
        Self { name, program: programs.join(format!("skep-{name}")), places: places.clone(), arguments }
    }

    /// Starts it. The pipe ends when it has acquired everything, its listening socket too, and closes all other descriptors; or when
    /// it has ended.
    fn spawn(&self) -> Result<(Child, pipe::Receiver), Failure> {
        let failed = |what: &'static str| move |e: std::io::Error| Failure::io(self.name, what, &e);
        let log = log_file(&self.places, self.name)?;
        let errors = log.try_clone().map_err(failed("open the log of"))?;
        let (reader, writer) = std::io::pipe().map_err(failed("make a pipe for"))?;
        skep_sys::fd::set_cloexec(writer.as_fd(), false).map_err(failed("make a pipe for"))?;
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command.current_dir("/").stdin(Stdio::null()).stdout(log).stderr(errors).kill_on_drop(true);
        let child = command.spawn().map_err(failed("start"))?;
        drop(writer);
        Ok((child, pipe::Receiver::from_owned_fd(OwnedFd::from(reader)).map_err(failed("watch"))?))
    }

    /// Starts it for the first time, and waits until it serves.
    pub async fn first(&self) -> Result<Child, Failure> {
        let (mut child, mut pipe) = self.spawn()?;
        let mut byte = [0];
        let _ = pipe.read(&mut byte).await;
        // The end of a process closes its descriptors before it can be waited for; one that lives goes on.
        match tokio::time::timeout(Duration::from_millis(5), child.wait()).await {
            Err(_) => Ok(child),
            Ok(how) => {
                let how = how.map(|status| status.to_string()).unwrap_or_default();
                let note = format!("it ended as it started ({how}): {}", self.last_words());
                Err(Failure::new(Reason::Unavailable, self.name, note))
            }
        }
    }

    /// Watches it, and starts it again whenever it ends: at once, and more slowly if it does not last.
    pub async fn keep(&self, mut child: Child) {
        let mut pause = Duration::ZERO;
        loop {
            let since = Instant::now();
            let how = child.wait().await.map(|status| status.to_string()).unwrap_or_default();
            super::supervisor::note(format_args!("{} ended: {how}", self.name));
            pause = if since.elapsed() >= SHORT { Duration::ZERO } else { (pause * 2).clamp(Duration::ZERO, LONGEST) };
            child = loop {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).clamp(Duration::from_millis(50), LONGEST);
                match self.spawn() {
                    Ok((child, _)) => break child,
                    Err(failure) => super::supervisor::note(format_args!("{failure}")),
                }
            };
            super::supervisor::note(format_args!("{} started again", self.name));
        }
    }

    /// The last line of its log.
    fn last_words(&self) -> String {
        let path = self.places.state.join("logs").join(format!("{}.log", self.name));
        let text = std::fs::read(path).unwrap_or_default();
        let text = String::from_utf8_lossy(text.get(text.len().saturating_sub(2000)..).unwrap_or_default()).into_owned();
        text.lines().last().unwrap_or("its log is empty").to_owned()
    }
}
