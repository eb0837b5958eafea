//! iscsi-initiator: one for each iSCSI disk that a running machine has, or that is being looked at.
//!
//! It has no network of its own: the broker gives it a connection to the disk's portal each time that it needs one, over which it logs in. What
//! the machine's hypervisor asks comes over a socket of the machine's cell, in NBD; bhyve's, through a disk-server, which is in one cell with it. It
//! keeps nothing that could be lost: what is under way when it dies, its successor is asked again.
#![forbid(unsafe_code)]

mod serve;

use serve::Initiator;
use skep_ipc::Server;
use skep_rights::initiator::TABLE;
use skep_sandbox::{EnterError, Held, Scene, enter, limit};
use skep_service::Words;
use skep_sys::{fd, msg, sock};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::ExitCode;

/// Descriptors as the spawner numbers them.
const REPORT: i32 = 3;
const LISTENER: i32 = 4;
const SOCKET: i32 = 5;
/// The argument that says that a socket is there which the hypervisor connects to.
const WITH_DOOR: &str = "--door";
/// The argument that says that a connection is there, whose end is ours. A disk-server's.
const WITH_CLIENT: &str = "--client";

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{0}: {1}; iscsi-initiator is started by the spawner")]
    Step(&'static str, io::Error),
    #[error(transparent)]
    Enter(#[from] EnterError),
}

struct Acquired {
    report: OwnedFd,
    listener: OwnedFd,
    initiator: Initiator,
}

impl Held for Acquired {
    fn held(&self) -> Vec<(&'static str, BorrowedFd<'_>)> {
        let mut held = vec![("report", self.report.as_fd()), ("listener", self.listener.as_fd())];
        held.extend(self.initiator.held());
        held
    }
}

fn main() -> ExitCode {
    skep_service::run("iscsi-initiator", serve)
}

/// acquire → limit → enter → serve. The spawner sees a failure as the end of the channel.
fn serve() -> Result<(), Error> {
    let scene = Scene { state: "/".into(), run: "/run".into(), identity: None, group: None, in_cell: true, with_parent: false };
    let inside = enter(limit(acquire()?, &TABLE)?, &scene)?;
    let Acquired { report, listener, mut initiator } = inside.into_inner();
    msg::send(report.as_fd(), b"ready", &[], None).map_err(|e| Error::Step("report", e))?;
    drop(report);
    Words.info(None, format_args!("serves"));
    // The peer's uid cannot be shown in here; the socket's mode lets only the broker in.
    let mut server = Server::new(listener, None).limiting(|fd| skep_sandbox::limit_connection(&TABLE, fd));
    server.run(&mut initiator, &mut Words).map_err(|e| Error::Step("poll", e))
}

fn acquire() -> Result<Acquired, Error> {
    let take = |number| fd::inherited(number).map_err(|e| Error::Step("take over descriptors", e));
    let listener = take(LISTENER)?;
    sock::listen(listener.as_fd()).map_err(|e| Error::Step("listen", e))?;
    let has = |argument: &str| std::env::args().any(|word| word == argument);
    let (door, client) = match (has(WITH_DOOR), has(WITH_CLIENT)) {
        (true, _) => (Some(take(SOCKET)?), None),
        (false, true) => (None, Some(take(SOCKET)?)),
        (false, false) => (None, None),
    };
    let initiator = Initiator::new(door, client).map_err(|e| Error::Step("make a timer", e))?;
    Ok(Acquired { report: take(REPORT)?, listener, initiator })
}
