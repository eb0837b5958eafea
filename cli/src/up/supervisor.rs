//! The supervisor: a process of its own that starts the services and lives as long as they shall.

use super::service::{SERVICES, Service};
use super::{LOCK, READY, prepare, programs};
use crate::args::UpArgs;
use crate::commands::block_on;
use crate::error::Failure;
use crate::places::Places;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use tokio::process::Child;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

/// A line of the supervisor's own log.
pub fn note(what: fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stderr(), "{} up info {what}", skep_service::iso8601(skep_service::now_ns()));
}

/// Supervises until SIGTERM or SIGINT.
pub fn run(places: &Places, args: &UpArgs) -> Result<u8, Failure> {
    let ready = args.ready_fd.map(skep_sys::fd::inherited).transpose();
    let mut ready = ready.map_err(|e| Failure::io("--ready-fd", "take over", &e))?.map(File::from);
    if ready.is_some() {
        // A session of its own: the end of the terminal is not its end.
        let _ = nix::unistd::setsid();
    }
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    let result = match lock(places) {
        // Another `skep up` was faster.
        Ok(None) => {
            say(&mut ready, READY);
            return Ok(0);
        }
        Ok(Some(_lock)) => {
            let result = block_on(supervise(places, args, &mut ready));
            clean(places);
            result
        }
        Err(failure) => Err(failure),
    };
    if let Err(failure) = &result {
        say(&mut ready, &failure.message);
    }
    result.map(|()| 0)
}

/// Tells whoever started the supervisor; once.
fn say(ready: &mut Option<File>, what: &str) {
    if let Some(mut pipe) = ready.take() {
        let _ = writeln!(pipe, "{what}");
    } else {
        note(format_args!("{what}"));
    }
}

/// Takes the lock; none if another supervisor has it.
fn lock(places: &Places) -> Result<Option<File>, Failure> {
    let path = places.run.join(LOCK);
    let failed = |what: &'static str| move |e: std::io::Error| Failure::io("RUN/up.pid", what, &e);
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o644).open(&path);
    let mut file = file.map_err(failed("open"))?;
    if !skep_sys::lock::take(file.as_fd()).map_err(failed("lock"))? {
        return Ok(None);
    }
    file.set_len(0).map_err(failed("write"))?;
    writeln!(file, "{}", std::process::id()).map_err(failed("write"))?;
    Ok(Some(file))
}

async fn supervise(places: &Places, args: &UpArgs, ready: &mut Option<File>) -> Result<(), Failure> {
    let failed = |e: std::io::Error| Failure::io("the supervisor", "watch signals", &e);
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(failed)?;
    let instance = prepare::instance(places)?;
    let programs = programs()?;
    let mut kept = JoinSet::new();
    let mut start = async || -> Result<(), Failure> {
        let mut running: Vec<(Service, Child)> = Vec::new();
        for name in SERVICES {
            let service = Service::new(name, places, &programs, instance, args);
            // Those before are ended by their handles when this one fails.
            let child = service.first().await?;
            note(format_args!("{name} serves, process {}", child.id().unwrap_or(0)));
            running.push((service, child));
        }
        for (service, child) in running {
            kept.spawn(async move { service.keep(child).await });
        }
        Ok(())
    };
    tokio::select! {
        started = start() => started?,
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    }
    say(ready, READY);
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            // The terminal has gone; the suite stays.
            _ = hangup.recv() => {}
        }
    }
    note(format_args!("ends"));
    // Who asks before who is asked; each is killed by its handle.
    kept.shutdown().await;
    Ok(())
}

/// Takes away what the services leave in RUN. Sockets of machines that run on stay.
fn clean(places: &Places) {
    for name in SERVICES {
        let _ = fs::remove_file(places.run.join(format!("{name}.sock")));
    }
    let _ = fs::remove_file(places.run.join("api.sock"));
    for directory in ["vm", "console"] {
        // Fails while a machine has a socket there.
        let _ = fs::remove_dir(places.run.join(directory));
    }
    let _ = fs::remove_file(places.run.join(LOCK));
    let _ = fs::remove_dir(&places.run);
}
