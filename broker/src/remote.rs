//! iSCSI disks: a process for each that a running machine has, between its hypervisor and the target (`crates/proto/src/iscsi.rs`). The hypervisor
//! connects to it over a socket of its cell, or has a device whose server asks it (bhyve).
//!
//! It may be killed at any time, and the target may go: what the hypervisor asks waits, and is asked again of who comes next.

use crate::broker::Broker;
use crate::cell;
use crate::db::Who;
use crate::db::disks::Disks;
use crate::db::iscsi::{Iscsi, IscsiRow};
use crate::helpers::{BACK_OFF, Lent, PATIENCE, ask};
use crate::platform;
use crate::spec::{Disk, Spec};
use skep_ipc::aio::Port;
use skep_proto::cell::{KillCell, StartDiskServer, StartInitiator, SweepCell};
use skep_proto::iscsi::{Attach, Attached, IscsiName, LinkEvent, LoginOrder, Watch};
use skep_proto::net::ConnectServer;
use skep_proto::runner::{Phase, Runner, Status, TakeDoor};
use skep_proto::storage::DiskKind;
use skep_proto::{DiskId, DiskRates, MachineId, Reason, Refusal, Text, UpTo, wire};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Instant;
use tokio::time::{sleep, timeout};

/// Where a disk's process listens.
pub fn path(disk: DiskId) -> String {
    format!("console/{}.sock", disk.cell())
}

/// What this suite is called where targets say who may come in.
pub fn initiator(broker: &Broker) -> Option<IscsiName> {
    format!("iqn.2026-11.internal.skep:{}", broker.instance).parse().ok()
}

/// Those of a machine's disks that are somewhere else, by slot.
pub fn of(spec: &Spec) -> Vec<(u8, Disk)> {
    let all = (0..).zip(&spec.disks).filter(|(_, disk)| disk.kind == DiskKind::Iscsi && !disk.flags.ejected);
    all.map(|(slot, disk)| (slot, disk.clone())).collect()
}

fn load(broker: &Broker, disk: DiskId) -> Result<IscsiRow, Refusal> {
    broker.read(|db| db.iscsi(disk))?.ok_or_else(|| Refusal::new(Reason::NotFound, format_args!("disk {disk}")))
}

/// The same for each login of a disk, so that a target ends what is left of the former session. Its first bits say that the others are
/// anybody's choice (RFC 7143, 11.12.5).
fn isid(disk: DiskId) -> [u8; 6] {
    let [.., a, b, c, d, e] = disk.as_u128().to_be_bytes();
    [0x80, a, b, c, d, e]
}

/// Logs in. The process must be there.
async fn attach(broker: &Broker, who: &Who, disk: DiskId, read_only: bool) -> Result<Attached, Refusal> {
    let IscsiRow { portal, target, lun, chap, .. } = load(broker, disk)?;
    let initiator = initiator(broker).ok_or_else(|| Refusal::new(Reason::Internal, "initiator"))?;
    let call = ConnectServer { address: portal.address, port: portal.port, portal: true };
    let (_, [socket]) = broker.net.call(who, call).await?;
    let order = LoginOrder { initiator, isid: isid(disk), portal, target, lun, chap };
    Ok(ask(&broker.run, &path(disk), who, Attach { order, read_only }, [socket], PATIENCE).await?.0)
}

async fn sweep(broker: &Broker, who: &Who, disk: DiskId) -> Result<(), Refusal> {
    let machine = disk.cell();
    broker.cells.call_in(who, KillCell { machine }, PATIENCE).await?;
    broker.cells.call_in(who, SweepCell { machine }, PATIENCE).await?;
    Ok(())
}

/// The number of a process that is to be: its disk's, as long as it lives.
fn begin(broker: &Broker, who: &Who, disk: DiskId, machine: Option<MachineId>) -> Result<u16, Refusal> {
    let most = skep_service::INITIATORS;
    let number = broker.change(who, |change| change.begin_iscsi(disk, machine, most))?;
    let full =
        || Refusal::new(Reason::LimitReached, "").note(format_args!("{most} iSCSI disks are at work, and more there cannot be"));
    number.ok_or_else(full)
}

/// Starts the process anew.
async fn start(
    broker: &Broker, who: &Who, disk: DiskId, machine: Option<MachineId>, door: Option<OwnedFd>,
) -> Result<(), Refusal> {
    let number = begin(broker, who, disk, machine)?;
    sweep(broker, who, disk).await?;
    broker.cells.call_with(who, StartInitiator { disk, number }, UpTo(door.into_iter().collect())).await?;
    Ok(())
}

/// Starts it behind a device of the host, of such a size, in such blocks. With `again` a machine has that device already.
async fn start_behind(
    broker: &Broker, who: &Who, machine: MachineId, disk: &Disk, rates: DiskRates, (size, block): (u64, u32), again: bool,
) -> Result<OwnedFd, Refusal> {
    let slot = begin(broker, who, disk.disk, Some(machine))?;
    if !again {
        sweep(broker, who, disk.disk).await?;
    }
    let (read_only, kinds) = (disk.read_only, vec![DiskKind::Iscsi]);
    let call = StartDiskServer { disk: disk.disk, slot, size, block, read_only, file_limit: 0, rates, kinds, again };
    let (_, [device]) = broker.cells.call_with(who, call, UpTo(Vec::new())).await?;
    Ok(device)
}

/// Ends the process, if there is one.
pub async fn stop(broker: &Broker, who: &Who, disk: DiskId) {
    let ended = async {
        sweep(broker, who, disk).await?;
        broker.change(who, |change| Ok::<_, Refusal>(change.end_iscsi(disk)?))
    };
    // Its number stays taken until it is swept: by the disk's next start.
    if let Err(refusal) = ended.await {
        broker.warn(who.trace, format_args!("disk {disk}: its iscsi-initiator may be left: {refusal}"));
    }
}

/// Ends those of a machine.
pub async fn stop_all(broker: &Broker, who: &Who, machine: MachineId) -> Result<(), Refusal> {
    for disk in broker.read(|db| db.iscsi_at_work(Some(machine)))? {
        stop(broker, who, disk).await;
    }
    Ok(())
}

/// Bytes that the target says a disk has which no machine runs with.
pub async fn look(broker: &Broker, who: &Who, disk: DiskId) -> Result<u64, Refusal> {
    let looked = async {
        start(broker, who, disk, None, None).await?;
        attach(broker, who, disk, true).await
    };
    let looked = looked.await;
    stop(broker, who, disk).await;
    Ok(looked?.size)
}

/// Has a disk be served in a machine's cell, which is there and whose hypervisor is not.
pub async fn serve(
    broker: &Broker, who: &Who, machine: MachineId, runner: &mut Lent<Runner>, slot: u8, disk: &Disk,
) -> Result<(), Refusal> {
    let (_, [door]) = runner.ask(who, TakeDoor { slot }, [], PATIENCE).await?;
    start(broker, who, disk.disk, Some(machine), Some(door)).await?;
    served(broker, who, disk).await.map(drop)
}

/// Logs in for a machine; what the target says of the disk's size is kept.
async fn served(broker: &Broker, who: &Who, disk: &Disk) -> Result<Attached, Refusal> {
    let attached = attach(broker, who, disk.disk, disk.read_only).await?;
    if size(broker, disk.disk)? != Some(attached.size) {
        broker.change(who, |change| Ok::<_, Refusal>(change.disk_ready(disk.disk, attached.size, 0, None)?))?;
    }
    Ok(attached)
}

fn size(broker: &Broker, disk: DiskId) -> Result<Option<u64>, Refusal> {
    Ok(broker.read(|db| db.disk(disk))?.map(|row| row.size))
}

/// Has a disk be served as a device of the host, before the machine's cell is made; gives the device. Its size is what the target said last time, in
/// blocks as most have them: if it says something else now, the device is made once more.
pub async fn through_device(
    broker: &Broker, who: &Who, machine: MachineId, disk: &Disk, rates: DiskRates,
) -> Result<OwnedFd, Refusal> {
    let mut shape = (size(broker, disk.disk)?.unwrap_or_default(), 512);
    for _ in 0..2 {
        let device = start_behind(broker, who, machine, disk, rates, shape, false).await?;
        let Attached { size, block } = served(broker, who, disk).await?;
        if (size, block) == shape {
            return Ok(device);
        }
        shape = (size, block);
    }
    Err(Refusal::new(Reason::Conflict, format_args!("disk {}", disk.disk)).note("its size changes while it is looked at"))
}

/// Another process, for a machine that runs.
async fn restart(broker: &Broker, who: &Who, machine: MachineId, slot: u8, disk: &Disk) -> Result<(), Refusal> {
    if platform::SERVES {
        let rates = cell::applied(broker, machine).map(|applied| applied.rates_of(slot)).unwrap_or_default();
        let shape = (size(broker, disk.disk)?.unwrap_or_default(), 512);
        return start_behind(broker, who, machine, disk, rates, shape, true).await.map(drop);
    }
    let (_, [door]) = broker.ask_runner(who, machine, TakeDoor { slot }).await?;
    start(broker, who, disk.disk, Some(machine), Some(door)).await
}

/// Keeps a disk of a running machine served: the process, and its session. Ends with the runner.
pub async fn keep(broker: Rc<Broker>, machine: MachineId, slot: u8, disk: Disk) {
    let who = Who::broker();
    let mut pause = BACK_OFF.0;
    loop {
        let begun = Instant::now();
        if let Ok(port) = watch(&broker, &who, disk.disk).await {
            listen(&broker, &who, &disk, port).await;
        }
        if begun.elapsed() > BACK_OFF.1 {
            pause = BACK_OFF.0;
        }
        let alive = broker.ask_runner(&who, machine, Status {}).await;
        if !matches!(&alive, Ok((state, [])) if state.phase != Phase::Ended) {
            return;
        }
        broker.warn(who.trace, format_args!("disk {}: its iscsi-initiator is gone; another one is started", disk.disk));
        if let Err(refusal) = restart(&broker, &who, machine, slot, &disk).await {
            broker.warn(who.trace, format_args!("disk {}: iscsi-initiator: {refusal}", disk.disk));
        }
        sleep(pause).await;
        pause = (pause * 2).min(BACK_OFF.1);
    }
}

/// Has it tell what happens.
async fn watch(broker: &Broker, who: &Who, disk: DiskId) -> Result<Port, Refusal> {
    let failed = |e| Refusal::io(format_args!("disk {disk}"), "watch its iscsi-initiator", &e);
    let (ours, theirs) = skep_sys::sock::seqpacket_pair().map_err(failed)?;
    ask(&broker.run, &path(disk), who, Watch {}, [theirs], PATIENCE).await?;
    Port::new(ours).map_err(failed)
}

/// Logs in again each time that it says that its session is lost, until it is gone.
async fn listen(broker: &Broker, who: &Who, disk: &Disk, port: Port) {
    let mut lost = false;
    let mut pause = BACK_OFF.0;
    loop {
        let heard = if lost { timeout(pause, port.recv()).await.ok() } else { Some(port.recv().await) };
        match heard.map(|record| record.ok().and_then(|record| wire::decode::<LinkEvent>(&record.bytes).ok())) {
            None => {}
            Some(None) => return,
            Some(Some(LinkEvent::Lost(why))) => {
                if !lost {
                    note(broker, who, disk.disk, "lost", why.as_str());
                    pause = BACK_OFF.0;
                }
                lost = true;
            }
        }
        match attach(broker, who, disk.disk, disk.read_only).await {
            Ok(_) => {
                note(broker, who, disk.disk, "back", "");
                lost = false;
            }
            Err(refusal) => {
                broker.warn(who.trace, format_args!("disk {}: {refusal}", disk.disk));
                pause = (pause * 2).min(BACK_OFF.1);
            }
        }
    }
}

/// Writes an event of the disk.
pub fn note(broker: &Broker, who: &Who, disk: DiskId, what: &str, why: &str) {
    let noted = broker.change(who, |change| {
        let Some(row) = change.disk(disk)? else { return Ok(()) };
        Ok::<_, Refusal>(change.event("disk", disk, &row.name, what, Text::<200>::lossy(why))?)
    });
    if let Err(refusal) = noted {
        broker.warn(who.trace, format_args!("disk {disk}: {refusal}"));
    }
}

/// The tasks that keep a machine's.
pub fn keepers(broker: &Rc<Broker>, machine: MachineId) -> Vec<impl Future<Output = ()> + use<>> {
    let applied = cell::applied(broker, machine).unwrap_or_default();
    of(&applied).into_iter().map(|(slot, disk)| keep(broker.clone(), machine, slot, disk)).collect()
}
