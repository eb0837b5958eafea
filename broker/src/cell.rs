//! What is done with a machine's cell: made, told, listened to, cleared away. Nothing here decides.

use crate::broker::Broker;
use crate::consoles;
use crate::db::Who;
use crate::db::disks::Disks;
use crate::db::iscsi::Iscsi;
use crate::db::machines::{MachineRow, Machines};
use crate::db::nics::Nics;
use crate::disk_servers;
use crate::helpers::{BACK_OFF, Lent, PATIENCE, ask};
use crate::layers;
use crate::life::{Found, Input};
use crate::remote;
use crate::served;
use crate::spec::{Boot, Disk, Spec};
use crate::taps::{self, Tap};
use crate::{parts, platform};
use skep_ipc::aio::Port;
use skep_proto::broker::Act;
use skep_proto::cell::{FdRole, KillCell, Limits, MakeCell, SweepCell};
use skep_proto::console::Console;
use skep_proto::net::{CreateTap, DeleteTap};
use skep_proto::runner::{
    self, Configure, End, GrowDisk, Kill, Leave, LimitDisk, Pause, Phase, PowerButton, Reset, Resume, RunnerEvent, Status,
    SwitchDisks, Watch,
};
use skep_proto::storage::{DiskKind, DiskOpened, LogKind, OpenDisk, OpenLogWriter, OpenVars, WhoseOrder};
use skep_proto::{Call, CpuList, DiskId, Fds, MachineId, Reason, Refusal, UpTo, wire};
use std::io::{Seek, Write};
use std::os::fd::OwnedFd;
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// Slots that there are uids for.
pub const SLOTS: u16 = skep_service::SLOTS;
/// How long a hypervisor may take until it answers.
const START: Duration = Duration::from_secs(60);
/// How long a runner may take to leave.
const LEAVE: Duration = Duration::from_secs(5);
/// Between two events of one runner.
const BREATH: Duration = Duration::from_millis(5);

impl Broker {
    async fn runner<C: Call<Helper = runner::Runner>>(
        &self, who: &Who, machine: MachineId, call: C, fds: C::SendFds, patience: Duration,
    ) -> Result<(C::Reply, C::ReplyFds), Refusal> {
        ask(&self.run, &format!("vm/{machine}.sock"), who, call, fds, patience).await
    }

    /// A connection to a machine's runner.
    pub async fn lent_runner(&self, machine: MachineId) -> Result<Lent<runner::Runner>, Refusal> {
        Lent::connect(&self.run, &format!("vm/{machine}.sock")).await
    }

    /// Asks a machine's runner.
    pub async fn ask_runner<C: Call<Helper = runner::Runner, SendFds = [OwnedFd; 0]>>(
        &self, who: &Who, machine: MachineId, call: C,
    ) -> Result<(C::Reply, C::ReplyFds), Refusal> {
        self.runner(who, machine, call, [], PATIENCE).await
    }

    /// Asks a machine's console-proxy.
    pub async fn ask_console<C: Call<Helper = Console>>(
        &self, who: &Who, machine: MachineId, call: C, fds: C::SendFds,
    ) -> Result<(C::Reply, C::ReplyFds), Refusal> {
        ask(&self.run, &format!("console/{machine}.sock"), who, call, fds, PATIENCE).await
    }
}

pub fn load(broker: &Broker, id: MachineId) -> Result<MachineRow, Refusal> {
    broker.read(|db| db.machine(id))?.ok_or_else(|| Refusal::new(Reason::NotFound, format_args!("machine {id}")))
}

/// What a machine runs with, if it is known.
pub fn applied(broker: &Broker, id: MachineId) -> Option<Spec> {
    load(broker, id).ok()?.applied
}

/// The hypervisor's configuration as a memory file, and whether it needs the processor's virtualisation: for a cell that is there, it does if it
/// did.
async fn config(
    broker: &Broker, who: &Who, machine: &MachineRow, spec: &Spec, cell: Option<bool>,
) -> Result<(OwnedFd, bool), Refusal> {
    let object = format!("machine {}", machine.name);
    let refused = |reason, note: String| Refusal::new(reason, &object).note(note);
    let found = broker.facilities(who).await?;
    if found.hypervisor.as_str().is_empty() {
        return Err(Refusal::new(Reason::HypervisorMissing, &object));
    }
    let mut model = spec.model(machine.id)?;
    model.firmware_order = spec.own_order;
    disk_servers::hide(&mut model);
    if spec.boot == Boot::Uefi && !found.uefi {
        return Err(Refusal::new(Reason::FirmwareMissing, &object));
    }
    if spec.boot == Boot::Loader && spec.disks.is_empty() {
        return Err(refused(Reason::InvalidValue, "its loader needs a disk to read the kernel from".to_owned()).field("disks"));
    }
    let host = broker.can_run(who, &object, &model).await?;
    model.acceleration = match cell {
        Some(false) if host.tcg => skep_machine::Acceleration::Tcg,
        Some(_) => skep_machine::Acceleration::Kvm,
        None => host.resolve(model.acceleration),
    };
    let text = platform::configure(&model, broker.instance, &broker.facts).map_err(|e| refused(Reason::Unsupported, e))?;
    let write = || {
        let mut file = std::fs::File::from(skep_sys::fd::memory_file(c"skep-config")?);
        file.write_all(text.as_bytes())?;
        file.rewind()?;
        Ok(file.into())
    };
    let file = write().map_err(|e| Refusal::io(&object, "write the configuration", &e))?;
    Ok((file, model.acceleration == skep_machine::Acceleration::Kvm))
}

/// Refuses a machine while a disk of it is written by another one, or would be written while another one reads it.
pub fn check_disks(broker: &Broker, disks: &(impl Disks + Iscsi), machine: &MachineRow) -> Result<(), Refusal> {
    let mut wanted: Vec<(DiskId, bool, String)> = Vec::new();
    for (disk, name) in machine.spec.disks.iter().zip(&machine.disk_names) {
        wanted.push((disk.disk, !disk.read_only, name.to_string()));
    }
    if let Boot::Direct { kernel, initrd, .. } = machine.spec.boot {
        wanted.push((kernel, false, machine.files.0.to_string()));
        wanted.extend(initrd.map(|initrd| (initrd, false, machine.files.1.to_string())));
    }
    for (id, writes, name) in wanted {
        broker.free(id, &name)?;
        let users = disks.disk_users(id)?;
        // A target is logged in to once, by the process of one machine.
        let alone = disks.disk(id)?.is_some_and(|row| row.kind == DiskKind::Iscsi);
        let clash = users.iter().find(|u| u.active && u.machine != machine.id && (alone || writes || u.writes));
        if let Some(user) = clash {
            return Err(Refusal::new(Reason::InUse, format_args!("disk {name}")).note(format_args!("by machine {}", user.name)));
        }
        // Whoever has it by earlier settings.
        if disks.iscsi(id)?.and_then(|row| row.machine).is_some_and(|other| other != machine.id) {
            return Err(Refusal::new(Reason::InUse, format_args!("disk {name}")).note("by a machine that was started with it"));
        }
    }
    Ok(())
}

/// Makes the cell of a machine and starts the hypervisor in it (ARCHITECTURE.md, "How a machine starts"). `watch` gets the runner's
/// events before the hypervisor is started. After a failure the cell may be half-made: the caller clears it away.
pub async fn make(broker: &std::rc::Rc<Broker>, who: &Who, id: MachineId, watch: impl FnOnce(Port)) -> Result<(), Refusal> {
    let turn = broker.turn(id);
    let _turn = turn.lock().await;
    let machine = load(broker, id)?;
    let object = format!("machine {}", machine.name);
    let slot = machine.slot.ok_or_else(|| Refusal::new(Reason::Internal, &object).note("it has no slot"))?;
    broker.read(|db| check_disks(broker, db, &machine))?;
    let mut spec = machine.spec.clone();
    if spec.boot == Boot::Uefi {
        let (order, []) = broker.storage.call(who, WhoseOrder { machine: id }).await.map_err(|r| about(r, &object))?;
        spec.own_order = order.own;
    }
    spec.layers = layers::of(broker, &spec.disks)?;
    spec.rates = layers::rates(broker, &spec.disks)?;
    let (file, kvm) = config(broker, who, &machine, &spec, None).await?;
    spec.accelerated = kvm;
    let spec = &spec;

    let mut parts = vec![(FdRole::Config, file)];
    let mut file_limit = 0;
    match &spec.boot {
        Boot::Uefi => {
            let (_, [vars]) = broker.storage.call(who, OpenVars { machine: id }).await.map_err(|r| about(r, &object))?;
            parts.push((FdRole::Vars, vars));
        }
        Boot::Loader | Boot::Bios => {}
        Boot::Direct { kernel, initrd, .. } => {
            let whole = |disk| layers::whole(broker, disk);
            parts.push((FdRole::Kernel, open(broker, who, whole(*kernel)?, machine.files.0.as_str()).await?.0));
            if let Some(initrd) = initrd {
                parts.push((FdRole::Initrd, open(broker, who, whole(*initrd)?, machine.files.1.as_str()).await?.0));
            }
        }
    }
    let mut layers = Vec::new();
    for (slot, (disk, name)) in (0..).zip(spec.disks.iter().zip(&machine.disk_names)) {
        if disk.flags.ejected {
            continue;
        }
        if disk_servers::serves(disk.kind) {
            let served = disk_servers::start(broker, who, &machine, spec, (slot, disk)).await;
            let served = served.map_err(|r| if disk.kind == DiskKind::Iscsi { noting(r, name.as_str()) } else { r });
            parts.push((FdRole::Disk(slot), served.map_err(|r| about(r, &format!("disk {name}")))?));
            continue;
        }
        if disk.kind == DiskKind::Iscsi {
            continue;
        }
        let under = spec.layers.iter().find(|layers| layers.slot == slot);
        let top = under.map_or(disk.disk, |layers| layers.top);
        let (file, opened) = open(broker, who, OpenDisk { disk: top, ..OpenDisk::from(disk) }, name.as_str()).await?;
        let object = format!("disk {name}");
        let below = layers::open(broker, who, under, disk.flags).await.map_err(|r| about(r, &object))?;
        if !disk.read_only {
            file_limit = file_limit.max(opened.most);
        }
        parts.push((FdRole::Disk(slot), file));
        layers.extend(below);
    }
    let log = OpenLogWriter { machine: id, log: LogKind::Hypervisor };
    let (_, [log, _]) = broker.storage.call(who, log).await.map_err(|r| about(r, &object))?;
    parts.push((FdRole::Log, log));
    let nics = broker.read(|db| db.nics_of(id))?;
    for (slot, nic) in (0..).zip(&nics) {
        let switch = nic.switch.as_ref().map(|(.., number)| *number);
        let call = CreateTap { machine: id, nic: nic.id, number: nic.number, switch };
        let (_, [tap]) = broker.net.call(who, call).await.map_err(|r| about(r, &format!("nic {}", nic.name)))?;
        parts.push((FdRole::Tap(slot), tap));
        // Before anybody has the tap's other end.
        let brought = taps::bring(broker, who, nic.id, Some(Tap::new(switch))).await;
        brought.map_err(|r| about(r, &format!("nic {}", nic.name)))?;
    }
    {
        // Where they are by now.
        let _turn = broker.moves.lock().await;
        let nics = broker.read(|db| db.nics_of(id))?;
        served::join(broker, who, &machine, &nics).await;
    }

    let (roles, fds): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
    let can_limit_tasks = broker.facilities(who).await?.limits.iter().any(|l| l.as_str() == "tasks");
    let asked = spec.model(id)?.limits;
    let limits = Limits {
        memory: asked.memory_mib.map(|mib| u64::from(mib) << 20),
        cpu_percent: asked.cpu_percent,
        // If nothing is said: a thread for each CPU, QEMU's pool of 64, and some.
        tasks: asked.tasks.or(can_limit_tasks.then_some(spec.cpus + 128)),
        pcpu: asked.pcpu,
        read_bps: asked.read_bps,
        write_bps: asked.write_bps,
        read_iops: asked.read_iops,
        write_iops: asked.write_iops,
        cpus: CpuList(asked.cpus),
        bound: CpuList(asked.pins.into_values().collect()),
        priority: asked.priority,
        protect: asked.protect,
        wired: asked.wired.then_some((spec.memory_mib << 20).saturating_add(parts::WIRED_BESIDE)),
    };
    let fds = UpTo::from_vec(fds).map_err(|_| Refusal::new(Reason::LimitReached, &object).note("too many disks and NICs"))?;
    let serial = spec.ports().iter().map(|port| port.port()).collect();
    let sound_in = spec.sound_in.filter(|dsp| spec.sound_out != Some(*dsp));
    let sound = [spec.sound_out, sound_in].into_iter().flatten().filter(|_| spec.sound).collect();
    let (remotes, shares) = (if platform::SERVES { Vec::new() } else { remote::of(spec) }, spec.shares.clone());
    let remote = remotes.iter().map(|(slot, _)| *slot).collect();
    let call = MakeCell { machine: id, slot, limits, fds: roles, kvm, file_limit, shares, serial, sound, remote };
    // First, so that a broker that comes back to a running machine knows with what.
    broker.change(who, |change| change.set_machine_applied(id, spec, skep_service::now_ns()))?;
    let (made, logs) = tokio::join!(broker.cells.call_with(who, call, fds), consoles::logs(broker, who, id, spec.ports()));
    made.map_err(|r| about(r, &object))?;
    let begin = async {
        let mut runner = broker.lent_runner(id).await?;
        layers::keep(who, &mut runner, layers).await?;
        let console = consoles::begin(broker, who, id, slot, &mut runner, logs?).await?;
        let rest = async {
            for (slot, disk) in &remotes {
                let name = machine.disk_names.get(usize::from(*slot)).map_or("", |name| name.as_str());
                remote::serve(broker, who, id, &mut runner, *slot, disk).await.map_err(|refusal| noting(refusal, name))?;
            }
            runner.ask(who, Watch {}, [], PATIENCE).await
        };
        let (console, rest) = tokio::join!(console, rest);
        console?;
        let (_, [events]) = rest?;
        // Whoever is told so finds the console-proxy there.
        watch(Port::new(events).map_err(|e| Refusal::io(&object, "watch its runner", &e))?);
        runner.ask(who, runner::Start {}, [], START).await
    };
    begin.await.map(|_| ()).map_err(|r| about(r, &object))
}

/// Which disk it is, where the object is its target.
fn noting(refusal: Refusal, disk: &str) -> Refusal {
    let note = format!("disk {disk}: {}", refusal.note);
    refusal.note(note)
}

/// Users know names, helpers ids.
fn about(mut refusal: Refusal, object: &str) -> Refusal {
    if refusal.reason != Reason::Unavailable {
        refusal.object = skep_proto::Text::lossy(object);
    }
    refusal
}

impl From<&Disk> for OpenDisk {
    fn from(disk: &Disk) -> Self {
        let Disk { disk, kind, read_only, flags, .. } = *disk;
        Self { disk, kind, read_only, no_cache: flags.no_cache, sync: flags.sync }
    }
}

/// Opens a disk.
async fn open(broker: &Broker, who: &Who, call: OpenDisk, name: &str) -> Result<(OwnedFd, DiskOpened), Refusal> {
    let (opened, [file]) = broker.storage.call(who, call).await.map_err(|r| about(r, &format!("disk {name}")))?;
    Ok((file, opened))
}

/// Reads a runner's events until it is gone: one after the other, and no more than there is reason for, whatever has become of it.
pub async fn listen(broker: &Broker, machine: MachineId, port: Port, tell: impl AsyncFn(Input)) {
    loop {
        let event = port.recv().await.ok().filter(|r| r.fds.is_empty()).and_then(|r| wire::decode::<RunnerEvent>(&r.bytes).ok());
        match event {
            // The end itself may have been told before we listened.
            Some(RunnerEvent::Phase(Phase::Ended)) => {
                let state = broker.ask_runner(&Who::broker(), machine, Status {}).await;
                if let Ok((runner::RunnerState { last_end: Some(end), .. }, [])) = state {
                    tell(Input::Ended(end)).await;
                }
            }
            Some(RunnerEvent::Phase(phase)) => tell(Input::Phase(phase)).await,
            Some(RunnerEvent::Ended(end)) => tell(Input::Ended(end)).await,
            None => return tell(Input::Lost).await,
        }
        sleep(BREATH).await;
    }
}

/// Asks what has become of a machine whose runner the spawner found alive.
pub async fn look(broker: &Broker, who: &Who, machine: MachineId) -> (Found, Option<Port>) {
    let Ok((state, [])) = broker.ask_runner(who, machine, Status {}).await else { return (Found::Nothing, None) };
    match state.phase {
        Phase::Ready | Phase::Starting if state.starts <= 1 => (Found::Unready, None),
        Phase::Ended => (Found::Ended(state.last_end.unwrap_or(End::Killed)), None),
        phase => match broker.ask_runner(who, machine, Watch {}).await.map(|(_, [events])| Port::new(events)) {
            Ok(Ok(port)) => (Found::Alive(phase), Some(port)),
            _ => (Found::Nothing, None),
        },
    }
}

/// Tells a runner what a user asked for.
pub async fn tell(broker: &Broker, who: &Who, machine: MachineId, act: Act) -> Result<(), Refusal> {
    let done = match act {
        Act::Start => return Ok(()),
        Act::Stop(_) | Act::Reboot => broker.ask_runner(who, machine, PowerButton {}).await,
        Act::Kill => broker.ask_runner(who, machine, Kill {}).await,
        Act::Reset => broker.ask_runner(who, machine, Reset {}).await,
        Act::Pause => broker.ask_runner(who, machine, Pause {}).await,
        Act::Resume => broker.ask_runner(who, machine, Resume {}).await,
    };
    done.map(|_| ())
}

/// Gives a runner the configuration for its next start of the hypervisor: what a reboot can take over. Disks that are to go on in other files,
/// or to be held to other rates, do so at once. None: nothing.
pub async fn configure(broker: &Broker, who: &Who, id: MachineId) -> Result<Option<Spec>, Refusal> {
    let turn = broker.turn(id);
    let _turn = turn.lock().await;
    let machine = load(broker, id)?;
    let Some(applied) = &machine.applied else { return Ok(None) };
    let mut now = layers::followed(broker, applied)?;
    now.rates = layers::rates(broker, &now.disks)?;
    let next = now.at_reboot(&machine.spec);
    let (file, _) = config(broker, who, &machine, &next, Some(applied.accelerated)).await?;
    if now.layers == applied.layers {
        broker.runner(who, id, Configure {}, [file], PATIENCE).await?;
    } else {
        let (disks, fds, under) = layers::switch(broker, who, applied, &now).await?;
        let mut runner = broker.lent_runner(id).await?;
        layers::keep(who, &mut runner, under).await?;
        let fds = UpTo([file].into_iter().chain(fds).collect());
        runner.ask(who, SwitchDisks { disks }, fds, START).await?;
        // What comes next may fail.
        let switched = Spec { rates: applied.rates.clone(), ..now.clone() };
        broker.change(who, |change| change.set_machine_applied(id, &switched, machine.started_ns))?;
    }
    if now.rates != applied.rates {
        for (slot, disk) in (0..).zip(&now.disks) {
            let rates = now.rates_of(slot);
            if rates != applied.rates_of(slot) && !disk.flags.ejected {
                broker
                    .runner(who, id, LimitDisk { slot, rates }, [], PATIENCE)
                    .await
                    .map_err(|r| about(r, &format!("disk {slot}")))?;
            }
        }
        broker.change(who, |change| change.set_machine_applied(id, &now, machine.started_ns))?;
    }
    Ok(Some(next))
}

/// Has the hypervisor of a machine make a disk larger.
pub async fn grow(broker: &Broker, who: &Who, id: MachineId, call: GrowDisk) -> Result<(), Refusal> {
    let turn = broker.turn(id);
    let _turn = turn.lock().await;
    broker.runner(who, id, call, [], START).await.map(drop)
}

/// Clears away what is left of a cell; waits for helpers that are being restarted, as long as it takes. `ended` waits for the
/// runner; the spawner does for the console-proxy.
pub async fn clear(
    broker: &Broker, who: &Who, machine: MachineId, kill: bool, ended: impl Future<Output = ()>,
) -> Result<(), Refusal> {
    let left = !kill && broker.runner(who, machine, Leave {}, [], LEAVE).await.is_ok() && timeout(LEAVE, ended).await.is_ok();
    let (mut kill, mut pause) = (!left, BACK_OFF.0);
    loop {
        let swept = async {
            let row = broker.read(|db| db.machine(machine))?;
            if kill {
                // One that waits for a disk cannot be killed.
                if let Some(row) = &row {
                    disk_servers::end(broker, who, row).await?;
                }
                broker.cells.call(who, KillCell { machine }).await?;
            }
            broker.cells.call(who, SweepCell { machine }).await?;
            match &row {
                Some(row) => disk_servers::end(broker, who, row).await,
                None => Ok(()),
            }
        };
        match swept.await {
            Ok(_) => break,
            Err(refusal) if refusal.reason == Reason::Unavailable => {
                sleep(pause).await;
                pause = (pause * 2).min(BACK_OFF.1);
                broker.cells.wait().await;
            }
            Err(refusal) if refusal.reason == Reason::InUse && !kill => kill = true,
            Err(refusal) => return Err(refusal),
        }
    }
    remote::stop_all(broker, who, machine).await?;
    let nics = broker.read(|db| db.nics_of(machine))?;
    served::leave(broker, who, &nics).await;
    for nic in nics {
        // Where a tap outlives its descriptor (FreeBSD). One that stays is found again by its number.
        if let Err(refusal) = broker.net.call(who, DeleteTap { number: nic.number }).await {
            broker.warn(who.trace, format_args!("nic {}: {refusal}", nic.name));
        }
    }
    Ok(())
}
