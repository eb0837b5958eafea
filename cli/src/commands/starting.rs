//! `skep vm start`, one machine or all that start with the host: in their order, each with its delay.

use super::{Ctx, vm};
use crate::args::{ActArgs, StartArgs, WaitArgs};
use crate::error::Failure;
use skep_api::v1::{Machine, MachineState, MachineUpkeep};
use std::time::Duration;

/// Starts what was named.
pub async fn run(ctx: &Ctx, args: StartArgs) -> Result<(), Failure> {
    let StartArgs { machine, wait, .. } = args;
    match machine {
        Some(machine) => vm::act(ctx, ActArgs { machine, wait }, "start").await,
        None => with_the_host(ctx, turns(vm::list(ctx).await?), wait).await,
    }
}

/// What a machine's settings say.
pub fn upkeep(machine: &Machine) -> MachineUpkeep {
    machine.settings.as_ref().and_then(|settings| settings.upkeep).unwrap_or_default()
}

/// Those that are to start, in their order; of the same order by name.
fn turns(machines: Vec<Machine>) -> Vec<Machine> {
    let rests = |machine: &Machine| matches!(machine.state(), MachineState::Stopped | MachineState::Failed);
    let mut machines: Vec<Machine> = machines.into_iter().filter(|m| upkeep(m).autostart() && rests(m)).collect();
    machines.sort_by(|a, b| (upkeep(a).order(), &a.name).cmp(&(upkeep(b).order(), &b.name)));
    machines
}

/// One that does not start keeps no other from it.
async fn with_the_host(ctx: &Ctx, machines: Vec<Machine>, wait: WaitArgs) -> Result<(), Failure> {
    let mut worst = Ok(());
    let last = machines.len().saturating_sub(1);
    for (at, machine) in machines.into_iter().enumerate() {
        let delay = Duration::from_secs(upkeep(&machine).delay_seconds().into());
        match vm::act(ctx, ActArgs { machine: machine.id, wait }, "start").await {
            Ok(()) if at < last => tokio::time::sleep(delay).await,
            Ok(()) => {}
            Err(failure) => {
                ctx.output.failure(&failure);
                worst = Err(failure);
            }
        }
    }
    worst
}

#[cfg(test)]
mod tests {
    use super::*;
    use skep_api::v1::MachineSettings;

    #[test]
    fn turns_are_by_order_then_name_and_only_of_those_that_are_to_start() {
        let machine = |name: &str, autostart, order, state: MachineState| Machine {
            name: name.into(),
            state: state.into(),
            settings: Some(MachineSettings {
                upkeep: Some(MachineUpkeep { autostart, order, ..MachineUpkeep::default() }),
                ..MachineSettings::default()
            }),
            ..Machine::default()
        };
        let all = vec![
            machine("c", Some(true), Some(2), MachineState::Stopped),
            machine("b", Some(true), Some(2), MachineState::Failed),
            machine("a", Some(false), Some(1), MachineState::Stopped),
            machine("d", Some(true), None, MachineState::Stopped),
            machine("e", Some(true), None, MachineState::Running),
            machine("f", None, None, MachineState::Stopped),
        ];
        let names: Vec<String> = turns(all).into_iter().map(|m| m.name).collect();
        assert_eq!(names, ["d", "b", "c"]);
    }
}
