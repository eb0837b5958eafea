//! console-proxy: one per machine. Everything that a guest sends to its serial line or its screen is read here, and nowhere else.
//!
//! It always reads the line, whether or not anybody listens: an unread line stops the guest.
#![forbid(unsafe_code)]

mod log;
mod proxy;
mod readers;
mod ring;
mod screen;

use log::Log;
use proxy::Proxy;
use skep_ipc::{Server, Silent};
use skep_rights::console::TABLE;
use skep_sandbox::{EnterError, Held, Scene, enter, limit};
use skep_sys::{fd, msg, sock};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::ExitCode;

/// Descriptors as the spawner numbers them.
const REPORT: i32 = 3;
const LISTENER: i32 = 4;
const LINE: i32 = 5;
const LOG: [i32; 2] = [6, 7];

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{0}: {1}; a console-proxy is started by the spawner")]
    Step(&'static str, io::Error),
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
    let scene = Scene { state: "/".into(), run: "/run".into(), identity: None, in_cell: true, with_parent: false };
    let inside = enter(limit(acquire()?, &TABLE)?, &scene)?;
    let Acquired { report, listener, mut proxy } = inside.into_inner();
    msg::send(report.as_fd(), b"ready", &[], None).map_err(|e| Error::Step("report", e))?;
    drop(report);
    // The peer's uid cannot be shown in here; the socket's mode lets only the broker in.
    let mut server = Server::new(listener, None).limiting(|fd| skep_sandbox::limit_connection(&TABLE, fd));
    server.run(&mut proxy, &mut Silent).map_err(|e| Error::Step("poll", e))
}

fn acquire() -> Result<Acquired, Error> {
    let take = |number| fd::inherited(number).map_err(|e| Error::Step("take over descriptors", e));
    let listener = take(LISTENER)?;
    sock::listen(listener.as_fd()).map_err(|e| Error::Step("listen", e))?;
    let line = take(LINE)?;
    // Of all who hold this end, only we read and write.
    fd::set_nonblocking(line.as_fd(), true).map_err(|e| Error::Step("non-blocking line", e))?;
    let [first, second] = LOG;
    let log = Log::new([take(first)?, take(second)?]);
    Ok(Acquired { report: take(REPORT)?, listener, proxy: Proxy::new(line, log) })
}
