//! A machine's console-proxy: started on the lines that its runner holds, and kept alive beside it.

use crate::broker::Broker;
use crate::cell::load;
use crate::db::Who;
use crate::helpers::{BACK_OFF, Lent, PATIENCE};
use skep_ipc::aio::Client;
use skep_proto::cell::StartConsole;
use skep_proto::console::Console;
use skep_proto::runner::{Phase, Runner, Status, TakePort, TakeSerial};
use skep_proto::storage::{LogKind, OpenLogWriter};
use skep_proto::{Fds, MachineId, Reason, Refusal, SerialPort, UpTo};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Instant;
use tokio::time::sleep;

/// Serial ports, each with both halves of its log if it is to be logged.
pub type Logs = Vec<(SerialPort, Vec<OwnedFd>)>;

/// Opens the logs of these ports of a machine.
pub async fn logs(broker: &Broker, who: &Who, machine: MachineId, ports: Vec<SerialPort>) -> Result<Logs, Refusal> {
    let mut logs = Vec::new();
    for port in ports {
        let halves = match LogKind::of_port(port.port()).filter(|_| port.log()) {
            Some(log) => broker.storage.call(who, OpenLogWriter { machine, log }).await?.1.into(),
            None => Vec::new(),
        };
        logs.push((port, halves));
    }
    Ok(logs)
}

/// Takes the lines from the runner; what comes back then starts the console-proxy, and needs the runner no more.
pub async fn begin<'a>(
    broker: &'a Broker, who: &'a Who, machine: MachineId, slot: u16, runner: &mut Lent<Runner>, logs: Logs,
) -> Result<impl Future<Output = Result<(), Refusal>> + use<'a>, Refusal> {
    let (mut ports, mut fds) = (Vec::new(), Vec::new());
    for (port, halves) in logs {
        // The first by its own operation: a runner from before there were others knows only that.
        let (_, [line]) = match port.port() {
            1 => runner.ask(who, TakeSerial {}, [], PATIENCE).await?,
            port => runner.ask(who, TakePort { port }, [], PATIENCE).await?,
        };
        ports.push(port);
        fds.push(line);
        fds.extend(halves);
    }
    let object = || Refusal::new(Reason::Internal, format_args!("machine {machine}")).note("too many serial ports");
    let fds = UpTo::from_vec(fds).map_err(|_| object())?;
    Ok(async move { broker.cells.call_with(who, StartConsole { machine, slot, ports }, fds).await.map(drop) })
}

/// Starts another one of a machine that runs.
async fn again(broker: &Broker, who: &Who, machine: MachineId) -> Result<(), Refusal> {
    let row = load(broker, machine)?;
    let slot = row.slot.ok_or_else(|| Refusal::new(Reason::WrongState, "slot"))?;
    // Those that it was started with.
    let logs = logs(broker, who, machine, row.applied.unwrap_or_default().ports()).await?;
    let mut runner = broker.lent_runner(machine).await?;
    begin(broker, who, machine, slot, &mut runner, logs).await?.await
}

/// Keeps a console-proxy running as long as the cell lives; ends with the runner.
pub async fn keep(broker: Rc<Broker>, machine: MachineId) {
    let who = Who::broker();
    let mut pause = BACK_OFF.0;
    loop {
        let connected = match broker.run.connect(&format!("console/{machine}.sock")) {
            Ok(socket) => Client::<Console>::over(socket).await.ok(),
            Err(_) => None,
        };
        if let Some(mut client) = connected {
            let begun = Instant::now();
            client.ended().await;
            if begun.elapsed() > BACK_OFF.1 {
                pause = BACK_OFF.0;
            }
        }
        let alive = broker.ask_runner(&who, machine, Status {}).await;
        if !matches!(&alive, Ok((state, [])) if state.phase != Phase::Ended) {
            return;
        }
        broker.warn(who.trace, format_args!("machine {machine}: its console-proxy is gone; another one is started"));
        if let Err(refusal) = again(&broker, &who, machine).await {
            broker.warn(who.trace, format_args!("machine {machine}: console-proxy: {refusal}"));
        }
        sleep(pause).await;
        pause = (pause * 2).min(BACK_OFF.1);
    }
}
