//! The step from the runner to QEMU: a tighter confinement, its descriptors at their numbers, exec.

use super::super::Kit;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use skep_engine_qemu::{BINARY, CONFIG, Fds, argv};
use skep_proto::cell::FdRole;
use skep_rights::hypervisor::{TABLE, TABLE_KVM, TABLE_KVM_REMOTE, TABLE_KVM_SHARES, TABLE_REMOTE, TABLE_SHARES};
use skep_sandbox::{EnterError, Held, Scene, enter, limit};
use skep_sys::process::{Fork, exit_now, fork};
use std::convert::Infallible;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};

/// Limits beside those of every process: threads of the uid, bytes of message queues. What may stay in RAM the spawner says.
const LIMITS: [(Resource, u64); 2] = [(Resource::RLIMIT_NPROC, 512), (Resource::RLIMIT_MSGQUEUE, 0)];

/// Its variable store and the memory files of its screen are files, too.
pub const SMALLEST_FILE_LIMIT: u64 = 64 << 20;

/// The descriptors of the hypervisor, by their lines in its table, and their numbers.
struct Given<'a>(Vec<(&'static str, BorrowedFd<'a>, RawFd)>);

impl Held for Given<'_> {
    fn held(&self) -> Vec<(&'static str, BorrowedFd<'_>)> {
        self.0.iter().map(|(name, fd, _)| (*name, *fd)).collect()
    }
}

fn given<'a>(kit: &'a Kit, qmp: &'a OwnedFd) -> Given<'a> {
    let mut list = vec![("qmp", qmp.as_fd(), Fds::QMP)];
    list.extend(kit.serial.iter().map(|(port, line)| ("serial line", line.as_fd(), Fds::serial(port.saturating_sub(1)))));
    list.extend(kit.fds.iter().filter_map(|(role, fd)| {
        let (name, number) = match role {
            FdRole::Vars => ("variable store", Fds::VARS),
            FdRole::Disk(slot) => ("disk", Fds::disk(*slot)),
            FdRole::Tap(slot) => ("tap", Fds::tap(*slot)),
            FdRole::Config | FdRole::Kernel | FdRole::Initrd | FdRole::Log => return None,
        };
        Some((name, fd.as_fd(), number))
    }));
    list.extend(kit.layers.iter().map(|(place, fd)| ("disk", fd.as_fd(), Fds::layer(place.slot, place.at))));
    Given(list)
}

/// Starts QEMU; returns its process id.
pub fn spawn(kit: &Kit, qmp: &OwnedFd, errors: &OwnedFd) -> io::Result<i32> {
    match fork()? {
        Fork::Parent(pid) => Ok(pid),
        Fork::Child => {
            // Standard error is the runner's pipe by now, unless the very first step failed.
            let error = match become_hypervisor(kit, qmp, errors) {
                Ok(never) => match never {},
                Err(error) => error,
            };
            eprintln!("skep: {error}");
            exit_now(126)
        }
    }
}

fn become_hypervisor(kit: &Kit, qmp: &OwnedFd, errors: &OwnedFd) -> Result<Infallible, EnterError> {
    let step = |step: &'static str| move |error: io::Error| EnterError::Failed { step, error };
    skep_sys::fd::place(errors.as_fd(), 2).map_err(step("standard error"))?;
    skep_sys::fd::place(errors.as_fd(), 1).map_err(step("standard output"))?;
    let null = std::fs::File::open("/dev/null").map_err(step("open /dev/null"))?;
    skep_sys::fd::place(null.as_fd(), 0).map_err(step("standard input"))?;
    drop(null);
    for (what, limit) in LIMITS {
        setrlimit(what, limit, limit).map_err(|e| step("setrlimit")(e.into()))?;
    }
    // What a taken-over one could fill the host with. One that only meets the limit gets an error, not a signal. It cannot raise it itself:
    // its system calls lack that. The runner does when a disk becomes larger, for which the bound above it, which nobody but root raises
    // again, stays.
    let (_, bound) = getrlimit(Resource::RLIMIT_FSIZE).map_err(|e| step("getrlimit")(e.into()))?;
    let files = kit.file_limit.max(SMALLEST_FILE_LIMIT).min(bound);
    setrlimit(Resource::RLIMIT_FSIZE, files, bound).map_err(|e| step("setrlimit")(e.into()))?;
    skep_sys::process::ignore(nix::libc::SIGXFSZ).map_err(step("ignore SIGXFSZ"))?;
    let text = |s: &str| CString::new(s).map_err(|_| step("arguments")(io::Error::from(io::ErrorKind::InvalidInput)));
    let program = text(BINARY)?;
    // What the runner has written there just now.
    let config = std::fs::read_to_string(CONFIG).map_err(step("read the configuration"))?;
    let words = argv(skep_machine::Uuid::from_u128(kit.machine.as_u128()), &config);
    let args = std::iter::once(BINARY).chain(words.iter().map(String::as_str)).map(text).collect::<Result<Vec<_>, _>>()?;
    // Never both: the spawner sees to it.
    let table = match (kit.kvm, kit.shares, kit.remote) {
        (false, false, false) => &TABLE,
        (false, false, true) => &TABLE_REMOTE,
        (false, true, _) => &TABLE_SHARES,
        (true, false, false) => &TABLE_KVM,
        (true, false, true) => &TABLE_KVM_REMOTE,
        (true, true, _) => &TABLE_KVM_SHARES,
    };
    // The cell was made by the spawner; this is a smaller one inside it, with nothing of the runner's.
    let scene = Scene { state: "/".into(), run: "/run".into(), identity: None, group: None, in_cell: true, with_parent: true };
    let inside = enter(limit(given(kit, qmp), table)?, &scene)?;
    let numbers: Vec<(BorrowedFd<'_>, RawFd)> = inside.0.iter().map(|(_, fd, number)| (*fd, *number)).collect();
    skep_sys::fd::arrange(&numbers).map_err(step("arrange descriptors"))?;
    let environment: [&CStr; 0] = [];
    nix::unistd::execve(&program, &args, &environment).map_err(|e| step("execute the hypervisor")(e.into()))
}
