//! Counters of machines: one reading, a watch, and those of all machines.

use super::{Cx, stream};
use crate::broker::Broker;
use crate::cell;
use crate::db::Who;
use crate::db::machines::{MachineRow, Machines, Which};
use crate::db::nics::Nics;
use crate::disk_servers;
use crate::page::{ROWS, fit};
use crate::policy::{Proof, permit};
use skep_ipc::aio::Port;
use skep_proto::broker::{
    BrokerRequest, Done, INTERVALS, MachineMetrics, MachineState, MachineStats, MetricsGet, MetricsPage, NicStats, Ref,
    StatsNews, StatsView, StatsWatch,
};
use skep_proto::cell::CellUsage;
use skep_proto::net::{COUNTED, CountTaps};
use skep_proto::runner::{DiskStats, Stats};
use skep_proto::storage::DiskKind;
use skep_proto::{DiskCounts, MachineId, MachineName, OneFd, Reason, Refusal, Text, wire};
use std::rc::Rc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

/// Watches at a time.
const WATCHES: usize = 256;
/// Running machines of a page, which are asked at the same time.
const ASKED: usize = 8;
/// Longest that one of them may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// `MachineStats`.
pub async fn show(cx: &Cx, c: MachineStats) -> Result<StatsView, Refusal> {
    read(&cx.broker, &cx.who, stream::running(cx, c.machine.as_str())?.id).await
}

/// Asks whoever counts: the runner (disks), the kernel by the spawner (CPU, memory) and by net-helper (taps).
async fn read(broker: &Broker, who: &Who, machine: MachineId) -> Result<StatsView, Refusal> {
    let read_ns = skep_service::now_ns();
    let (stats, []) = broker.ask_runner(who, machine, Stats {}).await?;
    let (usage, []) = broker.cells.call(who, CellUsage { machine, volume: false }).await?;
    let rows = broker.read(|db| db.nics_of(machine))?;
    let numbers: Vec<u16> = rows.iter().map(|nic| nic.number).take(COUNTED).collect();
    let taps = match numbers.is_empty() {
        true => Vec::new(),
        false => broker.net.call(who, CountTaps { numbers }).await?.0.taps,
    };
    // The runner may have been taken over: as many as a machine has, each once.
    let mut disks = served(broker, who, machine).await?;
    disks.extend(stats.disks);
    disks.sort_by_key(|disk| disk.slot);
    disks.dedup_by_key(|disk| disk.slot);
    disks.truncate(skep_machine::limits::DISKS.into());
    let nics = rows.iter().filter_map(|nic| {
        let tap = taps.iter().find(|tap| tap.number == nic.number)?;
        Some(NicStats {
            id: nic.id,
            name: Text::lossy(nic.name.as_str()),
            rx_bytes: tap.rx_bytes,
            rx_packets: tap.rx_packets,
            tx_bytes: tap.tx_bytes,
            tx_packets: tap.tx_packets,
        })
    });
    Ok(StatsView {
        read_ns,
        cpu_ns: usage.cpu_ns.unwrap_or(stats.cpu_ns),
        memory: usage.memory.unwrap_or(0),
        disks,
        nics: nics.collect(),
    })
}

/// Of disks that others serve to the hypervisor, by what those have counted, and of volumes, by what ZFS has.
async fn served(broker: &Broker, who: &Who, machine: MachineId) -> Result<Vec<DiskStats>, Refusal> {
    let applied = cell::applied(broker, machine).unwrap_or_default();
    let mut all = Vec::new();
    for (slot, disk) in (0..).zip(&applied.disks) {
        let volume = disk.kind == DiskKind::Zvol;
        if !volume && !disk_servers::serves(disk.kind) {
            continue;
        }
        let (usage, []) = broker.cells.call(who, CellUsage { machine: disk.disk.cell(), volume }).await?;
        let stats = usage.disk.map(|DiskCounts { read_bytes, write_bytes, read_ops, write_ops }| DiskStats {
            slot,
            read_bytes,
            write_bytes,
            read_ops,
            write_ops,
        });
        all.extend(stats);
    }
    Ok(all)
}

/// `StatsWatch`.
pub async fn watch(cx: &Cx, c: StatsWatch) -> Result<(Done, OneFd), Refusal> {
    let Cx { broker, .. } = cx;
    let machine = stream::running(cx, c.machine.as_str())?;
    let object = format!("machine {}", machine.name);
    if !INTERVALS.contains(&c.interval_ms) {
        let refusal = Refusal::new(Reason::InvalidValue, object).field("interval");
        let (least, most) = (INTERVALS.start(), INTERVALS.end());
        return Err(refusal.note(format_args!("{} ms; {least} to {most} are expected", c.interval_ms)));
    }
    let place = broker.stats_watches.clone().try_acquire_owned();
    let place =
        place.map_err(|_| Refusal::new(Reason::LimitReached, &object).note(format_args!("{WATCHES} watches at a time")))?;
    let failed = |e| Refusal::io(&object, "make a socket pair", &e);
    let (ours, theirs) = skep_sys::sock::seqpacket_pair().map_err(failed)?;
    let port = Port::new(ours).map_err(failed)?;
    let (broker, who, proof) = (broker.clone(), cx.who.clone(), cx.proof.clone());
    tokio::task::spawn_local(async move {
        let _place = place;
        tokio::select! {
            // A reader has nothing to say: it is gone.
            _ = port.recv() => {}
            () = send(&broker, &who, &proof, &port, machine.id, Duration::from_millis(c.interval_ms.into())) => {}
        }
    });
    Ok((Done {}, [theirs]))
}

/// Readings in a row that may fail because nobody answers, before a watch ends with the reason.
const MISSED: u32 = 10;

/// One watch takes this many places, of [`WATCHES`].
pub fn places() -> tokio::sync::Semaphore {
    tokio::sync::Semaphore::new(WATCHES)
}

async fn send(broker: &Rc<Broker>, who: &Who, proof: &Proof, port: &Port, machine: MachineId, every: Duration) {
    let mut clock = interval(every);
    // After a slow reader the next reading waits a whole interval.
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let named: Ref = Text::lossy(&machine.to_string());
    let ask: BrokerRequest = MachineStats { machine: named }.into();
    let mut missed = 0;
    loop {
        clock.tick().await;
        // What he may see by now.
        let permitted = broker.user_of(proof).and_then(|user| broker.read(|db| permit(db, &user, &ask)));
        let reading = match permitted.and_then(|()| runs(broker, machine)) {
            Ok(()) => read(broker, who, machine).await,
            Err(refusal) => Err(refusal),
        };
        let news = match reading {
            // Its runner is gone: most often the machine has ended, and that is known by the next time.
            Err(Refusal { reason: Reason::Unavailable, .. }) if missed < MISSED => {
                missed += 1;
                continue;
            }
            Err(refusal) => StatsNews::Ended(refusal),
            Ok(view) => {
                missed = 0;
                StatsNews::Reading(view)
            }
        };
        let Ok(bytes) = wire::encode(&news) else { return };
        if port.send(&bytes, &[]).await.is_err() || matches!(news, StatsNews::Ended(_)) {
            return;
        }
    }
}

fn runs(broker: &Broker, machine: MachineId) -> Result<(), Refusal> {
    let row = broker.read(|db| super::find_machine(db, &machine.to_string()))?;
    if is_running(&row) {
        return Ok(());
    }
    Err(Refusal::new(Reason::WrongState, format_args!("machine {}", row.name)).note("it does not run"))
}

fn is_running(machine: &MachineRow) -> bool {
    use MachineState::{Paused, Running, Stopping};
    machine.slot.is_some() && matches!(machine.state, Running | Paused | Stopping)
}

/// `MetricsGet`.
pub async fn metrics(cx: &Cx, c: MetricsGet) -> Result<MetricsPage, Refusal> {
    let Cx { broker, who, .. } = cx;
    let after = c.after.as_ref().map_or("", MachineName::as_str);
    let seen = cx.user.rights.seen();
    let mut rows = broker.read(|db| db.machines(Which::After(after, ROWS, seen.as_deref())))?;
    if let Some((last, _)) = rows.iter().enumerate().filter(|(_, row)| is_running(row)).nth(ASKED - 1) {
        rows.truncate(last + 1);
    }
    let mut asked = JoinSet::new();
    for id in rows.iter().filter(|row| is_running(row)).map(|row| row.id) {
        let (broker, who) = (broker.clone(), who.clone());
        asked.spawn_local(async move { (id, timeout(PATIENCE, read(&broker, &who, id)).await) });
    }
    let mut stats = Vec::new();
    while let Some(got) = asked.join_next().await {
        // One that does not answer, or has just ended, is shown without counters.
        if let Ok((id, Ok(Ok(view)))) = got {
            stats.push((id, view));
        }
    }
    let machines = rows.into_iter().map(|row| MachineMetrics {
        stats: stats.iter().find(|(id, _)| *id == row.id).map(|(_, view)| view.clone()),
        id: row.id,
        name: row.name,
        group: row.group_name,
        state: row.state,
        cpus: row.spec.cpus,
        memory_mib: row.spec.memory_mib,
        started_ns: row.started_ns,
    });
    Ok(MetricsPage { machines: fit(machines) })
}
