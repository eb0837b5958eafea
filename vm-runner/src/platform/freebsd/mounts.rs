//! The cell's file systems: the prepared root, read-only; the few devices of bhyve; room for its configuration.

use crate::platform::SharePlan;
use crate::platform::shares::walk;
use nix::mount::{MntFlags, Nmount, unmount};
use skep_proto::Dsp;
use skep_rights::hypervisor;
use skep_sys::freebsd::devfs::Rule;
use std::borrow::Cow;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What of `/dev` a cell sees, sound devices by their numbers. With an owner, bhyve's devices are its (FREEBSD15.md 18).
pub fn rules(owner: Option<u32>, sound: &[Dsp]) -> Vec<Rule> {
    let rule = |pattern: Cow<'static, str>, owned: bool| match owner.filter(|_| owned) {
        Some(uid) => Rule::ShowTo(pattern, uid),
        None => Rule::Show(pattern),
    };
    let mut rules = vec![Rule::HideAll];
    rules.extend(hypervisor::NODES.iter().map(|node| rule(node.pattern.into(), node.owned)));
    rules.extend(
        sound.iter().flat_map(|dsp| hypervisor::sound(dsp.0)).map(|pattern| rule(pattern.into(), hypervisor::SOUND.owned)),
    );
    rules
}

/// Whether what this is of lies on a tmpfs(4). Its descriptor can be asked for no more than where it is.
pub fn in_memory(file: BorrowedFd<'_>) -> io::Result<bool> {
    let device = nix::sys::stat::fstat(file)?.st_dev;
    let all = skep_sys::freebsd::ask::mounts()?;
    let mut places = all.iter().filter(|mounted| mounted.kind == "tmpfs");
    Ok(places.any(|mounted| nix::sys::stat::stat(mounted.at.as_str()).is_ok_and(|root| root.st_dev == device)))
}

fn mount(kind: &str, at: &Path, options: &[(&str, &str)], flags: MntFlags) -> io::Result<()> {
    let mut call = Nmount::new();
    call.str_opt_owned("fstype", kind).str_opt_owned("fspath", at);
    for (key, value) in options {
        call.str_opt_owned(*key, *value);
    }
    call.nmount(flags).map_err(|e| e.error().into())
}

/// Mounts the root at `place`.
pub fn root(root: &Path, place: &Path) -> io::Result<()> {
    let root = std::str::from_utf8(root.as_os_str().as_bytes()).map_err(io::Error::other)?;
    mount("nullfs", place, &[("target", root)], MntFlags::MNT_RDONLY | MntFlags::MNT_NOSUID)
}

/// Mounts the others below it.
pub fn furnish(place: &Path, ruleset: u16, uid: u32) -> io::Result<()> {
    mount("devfs", &place.join("dev"), &[("ruleset", &ruleset.to_string())], MntFlags::MNT_NOSUID | MntFlags::MNT_NOEXEC)?;
    mount("fdescfs", &place.join("dev/fd"), &[], MntFlags::MNT_NOSUID)?;
    // bhyve wants taps by a name that begins with tap; each is a descriptor (FREEBSD.md 27).
    for slot in 0..8 {
        let name = if slot == 0 { "tapfd".to_owned() } else { format!("tapfd{slot}") };
        match std::os::unix::fs::symlink(format!("fd/{}", 32 + slot), place.join("dev").join(name)) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
            _ => {}
        }
    }
    let uid = uid.to_string();
    let room = |size| [("size", size), ("uid", uid.as_str()), ("gid", uid.as_str()), ("mode", "0700")];
    mount("tmpfs", &place.join("run"), &room("64m"), MntFlags::MNT_NOSUID | MntFlags::MNT_NOEXEC)?;
    // iasl's files (FREEBSD.md 35), and the screen's socket.
    mount("tmpfs", &place.join("tmp"), &room("4m"), MntFlags::MNT_NOSUID | MntFlags::MNT_NOEXEC)
}

/// Mounts a directory of the host below it. mount(2) knows only its path: what was mounted in the end has to be what the walk found.
pub fn share(plan: &SharePlan, number: usize, place: &Path) -> io::Result<()> {
    let dir = walk(&plan.dir)?;
    let at = place.join("share").join(number.to_string());
    let target = plan.dir.to_str().ok_or(io::ErrorKind::InvalidInput)?;
    let read_only = if plan.read_only { MntFlags::MNT_RDONLY } else { MntFlags::empty() };
    mount("nullfs", &at, &[("target", target)], MntFlags::MNT_NOSUID | MntFlags::MNT_NOEXEC | read_only)?;
    // nullfs shows the numbers of the files below it.
    let (walked, mounted) = (nix::sys::stat::fstat(&dir)?, std::fs::metadata(&at)?);
    if walked.st_ino == mounted.ino() && nix::sys::stat::fstat(walk(&plan.dir)?)?.st_ino == walked.st_ino {
        return Ok(());
    }
    // Whoever called unmounts it with the rest.
    Err(nix::errno::Errno::ESTALE.into())
}

/// Unmounts everything, innermost first; `EBUSY` if something stays: its ruleset must stay, too. The mount point does: it says that there
/// is something to sweep.
pub fn clear(place: &Path) -> io::Result<()> {
    if !place.exists() {
        return Ok(());
    }
    for below in ["share/3", "share/2", "share/1", "share/0", "tmp", "run", "dev/fd", "dev", ""] {
        let at = if below.is_empty() { place.to_owned() } else { place.join(below) };
        // A dying jail's devices keep it busy until each devfs that has seen them is read once more, whosever it is (FREEBSD.md 48); then
        // the kernel needs a moment.
        for round in 0..200u8 {
            for devices in skep_sys::freebsd::ask::mounts()?.iter().filter(|mounted| mounted.kind == "devfs") {
                let _ = std::fs::read_dir(&devices.at).map(Iterator::count);
            }
            let flags = if round < 100 { MntFlags::empty() } else { MntFlags::MNT_FORCE };
            match unmount(&at, flags) {
                Err(nix::errno::Errno::EBUSY) => drop(nix::poll::poll(&mut [], 5u8)),
                // Nothing is mounted there.
                Ok(()) | Err(nix::errno::Errno::EINVAL | nix::errno::Errno::ENOENT) => break,
                Err(e) => return Err(e.into()),
            }
        }
    }
    // Whatever is mounted there still, from whichever time, is another file system.
    let above = place.parent().unwrap_or(place);
    if std::fs::metadata(place)?.dev() == std::fs::metadata(above)?.dev() { Ok(()) } else { Err(nix::errno::Errno::EBUSY.into()) }
}
