//! One call of storage-helper that opens an existing disk, against the least that could do it: the same records between two processes,
//! the same open(2), one descriptor.

use crate::platform;
use crate::report::{Outcome, Row};
use crate::stats::{Samples, ratio};
use crate::suite::{LocalHelper, single_threaded};
use anyhow::{Context, Result, bail};
use nix::fcntl::{OFlag, openat};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use nix::sys::stat::Mode;
use nix::unistd::Pid;
use skep_ipc::{Client, Started};
use skep_proto::storage::{CreateDisk, DiskKind, DiskOpened, DiskState, OpenDisk, Storage};
use skep_proto::{DiskId, Text, TraceId, wire};
use skep_sys::process::{Fork, exit_now, fork};
use skep_sys::sock;
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::time::{Duration, Instant};

/// Calls of one kind before the other kind's turn: slow changes of the machine's speed meet both.
const BATCH: usize = 100;
/// Turns; the first warms up and is not counted.
const TURNS: usize = 41;
const LIMIT: f64 = 3.0;
const PATIENCE: Duration = Duration::from_secs(5);

pub fn run() -> Result<Outcome> {
    single_threaded()?;
    let mut helper = LocalHelper::start()?;
    let mut client = helper.connect()?;
    let user = Text::lossy("uid 0");
    let (disk, kind, size) = (DiskId::random(), DiskKind::Raw, 1 << 30);
    let (state, []) = client.call(TraceId::random(), &user, CreateDisk { disk, kind, size }, [], PATIENCE)?;
    let open = OpenDisk { disk, kind, read_only: false, no_cache: false, sync: false };
    let trace = TraceId::random();
    let floor = Floor::start(&helper.disks(), &format!("{disk}.raw"), &open, &state, trace, &user)?;

    let cores = Cores::of_this_process()?;
    let mut rows = Vec::new();
    for (place, core) in [("one core", cores.first()), ("two cores", cores.second())] {
        // The kernel would place the two pairs of processes differently, and waking another core costs more than all the rest.
        let Some(core) = core else { continue };
        cores.place(core, &[helper.pid()?, floor.pid])?;
        let (ours, bare) = measure(&mut || call(&mut client, trace, &user, &open), &mut || floor.exchange())?;
        rows.push(Row::ratio(format!("OpenDisk over skep-storage-helper, {place}"), &ours, ratio(ours.p50(), bare.p50()), LIMIT));
        rows.push(Row::floor(format!("floor: the same bytes, open(2) and descriptor, {place}"), &bare));
    }
    Ok(Outcome::Rows(rows))
}

/// Ours and the floor's, in turns.
fn measure<'a>(ours: Once<'a>, bare: Once<'a>) -> Result<(Samples, Samples)> {
    let mut pair = [(Samples::default(), ours), (Samples::default(), bare)];
    for turn in 0..TURNS {
        for (samples, once) in &mut pair {
            for _ in 0..BATCH {
                let time = once()?;
                if turn > 0 {
                    samples.add(time);
                }
            }
        }
    }
    let [(ours, _), (bare, _)] = pair;
    Ok((ours, bare))
}

/// Does it once, and says how long it took.
type Once<'a> = &'a mut (dyn FnMut() -> Result<Duration> + 'a);

/// The cores that this process may run on. It stays on the first while this lives.
struct Cores(Vec<usize>);

impl Cores {
    fn of_this_process() -> Result<Self> {
        let cores = Self(platform::cores()?);
        cores.place(cores.first().context("no core")?, &[Pid::this().as_raw()])?;
        Ok(cores)
    }
    fn first(&self) -> Option<usize> {
        self.0.first().copied()
    }
    fn second(&self) -> Option<usize> {
        self.0.get(1).copied()
    }
    fn place(&self, core: usize, pids: &[i32]) -> Result<()> {
        pids.iter().try_for_each(|pid| platform::place(*pid, &[core]))
    }
}

impl Drop for Cores {
    fn drop(&mut self) {
        // Other measurements would only be slower, not wrong.
        let _ = platform::place(Pid::this().as_raw(), &self.0);
    }
}

/// The descriptor, and with it the lock, is released before the next call, but is not of what is measured.
fn call(client: &mut Client<Storage>, trace: TraceId, user: &Text<64>, open: &OpenDisk) -> Result<Duration> {
    let from = Instant::now();
    let (_, [file]) = client.call(trace, user, open.clone(), [], PATIENCE)?;
    let time = from.elapsed();
    drop::<OwnedFd>(file);
    Ok(time)
}

/// A process that answers each record with the same reply and a descriptor that it has just opened.
struct Floor {
    socket: OwnedFd,
    request: Vec<u8>,
    pid: i32,
}

impl Floor {
    fn start(dir: &Path, name: &str, open: &OpenDisk, state: &DiskState, trace: TraceId, user: &Text<64>) -> Result<Self> {
        // A number in the middle of those that the calls have, since larger ones are longer.
        let seq = u32::try_from(BATCH * TURNS / 2)?;
        let request = Started::new(seq, trace, user, open.clone())?.bytes;
        let reply = wire::encode_reply::<OpenDisk>(seq, &Ok(DiskOpened { most: state.size, disk: state.clone() }))?;
        let dir = nix::fcntl::open(dir, OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
        let (ours, theirs) = sock::seqpacket_pair()?;
        match fork()? {
            Fork::Parent(pid) => Ok(Self { socket: ours, request, pid }),
            Fork::Child => {
                drop(ours);
                let ended = answer_all(&theirs, &dir, name, &reply);
                exit_now(i32::from(ended.is_err()))
            }
        }
    }

    fn exchange(&self) -> Result<Duration> {
        let mut buffer = [0u8; 512];
        let mut control = nix::cmsg_space!(RawFd);
        let from = Instant::now();
        sendmsg::<()>(self.socket.as_raw_fd(), &[IoSlice::new(&self.request)], &[], MsgFlags::MSG_EOR, None)?;
        let mut slices = [IoSliceMut::new(&mut buffer)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let record = recvmsg::<()>(self.socket.as_raw_fd(), &mut slices, Some(&mut control), flags)?;
        let time = from.elapsed();
        let file = record.cmsgs()?.find_map(|item| match item {
            ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
            _ => None,
        });
        nix::unistd::close(file.context("the floor answered without a descriptor")?)?;
        Ok(time)
    }
}

impl Drop for Floor {
    /// It ends when its socket does.
    fn drop(&mut self) {
        let _ = nix::sys::socket::shutdown(self.socket.as_raw_fd(), nix::sys::socket::Shutdown::Both);
        let _ = nix::sys::wait::waitpid(Pid::from_raw(self.pid), None);
    }
}

fn answer_all(socket: &OwnedFd, dir: &OwnedFd, name: &str, reply: &[u8]) -> Result<()> {
    let mut buffer = [0u8; 512];
    loop {
        let mut slices = [IoSliceMut::new(&mut buffer)];
        if recvmsg::<()>(socket.as_raw_fd(), &mut slices, None, MsgFlags::empty())?.bytes == 0 {
            return Ok(());
        }
        let file = openat(dir, name, OFlag::O_RDWR | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW, Mode::empty())?;
        let rights = [file.as_raw_fd()];
        let sent = sendmsg::<()>(
            socket.as_raw_fd(),
            &[IoSlice::new(reply)],
            &[ControlMessage::ScmRights(&rights)],
            MsgFlags::MSG_EOR,
            None,
        )?;
        if sent != reply.len() {
            bail!("a short send");
        }
    }
}
