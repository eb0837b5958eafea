//! `MachineLaunch`: from an image to a guest at work.

use super::copies::{self, How, Source, Way};
use super::machine::free_name;
use super::{Cx, disk, find_disk, find_switch, group, nic, switch};
use crate::actor::Msg;
use crate::broker::Broker;
use crate::db::disks::{DiskRow, Stage};
use crate::db::guests::Guests;
use crate::db::machines::{MachineRow, Machines};
use crate::db::nics::NicRow;
use crate::db::{Change, Who};
use crate::jobs::{self, Job};
use crate::operations::Operation;
use crate::policy;
use crate::served;
use skep_proto::broker::{
    Act, Controller, DiskDraft, DiskFlags, GuestData, MAX_GUEST_DATA, MachineLaunch, MachineState, NicModel, OperationView, Role,
    SwitchCreate, SwitchKind,
};
use skep_proto::storage::{DiskKind, ImportDisk, Packing, ResizeDisk, SourceFormat};
use skep_proto::{DiskName, MachineName, NicName, Reason, Refusal, Text, UpTo, upload};
use std::fmt::Display;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::str::FromStr;
use tokio::io::AsyncWriteExt;
use tokio::net::unix::pipe;
use tokio::sync::oneshot;

/// The switch that machines are launched on if nobody says another.
const DEFAULT_SWITCH: &str = "default";

/// A machine to be.
struct Launch {
    machine: MachineRow,
    image: DiskRow,
    disk: DiskRow,
    seed: DiskRow,
    nic: NicRow,
}

fn derived<T: FromStr<Err: Display>>(c: &MachineLaunch, end: &str) -> Result<T, Refusal> {
    let text = format!("{}-{end}", c.name);
    text.parse().map_err(|e| Refusal::new(Reason::InvalidValue, text).field("name").note(e))
}

/// Refuses less than the image says that its machines need.
fn at_least(field: &str, given: u64, least: u64, unit: &str, name: &MachineName, image: &DiskRow) -> Result<(), Refusal> {
    if given >= least {
        return Ok(());
    }
    let refusal = Refusal::new(Reason::InvalidValue, format_args!("machine {name}")).field(field);
    Err(refusal.note(format_args!("{given} {unit}; image {} needs {least}", image.name)))
}

/// Writes it as being made: names taken, nothing usable.
fn reserve(cx: &Cx, change: &Change<'_>, c: &MachineLaunch, how: How) -> Result<(Launch, Way), Refusal> {
    let broker = &cx.broker;
    free_name(change, &c.name)?;
    let image = find_disk(change, c.image.as_str())?;
    disk::still(broker, &image, change)?;
    let switch = find_switch(change, c.switch.as_ref().map_or(DEFAULT_SWITCH, Text::as_str))?;
    let group = group::named(change, c.group.as_ref())?.id;
    policy::open_to(change, &cx.user, Role::Operator, &switch, Some(group))?;
    if c.size > 0 && c.size < image.size {
        let refusal = Refusal::new(Reason::InvalidValue, format_args!("machine {}", c.name)).field("size_bytes");
        return Err(refusal.note(format_args!("{} bytes are less than image {} has: {}", c.size, image.name, image.size)));
    }
    let names: [DiskName; 2] = [derived(c, "root")?, derived(c, "seed")?];
    let [root, seed] = &names;
    let facts = image.image.clone().unwrap_or_default();
    let size = match c.size {
        0 => image.size.max(facts.min_disk.next_multiple_of(512)),
        size => size,
    };
    at_least("size_bytes", size, facts.min_disk, "bytes", &c.name, &image)?;
    let (root, way) = copies::reserve(broker, change, &Source { disk: image.clone(), snapshot: None }, (root, size, group), how)?;
    let kind = if image.kind == DiskKind::Zvol { DiskKind::Zvol } else { DiskKind::Raw };
    let seed = disk::reserve(broker, change, seed, kind, skep_seed::SIZE as u64, group)?;
    let mut machine = MachineRow::new(c.name.clone());
    (machine.stage, machine.group) = (Stage::Creating, group);
    machine.description = c.settings.description.clone().unwrap_or_default();
    machine.upkeep = crate::upkeep::edited(machine.upkeep, &c.settings.upkeep, machine.name.as_str())?;
    let draft = |name: &DiskName, read_only| DiskDraft {
        disk: Text::lossy(name.as_str()),
        controller: Controller::VirtioBlk,
        read_only,
        flags: DiskFlags::default(),
        on: None,
    };
    let [root_name, seed_name] = &names;
    let mut settings = c.settings.clone();
    settings.disks = Some(vec![draft(root_name, false), draft(seed_name, true)]);
    let memory = u64::from(facts.min_memory);
    match settings.memory_mib {
        None => settings.memory_mib = Some(machine.spec.memory_mib.max(memory)),
        Some(given) => at_least("memory", given, memory, "MiB", &c.name, &image)?,
    }
    machine.spec.edit(&settings, |name| match name {
        name if name == root_name.as_str() => Ok(root.clone()),
        name if name == seed_name.as_str() => Ok(seed.clone()),
        other => find_disk(change, other),
    })?;
    machine.spec.check(machine.id, machine.name.as_str())?;
    broker.within_quota(change, machine.group, || Ok(change.add_machine(&machine)?))?;
    let name: NicName = c.name.as_str().parse().map_err(|e| Refusal::new(Reason::InvalidValue, c.name.as_str()).note(e))?;
    let on = Some((switch.id, Text::lossy(switch.name.as_str()), switch.number));
    let nic = nic::add(change, &name, on, None, group, (NicModel::VirtioNet, None, None), nic::Traffic::default())?;
    change.set_nic_made_for(nic.id, machine.id, None)?;
    Ok((Launch { machine, image, disk: root, seed, nic }, way))
}

/// The switch is there, or is made: a NAT switch, if it is the default one.
async fn switch_is_there(cx: &Cx, c: &MachineLaunch) -> Result<(), Refusal> {
    if c.switch.is_some() || cx.broker.read(|db| find_switch(db, DEFAULT_SWITCH)).is_ok() {
        return Ok(());
    }
    if cx.user.rights.host < Some(Role::Admin) {
        let refusal = Refusal::new(Reason::NotFound, format_args!("switch {DEFAULT_SWITCH}"));
        return Err(refusal
            .note("an administrator has to make it: `skep switch create default --kind nat`, and `skep switch open default`"));
    }
    let name = DEFAULT_SWITCH.parse().map_err(|e| Refusal::new(Reason::Internal, DEFAULT_SWITCH).note(e))?;
    // Not what the request is about, if it comes again.
    let mut cx = cx.clone();
    cx.who.once = None;
    match switch::make(&cx, SwitchCreate { name, uplink: None, kind: SwitchKind::Nat, subnet: None, tunnel: None, subnet6: None })
        .await
    {
        // Somebody else's was first.
        Err(refusal) if refusal.reason == Reason::AlreadyExists && refusal.field.as_str() == "name" => Ok(()),
        made => made.map(drop),
    }
}

/// `MachineLaunch`. What the guest is to be told comes through the pipe whose end is given back.
pub async fn launch(cx: &Cx, c: MachineLaunch) -> Result<(OperationView, UpTo<1>), Refusal> {
    let Cx { broker, who, .. } = cx;
    if let Some(id) = cx.before(disk::operation)? {
        return Ok((broker.operation(id)?, UpTo(Vec::new())));
    }
    switch_is_there(cx, &c).await?;
    let object = format!("machine {}", c.name);
    let (reader, writer) =
        nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).map_err(|e| Refusal::io(&object, "make a pipe", &e.into()))?;
    let group = broker.read(|db| group::named(db, c.group.as_ref()))?.id;
    let how = How::ask(broker, who, false).await?;
    let begin = Operation::begin(broker, who, group, "launch", &object, |change, _| reserve(cx, change, &c, how));
    let ((launch, way), mut operation) = begin?;
    let view = operation.view();
    let mut held = vec![launch.disk.id, launch.seed.id];
    // Others are made from the same image meanwhile.
    held.extend((!matches!(way, Way::Upon(_))).then_some(launch.image.id));
    let hold = broker.hold(held);
    let (broker, who) = (broker.clone(), who.clone());
    tokio::task::spawn_local(async move {
        let made = make(&broker, &who, &mut operation, &launch, way, reader).await;
        drop(hold);
        if let Err(refusal) = made {
            forget(&broker, &who, &launch).await;
            return operation.finish(Err(refusal));
        }
        // From here on it is a machine as others are.
        let started = run(&broker, &who, &operation, &launch, c.wait).await;
        operation.finish(started);
    });
    Ok((view, UpTo(vec![writer])))
}

async fn make(
    broker: &Rc<Broker>, who: &Who, operation: &mut Operation, launch: &Launch, way: Way, reader: OwnedFd,
) -> Result<(), Refusal> {
    let Launch { machine, image, disk, seed, nic } = launch;
    let data = told(reader).await?;
    broker.change(who, |change| change.set_guest(machine.id, &data, seed.id))?;
    let mut done = copies::make(broker, operation, way, |done, total| (done, total)).await?;
    if disk.size > done.disk.size {
        let call = ResizeDisk { disk: disk.id, kind: disk.kind, size: disk.size, shrink: false };
        (done.disk, _) = broker.storage.call(who, call).await?;
    }
    let document = served::document(machine, &data, &[nic.mac]);
    let bytes = skep_seed::disk(&document).map_err(|e| Refusal::new(Reason::InvalidValue, "").field("user_data").note(e))?;
    let written = write_seed(broker, operation, seed, bytes).await?;
    // All of it is whole at once.
    broker.change(who, |change| {
        disk::finish(broker, change, disk, &done)?;
        disk::finish(broker, change, seed, &written)?;
        change.set_machine_stage(machine.id, Stage::Ready)?;
        Ok(change.event("machine", machine.id, &machine.name, "created", format_args!("from image {}", image.name))?)
    })
}

/// Reads what the guest is to be told, to the end mark.
async fn told(reader: OwnedFd) -> Result<GuestData, Refusal> {
    let wrong = |note: &str| Refusal::new(Reason::InvalidValue, "").field("user_data").note(note);
    let bytes = super::piped(reader, MAX_GUEST_DATA).await?;
    let bytes = bytes.ok_or_else(|| wrong("keys and user data have more bytes than fit a seed"))?;
    match postcard::take_from_bytes(&bytes) {
        Ok((data, [])) => Ok(data),
        _ => Err(wrong("it cannot be read")),
    }
}

/// Fills the seed's disk, as an import that comes from here.
pub(super) async fn write_seed(
    broker: &Rc<Broker>, operation: &mut Operation, seed: &DiskRow, bytes: Vec<u8>,
) -> Result<skep_proto::storage::JobDone, Refusal> {
    let failed = |e: std::io::Error| Refusal::io(format_args!("disk {}", seed.name), "write the seed", &e);
    let (reader, writer) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).map_err(|e| failed(e.into()))?;
    skep_sys::fd::set_nonblocking(std::os::fd::AsFd::as_fd(&writer), true).map_err(failed)?;
    let mut pipe = pipe::Sender::from_owned_fd(writer).map_err(failed)?;
    let size = bytes.len() as u64;
    let (disk, kind, format, packing) = (seed.id, seed.kind, SourceFormat::Raw, Packing::None);
    let call = ImportDisk { disk, kind, format, packing, limit: size, most: size, expect: size, sha256: None };
    let write = async move {
        let Some(header) = upload::header(bytes.len()) else { return };
        for part in [&header[..], &bytes, &upload::END] {
            // Whoever reads says why he reads no more.
            if pipe.write_all(part).await.is_err() {
                return;
            }
        }
    };
    let (done, ()) = tokio::join!(jobs::run(broker, operation, Job::Import(call, reader), |_, _| (1, 1)), write);
    done
}

/// Starts it, and waits until its guest has phoned home, if that is wanted.
async fn run(broker: &Rc<Broker>, who: &Who, operation: &Operation, launch: &Launch, wait: bool) -> Result<(), Refusal> {
    let id = launch.machine.id;
    let away = || Refusal::new(Reason::Unavailable, "").note("it is being deleted");
    let mut news = broker.news();
    let machine = broker.read(|db| db.machine(id))?.ok_or_else(away)?;
    let (reply, answer) = oneshot::channel();
    broker.actor(&machine).send(Msg::Act(Act::Start, who.clone(), reply)).map_err(|_| away())?;
    let start = answer.await.unwrap_or_else(|_| Err(away()))?;
    let started = broker.operation_ended(start.id).await?;
    if let skep_proto::broker::OperationState::Failed(refusal) = started.state {
        return Err(refusal);
    }
    let home = async {
        loop {
            let (machine, home) = broker.read(|db| Ok::<_, Refusal>((db.machine(id)?, db.guest_is_home(id)?)))?;
            let machine = machine.ok_or_else(away)?;
            if home {
                return Ok(());
            }
            if matches!(machine.state, MachineState::Stopped | MachineState::Failed) {
                let refusal = Refusal::new(Reason::WrongState, "");
                return Err(refusal.note("the machine has ended before its guest phoned home: `skep vm log` shows its console"));
            }
            if news.changed().await.is_err() {
                return Err(away());
            }
        }
    };
    if !wait {
        return Ok(());
    }
    tokio::select! {
        result = home => result,
        _ = operation.cancelled() => Err(Refusal::new(Reason::Cancelled, "").note("the machine stays; its guest has not phoned home yet")),
    }
}

async fn forget(broker: &Rc<Broker>, who: &Who, launch: &Launch) {
    let doomed = broker.change(who, |change| {
        super::machine_jobs::doom(change, launch.machine.id)?;
        [&launch.disk, &launch.seed].into_iter().try_for_each(|disk| change.disk_doomed(disk.id))
    });
    if let Err(fault) = doomed {
        return broker.warn(who.trace, format_args!("machine {}: {fault}", launch.machine.name));
    }
    broker.delete_machine_files(who, launch.machine.id).await;
    for disk in [&launch.disk, &launch.seed] {
        broker.delete_file(who, disk.id).await;
    }
}
