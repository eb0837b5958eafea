//! `DiskFetch`: an image from an address. Its own process fetches it (`crates/proto/src/fetch.rs`); nothing of it comes by here.

use super::{Cx, disk, group};
use crate::broker::Broker;
use crate::db::Who;
use crate::db::disks::DiskRow;
use crate::helpers::PATIENCE;
use crate::jobs::{self, Job};
use crate::operations::Operation;
use skep_ipc::aio::Port;
use skep_proto::broker::{DiskFetch, ImageFacts, OperationView};
use skep_proto::cell::{KillCell, StartFetcher, SweepCell};
use skep_proto::fetch::{FetchOrder, FetchSays, FetchTold, MAX_KEYS, MAX_ROOTS};
use skep_proto::net::{ConnectServer, OpenResolvers};
use skep_proto::storage::{ImportDisk, JobDone};
use skep_proto::{DiskId, MachineId, Reason, Refusal, Text, UpTo, wire};
use std::cell::RefCell;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use tokio::sync::Notify;

/// Connections of a fetch: what redirections, addresses that do not answer and breaks take.
const CONNECTIONS: u32 = 256;

/// The disks that are being filled by fetches; a place's number gives the process's uid.
#[derive(Default)]
pub struct Slots {
    taken: RefCell<[Option<DiskId>; skep_service::FETCHES as usize]>,
    /// All have to end.
    end: Notify,
    /// One has ended.
    ended: Notify,
}

impl Slots {
    /// Whether the cell is one of theirs.
    pub fn has(&self, cell: MachineId) -> bool {
        self.taken.borrow().iter().flatten().any(|disk| disk.cell() == cell)
    }

    /// Breaks off all that have begun, and waits until nothing of them is left on the host.
    pub async fn break_off(&self) {
        self.end.notify_waiters();
        loop {
            let ended = self.ended.notified();
            if self.taken.borrow().iter().all(Option::is_none) {
                return;
            }
            ended.await;
        }
    }
}

/// One of them, until it is dropped.
struct Slot(Rc<Broker>, u16);

impl Slot {
    fn take(broker: &Rc<Broker>, disk: DiskId) -> Option<Self> {
        let mut slots = broker.fetches.taken.borrow_mut();
        let (number, slot) = (0..).zip(slots.iter_mut()).find(|(_, slot)| slot.is_none())?;
        *slot = Some(disk);
        Some(Self(broker.clone(), number))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(slot) = self.0.fetches.taken.borrow_mut().get_mut(usize::from(self.1)) {
            *slot = None;
        }
        self.0.fetches.ended.notify_waiters();
    }
}

/// What comes along: certificates, and public keys.
struct Along {
    roots: OwnedFd,
    keys: Option<OwnedFd>,
}

/// See the module. Certificates that are trusted in place of the host's, and keys, come through the pipes whose ends are given back.
pub async fn fetch(cx: &Cx, c: DiskFetch) -> Result<(OperationView, UpTo<2>), Refusal> {
    let Cx { broker, who, .. } = cx;
    if let Some(id) = cx.before(disk::operation)? {
        return Ok((broker.operation(id)?, UpTo(Vec::new())));
    }
    let DiskFetch { mut import, url, sums, signed, signature } = c;
    let object = format!("disk {}", import.name);
    let lacks = |field, note| Err(Refusal::new(Reason::InvalidValue, &object).field(field).note(note));
    if signed && sums.is_none() && signature.is_none() {
        let note = "what is signed is the list at sums_url or, without one, the image, by the signature at signature_url; neither is named";
        return lacks("signature_url", note);
    }
    if signature.is_some() && !signed {
        return lacks("signed_by", "there is a signature, and no key that may have made it");
    }
    import.expect = 0;
    import.image = import.image.map(|facts| ImageFacts { source: Text::lossy(url.as_str()), ..facts });
    let pipe = || nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).map_err(|e| Refusal::io(&object, "make a pipe", &e.into()));
    let (roots, writer) = pipe()?;
    let (keys, second) = if signed { pipe().map(|(reader, writer)| (Some(reader), Some(writer)))? } else { (None, None) };
    let along = Along { roots, keys };
    let group = broker.read(|db| group::named(db, import.group.as_ref()))?.id;
    let (disk, mut operation, call) = disk::begin(cx, import, group, "fetch").await?;
    let view = operation.view();
    let (broker, who) = (broker.clone(), who.clone());
    tokio::task::spawn_local(async move {
        let order = FetchOrder { url, sums, signed, signature };
        let done = attended(&broker, &who, &mut operation, order, &disk, call, along).await;
        disk::end(&broker, &who, operation, &disk, done).await;
    });
    Ok((view, UpTo(std::iter::once(writer).chain(second).collect())))
}

/// Starts the process, and sees to it that nothing of it is left.
async fn attended(
    broker: &Rc<Broker>, who: &Who, operation: &mut Operation, order: FetchOrder, disk: &DiskRow, call: ImportDisk, along: Along,
) -> Result<JobDone, Refusal> {
    let large = |field| move || Refusal::new(Reason::TooLarge, "").field(field);
    let failed = |e: std::io::Error| Refusal::io("", "talk to what fetches it", &e);
    let own = super::piped(along.roots, MAX_ROOTS).await?.ok_or_else(large("ca_certificates"))?;
    let roots = if own.is_empty() { &broker.roots[..] } else { &own[..] };
    let mut files = vec![skep_sys::fd::sealed_memory_file(c"skep-roots", roots).map_err(failed)?];
    if let Some(keys) = along.keys {
        let keys = super::piped(keys, MAX_KEYS).await?.ok_or_else(large("signed_by"))?;
        files.push(skep_sys::fd::sealed_memory_file(c"skep-keys", &keys).map_err(failed)?);
    }
    let busy = || Refusal::new(Reason::LimitReached, "").note(format_args!("{} images are being fetched", skep_service::FETCHES));
    let slot = Slot::take(broker, disk.id).ok_or_else(busy)?;
    let down = broker.fetches.end.notified();
    let (ours, theirs) = skep_sys::sock::seqpacket_pair().map_err(failed)?;
    let port = Port::new(ours).map_err(failed)?;
    let cancelled = operation.cancelled();
    let work = async {
        broker.cells.call_with(who, StartFetcher { disk: disk.id, slot: slot.1 }, [theirs]).await?;
        converse(broker, who, operation, &port, order, call, files).await
    };
    let done = tokio::select! {
        done = work => done,
        _ = cancelled => Err(Refusal::new(Reason::Cancelled, "")),
        () = down => Err(Refusal::new(Reason::Cancelled, "").note("the suite went down")),
    };
    // Whether it was started is not known, if its start was cut off.
    drop(port);
    let machine = disk.id.cell();
    let killed = broker.cells.call_in(who, KillCell { machine }, PATIENCE).await;
    let swept = broker.cells.call_in(who, SweepCell { machine }, PATIENCE).await;
    if let Err(refusal) = killed.and(swept) {
        // The next start of the spawner or the broker looks again.
        broker.warn(who.trace, format_args!("what fetched disk {} may be left: {refusal}", disk.name));
    }
    drop(slot);
    done
}

/// What it asks of the broker, and when it has ended.
struct Talk<'a> {
    broker: &'a Rc<Broker>,
    who: &'a Who,
    port: &'a Port,
    connections: u32,
}

impl Talk<'_> {
    async fn say(&self, told: &FetchTold, fds: Vec<OwnedFd>) -> Result<(), Refusal> {
        let bytes = wire::encode(told).map_err(|e| Refusal::new(Reason::Internal, "image-fetcher").note(e))?;
        self.port.send(&bytes, &fds).await.map_err(|e| Refusal::io("image-fetcher", "send", &e))
    }

    /// Makes connections for it until it says something else.
    async fn hear(&mut self) -> Result<FetchSays, Refusal> {
        loop {
            let away = |note: String| Refusal::new(Reason::Unavailable, "image-fetcher").note(note);
            let record = self.port.recv().await.map_err(|e| away(format!("it has ended: {e}")))?;
            let says = wire::decode(&record.bytes).map_err(|e| away(format!("it sent {e}")))?;
            let FetchSays::Connect { address, port } = says else { return Ok(says) };
            self.connections += 1;
            let made = if self.connections > CONNECTIONS {
                Err(Refusal::new(Reason::LimitReached, "image-fetcher").note(format_args!("{CONNECTIONS} connections")))
            } else {
                self.broker.net.call(self.who, ConnectServer { address, port, portal: false }).await
            };
            match made {
                Ok((_, [socket])) => self.say(&FetchTold::Connected, vec![socket]).await?,
                Err(refusal) => self.say(&FetchTold::Refused(refusal), Vec::new()).await?,
            }
        }
    }
}

async fn converse(
    broker: &Rc<Broker>, who: &Who, operation: &mut Operation, port: &Port, order: FetchOrder, mut call: ImportDisk,
    files: Vec<OwnedFd>,
) -> Result<JobDone, Refusal> {
    let mut talk = Talk { broker, who, port, connections: 0 };
    let (_, UpTo(resolvers)) = broker.net.call(who, OpenResolvers {}).await?;
    talk.say(&FetchTold::Begin(order), files.into_iter().chain(resolvers).collect()).await?;
    let out_of_turn = || Refusal::new(Reason::Internal, "image-fetcher").note("it spoke out of turn");
    call.expect = match talk.hear().await? {
        FetchSays::Found { length } => length,
        FetchSays::Done(Err(refusal)) => return Err(refusal),
        FetchSays::Done(Ok(())) | FetchSays::Connect { .. } => return Err(out_of_turn()),
    };
    if call.expect > call.limit {
        let note = format_args!("{} bytes are to come; there is room for {}", call.expect, call.limit);
        return Err(Refusal::new(Reason::NoSpace, "").note(note));
    }
    let (reader, writer) =
        nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).map_err(|e| Refusal::io("", "make a pipe", &e.into()))?;
    talk.say(&FetchTold::Go, vec![writer]).await?;
    let ended = async {
        match talk.hear().await? {
            FetchSays::Done(result) => result,
            FetchSays::Found { .. } | FetchSays::Connect { .. } => Err(out_of_turn()),
        }
    };
    let job = jobs::run(broker, operation, Job::Import(call, reader), |done, total| (done, total));
    tokio::pin!(ended, job);
    tokio::select! {
        said = &mut ended => match said {
            Ok(()) => job.await,
            // The import has an opinion of its own only if it stopped reading.
            Err(refusal) if refusal.reason == Reason::Cancelled => match job.await {
                Err(why) if why.reason != Reason::Cancelled => Err(why),
                _ => Err(refusal),
            },
            Err(refusal) => Err(refusal),
        },
        done = &mut job => match done {
            // Cut off: whoever fetched it says why.
            Err(refusal) if refusal.reason == Reason::Cancelled => Err(ended.await.err().unwrap_or(refusal)),
            done => done,
        },
    }
}
