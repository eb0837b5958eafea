//! The cell's file systems: the prepared root, read-only; the few devices of bhyve; room for its configuration.

use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MntFlags, Nmount, unmount};
use skep_sys::freebsd::devfs::{Rule, clear as clear_rules, rulesets, set_rules};
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Rulesets of cells; below them are those of the host's administrator.
const FIRST: u16 = 30_000;
/// From here on are those of storage-helpers' volumes.
const END: u16 = 62_000;
/// Rulesets are numbered for the whole host: suites that look for a free number wait for each other here.
const LOCK: &str = "/var/run/skep-devfs.lock";

/// Where a cell's ruleset is written down.
fn note(place: &Path) -> PathBuf {
    place.with_extension("ruleset")
}

/// Takes a ruleset for the cell at `place`. With an owner, bhyve's devices are its (FREEBSD15.md 18).
pub fn take_ruleset(dev: BorrowedFd<'_>, place: &Path, owner: Option<u32>) -> io::Result<u16> {
    let _lock = lock()?;
    let taken = rulesets(dev)?;
    let free = (FIRST..END).find(|number| !taken.contains(number));
    let ruleset = free.ok_or_else(|| io::Error::other("every ruleset of devfs is taken"))?;
    // The note last: one that says a number which is somebody else's would open that one's cell. Cut off here, a number is lost.
    rules(dev, ruleset, owner)?;
    std::os::unix::fs::symlink(ruleset.to_string(), note(place))?;
    Ok(ruleset)
}

/// Gives the ruleset of the cell at `place` back, once nothing is mounted with it.
pub fn give_ruleset(dev: BorrowedFd<'_>, place: &Path) -> io::Result<()> {
    let note = note(place);
    let _lock = lock()?;
    let number = match std::fs::read_link(&note) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        link => link?,
    };
    // Before the number is free for others: see above.
    std::fs::remove_file(note)?;
    match number.to_str().and_then(|text| text.parse().ok()).filter(|number| (FIRST..END).contains(number)) {
        Some(number) => clear_rules(dev, number),
        None => Ok(()),
    }
}

/// Nobody else may open the file: a reader could hold the lock, too.
fn lock() -> io::Result<Flock<std::fs::File>> {
    let mut options = std::fs::OpenOptions::new();
    options.create(true).truncate(false).write(true).mode(0o600).custom_flags(nix::libc::O_NOFOLLOW);
    Flock::lock(options.open(LOCK)?, FlockArg::LockExclusive).map_err(|(_, e)| e.into())
}

fn rules(dev: BorrowedFd<'_>, ruleset: u16, owner: Option<u32>) -> io::Result<()> {
    let mut rules = vec![Rule::HideAll];
    rules.extend(skep_rights::hypervisor::NODES.iter().map(|node| match owner.filter(|_| node.owned) {
        Some(uid) => Rule::ShowTo(node.pattern.into(), uid),
        None => Rule::Show(node.pattern.into()),
    }));
    set_rules(dev, ruleset, &rules)
}

fn mount(kind: &str, at: &Path, options: &[(&str, &str)], flags: MntFlags) -> io::Result<()> {
    let mut call = Nmount::new();
    call.str_opt_owned("fstype", kind).str_opt_owned("fspath", at);
    for (key, value) in options {
        call.str_opt_owned(*key, *value);
    }
    call.nmount(flags).map_err(|e| e.error().into())
}

/// Mounts them at `place`.
pub fn furnish(root: &Path, place: &Path, ruleset: u16, uid: u32) -> io::Result<()> {
    let root = std::str::from_utf8(root.as_os_str().as_bytes()).map_err(io::Error::other)?;
    mount("nullfs", place, &[("target", root)], MntFlags::MNT_RDONLY | MntFlags::MNT_NOSUID)?;
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

/// Unmounts everything, innermost first, and removes the mount point.
pub fn clear(place: &Path) -> io::Result<()> {
    if !place.exists() {
        return Ok(());
    }
    for below in ["tmp", "run", "dev/fd", "dev", ""] {
        let at = if below.is_empty() { place.to_owned() } else { place.join(below) };
        // A dying jail's devices keep it busy until its devfs is read once more (FREEBSD.md 48); then the kernel needs a moment.
        for round in 0..200u8 {
            for devices in [Path::new("/dev"), &place.join("dev")] {
                let _ = std::fs::read_dir(devices).map(Iterator::count);
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
    match std::fs::remove_dir(place) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}
