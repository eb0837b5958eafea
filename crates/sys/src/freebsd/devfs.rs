//! Rulesets of devfs(5): which device nodes a mount of it shows, and whose they are (devfs(8), fs/devfs/devfs.h).

use nix::fcntl::{OFlag, open};
use nix::mount::{MntFlags, Nmount};
use nix::sys::stat::Mode;
use std::borrow::Cow;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// One rule.
#[derive(Debug, Clone)]
pub enum Rule {
    /// Hides everything.
    HideAll,
    /// Shows nodes that match, as they are.
    Show(Cow<'static, str>),
    /// Shows them, as this uid's (and the gid of that number), mode 0660.
    ShowTo(Cow<'static, str>, u32),
}

#[repr(C)]
struct DevfsRule {
    magic: u32,
    id: u32,
    conditions: libc::c_int,
    switch_flags: libc::c_int,
    pattern: [u8; 200],
    actions: libc::c_int,
    basic: libc::c_int,
    uid: u32,
    gid: u32,
    mode: u16,
    include: u16,
}
// The kernel's structure has this size: the requests' numbers below say so.
const _: () = assert!(size_of::<DevfsRule>() == 0xec);

const MAGIC: u32 = 0xdb0a_087a;
const BY_PATTERN: libc::c_int = 2;
const ACT_BASIC: libc::c_int = 1;
const ACT_OWNER: libc::c_int = 2 | 4 | 8;
const HIDE: libc::c_int = 1;
const UNHIDE: libc::c_int = 2;
const DEVFSIO_RADD: libc::c_ulong = 0xc0ec_4400;
const DEVFSIO_RDEL: libc::c_ulong = 0x8004_4401;
const DEVFSIO_RGETNEXT: libc::c_ulong = 0xc0ec_4404;
const DEVFSIO_SGETNEXT: libc::c_ulong = 0xc002_440c;

fn rule(ruleset: u16) -> DevfsRule {
    DevfsRule {
        magic: MAGIC,
        id: u32::from(ruleset) << 16,
        conditions: 0,
        switch_flags: 0,
        pattern: [0; 200],
        actions: 0,
        basic: 0,
        uid: 0,
        gid: 0,
        mode: 0,
        include: 0,
    }
}

fn control<T>(dev: BorrowedFd<'_>, request: libc::c_ulong, argument: &mut T) -> io::Result<()> {
    // SAFETY: each request is given the structure whose size it encodes, as a live local.
    let result = unsafe { libc::ioctl(dev.as_raw_fd(), request, std::ptr::from_mut(argument)) };
    if result != 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Makes `ruleset` consist of exactly these rules. `dev` is any mount of devfs.
pub fn set_rules(dev: BorrowedFd<'_>, ruleset: u16, rules: &[Rule]) -> io::Result<()> {
    clear(dev, ruleset)?;
    for wanted in rules {
        let mut one = rule(ruleset);
        one.actions = ACT_BASIC;
        one.basic = UNHIDE;
        let pattern = match wanted {
            Rule::HideAll => {
                one.basic = HIDE;
                None
            }
            Rule::Show(pattern) => Some(pattern.as_ref()),
            Rule::ShowTo(pattern, id) => {
                one.actions |= ACT_OWNER;
                (one.uid, one.gid, one.mode) = (*id, *id, 0o660);
                Some(pattern.as_ref())
            }
        };
        if let Some(pattern) = pattern {
            one.conditions = BY_PATTERN;
            // A NUL stays at the end.
            let place = one.pattern.get_mut(..pattern.len()).filter(|_| pattern.len() < 200);
            place.ok_or(io::ErrorKind::InvalidInput)?.copy_from_slice(pattern.as_bytes());
        }
        control(dev, DEVFSIO_RADD, &mut one)?;
    }
    Ok(())
}

/// The numbers of all rulesets that have rules.
pub fn rulesets(dev: BorrowedFd<'_>) -> io::Result<Vec<u16>> {
    let (mut all, mut number) = (Vec::new(), 0u16);
    loop {
        match control(dev, DEVFSIO_SGETNEXT, &mut number) {
            Ok(()) => all.push(number),
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => return Ok(all),
            Err(e) => return Err(e),
        }
    }
}

/// A rule as the kernel has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// Nodes that it is about; empty: all.
    pub pattern: String,
    /// It asks for more than a pattern (`DRC_DSWFLAGS`).
    pub more: bool,
    /// Whether it shows them (else it hides them, or leaves them as they are).
    pub shows: bool,
    /// Whether it hides them.
    pub hides: bool,
    /// Whose it makes them.
    pub owner: Option<u32>,
    /// With which mode.
    pub mode: Option<u16>,
    /// Another ruleset whose rules it has done.
    pub include: Option<u16>,
}

/// The rules of a ruleset, in their order; none, if there is no such.
pub fn rules(dev: BorrowedFd<'_>, ruleset: u16) -> io::Result<Vec<Seen>> {
    let (mut all, mut next) = (Vec::new(), rule(ruleset));
    for _ in 0..=u16::MAX {
        match control(dev, DEVFSIO_RGETNEXT, &mut next) {
            Ok(()) => {}
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => break,
            Err(e) => return Err(e),
        }
        let has = |action: libc::c_int| next.actions & action != 0;
        let pattern = next.pattern.split(|b| *b == 0).next().unwrap_or_default();
        let by_pattern = next.conditions & BY_PATTERN != 0;
        all.push(Seen {
            pattern: if by_pattern { String::from_utf8_lossy(pattern).into_owned() } else { String::new() },
            more: next.conditions & !BY_PATTERN != 0,
            shows: has(ACT_BASIC) && next.basic & UNHIDE != 0,
            hides: has(ACT_BASIC) && next.basic & HIDE != 0,
            owner: has(2).then_some(next.uid),
            mode: has(8).then_some(next.mode),
            include: has(16).then_some(next.include),
        });
        // The kernel looks for the one behind this number.
        let id = next.id;
        next = rule(ruleset);
        next.id = id;
    }
    Ok(all)
}

/// Empties a ruleset; it is then no more.
pub fn clear(dev: BorrowedFd<'_>, ruleset: u16) -> io::Result<()> {
    // A ruleset has at most 65,535 rules.
    for _ in 0..=u16::MAX {
        let mut next = rule(ruleset);
        match control(dev, DEVFSIO_RGETNEXT, &mut next) {
            Ok(()) => control(dev, DEVFSIO_RDEL, &mut next.id)?,
            // No more, or no such ruleset.
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => return Ok(()),
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// First number of rulesets of [`show`], above those of cells; one for each owner, by the last digits of its uid.
const FIRST: u16 = 62_000;
const MANY: u32 = 3_000;

fn ruleset_of(owner: u32) -> u16 {
    FIRST + u16::try_from(owner % MANY).unwrap_or(0)
}

fn open_dir(path: &Path) -> nix::Result<OwnedFd> {
    open(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())
}

fn is_devfs(dir: &OwnedFd) -> nix::Result<bool> {
    Ok(nix::sys::statfs::fstatfs(dir)?.filesystem_type_name() == "devfs")
}

/// Mounts at `place` a devfs with these rules, for `owner`, and opens it. One that is mounted there already stays: somebody may hold
/// devices and locks of it.
pub fn show(place: &Path, owner: u32, rules: &[Rule]) -> io::Result<OwnedFd> {
    let ruleset = ruleset_of(owner);
    set_rules(open_dir(Path::new("/dev"))?.as_fd(), ruleset, rules)?;
    std::fs::create_dir_all(place)?;
    let there = open_dir(place)?;
    if is_devfs(&there)? {
        return Ok(there);
    }
    drop(there);
    let mut call = Nmount::new();
    call.str_opt_owned("fstype", "devfs").str_opt_owned("fspath", place).str_opt_owned("ruleset", ruleset.to_string().as_str());
    call.nmount(MntFlags::MNT_NOSUID | MntFlags::MNT_NOEXEC).map_err(|e| io::Error::from(e.error()))?;
    Ok(open_dir(place)?)
}

/// Takes away what [`show`] made; `EBUSY` while somebody holds a device of it.
pub fn hide(place: &Path, owner: u32) -> io::Result<()> {
    match open_dir(place).and_then(|dir| is_devfs(&dir)) {
        Err(nix::errno::Errno::ENOENT) => return Ok(()),
        Ok(true) => nix::mount::unmount(place, MntFlags::empty())?,
        other => drop(other?),
    }
    clear(open_dir(Path::new("/dev"))?.as_fd(), ruleset_of(owner))?;
    std::fs::remove_dir(place)
}
