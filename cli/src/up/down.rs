//! `skep down`.

use super::{LOCK, supervisor};
use crate::args::DownArgs;
use crate::client::Api;
use crate::commands::{Ctx, all_machines, block_on};
use crate::error::Failure;
use crate::operation::{self, Interrupt};
use crate::output::Output;
use crate::places::Places;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use skep_api::v1::{MachineActRequest, MachineState};
use std::fs::File;
use std::os::fd::AsFd;
use std::time::Duration;
use tokio::task::JoinSet;

/// Stops the machines, then the suite.
pub fn down(places: &Places, args: &DownArgs, output: Output) -> Result<u8, Failure> {
    let Some(pid) = supervisor(places)? else {
        said(output, "the suite is not up", true);
        return Ok(0);
    };
    if !args.keep_machines {
        block_on(stop_machines(places, args.timeout, output))?;
    }
    let path = places.run.join(LOCK);
    let failed = |what: &'static str| move |e: std::io::Error| Failure::io("the supervisor", what, &e);
    // Opened before, since it is gone afterwards.
    let lock = match File::open(&path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
        opened => Some(opened.map_err(failed("open RUN/up.pid of"))?),
    };
    match kill(Pid::from_raw(pid), Signal::SIGTERM) {
        Ok(()) | Err(nix::errno::Errno::ESRCH) => {}
        Err(e) => return Err(Failure::io("the supervisor", "end", &e.into()).advice("ask as root, or as who started the suite")),
    }
    if let Some(lock) = lock {
        skep_sys::lock::wait(lock.as_fd()).map_err(failed("wait for the end of"))?;
    }
    said(output, "the suite is down", false);
    Ok(0)
}

fn said(output: Output, what: &str, already: bool) {
    if output.json { output.line(json!({"down": true, "already": already})) } else { output.remark(what) }
}

/// Stops all that run, at the same time; what does not power off in time is ended.
async fn stop_machines(places: &Places, patience: Duration, output: Output) -> Result<(), Failure> {
    let ctx = Ctx { api: Api::connect(places).await?, output };
    let mut stopping = JoinSet::new();
    for machine in all_machines(&ctx).await? {
        if !matches!(machine.state(), MachineState::Stopped | MachineState::Failed) {
            stopping.spawn(stop(ctx.api.clone(), machine.id, machine.name, patience, output));
        }
    }
    let mut worst = Ok(());
    while let Some(ended) = stopping.join_next().await {
        if let Ok(Err(failure)) = ended {
            output.failure(&failure);
            worst = Err(failure);
        }
    }
    worst.map_err(|failure| failure.advice("the suite stays up; `skep down --keep-machines` leaves its machines running"))
}

async fn stop(api: Api, id: String, name: String, patience: Duration, output: Output) -> Result<(), Failure> {
    let quiet = Output { quiet: true, ..output };
    let request = || MachineActRequest { machine: id.clone() };
    let graceful = async {
        let begun = api.machines().stop(request()).await?.into_inner();
        operation::finish(&api, quiet, begun, Interrupt::Leaves).await
    };
    if let Ok(Ok(_)) = tokio::time::timeout(patience, graceful).await {
        output.remark(format_args!("machine {name}: stopped"));
        return Ok(());
    }
    let begun = match api.machines().kill(request()).await {
        Ok(begun) => begun.into_inner(),
        // It ended meanwhile by itself.
        Err(status) if status.code() == tonic::Code::FailedPrecondition => return Ok(()),
        Err(status) => return Err(status.into()),
    };
    operation::finish(&api, quiet, begun, Interrupt::Leaves).await?;
    output.remark(format_args!("machine {name}: ended"));
    Ok(())
}
