//! console-proxy: one per machine. Everything that a guest sends to its serial lines or its screen is read here, and nowhere else.
//!
//! It always reads a line, whether or not anybody listens: an unread line stops the guest. Only a line that is held to a speed is read no
//! faster than that. Its arguments are the ports, as [`SerialPort`] writes them.
#![forbid(unsafe_code)]

mod line;
mod log;
mod pace;
mod proxy;
mod readers;
mod ring;
mod screen;

use line::Line;
use log::Log;
use pace::Pace;
use proxy::Proxy;
use skep_ipc::Server;
use skep_proto::SerialPort;
use skep_rights::console::TABLE;
use skep_sandbox::{EnterError, Held, Scene, enter, limit};
use skep_service::Words;
use skep_sys::{fd, msg, sock};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::ExitCode;

/// Descriptors as the spawner numbers them.
const REPORT: i32 = 3;
const LISTENER: i32 = 4;
/// Of each port the line, and both halves of its log if it is to be logged.
const FIRST: i32 = 5;

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{0}: {1}; a console-proxy is started by the spawner")]
    Step(&'static str, io::Error),
    #[error(transparent)]
    Port(#[from] skep_proto::BadPort),
    #[error(transparent)]
    Enter(#[from] EnterError),
}

struct Acquired {
    report: OwnedFd,
    listener: OwnedFd,
    proxy: Proxy,
}

impl Held for Acquired {
    fn held(&self) -> Vec<(&'static str, BorrowedFd<'_>)> {
        let mut held = vec![("report", self.report.as_fd()), ("listener", self.listener.as_fd())];
        held.extend(self.proxy.held());
        held
    }
}

fn main() -> ExitCode {
    skep_service::run("console-proxy", serve)
}

/// acquire → limit → enter → serve. The spawner sees a failure as the end of the channel.
fn serve() -> Result<(), Error> {
    let scene = Scene { state: "/".into(), run: "/run".into(), identity: None, group: None, in_cell: true, with_parent: false };
    let inside = enter(limit(acquire()?, &TABLE)?, &scene)?;
    let Acquired { report, listener, mut proxy } = inside.into_inner();
    msg::send(report.as_fd(), b"ready", &[], None).map_err(|e| Error::Step("report", e))?;
    drop(report);
    Words.info(None, format_args!("serves"));
    // The peer's uid cannot be shown in here; the socket's mode lets only the broker in.
    let mut server = Server::new(listener, None).limiting(|fd| skep_sandbox::limit_connection(&TABLE, fd));
    server.run(&mut proxy, &mut Words).map_err(|e| Error::Step("poll", e))
}

fn acquire() -> Result<Acquired, Error> {
    let take = |number| fd::inherited(number).map_err(|e| Error::Step("take over descriptors", e));
    let listener = take(LISTENER)?;
    sock::listen(listener.as_fd()).map_err(|e| Error::Step("listen", e))?;
    let ports = std::env::args().skip(1).map(|text| text.parse()).collect::<Result<Vec<SerialPort>, _>>()?;
    let mut numbers = FIRST..;
    let mut next = || numbers.next().map_or_else(|| Err(Error::Step("count", io::ErrorKind::InvalidInput.into())), take);
    let mut lines = Vec::new();
    for port in ports {
        let line = next()?;
        // Of all who hold this end, only we read and write.
        fd::set_nonblocking(line.as_fd(), true).map_err(|e| Error::Step("non-blocking line", e))?;
        let log = if port.log() { Some(Log::new([next()?, next()?])) } else { None };
        let pace = (port.speed() > 0).then(|| Pace::new(port.speed())).transpose().map_err(|e| Error::Step("make a timer", e))?;
        lines.push(Line::new(port.port(), line, log, pace));
    }
    Ok(Acquired { report: take(REPORT)?, listener, proxy: Proxy::new(lines) })
}
