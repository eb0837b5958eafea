//! What the tests share: a served host, and what is open.
// Each test program uses a part of it.
#![allow(dead_code, unused_imports)]

pub mod fake;
pub mod frames;
mod platform;

pub use platform::*;

use skep_ipc::{CallError, Client, Server, Silent};
use skep_net_helper::platform::NetHost;
use skep_net_helper::serve::{Given, NetHelper};
use skep_proto::net::Net;
use skep_proto::{Call, InstanceId, Refusal, Text, TraceId};
use std::path::PathBuf;
use std::time::Duration;
use tempfile::TempDir;

/// Long enough for a loaded machine; no test waits for it to pass.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub fn instance() -> InstanceId {
    "nt7a".parse().unwrap()
}

/// A helper that serves on a socket, in a thread.
pub struct Served {
    dir: TempDir,
}

impl Served {
    pub fn new<H: NetHost + Send + 'static>(host: H, privileged: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = skep_sys::sock::bind_seqpacket(&dir.path().join("net-helper.sock"), 0o600).unwrap();
        skep_sys::sock::listen(std::os::fd::AsFd::as_fd(&listener)).unwrap();
        let uid = nix::unistd::geteuid().as_raw();
        std::thread::spawn(move || {
            let mut helper = NetHelper::new(
                host,
                instance(),
                privileged,
                Given {
                    uplinks: uplinks(),
                    resolvers: vec![[127, 0, 0, 1].into()],
                    fetch_from: ["127.0.0.1", "10.0.0.0/8"].map(|text| text.parse().unwrap()).to_vec(),
                    iscsi_portals: ["127.0.0.8"].map(|text| text.parse().unwrap()).to_vec(),
                },
            );
            Server::<Net>::new(listener, Some(vec![uid])).run(&mut helper, &mut Silent)
        });
        Self { dir }
    }

    pub fn path(&self) -> PathBuf {
        self.dir.path().join("net-helper.sock")
    }

    pub fn client(&self) -> Client<Net> {
        Client::connect(&self.path()).unwrap()
    }
}

/// Asks, and expects the connection to be good.
pub fn ask<C: Call<Helper = Net>>(client: &mut Client<Net>, call: C) -> Result<(C::Reply, C::ReplyFds), Refusal>
where
    C::SendFds: Default,
{
    match client.call(TraceId(1), &Text::lossy("tester"), call, C::SendFds::default(), PATIENCE) {
        Ok(answer) => Ok(answer),
        Err(CallError::Refused(refusal)) => Err(refusal),
        Err(gone) => panic!("{gone}"),
    }
}

/// What the administrator gives to switches, and what he should not have given.
pub fn uplinks() -> Vec<skep_proto::IfName> {
    let (bridge, tap) = (skep_proto::IfName::bridge(instance(), 0), skep_proto::IfName::tap(instance(), 0));
    let others = ["eth0", "eth1", "eth9", "up0", "up1", LOOPBACK, "skab3ct7", "br7"].map(|name| name.parse().unwrap());
    others.into_iter().chain([bridge, tap]).collect()
}
