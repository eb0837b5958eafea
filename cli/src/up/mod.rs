//! The local supervisor: `skep up` starts it, `skep down` ends it.

mod down;
pub mod ids;
mod prepare;
mod service;
mod supervisor;
mod wait;

pub use down::down;

use crate::args::UpArgs;
use crate::error::Failure;
use crate::output::Output;
use crate::places::Places;
use serde_json::json;
use skep_proto::Reason;
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The file in RUN that holds the supervisor's process id, and whose lock shows that it lives.
const LOCK: &str = "up.pid";
/// What the supervisor says when all is up.
const READY: &str = "up";

/// Where our programs lie: beside this one, or in `../libexec/skep`.
pub fn programs() -> Result<PathBuf, Failure> {
    let itself = std::env::current_exe().map_err(|e| Failure::io("skep", "find its own program", &e))?;
    let bin = itself.parent().unwrap_or(Path::new("/"));
    let libexec = bin.parent().unwrap_or(Path::new("/")).join("libexec/skep");
    for dir in [bin, &libexec] {
        if service::SERVICES.iter().all(|name| dir.join(format!("skep-{name}")).is_file()) {
            return Ok(dir.to_owned());
        }
    }
    let note = format!("its programs are neither in {} nor in {}", bin.display(), libexec.display());
    Err(Failure::new(Reason::Unavailable, "skep", note).advice("install skep again, all of it"))
}

/// The supervisor's process id, if it lives.
pub fn supervisor(places: &Places) -> Result<Option<i32>, Failure> {
    let path = places.run.join(LOCK);
    match File::open(&path) {
        Ok(file) => skep_sys::lock::holder(file.as_fd()).map_err(|e| Failure::io(path.display(), "ask who has the lock of", &e)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Failure::io(path.display(), "open", &e)),
    }
}

/// `skep up`.
pub fn up(places: &Places, args: &UpArgs, output: Output) -> Result<u8, Failure> {
    if args.ready_fd.is_some() {
        return supervisor::run(places, args);
    }
    places.check_length()?;
    if supervisor(places)?.is_some() {
        if args.wait {
            wait::answers(places)?;
        }
        said(places, output, true);
        return Ok(0);
    }
    programs()?;
    for warning in prepare::prepare(places, args)? {
        output.warning(warning);
    }
    if args.foreground {
        return supervisor::run(places, args);
    }
    detach(places, args)?;
    wait::answers(places)?;
    said(places, output, false);
    Ok(0)
}

fn said(places: &Places, output: Output, already: bool) {
    if output.json {
        output.line(json!({"state": places.state, "run": places.run, "socket": places.socket, "already": already}));
    } else {
        let already = if already { "already " } else { "" };
        output.remark(format_args!("the suite is {already}up: {}", places.socket.display()));
    }
}

/// Starts this program anew as the supervisor, and waits until it is up or says why not.
fn detach(places: &Places, args: &UpArgs) -> Result<(), Failure> {
    let failed = |what: &'static str| move |e: std::io::Error| Failure::io("the supervisor", what, &e);
    let itself = std::env::current_exe().map_err(failed("find its program"))?;
    let (mut ready, writer) = std::io::pipe().map_err(failed("make a pipe"))?;
    skep_sys::fd::set_cloexec(writer.as_fd(), false).map_err(failed("make a pipe"))?;
    let log = log_file(places, "up")?;
    let mut command = Command::new(itself);
    command.arg("--state").arg(&places.state).arg("--run").arg(&places.run).arg("up");
    command.arg("--uid-base").arg(args.uid_base.to_string());
    command.arg("--ready-fd").arg(std::os::fd::AsRawFd::as_raw_fd(&writer).to_string());
    if let Some(listen) = args.listen {
        command.arg("--listen").arg(listen.to_string());
    }
    let errors = log.try_clone().map_err(failed("open its log"))?;
    command.current_dir("/").stdin(Stdio::null()).stdout(log).stderr(errors);
    let mut child = command.spawn().map_err(failed("start"))?;
    drop(writer);
    let mut said = String::new();
    ready.read_to_string(&mut said).map_err(failed("listen to"))?;
    match said.trim() {
        READY => Ok(()),
        "" => {
            let how = child.wait().map(|status| status.to_string()).unwrap_or_default();
            let note = format!("it ended ({how}); see {}", places.state.join("logs/up.log").display());
            Err(Failure::new(Reason::Unavailable, "the supervisor", note))
        }
        why => Err(Failure::new(Reason::Unavailable, "the suite", why).advice("see `skep log` and `skep doctor`")),
    }
}

/// Opens a process's log, to append to.
fn log_file(places: &Places, name: &str) -> Result<File, Failure> {
    let path = places.state.join("logs").join(format!("{name}.log"));
    let opened = OpenOptions::new().create(true).append(true).mode(0o640).open(&path);
    opened.map_err(|e| Failure::io(path.display(), "open", &e))
}
