//! `skep up`, `skep down`: the supervisor is in [`crate::up`], the machines are the API's.

use super::{Ctx, block_on, vm};
use crate::args::{DownArgs, UpArgs};
use crate::client::Api;
use crate::error::Failure;
use crate::operation::{self, Interrupt};
use crate::output::Output;
use crate::places::Places;
use crate::up::{self, UpError};
use serde_json::json;
use skep_api::v1::{MachineActRequest, MachineState, RestHostRequest, ShowHostRequest};
use skep_proto::Reason;
use std::io;
use std::time::Duration;
use tokio::task::JoinSet;

impl From<UpError> for Failure {
    fn from(error: UpError) -> Self {
        let reason = match &error {
            UpError::Step { error, .. } if error.kind() == io::ErrorKind::PermissionDenied => Reason::PermissionDenied,
            UpError::Step { .. } | UpError::CellRoot(_) => Reason::Internal,
            UpError::Supervisor(_) => Reason::Unavailable,
        };
        Failure::new(reason, "the suite", error).advice("see `skep doctor` and `skep log`")
    }
}

/// Starts the suite, and returns when it answers.
pub fn up(places: &Places, args: &UpArgs, output: Output) -> Result<u8, Failure> {
    let options = up::Options {
        listen: args.listen.map(|address| address.to_string()),
        uplinks: args.uplinks.clone(),
        dataset: args.zfs_dataset.clone(),
    };
    let how = up::up(places, args.foreground, options)?;
    if !args.foreground {
        // The frontend listens; its answer shows that the broker does, too. The broker waits for its helpers by itself.
        block_on(async {
            Api::connect(places).await?.host().show(ShowHostRequest {}).await?;
            Ok(())
        })?;
    }
    if output.json {
        output.line(json!({"suite": how, "state": places.state, "run": places.run, "socket": places.socket}));
    } else {
        output.remark(format_args!("the suite is {how}: {}", places.socket.display()));
    }
    Ok(0)
}

/// Stops the machines, then the suite.
pub fn down(places: &Places, args: &DownArgs, output: Output) -> Result<u8, Failure> {
    if !args.keep_machines && up::is_up(places) {
        block_on(stop_machines(places, args.timeout, output))?;
    }
    let was_up = up::stop_supervisor(places)?;
    said(output, if was_up { "the suite is down" } else { "the suite is not up" }, !was_up);
    Ok(0)
}

fn said(output: Output, what: &str, already: bool) {
    if output.json { output.line(json!({"down": true, "already": already})) } else { output.remark(what) }
}

/// Stops all that run, at the same time; what does not power off in time is ended.
async fn stop_machines(places: &Places, patience: Duration, output: Output) -> Result<(), Failure> {
    let listed = async {
        let ctx = Ctx { api: Api::connect(places).await?, output };
        let machines = vm::list(&ctx).await?;
        Ok::<_, Failure>((ctx, machines))
    };
    let (ctx, machines) = match listed.await {
        // A suite that does not work any more must still go down.
        Err(failure) if failure.is_unavailable() => {
            output.warning(format_args!("the API does not answer ({}); machines that run are left running", failure.message));
            return Ok(());
        }
        listed => listed?,
    };
    let mut stopping = JoinSet::new();
    for machine in machines {
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
    if worst.is_ok() {
        // Without them the bridges stay, which the next start takes over.
        if let Err(status) = ctx.api.host().rest(RestHostRequest {}).await {
            output.failure(&Failure::from(status));
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
