//! A child that enters a made-up table, and stays until it is told to end.
#![allow(dead_code, clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod platform;

use skep_audit::Options;
use skep_rights::{
    Access, CONNECTION, Capability, Descriptor, FdKind, FreeBsd, LOG_OF_ACTS, Most, Namespace, Network, Operation, PathRule,
    Paths, Place, Process, Syscalls, Uid,
};
use skep_sandbox::{Held, Sandboxed, Scene, enter, limit};
use skep_service::Ids;
use skep_sys::process::{Fork, exit_now, fork};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use tempfile::TempDir;

const IDS: &str = "broker=61901,api-frontend=61902,storage-helper=61903,net-helper=61904,vm-runner=61905,machines=62000";

/// What the child enters, and is held against.
pub static TABLE: Process = Process {
    name: "storage-helper",
    program: "made-up",
    task: "is a table for tests",
    uid: Uid::Own,
    namespaces: &[Namespace::Net, Namespace::Ipc, Namespace::Uts],
    capabilities: &[],
    network: Network::None,
    descriptors: &[LOG_OF_ACTS, CONNECTION],
    paths: Paths::Only(&[PathRule { place: Place::State("open"), access: Access::Read, why: "is within" }]),
    syscalls: &[Syscalls { names: &["openat"], why: "opens what Landlock allows" }],
    ioctls: &[],
    max_descriptors: 64,
    operations: &[Operation { name: "Nothing", does: "nothing", test: "a_process_in_its_sandbox_is_confirmed_line_by_line" }],
    freebsd: FreeBsd { capability_mode: true, root: skep_rights::Root::Never, note: "" },
};

/// One descriptor and one capability more.
pub static WIDE: Process = Process {
    capabilities: &[(Capability::SetUid, "too many")],
    descriptors: &[
        Descriptor { most: Most::Many, ..LOG_OF_ACTS },
        CONNECTION,
        Descriptor {
            name: "memory",
            kind: FdKind::Memory,
            most: Most::N(1),
            rights: &["READ", "WRITE"],
            ioctls: &[],
            why: "too many",
        },
    ],
    ..COPY
};
const COPY: Process = Process {
    name: "storage-helper",
    program: "made-up",
    task: "is a table for tests",
    uid: Uid::Own,
    namespaces: &[Namespace::Net, Namespace::Ipc, Namespace::Uts],
    capabilities: &[],
    network: Network::None,
    descriptors: &[],
    paths: Paths::Only(&[]),
    syscalls: &[],
    ioctls: &[],
    max_descriptors: 64,
    operations: &[],
    freebsd: FreeBsd { capability_mode: true, root: skep_rights::Root::Never, note: "" },
};

/// What the child holds.
pub struct Things {
    pub logs: Vec<File>,
    pub memory: Option<std::os::fd::OwnedFd>,
    pub line: UnixStream,
}

impl Held for Things {
    fn held(&self) -> Vec<(&'static str, BorrowedFd<'_>)> {
        let mut held: Vec<_> = self.logs.iter().map(|log| ("log of acts", log.as_fd())).collect();
        held.extend(self.memory.iter().map(|memory| ("memory", memory.as_fd())));
        held.push(("connection", self.line.as_fd()));
        held
    }
}

/// STATE and RUN for one test.
pub struct Place_ {
    pub directory: TempDir,
    pub options: Options,
}

pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

pub fn place() -> Place_ {
    let directory = tempfile::tempdir().unwrap();
    for name in ["state/logs", "state/open", "run"] {
        std::fs::create_dir_all(directory.path().join(name)).unwrap();
    }
    std::fs::write(directory.path().join("state/open/file"), "within").unwrap();
    std::fs::write(directory.path().join("state/file"), "without").unwrap();
    for path in ["", "state", "state/open", "state/open/file", "state/file"] {
        std::fs::set_permissions(directory.path().join(path), std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let options = Options {
        state: directory.path().join("state"),
        run: directory.path().join("run"),
        instance: "test".parse().unwrap(),
        ids: is_root().then(|| Ids::parse(IDS).unwrap()),
        only: None,
    };
    Place_ { directory, options }
}

impl Place_ {
    pub fn log(&self, name: &str) -> File {
        OpenOptions::new().create(true).append(true).open(self.options.state.join("logs").join(name)).unwrap()
    }

    /// A child in the sandbox of `table`; `act` is run inside, and its answer comes back.
    pub fn child(&self, table: &'static Process, logs: usize, memory: bool, act: impl FnOnce() -> String) -> Inside {
        self.child_with(table, logs, memory, |_| act())
    }

    /// Likewise; `act` is given what the child holds.
    pub fn child_with(&self, table: &'static Process, logs: usize, memory: bool, act: impl FnOnce(&Things) -> String) -> Inside {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let things = Things {
            logs: (0..logs).map(|n| self.log(&format!("audit-{n}.log"))).collect(),
            memory: memory.then(|| skep_sys::fd::memory_file(c"too many").unwrap()),
            line: theirs,
        };
        let identity = self.options.ids.as_ref().map(|ids| {
            let id = ids.of(skep_service::Role::Storage);
            (id, id)
        });
        let scene = Scene {
            state: self.options.state.clone(),
            run: self.options.run.clone(),
            identity,
            group: None,
            in_cell: false,
            with_parent: true,
        };
        let null = OpenOptions::new().read(true).write(true).open("/dev/null").unwrap();
        match fork().unwrap() {
            Fork::Parent(pid) => {
                drop(things);
                let mut answer = vec![0; 4096];
                let length = ours.read(&mut answer).unwrap();
                let answer = String::from_utf8_lossy(&answer[..length]).into_owned();
                let error = std::fs::read_to_string(self.options.state.join("error"));
                assert!(answer.starts_with("in: "), "the child did not enter: {answer} {error:?}");
                Inside { pid, answer: answer[4..].to_owned(), line: Some(ours) }
            }
            Fork::Child => {
                for number in 0..=2 {
                    let _ = skep_sys::fd::place(null.as_fd(), number);
                }
                match limit(things, table).and_then(|limited| enter(limited, &scene)) {
                    Ok(things) => stay(things, act),
                    Err(error) => {
                        let _ = std::fs::write(scene.state.join("error"), error.to_string());
                        exit_now(1)
                    }
                }
            }
        }
    }
}

fn stay(mut things: Sandboxed<Things>, act: impl FnOnce(&Things) -> String) -> ! {
    let answer = format!("in: {}", act(&things));
    let _ = things.line.write_all(answer.as_bytes());
    // Ends when the test drops its end.
    let _ = things.line.read(&mut [0]);
    exit_now(0)
}

/// A running child.
pub struct Inside {
    pub pid: i32,
    pub answer: String,
    line: Option<UnixStream>,
}

impl Inside {
    pub fn end(&mut self) {
        if self.line.take().is_some() {
            let _ = nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(self.pid), None);
        }
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        self.end();
    }
}
