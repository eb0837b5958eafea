//! Makes a cell and starts a program as its first process (namespaces(7), user_namespaces(7), pivot_root(2)).
//!
//! The spawner has no CAP_SYS_ADMIN. Its child becomes the machine's uid and enters a user namespace of its own; only there, and only
//! over what is new there, it may mount. So a mistake in here cannot touch the host.

use crate::handover::{FIRST, LISTENER, READY, REPORT};
use crate::platform::shares::walk;
use crate::platform::{Plan, SharePlan};
use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, CpuSet, sched_setaffinity, unshare};
use nix::unistd::{
    AccessFlags, Gid, Uid, chdir, execve, faccessat, fchdir, pivot_root, setgroups, sethostname, setresgid, setresuid, setsid,
};
use skep_proto::{Reason, Refusal};
use skep_sys::linux::mount::{Forbid, attach, clone_at, clone_here, clone_of, forbid};
use skep_sys::process::{Fork, exit_now, fork};
use skep_sys::{fd, linux, msg, sock};
use std::borrow::Cow;
use std::convert::Infallible;
use std::ffi::{CStr, CString};
use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long it may take until the program says that it is ready.
const PATIENCE: Duration = Duration::from_secs(10);
/// The record that comes with the descriptor of the cell's first process; its process id follows.
const CHILD: &[u8] = b"child ";

/// A step that failed.
struct Failed(Cow<'static, str>, io::Error);

fn at<E: Into<io::Error>>(step: impl Into<Cow<'static, str>>) -> impl FnOnce(E) -> Failed {
    let step = step.into();
    move |e| Failed(step, e.into())
}

/// Starts `plan`'s program; returns its process id on the host when it has said that it is ready. After a refusal nothing is left.
pub fn start(root: BorrowedFd<'_>, plan: &Plan<'_>, joins: &[PathBuf]) -> Result<u32, Refusal> {
    let object = format!("machine {}", plan.machine);
    let refuse = |what: &str, e: io::Error| Refusal::io(&object, what, &e);
    let (ours, theirs) = sock::seqpacket_pair().map_err(|e| refuse("make the report channel", e))?;
    let maker = match fork().map_err(|e| refuse("fork", e))? {
        Fork::Parent(pid) => pid,
        Fork::Child => {
            drop(ours);
            let Err(Failed(step, error)) = become_first(root, plan, joins, &theirs);
            let text = match error.raw_os_error() {
                Some(errno) => format!("{step}\t{errno}"),
                None => format!("{step}: {error}"),
            };
            // If even this fails, the spawner sees the end of the channel.
            let _ = msg::send(theirs.as_fd(), text.as_bytes(), &[], None);
            exit_now(1);
        }
    };
    drop(theirs);
    let mut first: Option<(u32, OwnedFd)> = None;
    let result = listen(&ours, &mut first);
    if let (Err(_), Some((_, process))) = (&result, &first) {
        // Its end is the end of all in its namespace.
        let _ = linux::pidfd_signal(process.as_fd(), nix::sys::signal::Signal::SIGKILL as i32);
        super::ended(process.as_fd(), super::END_MS);
    }
    // The maker ends by itself as soon as its child is there; if it hangs before, it has no child.
    if first.is_none()
        && let Ok(process) = linux::pidfd(maker)
    {
        let _ = linux::pidfd_signal(process.as_fd(), nix::sys::signal::Signal::SIGKILL as i32);
    }
    let _ = nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(maker), None);
    match (result, first) {
        (Ok(()), Some((pid, _))) => Ok(pid),
        (Ok(()), None) => Err(Refusal::new(Reason::Internal, object).note("a program that nobody started is ready")),
        (Err((step, errno)), _) => match step.strip_prefix(SHARE).and_then(|at| plan.shares.get(at.parse::<usize>().ok()?)) {
            Some(share) => Err(crate::spawner::refused(plan.machine, &share.name, errno)),
            None if errno == 0 => Err(Refusal::new(Reason::Internal, object).note(step)),
            None => Err(refuse(&step, io::Error::from_raw_os_error(errno))),
        },
    }
}

/// What a step that failed is called if it was about a share; its number follows.
const SHARE: &str = "share ";

/// Reads the channel until the program is ready; else the step that went wrong, and the kernel's number for it if it has one.
fn listen(channel: &OwnedFd, first: &mut Option<(u32, OwnedFd)>) -> Result<(), (String, i32)> {
    let deadline = Some(Instant::now() + PATIENCE);
    let mut ready = false;
    // Two processes write here, the maker who the first one is and the program that it is ready, in whatever order.
    while !ready || first.is_none() {
        let record = msg::recv(channel.as_fd(), 2000, 1, deadline).map_err(|e| match e {
            msg::RecvError::Closed => ("the cell's program ended before it was ready".to_owned(), 0),
            e => (format!("wait for the cell's program: {e}"), 0),
        })?;
        if record.bytes == READY {
            ready = true;
            continue;
        }
        let text = String::from_utf8_lossy(&record.bytes).into_owned();
        let pid = record.bytes.strip_prefix(CHILD).and_then(|n| std::str::from_utf8(n).ok()?.parse().ok());
        match (pid, record.fds.into_iter().next()) {
            (Some(pid), Some(process)) => *first = Some((pid, process)),
            _ => {
                let (step, errno) = text.rsplit_once('\t').unwrap_or((&text, "0"));
                return Err((step.to_owned(), errno.parse().unwrap_or(0)));
            }
        }
    }
    Ok(())
}

/// Gives everything up, in the order in which it can be given up.
fn become_first(root: BorrowedFd<'_>, plan: &Plan<'_>, joins: &[PathBuf], report: &OwnedFd) -> Result<Infallible, Failed> {
    for procs in joins {
        fs::OpenOptions::new().write(true).open(procs).and_then(|mut f| f.write_all(b"0")).map_err(at("join the cgroup"))?;
    }
    if let Some(limits) = plan.limits.filter(|limits| !limits.cpus.0.is_empty()) {
        let mut set = CpuSet::new();
        limits.cpus.0.iter().try_for_each(|cpu| set.set(usize::from(*cpu))).map_err(at("choose CPUs"))?;
        // All that runs in the cell inherits it, and has no call to change it.
        sched_setaffinity(nix::unistd::Pid::from_raw(0), &set).map_err(at("keep to the CPUs"))?;
    }
    super::precedence::settle(plan.limits).map_err(|(step, error)| Failed(step.into(), error))?;
    // A session of its own: what is typed at the spawner's terminal is not for the cell.
    setsid().map_err(at("setsid"))?;
    if let Some(id) = plan.identity {
        let (uid, gid) = (Uid::from_raw(id), Gid::from_raw(id));
        // With KVM's device it keeps the one group that may open it, which is all that the spawner has.
        if !plan.kvm {
            setgroups(&[]).map_err(at("setgroups"))?;
        }
        setresgid(gid, gid, gid).map_err(at("setresgid"))?;
        setresuid(uid, uid, uid).map_err(at("setresuid"))?;
        // The change of uid gave /proc/self to root.
        nix::sys::prctl::set_dumpable(true).map_err(at("dumpable"))?;
    }
    fchdir(root).map_err(at("enter the cell's root"))?;
    let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    // It leaves the spawner's capabilities behind: they hold outside, and it is inside.
    unshare(CloneFlags::CLONE_NEWUSER).map_err(at("user namespace"))?;
    fs::write("/proc/self/setgroups", "deny").map_err(at("setgroups deny"))?;
    fs::write("/proc/self/uid_map", format!("{uid} {uid} 1")).map_err(at("uid_map"))?;
    fs::write("/proc/self/gid_map", format!("{gid} {gid} 1")).map_err(at("gid_map"))?;
    let all = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWCGROUP;
    unshare(all).map_err(at("namespaces"))?;
    match fork().map_err(at("fork"))? {
        Fork::Child => {}
        Fork::Parent(pid) => {
            let process = linux::pidfd(pid).map_err(at("pidfd_open"))?;
            let record = [CHILD, pid.to_string().as_bytes()].concat();
            msg::send(report.as_fd(), &record, &[process.as_fd()], None).map_err(at("report"))?;
            exit_now(0);
        }
    }
    furnish(plan.kvm, &plan.shares)?;
    sethostname("cell").map_err(at("sethostname"))?;
    // The program itself will not be allowed to: it begins without any capability.
    skep_sandbox::empty_bounding_set().map_err(|e| at("empty the bounding set")(io::Error::other(e.to_string())))?;
    run(plan, report)
}

/// The cell's file system: the prepared root, read-only, with an empty `/run` and a `/dev` of two files.
fn furnish(kvm: bool, shares: &[SharePlan]) -> Result<(), Failed> {
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).map_err(at("make mounts private"))?;
    let root = clone_here().map_err(at("open_tree"))?;
    forbid(root.as_fd(), Forbid { write: true, devices: true, ..Forbid::default() }).map_err(at("read-only root"))?;
    attach(root.as_fd(), c".").map_err(at("mount the root"))?;
    fchdir(&root).map_err(at("enter the mounted root"))?;
    let locked = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    // Configuration, and kernel and initial RAM disk while the hypervisor reads them: in huge pages, where the kernel has them. Those of
    // an installer have some 100 MiB.
    let run = |options: &str| mount(Some("tmpfs"), "run", Some("tmpfs"), locked, Some(options));
    let options = "size=256m,nr_inodes=16,mode=700";
    run(&format!("{options},huge=within_size")).or_else(|_| run(options)).map_err(at("mount /run"))?;
    let no_exec = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    mount(Some("tmpfs"), "dev", Some("tmpfs"), no_exec, Some("size=4k,nr_inodes=8,mode=755")).map_err(at("mount /dev"))?;
    let devices: &[(&CStr, &CStr)] = &[(c"/dev/null", c"dev/null"), (c"/dev/urandom", c"dev/urandom"), (c"/dev/kvm", c"dev/kvm")];
    for (from, to) in devices.iter().take(if kvm { 3 } else { 2 }) {
        let device = clone_of(from).map_err(at("open_tree of a device"))?;
        forbid(device.as_fd(), Forbid { exec: true, ..Forbid::default() }).map_err(at("limit a device"))?;
        fs::write(to.to_str().unwrap_or_default(), "").map_err(at("make a device's place"))?;
        attach(device.as_fd(), to).map_err(at("mount a device"))?;
    }
    let dev = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | no_exec;
    mount(none, "dev", none, dev, none).map_err(at("read-only /dev"))?;
    for (number, plan) in shares.iter().enumerate() {
        share(plan, number).map_err(at(format!("{SHARE}{number}")))?;
    }
    pivot_root(".", ".").map_err(at("pivot_root"))?;
    // The host's tree now lies over the new one at the same place; nothing of it stays.
    umount2(".", MntFlags::MNT_DETACH).map_err(at("leave the host's files"))?;
    chdir("/").map_err(at("chdir /"))
}

/// Mounts a directory of the host. It is reached with the machine's uid, so that the host's modes decide; nothing that is mounted below it
/// comes along, nothing of it is executed, and no symbolic link of it followed.
fn share(plan: &SharePlan, number: usize) -> io::Result<()> {
    let dir = walk(&plan.dir)?;
    faccessat(&dir, ".", AccessFlags::R_OK | AccessFlags::X_OK, AtFlags::empty())?;
    // EINVAL: something is mounted below it, and would be uncovered.
    let tree = clone_at(dir.as_fd())?;
    forbid(tree.as_fd(), Forbid { write: plan.read_only, exec: true, devices: true, links: true })?;
    let place = CString::new(format!("share/{number}")).map_err(io::Error::from)?;
    attach(tree.as_fd(), &place).map_err(|e| match e.raw_os_error() {
        Some(errno) if errno == Errno::EINVAL as i32 => io::Error::from(Errno::EIO),
        _ => e,
    })
}

/// Becomes the program, with its descriptors at their numbers and no other.
fn run(plan: &Plan<'_>, report: &OwnedFd) -> Result<Infallible, Failed> {
    let text = |s: &str| CString::new(s).map_err(|_| at("arguments")(io::Error::from(io::ErrorKind::InvalidInput)));
    let program = text(plan.program)?;
    let args =
        std::iter::once(plan.program).chain(plan.args.iter().map(String::as_str)).map(text).collect::<Result<Vec<_>, _>>()?;
    nix::unistd::access(program.as_c_str(), AccessFlags::X_OK).map_err(at("find the program in the cell's root"))?;
    let null = fs::OpenOptions::new().read(true).write(true).open("/dev/null").map_err(at("open /dev/null"))?;
    for number in 0..=2 {
        fd::place(null.as_fd(), number).map_err(at("standard descriptors"))?;
    }
    drop(null);
    if let Some(errors) = plan.errors {
        fd::place(errors, 2).map_err(at("standard error"))?;
    }
    let mut numbers: Vec<(BorrowedFd<'_>, RawFd)> = vec![(report.as_fd(), REPORT), (plan.listener, LISTENER)];
    numbers.extend(plan.fds.iter().copied().zip(FIRST..));
    fd::arrange(&numbers).map_err(at("arrange descriptors"))?;
    let environment: [&CStr; 0] = [];
    match execve(&program, &args, &environment) {
        Ok(never) => match never {},
        // The channel is at its number now.
        Err(e) => {
            if let Ok(report) = fd::inherited(REPORT) {
                let _ = msg::send(report.as_fd(), format!("execute the program\t{}", e as i32).as_bytes(), &[], None);
            }
            exit_now(1)
        }
    }
}
