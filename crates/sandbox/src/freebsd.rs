//! FreeBSD: Capsicum. Rights and ioctl lists per descriptor, uid, then capability mode (capsicum(4), rights(4)).

use crate::{EnterError, Scene, failed};
use capsicum::{CapRights, Fcntl, FcntlRights, FileRights, IoctlRights, Right};
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{Gid, Uid, geteuid, getppid, setgroups, setresgid, setresuid};
use skep_rights::{Descriptor, Process, UNLIMITED};
use std::cell::RefCell;
use std::io;
use std::os::fd::BorrowedFd;

/// More than any descriptor of ours has.
const MOST_IOCTLS: usize = 256;

thread_local! {
    /// What lines of tables come to, by their places: they are looked up at each descriptor that is handed out.
    static MADE: RefCell<Vec<(&'static Descriptor, FileRights)>> = const { RefCell::new(Vec::new()) };
}

/// The rights of a line.
fn rights_of(line: &'static Descriptor) -> Result<FileRights, EnterError> {
    let known = MADE.with_borrow(|made| made.iter().find(|(of, _)| std::ptr::eq(*of, line)).map(|(_, rights)| *rights));
    if let Some(rights) = known {
        return Ok(rights);
    }
    let mut rights = FileRights::new();
    for name in line.rights {
        rights.allow(right(name).ok_or_else(|| EnterError::Unsupported(format!("no Capsicum right {name}")))?);
    }
    MADE.with_borrow_mut(|made| made.push((line, rights)));
    Ok(rights)
}

/// Takes every right away that the line does not name. What whoever passed it has taken away already stays away.
pub fn limit(fd: BorrowedFd<'_>, line: &'static Descriptor) -> Result<(), EnterError> {
    if line.rights.is_empty() {
        return Err(EnterError::Unsupported(format!("the table names no Capsicum rights for {}", line.name)));
    }
    if line.rights == UNLIMITED {
        return Ok(());
    }
    let rights = limit_rights(fd, line)?;
    if rights.is_set(Right::Fcntl) {
        limit_fcntls(fd)?;
    }
    if rights.is_set(Right::Ioctl) { limit_ioctls(fd, line.ioctls) } else { Ok(()) }
}

/// Whether a limit asked for more than the descriptor has. The kernel has then changed nothing.
fn asks_for_more(limited: &io::Result<()>) -> bool {
    limited.as_ref().is_err_and(|e| e.raw_os_error() == Some(libc::ENOTCAPABLE))
}

/// Limits it to those of the line's rights that it has, and says which.
fn limit_rights(fd: BorrowedFd<'_>, line: &'static Descriptor) -> Result<FileRights, EnterError> {
    let mut rights = rights_of(line)?;
    // What it has is asked for only if it lacks some: most have all.
    let mut limited = rights.limit(&fd);
    if asks_for_more(&limited) {
        let held = FileRights::from_file(&fd).map_err(failed("cap_rights_get"))?;
        // Added one by one, none taken away: rights share bits (PREAD is READ and SEEK).
        rights = FileRights::new();
        for right in line.rights.iter().filter_map(|name| right(name)).filter(|right| held.is_set(*right)) {
            rights.allow(right);
        }
        limited = rights.limit(&fd);
    }
    limited.map(|()| rights).map_err(failed("cap_rights_limit"))
}

/// Limits it to asking and saying whether it waits; nobody needs more of fcntl(2).
fn limit_fcntls(fd: BorrowedFd<'_>) -> Result<(), EnterError> {
    let mut requests = FcntlRights::new();
    requests.allow(Fcntl::GetFL).allow(Fcntl::SetFL);
    let mut limited = requests.limit(&fd);
    if asks_for_more(&limited) {
        let held = FcntlRights::from_file(&fd).map_err(failed("cap_fcntls_get"))?;
        let mut requests = FcntlRights::new();
        for request in [|| Fcntl::GetFL, || Fcntl::SetFL] {
            let mut more = held;
            // Nothing is added where it is held.
            if *more.allow(request()) == held {
                requests.allow(request());
            }
        }
        limited = requests.limit(&fd);
    }
    limited.map_err(failed("cap_fcntls_limit"))
}

/// Limits it to those of the requests that it has.
fn limit_ioctls(fd: BorrowedFd<'_>, requests: &[u64]) -> Result<(), EnterError> {
    let mut limited = IoctlRights::Limited(requests.to_vec()).limit(&fd);
    if asks_for_more(&limited) {
        let held = match IoctlRights::from_file(&fd, MOST_IOCTLS).map_err(failed("cap_ioctls_get"))? {
            IoctlRights::Limited(held) => held,
            IoctlRights::Unlimited => requests.to_vec(),
        };
        let both = requests.iter().copied().filter(|request| held.contains(request)).collect();
        limited = IoctlRights::Limited(both).limit(&fd);
    }
    limited.map_err(failed("cap_ioctls_limit"))
}

pub fn enter(table: &'static Process, scene: &Scene) -> Result<(), EnterError> {
    let parent = getppid();
    if geteuid().is_root() {
        // Whoever stays root keeps no group of the administrator's who started it.
        setgroups(&[]).map_err(failed("setgroups"))?;
    }
    if let Some((uid, gid)) = scene.identity {
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        setresgid(gid, gid, gid).map_err(failed("setresgid"))?;
        setresuid(uid, uid, uid).map_err(failed("setresuid"))?;
    }
    for (what, limit) in [(Resource::RLIMIT_CORE, 0), (Resource::RLIMIT_NOFILE, table.max_descriptors)] {
        let limit = nix::libc::rlim_t::try_from(limit).unwrap_or(nix::libc::rlim_t::MAX);
        setrlimit(what, limit, limit).map_err(failed("setrlimit"))?;
    }
    if scene.with_parent {
        skep_sys::freebsd::die_with_parent().map_err(failed("procctl PROC_PDEATHSIG_CTL"))?;
        // It may have died before.
        if getppid() != parent {
            return Err(EnterError::Unconfirmed("the supervisor lives"));
        }
    }
    if table.freebsd.capability_mode {
        capsicum::enter().map_err(failed("cap_enter"))?;
        if !capsicum::sandboxed() {
            return Err(EnterError::Unconfirmed("capability mode"));
        }
    }
    Ok(())
}

/// Capability mode cannot be tightened as a whole; what the child holds was limited before.
pub fn tighten(_table: &'static Process) -> Result<(), EnterError> {
    if capsicum::sandboxed() { Ok(()) } else { Err(EnterError::Unconfirmed("capability mode")) }
}

fn right(name: &str) -> Option<Right> {
    Some(match name {
        "READ" => Right::Read,
        "WRITE" => Right::Write,
        "SEEK" => Right::Seek,
        "PREAD" => Right::Pread,
        "PWRITE" => Right::Pwrite,
        "MMAP_RW" => Right::MmapRW,
        "MMAP_R" => Right::MmapR,
        "CREATE" => Right::Create,
        "FEXECVE" => Right::Fexecve,
        "FSYNC" => Right::Fsync,
        "FTRUNCATE" => Right::Ftruncate,
        "LOOKUP" => Right::Lookup,
        "FCHMOD" => Right::Fchmod,
        "FCHMODAT" => Right::Fchmodat,
        "FCHOWN" => Right::Fchown,
        "FCHOWNAT" => Right::Fchownat,
        "FCNTL" => Right::Fcntl,
        "FLOCK" => Right::Flock,
        "FPATHCONF" => Right::Fpathconf,
        "FSTAT" => Right::Fstat,
        "FSTATAT" => Right::Fstatat,
        "FSTATFS" => Right::Fstatfs,
        "FUTIMES" => Right::Futimes,
        "LINKAT_SOURCE" => Right::LinkatSource,
        "LINKAT_TARGET" => Right::LinkatTarget,
        "MKDIRAT" => Right::Mkdirat,
        "RENAMEAT_SOURCE" => Right::RenameatSource,
        "RENAMEAT_TARGET" => Right::RenameatTarget,
        "UNLINKAT" => Right::Unlinkat,
        "ACCEPT" => Right::Accept,
        "BIND" => Right::Bind,
        "BINDAT" => Right::Bindat,
        "CONNECT" => Right::Connect,
        "CONNECTAT" => Right::Connectat,
        "GETPEERNAME" => Right::Getpeername,
        "GETSOCKNAME" => Right::Getsockname,
        "GETSOCKOPT" => Right::Getsockopt,
        "LISTEN" => Right::Listen,
        "SETSOCKOPT" => Right::Setsockopt,
        "SHUTDOWN" => Right::Shutdown,
        "EVENT" => Right::Event,
        "KQUEUE" => Right::Kqueue,
        "KQUEUE_EVENT" => Right::KqueueEvent,
        "KQUEUE_CHANGE" => Right::KqueueChange,
        "IOCTL" => Right::Ioctl,
        "PDGETPID" => Right::Pdgetpid,
        "PDWAIT" => Right::Pdwait,
        "PDKILL" => Right::Pdkill,
        _ => return None,
    })
}
