//! net-helper: makes the bridges, taps, tunnels and pairs of one instance, by netlink (Linux) or ioctl (FreeBSD). [`serve`] is the way in; each
//! operation is a function in [`ops`], which checks, acts through [`platform::NetHost`], and undoes what it did when a step fails.
#![forbid(unsafe_code)]

pub mod key;
pub mod ops;
pub mod platform;
pub mod serve;

use platform::{Host, NetHost};
use serve::{Given, NetHelper};
use skep_ipc::Server;
use skep_proto::InstanceId;
use skep_proto::net::Net;
use skep_rights::net::TABLE;
use skep_sandbox::{Held, Sandboxed, limit_connection};
use skep_service::Journal;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// What is opened before the sandbox is entered, and is all there is afterwards.
pub struct Acquired {
    /// `RUN/net-helper.sock`.
    pub listener: OwnedFd,
    /// The kernel's network.
    pub host: Host,
    /// The log.
    pub journal: Journal,
}

impl Held for Acquired {
    fn held(&self) -> Vec<(&'static str, BorrowedFd<'_>)> {
        let mut held = vec![("listener", self.listener.as_fd())];
        held.extend(self.host.held());
        held.extend(self.journal.held());
        held
    }
}

/// Serves the broker, whose uid is one of `allowed`, until the process is ended. `privileged`: it holds the right to configure
/// interfaces. `given`: what the host's administrator gives.
pub fn serve(
    inside: Sandboxed<Acquired>, instance: InstanceId, privileged: bool, given: Given, allowed: Option<Vec<u32>>,
) -> io::Result<()> {
    let Acquired { listener, mut host, mut journal } = inside.into_inner();
    if privileged && let Err(error) = host.sweep(instance) {
        journal.warn(None, format_args!("what an earlier net-helper left half made stays: {error}"));
    }
    journal.info(None, format_args!("serving{}", if privileged { "" } else { ", without the right to change anything" }));
    journal.serves();
    let mut server = Server::<Net>::new(listener, allowed).limiting(|fd| limit_connection(&TABLE, fd));
    server.run(&mut NetHelper::new(host, instance, privileged, given), &mut journal)
}
