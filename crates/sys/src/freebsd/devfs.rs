//! Rulesets of devfs(5): which device nodes a mount of it shows, and whose they are (devfs(8), fs/devfs/devfs.h).
//!
//! Rulesets are numbered for the whole host. Whose one of ours is, it says itself: its first rule hides a path that no device has, the
//! mark ([`Mark`]). So it is found again after any crash, and nothing that outlives it (a reboot takes it) can name another's.

use nix::fcntl::{Flock, FlockArg, OFlag, open};
use nix::mount::{MntFlags, Nmount};
use nix::sys::stat::Mode;
use std::borrow::Cow;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// One rule.
#[derive(Debug, Clone)]
pub enum Rule {
    /// Hides everything.
    HideAll,
    /// Hides nodes that match.
    Hide(Cow<'static, str>),
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

/// Whose a ruleset is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark(String);

impl Mark {
    /// Of what `instance` made, a suite's mark, for `what`: a cell, its volumes.
    pub fn new(instance: impl std::fmt::Display, what: impl std::fmt::Display) -> Self {
        Self(format!("skep/{instance}/{what}"))
    }
}

/// Rulesets of suites; the host's administrator has those below.
const FIRST: u16 = 30_000;
const END: u16 = u16::MAX;
/// Whoever looks for a free number, or gives one back, waits for the others of this host here.
const LOCK: &str = "/var/run/skep-devfs.lock";

/// Nobody else may open the file: a reader could hold the lock, too.
fn lock() -> io::Result<Flock<std::fs::File>> {
    let mut options = std::fs::OpenOptions::new();
    options.create(true).truncate(false).write(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    Flock::lock(options.open(LOCK)?, FlockArg::LockExclusive).map_err(|(_, e)| e.into())
}

/// Takes a ruleset that bears `mark`, with these rules: the one that bears it already, or a free number. `dev` is any mount of devfs.
pub fn take(dev: BorrowedFd<'_>, mark: &Mark, rules: &[Rule]) -> io::Result<u16> {
    let _lock = lock()?;
    let taken = rulesets(dev)?;
    let ruleset = match of(dev, mark)?.first() {
        Some(own) => *own,
        None => (FIRST..END).find(|number| !taken.contains(number)).ok_or_else(|| io::Error::other("every ruleset is taken"))?,
    };
    set_rules(dev, ruleset, mark, rules)?;
    Ok(ruleset)
}

/// Gives back what bears `mark`, once nothing is mounted with it. That nothing does is no error.
pub fn give(dev: BorrowedFd<'_>, mark: &Mark) -> io::Result<()> {
    let _lock = lock()?;
    of(dev, mark)?.into_iter().try_for_each(|ruleset| clear(dev, ruleset))
}

/// The rulesets that bear `mark`.
pub fn of(dev: BorrowedFd<'_>, mark: &Mark) -> io::Result<Vec<u16>> {
    let mut found = Vec::new();
    for ruleset in rulesets(dev)?.into_iter().filter(|number| (FIRST..END).contains(number)) {
        // None yet, or somebody else's that went meanwhile, is not an error.
        let first = next_rule(dev, &rule(ruleset))?;
        if first.is_some_and(|r| r.conditions == BY_PATTERN && r.basic == HIDE && pattern(&r) == mark.0.as_bytes()) {
            found.push(ruleset);
        }
    }
    Ok(found)
}

/// The rule behind `last` in its ruleset; none: it was the last, or there is no such ruleset.
fn next_rule(dev: BorrowedFd<'_>, last: &DevfsRule) -> io::Result<Option<DevfsRule>> {
    // Only the id counts, and it must be a rule that could be one.
    let mut next = DevfsRule { id: last.id, ..rule(0) };
    match control(dev, DEVFSIO_RGETNEXT, &mut next) {
        Ok(()) => Ok(Some(next)),
        Err(e) if is_none(&e) => Ok(None),
        Err(e) => Err(e),
    }
}

fn pattern(rule: &DevfsRule) -> &[u8] {
    rule.pattern.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// No more, or no such ruleset.
fn is_none(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH))
}

/// Makes `ruleset` consist of the mark, first, and exactly these rules.
fn set_rules(dev: BorrowedFd<'_>, ruleset: u16, mark: &Mark, rules: &[Rule]) -> io::Result<()> {
    clear(dev, ruleset)?;
    let mark = Rule::Hide(mark.0.clone().into());
    for wanted in std::iter::once(&mark).chain(rules) {
        let mut one = rule(ruleset);
        one.actions = ACT_BASIC;
        one.basic = UNHIDE;
        let pattern = match wanted {
            Rule::HideAll => {
                one.basic = HIDE;
                None
            }
            Rule::Hide(pattern) => {
                one.basic = HIDE;
                Some(pattern.as_ref())
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

/// The numbers of all rulesets that have rules, or are in use.
fn rulesets(dev: BorrowedFd<'_>) -> io::Result<Vec<u16>> {
    let (mut all, mut number) = (Vec::new(), 0u16);
    loop {
        match control(dev, DEVFSIO_SGETNEXT, &mut number) {
            Ok(()) => all.push(number),
            Err(e) if is_none(&e) => return Ok(all),
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
    let (mut all, mut last) = (Vec::new(), rule(ruleset));
    while let Some(next) = next_rule(dev, &last)? {
        let has = |action: libc::c_int| next.actions & action != 0;
        let by_pattern = next.conditions & BY_PATTERN != 0;
        all.push(Seen {
            pattern: if by_pattern { String::from_utf8_lossy(pattern(&next)).into_owned() } else { String::new() },
            more: next.conditions & !BY_PATTERN != 0,
            shows: has(ACT_BASIC) && next.basic & UNHIDE != 0,
            hides: has(ACT_BASIC) && next.basic & HIDE != 0,
            owner: has(2).then_some(next.uid),
            mode: has(8).then_some(next.mode),
            include: has(16).then_some(next.include),
        });
        last = next;
    }
    Ok(all)
}

/// Empties a ruleset; it is then no more.
fn clear(dev: BorrowedFd<'_>, ruleset: u16) -> io::Result<()> {
    // The mark goes last: cut off here, the ruleset is found again.
    let (mut ids, mut last) = (Vec::new(), rule(ruleset));
    while let Some(next) = next_rule(dev, &last)? {
        ids.push(next.id);
        last = next;
    }
    ids.iter_mut().rev().try_for_each(|id| control(dev, DEVFSIO_RDEL, id))
}

fn open_dir(path: &Path) -> nix::Result<OwnedFd> {
    open(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())
}

fn is_devfs(dir: &OwnedFd) -> nix::Result<bool> {
    Ok(nix::sys::statfs::fstatfs(dir)?.filesystem_type_name() == "devfs")
}

/// Mounts at `place` a devfs with these rules, in a ruleset that bears `mark`, and opens it. One that is mounted there already stays:
/// somebody may hold devices and locks of it.
pub fn show(place: &Path, mark: &Mark, rules: &[Rule]) -> io::Result<OwnedFd> {
    let ruleset = take(open_dir(Path::new("/dev"))?.as_fd(), mark, rules)?;
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
pub fn hide(place: &Path, mark: &Mark) -> io::Result<()> {
    let there = match open_dir(place).and_then(|dir| is_devfs(&dir)) {
        Err(nix::errno::Errno::ENOENT) => false,
        Ok(true) => {
            nix::mount::unmount(place, MntFlags::empty())?;
            true
        }
        other => other.map(|_| true)?,
    };
    give(open_dir(Path::new("/dev"))?.as_fd(), mark)?;
    if there { std::fs::remove_dir(place) } else { Ok(()) }
}
