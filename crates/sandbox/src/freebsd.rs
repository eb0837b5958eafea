//! FreeBSD: Capsicum. Rights and ioctl lists per descriptor, uid, then capability mode (capsicum(4), rights(4)).

use crate::{EnterError, Scene, failed};
use capsicum::{CapRights, Fcntl, FcntlRights, FileRights, IoctlRights, Right};
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{Gid, Uid, geteuid, getppid, setgroups, setresgid, setresuid};
use skep_rights::{Descriptor, Process, UNLIMITED};
use std::os::fd::BorrowedFd;

/// More than any descriptor of ours has.
const MOST_IOCTLS: usize = 256;

/// Takes every right away that the line does not name. What whoever passed it has taken away already stays away.
pub fn limit(fd: BorrowedFd<'_>, line: &Descriptor) -> Result<(), EnterError> {
    if line.rights.is_empty() {
        return Err(EnterError::Unsupported(format!("the table names no Capsicum rights for {}", line.name)));
    }
    if line.rights == UNLIMITED {
        return Ok(());
    }
    let held = FileRights::from_file(&fd).map_err(failed("cap_rights_get"))?;
    let mut rights = FileRights::new();
    for name in line.rights {
        let right = right(name).ok_or_else(|| EnterError::Unsupported(format!("no Capsicum right {name}")))?;
        if held.is_set(right) {
            rights.allow(right);
        }
    }
    rights.limit(&fd).map_err(failed("cap_rights_limit"))?;
    if rights.is_set(Right::Fcntl) {
        let held = FcntlRights::from_file(&fd).map_err(failed("cap_fcntls_get"))?;
        // Whether it waits; nobody needs more of fcntl(2).
        let mut requests = FcntlRights::new();
        for request in [|| Fcntl::GetFL, || Fcntl::SetFL] {
            let mut more = held;
            // Nothing is added where it is held.
            if *more.allow(request()) == held {
                requests.allow(request());
            }
        }
        requests.limit(&fd).map_err(failed("cap_fcntls_limit"))?;
    }
    if !rights.is_set(Right::Ioctl) {
        return Ok(());
    }
    let held = IoctlRights::from_file(&fd, MOST_IOCTLS).map_err(failed("cap_ioctls_get"))?;
    let ioctls: Vec<u64> = match held {
        IoctlRights::Limited(held) => line.ioctls.iter().copied().filter(|request| held.contains(request)).collect(),
        IoctlRights::Unlimited => line.ioctls.to_vec(),
    };
    IoctlRights::Limited(ioctls).limit(&fd).map_err(failed("cap_ioctls_limit"))
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
