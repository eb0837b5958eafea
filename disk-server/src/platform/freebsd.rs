//! FreeBSD: the gate and the reader, each in capability mode.

use nix::poll::{PollTimeout, poll};
use nix::sys::resource::{Resource, setrlimit};
use skep_disk_server::image::Image;
use skep_disk_server::pace::Pace;
use skep_disk_server::stream::{self, Act, MOST, Request};
use skep_proto::DiskOrder;
use skep_proto::storage::DiskKind;
use skep_rights::disk::{READER, TABLE};
use skep_sandbox::{EnterError, Held, Scene, enter, limit};
use skep_sys::freebsd::ggate::{self, Asked, Next};
use skep_sys::process::{Fork, exit_now, fork};
use skep_sys::{fd, msg, sock};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Instant;

/// Descriptors as the spawner numbers them.
const REPORT: i32 = 3;
const LISTENER: i32 = 4;
const CONTROL: i32 = 5;
const DEVICE: i32 = 6;
const FILES: i32 = 7;
/// What a request has room for at first.
const ROOM: usize = 1 << 20;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}: {1}; disk-server is started by the spawner")]
    Step(&'static str, io::Error),
    #[error("the order is not understood; disk-server is started by the spawner")]
    Order,
    #[error(transparent)]
    Enter(#[from] EnterError),
}

fn at<E: Into<io::Error>>(step: &'static str) -> impl FnOnce(E) -> Error {
    move |e| Error::Step(step, e.into())
}

struct Gate {
    report: OwnedFd,
    /// Nobody is served over it: by it the spawner knows whom to end.
    listener: OwnedFd,
    control: OwnedFd,
    /// Held open for writing, so that the host does not look at what the guest wrote whenever bhyve closes it.
    device: OwnedFd,
    stream: UnixStream,
}

impl Held for Gate {
    fn held(&self) -> Vec<(&'static str, BorrowedFd<'_>)> {
        vec![
            ("report", self.report.as_fd()),
            ("listener", self.listener.as_fd()),
            ("control", self.control.as_fd()),
            ("device", self.device.as_fd()),
            ("stream", self.stream.as_fd()),
        ]
    }
}

struct Reader {
    files: Vec<(File, DiskKind)>,
    stream: UnixStream,
}

impl Held for Reader {
    fn held(&self) -> Vec<(&'static str, BorrowedFd<'_>)> {
        let files = self.files.iter().map(|(file, _)| ("file", file.as_fd()));
        files.chain([("stream", self.stream.as_fd())]).collect()
    }
}

fn scene() -> Scene {
    Scene { state: "/".into(), run: "/run".into(), identity: None, in_cell: true, with_parent: false }
}

/// See the crate.
pub fn serve() -> Result<(), Error> {
    let order = DiskOrder::parse(std::env::args().skip(1)).ok_or(Error::Order)?;
    let take = |number| fd::inherited(number).map_err(at("take over descriptors"));
    let listener = take(LISTENER)?;
    sock::listen(listener.as_fd()).map_err(at("listen"))?;
    let (report, control, device) = (take(REPORT)?, take(CONTROL)?, take(DEVICE)?);
    let files = (FILES..).zip(&order.kinds).map(|(number, kind)| Ok((take(number)?.into(), *kind)));
    let files = files.collect::<Result<Vec<(File, DiskKind)>, Error>>()?;
    let (ours, theirs) = UnixStream::pair().map_err(at("make a stream"))?;
    match fork().map_err(at("fork"))? {
        Fork::Parent(_) => {
            drop((files, theirs));
            gate(&order, Gate { report, listener, control, device, stream: ours })
        }
        Fork::Child => {
            drop((report, listener, control, device, ours));
            let read = reader(&order, Reader { files, stream: theirs });
            // The gate sees the end of the stream.
            exit_now(i32::from(read.is_err()))
        }
    }
}

fn reader(order: &DiskOrder, held: Reader) -> Result<(), Error> {
    // Of whatever takes it over, too.
    let most = nix::libc::rlim_t::try_from(order.file_limit).unwrap_or(nix::libc::rlim_t::MAX);
    setrlimit(Resource::RLIMIT_FSIZE, most, most).map_err(at("limit its files"))?;
    let Reader { files, mut stream } = enter(limit(held, &READER)?, &scene())?.into_inner();
    Image::serve(Image::open(files, order.size, order.read_only), &mut stream).map_err(at("serve"))
}

fn gate(order: &DiskOrder, held: Gate) -> Result<(), Error> {
    let Gate { report, listener: _listener, control, device: _device, mut stream } =
        enter(limit(held, &TABLE)?, &scene())?.into_inner();
    let say = |text: &[u8]| msg::send(report.as_fd(), text, &[], None).map_err(at("report"));
    match stream::receive_opened(&mut stream).map_err(at("open the image"))? {
        Ok(()) => say(b"ready")?,
        Err(why) => return say(why.as_bytes()),
    }
    drop(report);
    let mut buffer = vec![0; ROOM];
    let mut pace = Pace::new(order.rates, Instant::now());
    loop {
        match ggate::next(control.as_fd(), order.unit, &mut buffer).map_err(at("wait for a request"))? {
            Next::Gone => return Ok(()),
            Next::Needs(room) if room as u64 <= MOST => buffer.resize(room, 0),
            Next::Needs(_) => return Err(Error::Step("wait for a request", io::ErrorKind::FileTooLarge.into())),
            Next::Asked(asked) => {
                let result = act(&asked, &mut buffer, &mut pace, &mut stream).map_err(at("ask the reader"))?;
                ggate::answer(control.as_fd(), order.unit, &asked, &mut buffer, result).map_err(at("answer"))?;
            }
        }
    }
}

/// Has the reader do it.
fn act(asked: &Asked, buffer: &mut Vec<u8>, pace: &mut Pace, stream: &mut UnixStream) -> io::Result<i32> {
    let act = match asked.act {
        ggate::Act::Read => Act::Read,
        ggate::Act::Write => Act::Write,
        ggate::Act::Flush => Act::Flush,
        ggate::Act::Delete | ggate::Act::Other => return Ok(nix::errno::Errno::EOPNOTSUPP as i32),
    };
    let moves = matches!(act, Act::Read | Act::Write);
    if moves && asked.length as u64 > MOST {
        return Ok(nix::errno::Errno::EFBIG as i32);
    }
    if moves && buffer.len() < asked.length {
        buffer.resize(asked.length, 0);
    }
    if moves {
        // std's sleep is clock_nanosleep(2), which capability mode refuses (seen on 15.1). Whole milliseconds: what is too long counts as passed.
        let wait = pace.wait(act == Act::Write, asked.length as u64, Instant::now()).as_millis();
        let wait = PollTimeout::try_from(wait).unwrap_or(PollTimeout::MAX);
        let _ = poll(&mut [], wait);
    }
    let length = if act == Act::Flush { 0 } else { asked.length as u64 };
    Request { act, offset: asked.offset, length }.send(stream)?;
    let bytes = buffer.get_mut(..asked.length).filter(|_| moves).unwrap_or_default();
    if act == Act::Write {
        stream.write_all(bytes)?;
    }
    let result = stream::receive_result(stream)?;
    if act == Act::Read && result == 0 {
        stream.read_exact(bytes)?;
    }
    Ok(result)
}
