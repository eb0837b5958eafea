//! `skep vm stop`, one machine or all: the broker asks each to power off, keeps its time, and ends it then if it is told to.

use super::starting::upkeep;
use super::{Ctx, vm};
use crate::args::StopArgs;
use crate::client::Api;
use crate::error::Failure;
use crate::operation::{self, Interrupt};
use crate::output::Output;
use serde_json::json;
use skep_api::v1::{GetMachineRequest, Machine, MachineActRequest, MachineState};
use skep_proto::Reason;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// What the broker says of a machine that it has ended.
const FORCED: &str = "ended by force";

/// How machines are stopped.
#[derive(Debug, Clone, Copy)]
pub struct How {
    /// How long all of them may take; none: each as long as its settings say.
    pub patience: Option<Duration>,
    /// Whether they are ended then.
    pub force: bool,
    /// They are only asked to.
    pub no_wait: bool,
}

/// Stops what was named.
pub async fn run(ctx: &Ctx, args: StopArgs) -> Result<(), Failure> {
    let StopArgs { machine, timeout, force, wait, .. } = args;
    let Some(machine) = machine else {
        return all(ctx, vm::list(ctx).await?, How { patience: timeout, force, no_wait: wait.no_wait }).await;
    };
    let begun = ctx.api.machines().stop(request(machine, timeout, force)?).await?.into_inner();
    ctx.finish(begun, wait).await.map(drop)
}

fn request(machine: String, timeout: Option<Duration>, force: bool) -> Result<MachineActRequest, Failure> {
    let timeout = timeout.map(|time| {
        // What is shorter than the API tells apart is rounded up.
        let whole = Duration::from_millis(u64::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX));
        let note = format!("--timeout: {time:?} is more than 24 hours");
        prost_types::Duration::try_from(whole).map_err(|_| Failure::new(Reason::InvalidValue, "machine", note))
    });
    Ok(MachineActRequest { machine, timeout: timeout.transpose()?, force })
}

/// Stops those of them that run, the highest order first, those of the same order at the same time. Each turn has an equal part of the time
/// that is left, so that one who does not listen takes none from those after him.
pub async fn all(ctx: &Ctx, machines: Vec<Machine>, how: How) -> Result<(), Failure> {
    let deadline = how.patience.map(|patience| Instant::now() + patience);
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
            let own = Duration::from_secs(upkeep(&machine).stop_timeout_seconds().into());
            let how = How { patience: left.map(|left| left.min(own)), ..how };
            stopping.spawn(stop(ctx.api.clone(), machine.id, machine.name, how, ctx.output));
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

async fn stop(api: Api, id: String, name: String, how: How, output: Output) -> Result<(), Failure> {
    let said = |how: &str| {
        if output.json {
            output.line(json!({"machine": name, "id": id, "how": how}));
        } else {
            output.remark(format_args!("machine {name}: {how}"));
        }
    };
    let begun = match api.machines().stop(request(id.clone(), how.patience, how.force)?).await {
        Ok(begun) => begun.into_inner(),
        Err(status) if status.code() == tonic::Code::FailedPrecondition => {
            let now = api.machines().get(GetMachineRequest { machine: id.clone() }).await?.into_inner();
            return match now.state() {
                // It ended meanwhile by itself.
                MachineState::Stopped | MachineState::Failed => Ok(()),
                _ => Err(status.into()),
            };
        }
        Err(status) => return Err(status.into()),
    };
    if how.no_wait {
        said("asked to stop");
        return Ok(());
    }
    operation::finish(&api, Output { quiet: true, ..output }, begun, Interrupt::Leaves).await?;
    let now = api.machines().get(GetMachineRequest { machine: id.clone() }).await?.into_inner();
    said(if now.note == FORCED { "ended" } else { "stopped" });
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
