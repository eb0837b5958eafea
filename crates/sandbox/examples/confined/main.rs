//! A process that enters a made-up sandbox and then tries what it may not, for tests: `confined SCENARIO STATE UID|-`.
//!
//! SCENARIO is `usual`, `undeclared descriptor`, `unknown call`, or `refused CALL`: the kernel refuses that call.
//! It says `entered` or why not, then one line an attempt, `NAME: ok` or `NAME: ERROR`, then `done`; it ends when standard input does.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[cfg(target_os = "freebsd")]
#[path = "freebsd.rs"]
mod host;
#[cfg(target_os = "linux")]
#[path = "linux.rs"]
mod host;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use skep_rights::{
    Access, Descriptor, FdKind, FreeBsd, Most, Namespace, Network, PathRule, Paths, Place, Process, Syscalls, Uid,
};
use skep_sandbox::{Held, Scene, enter, limit};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd};
use std::path::PathBuf;

/// What a service would be, and no more.
static USUAL: Process = Process {
    name: "confined",
    program: "confined",
    task: "tries what it may not",
    uid: Uid::Own,
    namespaces: &[Namespace::Net, Namespace::Ipc, Namespace::Uts],
    capabilities: &[],
    network: Network::None,
    descriptors: &[Descriptor {
        name: "held",
        kind: FdKind::File(""),
        most: Most::N(1),
        rights: &["READ", "WRITE", "SEEK"],
        ioctls: &[],
        why: "to be written to",
    }],
    paths: Paths::Only(&[PathRule { place: Place::State("shown"), access: Access::Read, why: "to be read" }]),
    syscalls: &[Syscalls { names: &["openat", "statx"], why: "what Landlock allows" }],
    ioctls: &[],
    max_descriptors: 32,
    operations: &[],
    freebsd: FreeBsd { capability_mode: true, root: skep_rights::Root::Never, note: "" },
};

static UNKNOWN_CALL: Process = Process { syscalls: &[Syscalls { names: &["no_such_call"], why: "a slip in a table" }], ..PLAIN };

/// For `..`, which a static cannot be.
const PLAIN: Process = Process {
    name: "confined",
    program: "confined",
    task: "",
    uid: Uid::Own,
    namespaces: &[],
    capabilities: &[],
    network: Network::None,
    descriptors: &[Descriptor {
        name: "held",
        kind: FdKind::File(""),
        most: Most::N(1),
        rights: &["WRITE"],
        ioctls: &[],
        why: "",
    }],
    paths: Paths::Only(&[]),
    syscalls: &[],
    ioctls: &[],
    max_descriptors: 32,
    operations: &[],
    freebsd: FreeBsd { capability_mode: true, root: skep_rights::Root::Never, note: "" },
};

struct Own {
    name: &'static str,
    file: File,
}

impl Held for Own {
    fn held(&self) -> Vec<(&'static str, BorrowedFd<'_>)> {
        vec![(self.name, self.file.as_fd())]
    }
}

/// Says how an attempt went.
pub fn attempt<T, E: std::fmt::Display>(name: &str, result: Result<T, E>) {
    match result {
        Ok(_) => println!("{name}: ok"),
        Err(error) => println!("{name}: {error}"),
    }
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let (scenario, state) = (args[1].as_str(), PathBuf::from(&args[2]));
    let identity = args[3].parse().ok().map(|uid: u32| (uid, uid));
    let file = OpenOptions::new().read(true).write(true).open(state.join("held")).unwrap();
    let undeclared = File::open(state.join("secret")).unwrap().into_raw_fd();
    let scene = Scene { state: state.clone(), run: state.clone(), identity, group: None, in_cell: false, with_parent: true };
    if let Some(call) = scenario.strip_prefix("refused ") {
        host::refuse(call);
    }
    let table = if scenario == "unknown call" { &UNKNOWN_CALL } else { &USUAL };
    let name = if scenario == "undeclared descriptor" { "something" } else { "held" };
    let entered = limit(Own { name, file }, table).and_then(|limited| enter(limited, &scene));
    let mut own = match entered {
        Ok(own) => own,
        Err(error) => {
            println!("not entered: {error}");
            std::process::exit(1)
        }
    };
    println!("entered");
    attempt("write to the held file", own.file.write_all(b"x"));
    attempt("use an undeclared descriptor", skep_sys::fd::inherited(undeclared));
    attempt("read a declared file", std::fs::read(state.join("shown/file")));
    attempt("write to a file declared for reading", OpenOptions::new().write(true).open(state.join("shown/file")));
    attempt("make a file", File::create(state.join("shown/new")));
    attempt("read an undeclared file", File::open(state.join("secret")));
    attempt("read a file of the host", File::open("/etc/passwd"));
    for (name, family, kind) in [
        ("inet", AddressFamily::Inet, SockType::Stream),
        ("inet6", AddressFamily::Inet6, SockType::Datagram),
        ("unix", AddressFamily::Unix, SockType::Stream),
    ] {
        attempt(&format!("make a socket: {name}"), socket(family, kind, SockFlag::empty(), None));
    }
    attempt("make a pair of sockets", skep_sys::sock::seqpacket_pair());
    attempt("execute a program", nix::unistd::execv(c"/bin/true", &[c"true"]));
    attempt("make a thread", std::thread::Builder::new().spawn(|| ()).map(|thread| thread.join().unwrap()));
    attempt("map memory", memmap2::MmapMut::map_anon(4096));
    attempt("map executable memory", memmap2::MmapMut::map_anon(4096).unwrap().make_exec());
    attempt("signal the parent", nix::sys::signal::kill(nix::unistd::getppid(), None));
    attempt("become root", nix::unistd::setuid(nix::unistd::Uid::from_raw(0)));
    host::attempts();
    let mut open = vec![];
    let full = loop {
        match nix::unistd::dup(own.file.as_fd()) {
            Ok(fd) => open.push(fd),
            Err(error) => break error,
        }
    };
    let most = open.iter().map(AsRawFd::as_raw_fd).max().unwrap_or(0) + 1;
    drop(open);
    println!("descriptors: {most}, then {full}");
    println!("done");
    let _ = io::stdin().read(&mut [0]);
}
