//! `skep install`: from a vendor's ISO image and a file with answers to an image and a template of one's own.
//!
//! It asks the suite for nothing that anybody could not ask for: a machine, disks, its serial port, an image. The suite never sees a template, a
//! script or answers, and no process of it reads what a guest says. Where it stands is written in the description of its machine, which
//! is there before all else of it and goes last: so what a killed command leaves is found by the next, which goes on with it or clears it away.

mod initrd;
mod iso9660;
mod made;
mod media;
mod watch;

use super::expect::Stage;
use super::{Ctx, script, template};
use crate::args::{InstallArgs, SeedArg};
use crate::error::Failure;
use crate::operation::{self, Interrupt};
use crate::output::Output;
use crate::templates::install::Install;
use crate::templates::{self, Found, Template};
use media::Media;
use prost_types::FieldMask;
use serde_json::json;
use skep_api::v1::disks_client::DisksClient;
use skep_api::v1::{
    Boot, CloneDiskRequest, Controller, CreateDiskRequest, CreateMachineRequest, CreateNicRequest, DeleteDiskRequest,
    DeleteMachineRequest, DeleteNicRequest, DetachNicRequest, DirectBoot, DiskAttachment, GetDiskRequest, GetMachineRequest,
    ImageFacts, Machine, MachineActRequest, MachineSettings, MachineState, Operation, UefiBoot, UpdateMachineRequest, boot,
};
use skep_proto::{DiskName, Reason, Refusal};
use std::cell::Cell;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use watch::{Course, News, Signals};

/// How long an installation may take, if nobody says it.
const TIMEOUT: Duration = Duration::from_secs(2 * 3600);
/// Bytes of the disk that is installed to, if nobody says it.
const DISK: u64 = 8 << 30;

/// How far one is, as its machine's description says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stand {
    /// Its disks are being made.
    Preparing,
    /// The script is at work.
    Talking,
    /// The script is at its end: the installer goes on by itself, or has done so.
    Alone,
}

impl Stand {
    const ALL: [(Self, &'static str); 3] =
        [(Self::Preparing, "preparing"), (Self::Talking, "answering what it asks"), (Self::Alone, "at work by itself")];

    fn mark(self, name: &str) -> String {
        let word = Self::ALL.iter().find(|(stand, _)| *stand == self).map_or("", |(_, word)| word);
        format!("skep install {name}: {word}")
    }

    fn of(machine: &Machine, name: &str) -> Option<Self> {
        let said = machine.settings.as_ref()?.description();
        Self::ALL.iter().find(|(stand, _)| stand.mark(name) == said).map(|(stand, _)| *stand)
    }
}

/// What an installation's things are called.
struct Names {
    machine: String,
    root: String,
    answers: String,
    kernel: String,
    initrd: String,
}

impl Names {
    fn of(name: &str) -> Result<Self, Failure> {
        let of = |end: &str| {
            let text = format!("install-{name}{end}");
            let wrong = |why| Refusal::new(Reason::InvalidValue, format_args!("image {name}")).field("NAME").note(why);
            name.parse::<DiskName>().map_err(wrong)?;
            text.parse::<DiskName>().map_err(|_| {
                let note = format!("at most 47 characters, since a disk will be called {text}");
                Failure::from(Refusal::new(Reason::InvalidValue, format_args!("image {name}")).field("NAME").note(note))
            })?;
            Ok::<_, Failure>(text)
        };
        Ok(Self {
            machine: of("")?,
            root: of("-root")?,
            answers: of("-answers")?,
            kernel: of("-kernel")?,
            initrd: of("-initrd")?,
        })
    }
}

/// What is to be done.
struct Plan {
    args: InstallArgs,
    found: Found,
    template: Template,
    install: Install,
    answers: Vec<u8>,
    stages: Vec<Stage>,
    names: Names,
    file: PathBuf,
    quiet: Output,
    /// Whether the machine of that name is this command's to clear away.
    ours: Cell<bool>,
}

fn plan(args: InstallArgs, output: Output) -> Result<Plan, Failure> {
    let directories = templates::directories();
    let none = || templates::missing(&directories, &args.template);
    let found = templates::find(&directories, &args.template).ok_or_else(none)?;
    let template = template::good(&found)?.clone();
    let mut install = template.install.clone().ok_or_else(|| {
        let why = if template.note.is_empty() { "it does not say how to install it" } else { &template.note };
        let failure = Failure::new(Reason::Unsupported, format_args!("template {}", args.template), why);
        failure.advice("it needs a table [install]: docs/install.md")
    })?;
    if args.script.is_some() {
        // It may be there to answer just those.
        install.failed.clear();
    }
    let answers = media::answers(&args.answers)?;
    let stages = match &args.script {
        Some(path) => script::read(path)?,
        None if install.script.is_empty() => Vec::new(),
        None => script::parse(&install.script).map_err(|(line, why)| {
            Failure::new(Reason::InvalidValue, format_args!("template {}, install.script, line {line}", args.template), why)
        })?,
    };
    let names = Names::of(&args.name)?;
    let file = match made::place(&directories, &args.name) {
        Ok(file) => file,
        // It may be what a killed command has left to be cleared away.
        Err(failure) if failure.reason == Reason::AlreadyExists.row().name => {
            directories.first().cloned().unwrap_or_default().join(format!("{}.toml", args.name))
        }
        Err(failure) => return Err(failure),
    };
    Ok(Plan {
        args,
        found,
        template,
        install,
        answers,
        stages,
        names,
        file,
        quiet: Output { quiet: true, ..output },
        ours: Cell::new(false),
    })
}

/// Runs it.
pub async fn run(ctx: Ctx, args: InstallArgs) -> Result<u8, Failure> {
    let plan = plan(args, ctx.output)?;
    let mut signals = Signals::listen()?;
    let deadline = Instant::now() + plan.args.timeout.or(plan.install.timeout).unwrap_or(TIMEOUT);
    let resumed = left(&ctx, &plan).await?;
    let worked = match resumed {
        Some(machine) => {
            plan.ours.set(true);
            ctx.output.remark(format_args!("install {}: goes on with what an earlier command has begun", plan.args.name));
            resume(&ctx, &plan, &machine, &mut signals, deadline).await
        }
        None => begin(&ctx, &plan, &mut signals, deadline).await,
    };
    if let Err(failure) = worked {
        return Err(undo(&ctx, &plan, failure).await);
    }
    let done = async {
        if plan.install.halts {
            off(&ctx, &plan).await?;
        }
        finish(&ctx, &plan).await
    };
    let done = done.await;
    let name = &plan.args.name;
    done.map_err(|failure| {
        let advice = format!("it is installed: the same command makes image and template of machine {}", plan.names.machine);
        failure.advice(advice)
    })?;
    if ctx.output.json {
        ctx.output.line(json!({"template": name, "image": name, "file": plan.file.display().to_string()}));
    } else {
        ctx.output.remark(format_args!("template {name}: made; `skep launch {name} NAME` makes a machine of it"));
    }
    Ok(0)
}

async fn machine(ctx: &Ctx, plan: &Plan) -> Result<Option<Machine>, Failure> {
    match ctx.api.machines().get(GetMachineRequest { machine: plan.names.machine.clone() }).await {
        Ok(machine) => Ok(Some(machine.into_inner())),
        Err(status) if status.code() == tonic::Code::NotFound => Ok(None),
        Err(status) => Err(status.into()),
    }
}

/// Whether there is an image of the name that is to be, which is that of our machine's disk; another one is refused.
async fn has_image(ctx: &Ctx, plan: &Plan) -> Result<bool, Failure> {
    let name = &plan.args.name;
    let disk = match ctx.api.disks().get(GetDiskRequest { disk: name.clone() }).await {
        Ok(disk) => disk.into_inner(),
        Err(status) if status.code() == tonic::Code::NotFound => return Ok(false),
        Err(status) => return Err(status.into()),
    };
    if disk.image.is_some_and(|image| image.source == format!("disk {}", plan.names.root)) {
        return Ok(true);
    }
    Err(Failure::new(Reason::AlreadyExists, format_args!("disk {name}"), "the image would have its name"))
}

/// The machine of an earlier command that can be gone on with. What can not is cleared away, if that is wanted.
async fn left(ctx: &Ctx, plan: &Plan) -> Result<Option<Machine>, Failure> {
    let (name, object) = (&plan.args.name, format!("machine {}", plan.names.machine));
    let found = machine(ctx, plan).await?;
    let stand = match &found {
        None => None,
        Some(machine) => Some(Stand::of(machine, name).ok_or_else(|| {
            Failure::new(
                Reason::AlreadyExists,
                &object,
                "the machine that installs would have its name; it is none of `skep install`'s",
            )
        })?),
    };
    let there = has_image(ctx, plan).await?;
    match (found, stand, plan.args.anew) {
        (Some(machine), Some(Stand::Alone), false) => return Ok(Some(machine)),
        (Some(_), _, false) => {
            let failure = Failure::new(Reason::WrongState, object, "an installation that is not at its end, or was broken off");
            return Err(failure.advice("--anew throws it away and begins anew, if no other `skep install` is at work on it"));
        }
        (Some(_), _, true) => clear(ctx, plan).await?,
        (None, ..) => {}
    }
    if there {
        return Err(Failure::new(Reason::AlreadyExists, format_args!("image {name}"), "it was installed before"));
    }
    if plan.file.exists() {
        return Err(Refusal::new(Reason::AlreadyExists, format_args!("template {name}")).note(plan.file.display()).into());
    }
    Ok(None)
}

fn over(machine: &Machine) -> bool {
    matches!(machine.state(), MachineState::Stopped | MachineState::Failed)
}

async fn resume(ctx: &Ctx, plan: &Plan, machine: &Machine, signals: &mut Signals, deadline: Instant) -> Result<(), Failure> {
    // The script was at its end, so it has halted.
    if plan.install.halts {
        return Ok(());
    }
    let mut news = News::begin(ctx).await?;
    let machine = ctx.api.machines().get(GetMachineRequest { machine: machine.id.clone() }).await?.into_inner();
    match watch::ended(&machine) {
        Some(how) => how,
        None => {
            let course = Course { stages: &[], failed: &plan.install.failed, halts: false, deadline };
            signals.or(watch::run(ctx, &machine, course, &mut news, async || Ok(()))).await
        }
    }
}

async fn begin(ctx: &Ctx, plan: &Plan, signals: &mut Signals, deadline: Instant) -> Result<(), Failure> {
    let Plan { args, install, names, template, .. } = plan;
    let media = media::gather(ctx, args, &plan.found, install, &plan.answers).await?;
    let memory = args.memory.or(Some(install.memory.max(template.min_memory)).filter(|mib| *mib > 0));
    let settings = MachineSettings {
        cpus: args.cpus.or(install.cpus),
        memory_mib: memory,
        screen: Some(false),
        description: Some(Stand::Preparing.mark(&args.name)),
        ..MachineSettings::default()
    };
    let group = args.group.clone().unwrap_or_default();
    let made = ctx.make(|api, request_id| {
        let (name, settings, group) = (names.machine.clone(), Some(settings.clone()), group.clone());
        async move { api.machines().create(CreateMachineRequest { name, settings, group, request_id }).await }
    });
    let made = made.await?;
    plan.ours.set(true);
    ctx.output.remark(format_args!("install {}: machine {} is being prepared", args.name, names.machine));
    prepare(ctx, plan, &group, media).await?;
    let mut news = News::begin(ctx).await?;
    set(ctx, plan, Stand::Talking).await?;
    signals.or(act(ctx, plan, Act::Start)).await?;
    let alone = async || set(ctx, plan, Stand::Alone).await;
    let course = Course { stages: &plan.stages, failed: &install.failed, halts: install.halts, deadline };
    signals.or(watch::run(ctx, &made, course, &mut news, alone)).await
}

/// Gives the machine what it boots, and what it installs to.
async fn prepare(ctx: &Ctx, plan: &Plan, group: &str, media: Media) -> Result<(), Failure> {
    let Plan { args, install, names, template, .. } = plan;
    let size = [args.size.unwrap_or(0), install.disk, template.min_disk].into_iter().find(|size| *size > 0).unwrap_or(DISK);
    let root = CreateDiskRequest {
        name: names.root.clone(),
        size_bytes: size.next_multiple_of(512),
        group: group.to_owned(),
        ..CreateDiskRequest::default()
    };
    let made = ctx.make(|api, request_id| {
        let request = CreateDiskRequest { request_id, ..root.clone() };
        async move { api.disks().create(request).await }
    });
    made.await?;
    let drive = |disk: &str| DiskAttachment { disk: disk.to_owned(), ..DiskAttachment::default() };
    // In boot order: from the disk nothing boots yet.
    let mut disks = vec![drive(&names.root)];
    if let Some(iso) = &media.iso {
        disks.push(DiskAttachment { controller: Controller::AhciCd.into(), ..drive(&iso.name) });
    }
    if let Some(volume) = media.volume {
        media::upload(ctx, &names.answers, group, volume).await?;
        disks.push(DiskAttachment { read_only: true, ..drive(&names.answers) });
    }
    let mut kind = boot::Kind::Uefi(UefiBoot {});
    if let Some((kernel, initrd)) = media.boot {
        media::upload(ctx, &names.kernel, group, kernel).await?;
        let with = !initrd.is_empty();
        if with {
            media::upload(ctx, &names.initrd, group, initrd).await?;
        }
        kind = boot::Kind::Direct(DirectBoot {
            kernel: names.kernel.clone(),
            initrd: if with { names.initrd.clone() } else { String::new() },
            cmdline: args.cmdline.clone().unwrap_or_else(|| install.cmdline.clone()),
        });
    }
    let settings = MachineSettings { disks, boot: Some(Boot { kind: Some(kind) }), ..MachineSettings::default() };
    change(ctx, plan, settings, &[]).await?;
    let Some(switch) = args.switch.clone().or(install.network.then(|| "default".to_owned())) else { return Ok(()) };
    let nic =
        CreateNicRequest { name: names.machine.clone(), switch, machine: names.machine.clone(), ..CreateNicRequest::default() };
    let made = ctx.make(|api, request_id| {
        let request = CreateNicRequest { request_id, ..nic.clone() };
        async move { api.nics().create(request).await }
    });
    match made.await {
        Err(failure) if args.switch.is_none() && failure.reason == Reason::NotFound.row().name => {
            Err(failure.advice("`skep switch create default --kind nat` makes it, or --switch names another"))
        }
        made => made.map(drop),
    }
}

async fn change(ctx: &Ctx, plan: &Plan, settings: MachineSettings, mask: &[&str]) -> Result<(), Failure> {
    let paths: Vec<String> = mask.iter().map(|path| (*path).to_owned()).collect();
    let update_mask = (!paths.is_empty()).then_some(FieldMask { paths });
    let request =
        UpdateMachineRequest { machine: plan.names.machine.clone(), settings: Some(settings), update_mask, revision: 0 };
    ctx.api.machines().update(request).await?;
    Ok(())
}

/// Writes down how far it is.
async fn set(ctx: &Ctx, plan: &Plan, stand: Stand) -> Result<(), Failure> {
    let description = Some(stand.mark(&plan.args.name));
    change(ctx, plan, MachineSettings { description, ..MachineSettings::default() }, &[]).await
}

enum Act {
    Start,
    Kill,
}

async fn act(ctx: &Ctx, plan: &Plan, act: Act) -> Result<(), Failure> {
    let request = MachineActRequest { machine: plan.names.machine.clone(), ..MachineActRequest::default() };
    let mut api = ctx.api.machines();
    let begun = match act {
        Act::Start => api.start(request).await,
        Act::Kill => api.kill(request).await,
    };
    ended(ctx, plan, begun?.into_inner()).await
}

/// Ends its machine, if it has not ended by itself.
async fn off(ctx: &Ctx, plan: &Plan) -> Result<(), Failure> {
    match act(ctx, plan, Act::Kill).await {
        Err(failure) if failure.reason == Reason::WrongState.row().name => Ok(()),
        killed => killed,
    }
}

async fn ended(ctx: &Ctx, plan: &Plan, begun: Operation) -> Result<(), Failure> {
    operation::finish(&ctx.api, plan.quiet, begun, Interrupt::Leaves).await.map(drop)
}

/// The installed disk becomes an image, and the template is written that stands on it. Each step finds what it has made already.
async fn finish(ctx: &Ctx, plan: &Plan) -> Result<(), Failure> {
    let Plan { args, names, template, .. } = plan;
    let user = args.user.clone().unwrap_or_else(|| template.user.clone());
    if !has_image(ctx, plan).await? {
        ctx.output.remark(format_args!("install {}: it is installed; its disk becomes an image", args.name));
        let facts = ImageFacts {
            source: String::new(),
            os: template.os.clone(),
            user: user.clone(),
            min_disk_bytes: 0,
            min_memory_mib: u32::try_from(template.min_memory).unwrap_or(u32::MAX),
        };
        let begun = ctx.make(|api, request_id| {
            let (disk, name, image) = (names.root.clone(), args.name.clone(), Some(facts.clone()));
            let request = CloneDiskRequest { disk, name, request_id, image, full: true, snapshot: String::new() };
            async move { DisksClient::clone(&mut api.disks(), request).await }
        });
        operation::finish(&ctx.api, ctx.output, begun.await?, Interrupt::Cancels).await?;
    }
    if !plan.file.exists() {
        let image = ctx.api.disks().get(GetDiskRequest { disk: args.name.clone() }).await?.into_inner();
        let now = skep_service::iso8601(skep_service::now_ns());
        let facts = made::Facts {
            from: (&args.template, template),
            user: &user,
            seeded: args.seed == SeedArg::Nocloud,
            size: image.size_bytes,
            day: now.get(..10).unwrap_or_default(),
        };
        made::write(&plan.file, &made::text(&facts))?;
    }
    clear(ctx, plan).await
}

/// Clears away what it has made, and gives the failure that it ends with.
async fn undo(ctx: &Ctx, plan: &Plan, failure: Failure) -> Failure {
    let interrupted = failure.exit == crate::error::INTERRUPTED;
    if plan.args.keep && !interrupted {
        ctx.output.warning(format_args!(
            "machine {} stays: `skep vm log`, `skep vm console`; --anew throws it away",
            plan.names.machine
        ));
        return failure;
    }
    if !plan.ours.get() {
        return failure;
    }
    // No signal ends this: it is done at once, and what comes twice (`timeout -s INT`) is one ^C.
    match clear(ctx, plan).await {
        Ok(()) if interrupted => Failure::interrupted("nothing stays but the ISO image"),
        Ok(()) => failure,
        Err(why) => {
            ctx.output.warning(format_args!("machine {} stays ({}); --anew throws it away", plan.names.machine, why.message));
            failure
        }
    }
}

/// Deletes its machine, with all that belongs to it: the machine last, by which the rest is found.
async fn clear(ctx: &Ctx, plan: &Plan) -> Result<(), Failure> {
    let api = ctx.api.again().await?;
    let ctx = &Ctx { api, output: ctx.output };
    let Some(found) = machine(ctx, plan).await? else { return Ok(()) };
    // Somebody else's that came meanwhile is not ours.
    if Stand::of(&found, &plan.args.name).is_none() {
        return Ok(());
    }
    if !over(&found) {
        off(ctx, plan).await?;
    }
    let gone = |done: Result<(), tonic::Status>| match done {
        Err(status) if status.code() == tonic::Code::NotFound => Ok(()),
        done => done,
    };
    let none = MachineSettings { boot: Some(Boot { kind: Some(boot::Kind::Uefi(UefiBoot {})) }), ..MachineSettings::default() };
    change(ctx, plan, none, &["boot", "disks"]).await?;
    let Names { machine, root, answers, kernel, initrd } = &plan.names;
    for disk in [root, answers, kernel, initrd] {
        gone(ctx.api.disks().delete(DeleteDiskRequest { disk: disk.clone() }).await.map(drop))?;
    }
    if !found.nics.is_empty() {
        gone(ctx.api.nics().detach(DetachNicRequest { nic: machine.clone() }).await.map(drop))?;
    }
    gone(ctx.api.nics().delete(DeleteNicRequest { nic: machine.clone() }).await.map(drop))?;
    let begun = ctx.api.machines().delete(DeleteMachineRequest { machine: machine.clone(), disks: false }).await?.into_inner();
    ended(ctx, plan, begun).await
}
