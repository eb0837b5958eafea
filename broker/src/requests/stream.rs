//! Streams: one end goes to the frontend, the other to the process that fills it.

use super::{Cx, find_machine};
use crate::db::machines::MachineRow;
use skep_proto::broker::{
    ConsoleAttached, Done, Gdb, HostLog, LogOpened, MachineChannel, MachineConsole, MachineGdb, MachineLog, MachineScreen,
};
use skep_proto::console::{AttachPort, AttachScreen, AttachSerial};
use skep_proto::runner::{ConnectChannel, ConnectGdb, ConnectScreen};
use skep_proto::storage::{OpenLogReader, OpenServiceLog};
use skep_proto::{OneFd, Reason, Refusal, UpTo};

/// A machine of which something runs.
pub(super) fn running(cx: &Cx, name: &str) -> Result<MachineRow, Refusal> {
    use skep_proto::broker::MachineState::{Paused, Running, Starting, Stopping};
    let machine = cx.broker.read(|db| find_machine(db, name))?;
    match machine.state {
        Starting | Running | Paused | Stopping if machine.slot.is_some() => Ok(machine),
        _ => Err(Refusal::new(Reason::WrongState, object(&machine)).note("it does not run")),
    }
}

fn object(machine: &MachineRow) -> String {
    format!("machine {}", machine.name)
}

fn pair(machine: &MachineRow) -> Result<(std::os::fd::OwnedFd, std::os::fd::OwnedFd), Refusal> {
    skep_sys::sock::stream_pair().map_err(|e| Refusal::io(object(machine), "make a socket pair", &e))
}

/// `MachineConsole`.
pub async fn console(cx: &Cx, c: MachineConsole) -> Result<(ConsoleAttached, OneFd), Refusal> {
    let machine = running(cx, c.machine.as_str())?;
    let ports = machine.applied.as_ref().map(crate::spec::Spec::ports).unwrap_or_default();
    if !ports.is_empty() && !ports.iter().any(|port| port.port() == c.port) {
        let has: Vec<_> = ports.iter().map(|port| port.port().to_string()).collect();
        let refusal = Refusal::new(Reason::NotFound, format_args!("serial port {} of {}", c.port, object(&machine)));
        return Err(refusal.field("port").note(format_args!("it runs with {}", has.join(", "))));
    }
    let (client, proxy) = pair(&machine)?;
    let MachineConsole { write, take, port, .. } = c;
    // The first by its own operation: a console-proxy from before there were others knows only that.
    let (attached, []) = match port {
        1 => cx.broker.ask_console(&cx.who, machine.id, AttachSerial { write, take }, [proxy]).await?,
        _ => cx.broker.ask_console(&cx.who, machine.id, AttachPort { port, write, take }, [proxy]).await?,
    };
    Ok((ConsoleAttached { writer: attached.writer, scrollback: attached.scrollback }, [client]))
}

/// `MachineScreen`.
pub async fn screen(cx: &Cx, c: MachineScreen) -> Result<(Done, OneFd), Refusal> {
    let machine = running(cx, c.machine.as_str())?;
    // QEMU's sound is part of it, and there without a picture, too.
    let heard = |spec: &crate::spec::Spec| spec.sound && crate::platform::HYPERVISOR == skep_machine::Hypervisor::Qemu;
    let shown = machine.applied.as_ref().is_some_and(|spec| spec.screen || heard(spec));
    if !shown {
        return Err(Refusal::new(Reason::WrongState, object(&machine)).note("it runs without a screen"));
    }
    let (_, [hypervisor]) = cx.broker.ask_runner(&cx.who, machine.id, ConnectScreen {}).await?;
    let (client, proxy) = pair(&machine)?;
    cx.broker.ask_console(&cx.who, machine.id, AttachScreen {}, [proxy, hypervisor]).await?;
    Ok((Done {}, [client]))
}

/// `MachineGdb`.
pub async fn gdb(cx: &Cx, c: MachineGdb) -> Result<(Done, OneFd), Refusal> {
    let machine = running(cx, c.machine.as_str())?;
    if machine.applied.as_ref().is_none_or(|spec| spec.gdb == Gdb::Off) {
        let refusal = Refusal::new(Reason::WrongState, object(&machine)).field("gdb");
        return Err(refusal.note("it runs without gdb; set it to on, which applies at the guest's next reboot"));
    }
    let (_, [hypervisor]) = cx.broker.ask_runner(&cx.who, machine.id, ConnectGdb {}).await?;
    let (client, proxy) = pair(&machine)?;
    cx.broker.ask_console(&cx.who, machine.id, AttachScreen {}, [proxy, hypervisor]).await?;
    Ok((Done {}, [client]))
}

/// `MachineChannel`.
pub async fn channel(cx: &Cx, c: MachineChannel) -> Result<(Done, OneFd), Refusal> {
    let machine = running(cx, c.machine.as_str())?;
    let has = machine.applied.as_ref().map_or(&[][..], |spec| &spec.channels);
    let place = has.iter().position(|name| *name == c.channel).and_then(|at| u8::try_from(at).ok());
    let port = place.ok_or_else(|| {
        let has: Vec<&str> = has.iter().map(skep_proto::Text::as_str).collect();
        let note =
            if has.is_empty() { "it runs without channels".to_owned() } else { format!("it runs with {}", has.join(", ")) };
        Refusal::new(Reason::NotFound, format_args!("channel {} of {}", c.channel, object(&machine))).note(note)
    })?;
    let connected = cx.broker.ask_runner(&cx.who, machine.id, ConnectChannel { port }).await;
    let (_, [hypervisor]) = connected.map_err(|mut refusal| {
        // The runner knows it by its number.
        if refusal.reason != Reason::Unavailable {
            refusal.object = skep_proto::Text::lossy(&format!("channel {} of {}", c.channel, object(&machine)));
        }
        refusal
    })?;
    let (client, proxy) = pair(&machine)?;
    cx.broker.ask_console(&cx.who, machine.id, AttachScreen {}, [proxy, hypervisor]).await?;
    Ok((Done {}, [client]))
}

/// `MachineLog`.
pub async fn log(cx: &Cx, c: MachineLog) -> Result<(LogOpened, UpTo<3>), Refusal> {
    let machine = cx.broker.read(|db| find_machine(db, c.machine.as_str()))?;
    cx.broker.storage.call(&cx.who, OpenLogReader { machine: machine.id, log: c.log, follow: c.follow }).await
}

/// `HostLog`.
pub async fn host_log(cx: &Cx, c: HostLog) -> Result<(LogOpened, UpTo<3>), Refusal> {
    cx.broker.storage.call(&cx.who, OpenServiceLog { service: c.service, follow: c.follow }).await
}
