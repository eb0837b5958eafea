//! `skep vm stop`, one machine or all: each is asked to power off, and ended if it takes too long.

use super::starting::upkeep;
use super::{Ctx, vm};
use crate::args::{ActArgs, StopArgs};
use crate::client::Api;
use crate::error::Failure;
use crate::operation::{self, Interrupt};
use crate::output::Output;
use serde_json::json;
use skep_api::v1::{GetMachineRequest, Machine, MachineActRequest, MachineState};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Stops what was named.
pub async fn run(ctx: &Ctx, args: StopArgs) -> Result<(), Failure> {
    let StopArgs { machine, timeout, wait, .. } = args;
    let machines = match (machine, timeout) {
        (Some(machine), None) => return vm::act(ctx, ActArgs { machine, wait }, "stop").await,
        (Some(machine), Some(_)) => vec![ctx.api.machines().get(GetMachineRequest { machine }).await?.into_inner()],
        (None, _) => vm::list(ctx).await?,
    };
    all(ctx, machines, timeout, wait.no_wait).await
}

/// Stops those of them that run, the highest order first, those of the same order at the same time. Each turn has an equal part of the time
/// that is left, so that one who does not listen takes none from those after him; whatever has not powered off by then is ended.
pub async fn all(ctx: &Ctx, machines: Vec<Machine>, patience: Option<Duration>, no_wait: bool) -> Result<(), Failure> {
    let deadline = patience.map(|patience| Instant::now() + patience);
    let mut turns: BTreeMap<u32, Vec<Machine>> = BTreeMap::new();
    for machine in machines {
        if !matches!(machine.state(), MachineState::Stopped | MachineState::Failed) {
            turns.entry(upkeep(&machine).order()).or_default().push(machine);
        }
    }
    let mut worst = Ok(());
    for (to_come, machines) in turns.into_values().enumerate().rev() {
        let left = deadline.map(|deadline| part(deadline.saturating_duration_since(Instant::now()), to_come));
        let mut stopping = JoinSet::new();
        for machine in machines {
            stopping.spawn(stop(ctx.api.clone(), machine.id, machine.name, left, no_wait, ctx.output));
        }
        while let Some(ended) = stopping.join_next().await {
            if let Ok(Err(failure)) = ended {
                ctx.output.failure(&failure);
                worst = Err(failure);
            }
        }
    }
    worst
}

/// Of the time that is left, when so many turns are to come.
fn part(left: Duration, to_come: usize) -> Duration {
    left / u32::try_from(to_come).unwrap_or(u32::MAX).saturating_add(1)
}

async fn stop(
    api: Api, id: String, name: String, patience: Option<Duration>, no_wait: bool, output: Output,
) -> Result<(), Failure> {
    let said = |how: &str| {
        if output.json {
            output.line(json!({"machine": name, "id": id, "how": how}));
        } else {
            output.remark(format_args!("machine {name}: {how}"));
        }
    };
    let quiet = Output { quiet: true, ..output };
    let request = || MachineActRequest { machine: id.clone() };
    let graceful = async {
        let begun = api.machines().stop(request()).await?.into_inner();
        if no_wait { Ok(begun) } else { operation::finish(&api, quiet, begun, Interrupt::Leaves).await }
    };
    let Some(patience) = patience else {
        graceful.await?;
        said(if no_wait { "asked to stop" } else { "stopped" });
        return Ok(());
    };
    if let Ok(Ok(_)) = tokio::time::timeout(patience, graceful).await {
        said("stopped");
        return Ok(());
    }
    let begun = match api.machines().kill(request()).await {
        Ok(begun) => begun.into_inner(),
        // It ended meanwhile by itself.
        Err(status) if status.code() == tonic::Code::FailedPrecondition => return Ok(()),
        Err(status) => return Err(status.into()),
    };
    operation::finish(&api, quiet, begun, Interrupt::Leaves).await?;
    said("ended");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_takes_all_of_his_time_leaves_the_same_to_those_after_him() {
        let mut left = Duration::from_secs(60);
        for to_come in (0..4).rev() {
            assert_eq!(part(left, to_come), Duration::from_secs(15));
            left -= part(left, to_come);
        }
        assert_eq!(left, Duration::ZERO);
        assert_eq!(part(Duration::from_secs(60), 0), Duration::from_secs(60));
    }
}
