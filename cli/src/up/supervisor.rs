//! The supervisor: starts the services, starts again whichever ends, answers on `RUN/up.sock`.

use super::{Options, Places, Prepared, SERVICES, UpError, step};
use nix::fcntl::{Flock, FlockArg};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

/// Line on standard output when the suite answers.
pub const READY: &str = "ready";
/// Asks on the control socket: tell me when the suite answers.
pub const ASK_READY: &[u8] = b"r";
/// Asks on the control socket: end.
pub const ASK_DOWN: &[u8] = b"d";

/// In STATE: the dataset of ZFS volumes.
pub const DATASET: &str = "zfs-dataset";
/// A service that lived longer than this is started again at once.
const STABLE: Duration = Duration::from_secs(10);
/// Longest wait before a service is started again.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// Runs until it is told to end.
pub fn run(places: &Places, prepared: &Prepared, options: &Options, told: impl io::Write) -> Result<(), UpError> {
    let _lock = lock(places)?;
    if std::env::var_os("SKEP_DETACH").is_some() {
        nix::unistd::setsid().map_err(|e| step("setsid")(e.into()))?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(step("runtime"))?;
    runtime.block_on(supervise(places, prepared, options, told))
}

/// One supervisor a suite.
fn lock(places: &Places) -> Result<Flock<File>, UpError> {
    let path = places.run.join("up.lock");
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
    let file = file.map_err(step(format!("open {}", path.display())))?;
    let locked = Flock::lock(file, FlockArg::LockExclusiveNonblock);
    let locked =
        locked.map_err(|(_, e)| UpError::Supervisor(format!("{}: another supervisor holds it ({e})", path.display())))?;
    let pid = places.run.join("up.pid");
    fs::write(&pid, format!("{}\n", std::process::id())).map_err(step(format!("write {}", pid.display())))?;
    Ok(locked)
}

async fn supervise(places: &Places, prepared: &Prepared, options: &Options, mut told: impl io::Write) -> Result<(), UpError> {
    let control = places.control();
    let _ = fs::remove_file(&control);
    let listener = UnixListener::bind(&control).map_err(step(format!("bind {}", control.display())))?;
    fs::set_permissions(&control, fs::Permissions::from_mode(0o600)).map_err(step("chmod the control socket"))?;
    let (ready, mut is_ready) = watch::channel([false; SERVICES.len()]);
    let mut term = signal(SignalKind::terminate()).map_err(step("signals"))?;
    let mut int = signal(SignalKind::interrupt()).map_err(step("signals"))?;
    let (down, mut went_down) = tokio::sync::mpsc::channel::<UnixStream>(1);

    let (failed, mut has_failed) = tokio::sync::mpsc::channel::<String>(SERVICES.len());
    let (end, ending) = watch::channel(false);
    let services = tokio::task::LocalSet::new();
    let mut starters = Vec::new();
    for (number, name) in SERVICES.iter().enumerate() {
        let service = Service::new(name, number, places, prepared, options, ready.clone(), failed.clone());
        starters.push(services.spawn_local(service.keep_running(ending.clone())));
    }
    let asker = services.run_until(async {
        let mut announced = false;
        loop {
            tokio::select! {
                Ok((stream, _)) = listener.accept() => {
                    tokio::task::spawn_local(answer(stream, is_ready.clone(), down.clone()));
                }
                Ok(()) = is_ready.changed(), if !announced => {
                    if all(&is_ready.borrow()) {
                        announced = true;
                        // It works, so it is worth remembering.
                        if let Some(dataset) = options.dataset.as_ref().filter(|_| places.installed.is_none()) {
                            let _ = fs::write(places.state.join(DATASET), format!("{dataset}\n"));
                        }
                        // Whoever started us may have gone away meanwhile.
                        let _ = writeln!(told, "{READY}").and_then(|()| told.flush());
                        quiet();
                    }
                }
                // A service that cannot even start once will not later: whoever starts the suite is told, and nothing stays.
                Some(why) = has_failed.recv(), if !announced => {
                    let _ = writeln!(told, "{why}").and_then(|()| told.flush());
                    break None;
                }
                stream = went_down.recv() => break stream,
                _ = term.recv() => break None,
                _ = int.recv() => break None,
            }
        }
    });
    let asker = asker.await;
    let _ = end.send(true);
    services
        .run_until(async {
            for starter in starters {
                let _ = starter.await;
            }
        })
        .await;
    for name in ["up.sock", "up.pid", "up.lock", "api.sock"] {
        let _ = fs::remove_file(places.run.join(name));
    }
    for name in SERVICES {
        let _ = fs::remove_file(places.run.join(format!("{name}.sock")));
    }
    crate::platform::clear(&places.run, prepared.instance);
    for dir in ["vm", "console", ""] {
        // Only empty ones: cells that run on keep theirs.
        let _ = fs::remove_dir(places.run.join(dir));
    }
    // What cells that run on still need stays.
    let _ = skep_cellroot::forget(&prepared.instance.to_string());
    drop(listener);
    // Whoever asked waits until this closes: at the very end of this process.
    std::mem::forget(asker);
    Ok(())
}

/// Lets go of whoever waits for our output: what follows goes to the logs.
fn quiet() {
    if std::env::var_os("SKEP_DETACH").is_none() {
        return;
    }
    if let Ok(null) = OpenOptions::new().write(true).open("/dev/null") {
        let _ = nix::unistd::dup2_stdout(&null);
        let _ = nix::unistd::dup2_stderr(&null);
    }
}

/// One client of the control socket.
async fn answer(mut stream: UnixStream, mut ready: watch::Receiver<Ready>, down: tokio::sync::mpsc::Sender<UnixStream>) {
    let own = nix::unistd::geteuid().as_raw();
    if !stream.peer_cred().is_ok_and(|peer| peer.uid() == own || peer.uid() == 0) {
        return;
    }
    let mut ask = [0u8; 1];
    if stream.read_exact(&mut ask).await.is_err() {
        return;
    }
    if ask == ASK_DOWN {
        // Closed only when everything has ended.
        let _ = down.send(stream).await;
    } else if ask == ASK_READY && ready.wait_for(all).await.is_ok() {
        let _ = stream.write_all(READY.as_bytes()).await;
    }
}

/// Which services answer.
type Ready = [bool; SERVICES.len()];

fn all(ready: &Ready) -> bool {
    ready.iter().all(|is| *is)
}

struct Service {
    number: usize,
    name: &'static str,
    program: std::path::PathBuf,
    log: std::path::PathBuf,
    args: Vec<String>,
    ready: watch::Sender<Ready>,
    failed: Failed,
}

/// Told why a service ended; heard until all have answered once.
type Failed = tokio::sync::mpsc::Sender<String>;

impl Service {
    fn new(
        name: &'static str, number: usize, places: &Places, prepared: &Prepared, options: &Options, ready: watch::Sender<Ready>,
        failed: Failed,
    ) -> Self {
        let (program, args) = prepared.command(places, name, options);
        Self { name, program, log: places.state.join("logs").join(format!("{name}.log")), args, number, ready, failed }
    }

    /// Notes whether it answers.
    fn answers(&self, now: bool) {
        self.ready.send_modify(|ready| {
            if let Some(is) = ready.get_mut(self.number) {
                *is = now;
            }
        });
    }

    /// Starts it, waits for its end, starts it again; until the suite ends.
    async fn keep_running(self, mut ending: watch::Receiver<bool>) {
        let mut wait = Duration::from_millis(50);
        loop {
            let began = Instant::now();
            match self.start() {
                Ok((mut child, pipe)) => {
                    let ended = tokio::select! {
                        ended = child.wait() => ended,
                        never = self.announce(pipe) => match never {},
                        _ = ending.wait_for(|is| *is) => {
                            // Services keep nothing in memory that a kill would lose.
                            let _ = child.kill().await;
                            return;
                        }
                    };
                    self.answers(false);
                    let how = ended.map_or_else(|e| e.to_string(), |status| status.to_string());
                    let _ = self.failed.try_send(format!("skep-{} ended ({how}): {}", self.name, self.last_words()));
                    self.note(&how);
                }
                Err(error) => {
                    let _ = self.failed.try_send(format!("{}: {error}", self.program.display()));
                    self.note(&format!("{}: {error}", self.program.display()));
                }
            }
            let pause = if began.elapsed() < STABLE { wait } else { Duration::ZERO };
            wait = if pause.is_zero() { Duration::from_millis(50) } else { (wait * 2).min(LONGEST_WAIT) };
            tokio::select! {
                () = sleep(pause) => {}
                _ = ending.wait_for(|is| *is) => return,
            }
        }
    }

    fn start(&self) -> io::Result<(Child, OwnedFd)> {
        // One that serves keeps it within its bounds itself; one that ends before that is started again and again.
        if let Some(dir) = self.log.parent() {
            skep_service::turn(dir, self.name)?;
        }
        let log = OpenOptions::new().create(true).append(true).mode(0o640).open(&self.log)?;
        let mut command = Command::new(&self.program);
        command.args(&self.args).env_clear().current_dir("/").stdin(Stdio::null()).kill_on_drop(true);
        command.stdout(log.try_clone()?).stderr(log);
        // Inherited on purpose; the services' sandbox closes what it does not know.
        let (read, write) = nix::unistd::pipe()?;
        skep_sys::fd::set_cloexec(std::os::fd::AsFd::as_fd(&read), true)?;
        command.arg("--ready-fd").arg(write.as_raw_fd().to_string());
        let child = command.spawn()?;
        drop(write);
        Ok((child, read))
    }

    /// Waits for the service's word that it can be used, then for ever.
    async fn announce(&self, pipe: OwnedFd) -> std::convert::Infallible {
        if let Ok(mut pipe) = tokio::net::unix::pipe::Receiver::from_owned_fd(pipe)
            && pipe.read_u8().await.is_ok()
        {
            self.answers(true);
        }
        std::future::pending().await
    }

    /// The last line of its log.
    fn last_words(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let end = log.get(log.len().saturating_sub(2000)..).unwrap_or_default();
        let end = String::from_utf8_lossy(end).into_owned();
        end.lines().last().unwrap_or("its log is empty").to_owned()
    }

    /// A line of its log.
    fn note(&self, what: &str) {
        if let Ok(mut log) = OpenOptions::new().append(true).open(&self.log) {
            let _ = io::Write::write_all(
                &mut log,
                format!("supervisor: skep-{} ended: {what}; starting it again\n", self.name).as_bytes(),
            );
        }
    }
}
