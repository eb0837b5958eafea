//! Asks of the host what no file and no system call tells: whether the processor runs guests here. A machine of the suite's own, in a cell like
//! any other's, is started for it; it has no row in the database, so that a broker that finds its cell later sweeps it.

use crate::broker::Broker;
use crate::cell::SLOTS;
use crate::db::Who;
use crate::db::machines::Machines;
use crate::helpers::PATIENCE;
use crate::platform;
use skep_ipc::aio::Port;
use skep_machine::Ability;
use skep_proto::cell::{FdRole, KillCell, Limits, MakeCell, SweepCell};
use skep_proto::runner::{self, End, RunnerEvent, Status, Watch};
use skep_proto::{MachineId, Reason, Refusal, UpTo, wire};
use std::time::Duration;
use tokio::time::timeout;

/// How long the guest may take, which has some hundred instructions.
const GUEST: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 10 });
/// Threads and processes of its cell.
const TASKS: u32 = 128;
/// Characters that are told of what a hypervisor said.
const SAID: usize = 150;

/// Whether KVM runs guests; if not, why. Waits for the spawner, and makes no cell where there is no device for it.
pub async fn kvm(broker: &Broker) -> Result<(), String> {
    let who = Who::broker();
    let found = broker.facilities(&who).await.map_err(|refusal| told(&refusal))?;
    if let Some((_, why)) = found.lacks.iter().find(|(name, _)| name.as_str() == Ability::Kvm.name()) {
        return Err(why.to_string());
    }
    let Some((config, firmware)) = platform::probe() else { return Ok(()) };
    if found.hypervisor.as_str().is_empty() {
        return Err("the hypervisor is not installed".to_owned());
    }
    let machine = MachineId::random();
    let tasks = found.limits.iter().any(|limit| limit.as_str() == "tasks").then_some(TASKS);
    let ran = run(broker, &who, machine, Limits { tasks, ..Limits::default() }, config.as_bytes(), &firmware).await;
    // Whatever became of it: if this fails, too, whoever finds its cell sweeps it.
    let swept = async {
        broker.cells.call(&who, KillCell { machine }).await?;
        broker.cells.call(&who, SweepCell { machine }).await
    };
    if let Err(refusal) = swept.await {
        broker.warn(who.trace, format_args!("the cell of a boot that shows whether KVM works: {refusal}"));
    }
    ran
}

async fn run(
    broker: &Broker, who: &Who, machine: MachineId, limits: Limits, config: &[u8], firmware: &[u8],
) -> Result<(), String> {
    let failed = |e: std::io::Error| e.to_string();
    let fds = vec![
        skep_sys::fd::sealed_memory_file(c"skep-config", config).map_err(failed)?,
        skep_sys::fd::sealed_memory_file(c"skep-firmware", firmware).map_err(failed)?,
    ];
    let slot = broker.read(|db| db.last_free_slot(SLOTS)).map_err(|e| e.to_string())?.ok_or("all uids of machines are in use")?;
    let call = MakeCell {
        machine,
        slot,
        limits,
        fds: vec![FdRole::Config, FdRole::Kernel],
        kvm: true,
        file_limit: 0,
        shares: Vec::new(),
        serial: Vec::new(),
        sound: Vec::new(),
        remote: Vec::new(),
    };
    let begin = async {
        broker.cells.call_with(who, call, UpTo(fds)).await?;
        let mut runner = broker.lent_runner(machine).await?;
        let (_, [events]) = runner.ask(who, Watch {}, [], PATIENCE).await?;
        let events = Port::new(events).map_err(|e| Refusal::io("events", "watch its runner", &e))?;
        let started = runner.ask(who, runner::Start {}, [], PATIENCE).await;
        Ok::<_, Refusal>((runner, events, started))
    };
    let (mut runner, events, started) = begin.await.map_err(|refusal| told(&refusal))?;
    if let Err(refusal) = started {
        // It may have ended before the runner could say that it runs.
        return match runner.ask(who, Status {}, [], PATIENCE).await {
            Ok((state, [])) => state.last_end.map_or_else(|| Err(told(&refusal)), |end| judge(&end)),
            Err(_) => Err(told(&refusal)),
        };
    }
    let end = async {
        loop {
            let record = events.recv().await.ok()?;
            if let Ok(RunnerEvent::Ended(end)) = wire::decode(&record.bytes) {
                return Some(end);
            }
        }
    };
    match timeout(GUEST, end).await {
        Ok(Some(end)) => judge(&end),
        Ok(None) => Err("its runner ended".to_owned()),
        Err(_) => Err(format!("a guest of some hundred instructions did not come to its end within {} s", GUEST.as_secs())),
    }
}

/// The guest powers off if all is as it should be.
fn judge(end: &End) -> Result<(), String> {
    Err(match end {
        End::PowerOff => return Ok(()),
        End::Crash { code, words } => {
            let words = words.as_str();
            // What the runner says of it is at the end, after much of what the hypervisor has printed.
            let said = plain(words.rsplit_once("skep: ").map_or(words, |(_, ours)| ours));
            if said.is_empty() { format!("QEMU ended with code {code}") } else { said }
        }
        End::Reboot | End::RebootLoop => "instructions do not do there what they do on a processor".to_owned(),
        end => format!("a guest of some hundred instructions ended by {end:?}"),
    })
}

fn told(refusal: &Refusal) -> String {
    let said = if refusal.note.as_str().is_empty() { refusal.to_string() } else { refusal.note.to_string() };
    let said =
        said.strip_prefix("it ended with code ").and_then(|rest| rest.split_once(": ")).map_or(said.as_str(), |(_, words)| words);
    match refusal.reason {
        Reason::Timeout => "QEMU did not answer".to_owned(),
        _ => plain(said),
    }
}

/// The beginning of what QEMU said, without its name before each of its lines.
fn plain(words: &str) -> String {
    words.replace("qemu-system-x86_64: ", "").chars().take(SAID).collect()
}
