//! guest-services: one for each switch that has a subnet. It answers guests: DHCP, DNS, metadata.
//!
//! It has no network of its own. Each NIC's frames come to it by a packet descriptor of their own, so who asks is known by where he is
//! plugged in. It keeps nothing that could be lost: which address is whose is the broker's to decide, and comes with each NIC.
#![forbid(unsafe_code)]

mod platform;
mod services;

use services::Services;
use skep_ipc::Server;
use skep_rights::services::TABLE;
use skep_sandbox::{EnterError, Held, Scene, enter, limit};
use skep_service::Words;
use skep_sys::{fd, msg, sock};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::ExitCode;

/// Descriptors as the spawner numbers them.
const REPORT: i32 = 3;
const LISTENER: i32 = 4;

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{0}: {1}; guest-services is started by the spawner")]
    Step(&'static str, io::Error),
    #[error(transparent)]
    Enter(#[from] EnterError),
}

struct Acquired {
    report: OwnedFd,
    listener: OwnedFd,
    services: Services,
}

impl Held for Acquired {
    fn held(&self) -> Vec<(&'static str, BorrowedFd<'_>)> {
        let mut held = vec![("report", self.report.as_fd()), ("listener", self.listener.as_fd())];
        held.extend(self.services.held());
        held
    }
}

fn main() -> ExitCode {
    skep_service::run("guest-services", serve)
}

/// acquire → limit → enter → serve. The spawner sees a failure as the end of the channel.
fn serve() -> Result<(), Error> {
    let scene = Scene { state: "/".into(), run: "/run".into(), identity: None, group: None, in_cell: true, with_parent: false };
    let inside = enter(limit(acquire()?, &TABLE)?, &scene)?;
    let Acquired { report, listener, mut services } = inside.into_inner();
    msg::send(report.as_fd(), b"ready", &[], None).map_err(|e| Error::Step("report", e))?;
    drop(report);
    Words.info(None, format_args!("serves"));
    // The peer's uid cannot be shown in here; the socket's mode lets only the broker in.
    let mut server = Server::new(listener, None).limiting(|fd| skep_sandbox::limit_connection(&TABLE, fd));
    server.run(&mut services, &mut Words).map_err(|e| Error::Step("poll", e))
}

fn acquire() -> Result<Acquired, Error> {
    let take = |number| fd::inherited(number).map_err(|e| Error::Step("take over descriptors", e));
    let listener = take(LISTENER)?;
    sock::listen(listener.as_fd()).map_err(|e| Error::Step("listen", e))?;
    let services = Services::new().map_err(|e| Error::Step("make a timer", e))?;
    Ok(Acquired { report: take(REPORT)?, listener, services })
}
