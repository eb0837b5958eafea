//! `skep up`, `skep down`: the supervisor is in [`crate::up`], the machines are the API's.

use super::stopping::{self, How};
use super::{Ctx, block_on, vm};
use crate::args::{DownArgs, UpArgs};
use crate::client::Api;
use crate::error::Failure;
use crate::output::Output;
use crate::places::Places;
use crate::up::{self, UpError};
use serde_json::json;
use skep_api::v1::{RestHostRequest, ShowHostRequest};
use skep_proto::Reason;
use std::io;
use std::time::Duration;

impl From<UpError> for Failure {
    fn from(error: UpError) -> Self {
        let reason = match &error {
            UpError::Step { error, .. } if error.kind() == io::ErrorKind::PermissionDenied => Reason::PermissionDenied,
            UpError::Step { .. } | UpError::CellRoot(_) => Reason::Internal,
            UpError::Conf(_) => Reason::InvalidValue,
            UpError::Supervisor(_) => Reason::Unavailable,
        };
        let advice = match &error {
            // It says itself what mends it.
            UpError::Conf(_) => "",
            _ => "see `skep doctor` and `skep log`",
        };
        Failure::new(reason, "the suite", error).advice(advice)
    }
}

/// Starts the suite, and returns when it answers.
pub fn up(places: &Places, args: &UpArgs, output: Output) -> Result<u8, Failure> {
    let options = up::Options {
        listen: args.listen.map(|address| address.to_string()),
        metrics: args.metrics.map(|address| address.to_string()),
        uplinks: args.uplinks.clone(),
        fetch_from: args.fetch_from.clone(),
        iscsi_portals: args.iscsi_portals.clone(),
        shares: args.shares.clone(),
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
    if !was_up && std::os::unix::net::UnixStream::connect(&places.socket).is_ok() {
        let failure = Failure::new(Reason::WrongState, "the suite", "it was not started by `skep up`");
        return Err(failure.advice(format_args!("see {}; `skep vm stop --all` stops its machines", crate::platform::MANAGED)));
    }
    said(output, if was_up { "the suite is down" } else { "the suite is not up" }, !was_up);
    Ok(0)
}

fn said(output: Output, what: &str, already: bool) {
    if output.json { output.line(json!({"down": true, "already": already})) } else { output.remark(what) }
}

/// Stops all that run, and has the bridges taken down.
async fn stop_machines(places: &Places, patience: Option<Duration>, output: Output) -> Result<(), Failure> {
    let ctx = match Api::connect(places).await {
        // A suite that does not work any more must still go down.
        Err(failure) if failure.is_unavailable() => {
            output.warning(format_args!("the API does not answer ({}); machines that run are left running", failure.message));
            return Ok(());
        }
        connected => Ctx { api: connected?, output },
    };
    let machines = match vm::list(&ctx).await {
        Err(failure) if failure.is_unavailable() => {
            output.warning(format_args!("the API does not answer ({}); machines that run are left running", failure.message));
            return Ok(());
        }
        listed => listed?,
    };
    let stopped = stopping::all(&ctx, machines, How { patience, force: true, no_wait: false }).await;
    if stopped.is_ok() {
        // Without them the bridges stay, which the next start takes over.
        if let Err(status) = ctx.api.host().rest(RestHostRequest {}).await {
            output.failure(&Failure::from(status));
        }
    }
    stopped.map_err(|failure| failure.advice("the suite stays up; `skep down --keep-machines` leaves its machines running"))
}
