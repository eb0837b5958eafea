//! FreeBSD: the gate, and who is at the other end of its stream: the reader, or iscsi-initiator. Each in capability mode.

use nix::poll::{PollTimeout, poll};
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::execve;
use skep_disk_server::image::Image;
use skep_disk_server::pace::Pace;
use skep_nbd::{Export, errno};
use skep_proto::storage::DiskKind;
use skep_proto::{DiskCounts, DiskOrder};
use skep_rights::disk::{READER, TABLE};
use skep_sandbox::{EnterError, Held, Scene, enter, limit};
use skep_service::Words;
use skep_sys::freebsd::ggate::{self, Act, Asked, Next};
use skep_sys::process::{Fork, exit_now, fork};
use skep_sys::{fd, msg, sock};
use std::convert::Infallible;
use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::time::Instant;

/// Descriptors as the spawner numbers them.
const REPORT: i32 = 3;
const LISTENER: i32 = 4;
const CONTROL: i32 = 5;
const DEVICE: i32 = 6;
const COUNTS: i32 = 7;
const FILES: i32 = 8;
/// In place of files: iscsi-initiator's standard error.
const ITS_ERRORS: i32 = 8;
/// Where iscsi-initiator has its end of the stream, and what it is told.
const STREAM: i32 = 5;
const INITIATOR: [&CStr; 2] = [c"/skep/skep-iscsi-initiator", c"--client"];
/// What a request has room for at first.
const ROOM: usize = 1 << 20;
/// What it may have at most: more than the kernel asks for at a time (`MAXPHYS`).
const MOST: usize = 16 << 20;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}: {1}; disk-server is started by the spawner")]
    Step(&'static str, io::Error),
    #[error("the order is not understood; disk-server is started by the spawner")]
    Order,
    #[error("the device has {0} bytes, and its disk {1}")]
    Smaller(u64, u64),
    #[error(transparent)]
    Enter(#[from] EnterError),
}

fn at<E: Into<io::Error>>(step: &'static str) -> impl FnOnce(E) -> Error {
    move |e| Error::Step(step, e.into())
}

struct Gate {
    /// Nobody is served over it: by it the spawner knows whom to end. An iSCSI disk's is iscsi-initiator's.
    listener: Option<OwnedFd>,
    /// Likewise.
    report: Option<OwnedFd>,
    control: OwnedFd,
    /// Held open for writing, so that the host does not look at what the guest wrote whenever bhyve closes it.
    device: OwnedFd,
    /// What has been read and written.
    counts: File,
    stream: UnixStream,
}

impl Held for Gate {
    fn held(&self) -> Vec<(&'static str, BorrowedFd<'_>)> {
        let mut held = vec![
            ("control", self.control.as_fd()),
            ("device", self.device.as_fd()),
            ("counts", self.counts.as_fd()),
            ("stream", self.stream.as_fd()),
        ];
        held.extend(self.report.iter().map(|report| ("report", report.as_fd())));
        held.extend(self.listener.iter().map(|listener| ("listener", listener.as_fd())));
        held
    }
}

struct Reader {
    report: OwnedFd,
    files: Vec<(File, DiskKind)>,
    stream: UnixStream,
}

impl Held for Reader {
    fn held(&self) -> Vec<(&'static str, BorrowedFd<'_>)> {
        let files = self.files.iter().map(|(file, _)| ("file", file.as_fd()));
        files.chain([("stream", self.stream.as_fd()), ("report", self.report.as_fd())]).collect()
    }
}

fn scene() -> Scene {
    Scene { state: "/".into(), run: "/run".into(), identity: None, group: None, in_cell: true, with_parent: false }
}

/// See the crate.
pub fn serve() -> Result<(), Error> {
    let order = DiskOrder::parse(std::env::args().skip(1)).ok_or(Error::Order)?;
    let remote = order.kinds == [DiskKind::Iscsi];
    let take = |number| fd::inherited(number).map_err(at("take over descriptors"));
    let (report, listener, control, device) = (take(REPORT)?, take(LISTENER)?, take(CONTROL)?, take(DEVICE)?);
    let counts = File::from(take(COUNTS)?);
    let kinds = order.kinds.iter().filter(|_| !remote);
    let files = (FILES..).zip(kinds).map(|(number, kind)| Ok((take(number)?.into(), *kind)));
    let files = files.collect::<Result<Vec<(File, DiskKind)>, Error>>()?;
    let errors = remote.then(|| take(ITS_ERRORS)).transpose()?;
    let (ours, theirs) = UnixStream::pair().map_err(at("make a stream"))?;
    if !remote {
        sock::listen(listener.as_fd()).map_err(at("listen"))?;
    }
    match fork().map_err(at("fork"))? {
        Fork::Parent(_) => {
            drop((files, theirs, errors));
            let (mut report, mut listener) = (Some(report), Some(listener));
            if remote {
                (report, listener) = (None, None);
            }
            gate(&order, Gate { listener, report, control, device, counts, stream: ours })
        }
        Fork::Child if remote => {
            let Err(error) = become_initiator(&report, &listener, &theirs, errors.as_ref());
            say(&error);
            exit_now(1)
        }
        Fork::Child => {
            drop((listener, control, device, counts, ours));
            let read = reader(&order, Reader { report, files, stream: theirs });
            // The gate sees the end of the stream.
            read.as_ref().err().into_iter().for_each(say);
            exit_now(i32::from(read.is_err()))
        }
    }
}

/// To the log, as what ends.
fn say(error: &Error) {
    Words.warn(None, format_args!("{error}"));
}

/// Becomes the program that parses what a target sends. The spawner sees a failure as the end of the channel.
fn become_initiator(
    report: &OwnedFd, listener: &OwnedFd, stream: &UnixStream, errors: Option<&OwnedFd>,
) -> Result<Infallible, Error> {
    if let Some(errors) = errors {
        fd::place(errors.as_fd(), 2).map_err(at("standard error"))?;
    }
    fd::arrange(&[(report.as_fd(), REPORT), (listener.as_fd(), LISTENER), (stream.as_fd(), STREAM)])
        .map_err(at("arrange descriptors"))?;
    let [program, _] = INITIATOR;
    let environment: [&CStr; 0] = [];
    execve(program, &INITIATOR, &environment).map_err(at("execute iscsi-initiator"))
}

fn reader(order: &DiskOrder, held: Reader) -> Result<(), Error> {
    // Of whatever takes it over, too.
    let most = nix::libc::rlim_t::try_from(order.file_limit).unwrap_or(nix::libc::rlim_t::MAX);
    setrlimit(Resource::RLIMIT_FSIZE, most, most).map_err(at("limit its files"))?;
    let Reader { report, files, mut stream } = enter(limit(held, &READER)?, &scene())?.into_inner();
    match Image::open(files, order.size, order.read_only) {
        Ok(image) => {
            drop(report);
            image.serve(&mut stream).map_err(at("serve"))
        }
        Err(why) => msg::send(report.as_fd(), why.to_string().as_bytes(), &[], None).map_err(at("report")),
    }
}

fn gate(order: &DiskOrder, held: Gate) -> Result<(), Error> {
    // All that a taken-over one can write anywhere.
    let most = nix::libc::rlim_t::try_from(DiskCounts::BYTES).unwrap_or(0);
    setrlimit(Resource::RLIMIT_FSIZE, most, most).map_err(at("limit its files"))?;
    let Gate { listener: _listener, report, control, device: _device, counts, stream } =
        enter(limit(held, &TABLE)?, &scene())?.into_inner();
    // The next one of a disk goes on counting.
    let mut bytes = [0; DiskCounts::BYTES];
    let mut counted = match counts.read_exact_at(&mut bytes, 0) {
        Ok(()) => DiskCounts::from_bytes(&bytes),
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => DiskCounts::default(),
        Err(e) => return Err(Error::Step("read what was counted", e)),
    };
    // A reader that cannot open its image has said why; iscsi-initiator greets once it has logged in.
    let mut export = Export::open(stream).map_err(at("be greeted"))?;
    if export.size() < order.size {
        return Err(Error::Smaller(order.size, export.size()));
    }
    if let Some(report) = report {
        msg::send(report.as_fd(), b"ready", &[], None).map_err(at("report"))?;
    }
    let access = if order.read_only { "for reading alone" } else { "for reading and writing" };
    Words.info(None, format_args!("serves {} bytes {access}", order.size));
    let mut buffer = vec![0; ROOM];
    let mut pace = Pace::new(order.rates, Instant::now());
    loop {
        match ggate::next(control.as_fd(), order.unit, &mut buffer).map_err(at("wait for a request"))? {
            Next::Gone => {
                Words.info(None, format_args!("ends: its device is gone"));
                return Ok(());
            }
            Next::Needs(room) if room <= MOST => buffer.resize(room, 0),
            Next::Needs(_) => return Err(Error::Step("wait for a request", io::ErrorKind::FileTooLarge.into())),
            Next::Asked(asked) => {
                let result = act(&asked, &mut buffer, &mut pace, &mut export).map_err(at("have it done"))?;
                // Of what else there is, every TRIM of a guest's is refused.
                if result != 0 && matches!(asked.act, Act::Read | Act::Write | Act::Flush) {
                    let (act, why) = (&asked.act, nix::errno::Errno::from_raw(result));
                    Words.warn(None, format_args!("{act:?} of {} bytes at {}: {}", asked.length, asked.offset, why.desc()));
                }
                if result == 0 && matches!(asked.act, Act::Read | Act::Write) {
                    counted.count(asked.act == Act::Write, asked.length as u64);
                    counts.write_all_at(&counted.to_bytes(), 0).map_err(at("write what was counted"))?;
                }
                ggate::answer(control.as_fd(), order.unit, &asked, &mut buffer, result).map_err(at("answer"))?;
            }
        }
    }
}

/// Has it done; gives 0, or a number of errno(2).
fn act(asked: &Asked, buffer: &mut Vec<u8>, pace: &mut Pace, export: &mut Export<UnixStream>) -> io::Result<i32> {
    let writes = asked.act == Act::Write;
    match asked.act {
        Act::Read | Act::Write if asked.length > MOST => return Ok(nix::errno::Errno::EFBIG as i32),
        Act::Read | Act::Write => {}
        Act::Flush => return export.flush().map(errno),
        Act::Delete | Act::Other => return Ok(nix::errno::Errno::EOPNOTSUPP as i32),
    }
    if buffer.len() < asked.length {
        buffer.resize(asked.length, 0);
    }
    // std's sleep is clock_nanosleep(2), which capability mode refuses (seen on 15.1). Whole milliseconds: what is too long counts as passed.
    let wait = pace.wait(writes, asked.length as u64, Instant::now()).as_millis();
    let wait = PollTimeout::try_from(wait).unwrap_or(PollTimeout::MAX);
    let _ = poll(&mut [], wait);
    let bytes = buffer.get_mut(..asked.length).unwrap_or_default();
    let done = if writes { export.write(bytes, asked.offset) } else { export.read(bytes, asked.offset) };
    done.map(errno)
}
