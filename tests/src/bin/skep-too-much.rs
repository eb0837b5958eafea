//! A storage-helper that holds one descriptor and one capability too many. The audit must name both.
#![forbid(unsafe_code)]

use skep_rights::{Capability, Descriptor, FdKind, LOG, LOG_OF_ACTS, Most, Process, READY, SYSLOG, storage};
use skep_sandbox::Held;
use skep_service::{Journal, Role, Start};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::ExitCode;

/// What the real one may do, and two things more.
static TOO_MUCH: Process = Process {
    capabilities: &[(Capability::NetAdmin, "too many")],
    descriptors: &[
        Descriptor {
            name: "listener",
            kind: FdKind::Listener,
            most: Most::N(1),
            rights: &["ACCEPT", "READ"],
            ioctls: &[],
            why: "",
        },
        LOG_OF_ACTS,
        LOG,
        READY,
        SYSLOG,
        Descriptor { name: "extra", kind: FdKind::File(""), most: Most::N(1), rights: &["READ"], ioctls: &[], why: "" },
    ],
    ..storage::TABLE
};

struct Holding(OwnedFd, File, Journal);
impl Held for Holding {
    fn held(&self) -> Vec<(&'static str, BorrowedFd<'_>)> {
        let mut held = self.2.held();
        held.extend([("listener", self.0.as_fd()), ("extra", self.1.as_fd())]);
        held
    }
}

fn main() -> ExitCode {
    skep_service::run("too-much", || -> Result<(), Box<dyn std::error::Error>> {
        let start = Start::from_args(&[])?;
        let listener = start.bind(Role::Storage, Role::Broker)?;
        let extra = File::open(skep_tests::platform::FOREIGN)?;
        let limited = skep_sandbox::limit(Holding(listener, extra, start.journal("storage-helper")?), &TOO_MUCH)?;
        let mut inside = skep_sandbox::enter(limited, &start.scene(Role::Storage))?;
        inside.2.serves();
        loop {
            drop(skep_sys::sock::accept(inside.0.as_fd()));
        }
    })
}
