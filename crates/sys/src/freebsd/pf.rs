//! Requests of pf(4) on an open /dev/pf (net/pfvar.h). Numbers and layouts are those of 64-bit FreeBSD: rules go as lists with names
//! ([`crate::pf`]), and what goes as a struct is the same from 13 to 15.

use crate::pf::{Address, End, Family, Rule, Ruleset, forgotten, nvlist};
use libc::c_ulong;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

const VOID: c_ulong = 0x2000_0000;
const BOTH: c_ulong = 0xc000_0000;

const fn request(direction: c_ulong, number: u8, size: usize) -> c_ulong {
    direction | (size as c_ulong) << 16 | (b'D' as c_ulong) << 8 | number as c_ulong
}

/// Sizes of `struct pfioc_rule`, `pfioc_pooladdr`, `pfioc_ruleset`, `pfioc_trans_e`.
const RULE: usize = 3040;
const POOL: usize = 1136;
const RULESET: usize = 1092;
const ELEMENT: usize = 1032;
/// `MAXPATHLEN`.
const PATH: usize = 1024;

/// `struct pfioc_nv`.
#[repr(C)]
struct Packed {
    data: *mut u8,
    length: usize,
    room: usize,
}

/// `struct pfioc_trans`.
#[repr(C)]
struct Transaction {
    count: i32,
    each: i32,
    elements: *mut u8,
}

const _: () = assert!(size_of::<Packed>() == 24 && size_of::<Transaction>() == 16);

const DIOCSTART: c_ulong = request(VOID, 1, 0);
const DIOCSTOP: c_ulong = request(VOID, 2, 0);
const DIOCADDRULENV: c_ulong = request(BOTH, 4, size_of::<Packed>());
const DIOCGETRULES: c_ulong = request(BOTH, 6, RULE);
const DIOCGETRULENV: c_ulong = request(BOTH, 7, size_of::<Packed>());
const DIOCGETSTATUSNV: c_ulong = request(BOTH, 21, size_of::<Packed>());
const DIOCKILLSTATESNV: c_ulong = request(BOTH, 41, size_of::<Packed>());
const DIOCBEGINADDRS: c_ulong = request(BOTH, 51, POOL);
const DIOCADDADDR: c_ulong = request(BOTH, 52, POOL);
const DIOCGETRULESETS: c_ulong = request(BOTH, 58, RULESET);
const DIOCGETRULESET: c_ulong = request(BOTH, 59, RULESET);
const DIOCXBEGIN: c_ulong = request(BOTH, 81, size_of::<Transaction>());
const DIOCXCOMMIT: c_ulong = request(BOTH, 82, size_of::<Transaction>());
const DIOCXROLLBACK: c_ulong = request(BOTH, 83, size_of::<Transaction>());

/// Every request that is made here.
pub const REQUESTS: [c_ulong; 14] = [
    DIOCSTART,
    DIOCSTOP,
    DIOCADDRULENV,
    DIOCGETRULES,
    DIOCGETRULENV,
    DIOCGETSTATUSNV,
    DIOCKILLSTATESNV,
    DIOCBEGINADDRS,
    DIOCADDADDR,
    DIOCGETRULESETS,
    DIOCGETRULESET,
    DIOCXBEGIN,
    DIOCXCOMMIT,
    DIOCXROLLBACK,
];

/// How often a change is tried again whose ground somebody else has changed meanwhile.
const TRIES: usize = 8;

/// One request with a plain struct: `T` is as large as the number says.
fn plain<T>(pf: BorrowedFd<'_>, number: c_ulong, argument: &mut T) -> io::Result<()> {
    debug_assert!(number == DIOCSTART || number == DIOCSTOP || (number >> 16 & 0x1fff) as usize == size_of::<T>());
    // SAFETY: the request reads and writes as many bytes as it encodes, those of a live local; pointers in it lead to live memory of
    // the length beside them, by the callers, which are in this file.
    let result = unsafe { libc::ioctl(pf.as_raw_fd(), number, std::ptr::from_mut(argument)) };
    if result != 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = bytes.get_mut(at..).and_then(|rest| rest.get_mut(..value.len())) {
        place.copy_from_slice(value);
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |word| u32::from_ne_bytes(*word))
}

fn path(bytes: &mut [u8], at: usize, path: &str) -> io::Result<()> {
    if path.len() >= PATH || path.contains('\0') {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    put(bytes, at, path.as_bytes());
    Ok(())
}

/// A request with a packed list, and what it answers. An answer is not larger than `room`.
fn packed(pf: BorrowedFd<'_>, number: c_ulong, list: &[u8], room: usize) -> io::Result<Vec<u8>> {
    let mut bytes = list.to_vec();
    bytes.resize(list.len().max(room), 0);
    let mut argument = Packed { data: bytes.as_mut_ptr(), length: list.len(), room: bytes.len() };
    plain(pf, number, &mut argument)?;
    bytes.truncate(argument.length);
    Ok(bytes)
}

/// Whether packets are filtered.
pub fn is_on(pf: BorrowedFd<'_>) -> io::Result<bool> {
    let answer = packed(pf, DIOCGETSTATUSNV, &[], 64 << 10)?;
    nvlist::find_bool(&answer, "running").ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

/// Has packets filtered, or none. That they are already, or not, is no error.
pub fn switch(pf: BorrowedFd<'_>, on: bool) -> io::Result<()> {
    match plain(pf, if on { DIOCSTART } else { DIOCSTOP }, &mut 0u64) {
        Err(e) if matches!(e.raw_os_error(), Some(libc::EEXIST | libc::ENOENT)) => Ok(()),
        result => result,
    }
}

/// Forgets connections from these addresses and to them, so that rules are asked about the next packet.
pub fn forget(pf: BorrowedFd<'_>, of: &Address) -> io::Result<()> {
    let family = if matches!(of, Address::Net6(..)) { Family::V6 } else { Family::V4 };
    let (of, all) = (End::of(of.clone()), End::default());
    for nat in [false, true] {
        for (from, to) in [(&of, &all), (&all, &of)] {
            packed(pf, DIOCKILLSTATESNV, &forgotten(family, from, to, nat), 1024)?;
        }
    }
    Ok(())
}

/// How many rules an anchor has (empty: the main rules), and the number by which they are asked for.
fn count(pf: BorrowedFd<'_>, anchor: &str, ruleset: Ruleset) -> io::Result<(u32, u32)> {
    /// Where it has the number of rules, the ticket, the anchor and `rule.action`.
    const COUNT: usize = 12;
    const TICKET: usize = 4;
    const ANCHOR: usize = 16;
    const ACTION: usize = 2968;
    let mut argument = [0u8; RULE];
    path(&mut argument, ANCHOR, anchor)?;
    put(&mut argument, ACTION, &[ruleset.action()]);
    plain(pf, DIOCGETRULES, &mut argument)?;
    Ok((word(&argument, COUNT), word(&argument, TICKET)))
}

/// The anchors that rules call, in their order; of a rule that calls none an empty text.
pub fn calls(pf: BorrowedFd<'_>, anchor: &str, ruleset: Ruleset) -> io::Result<Vec<String>> {
    /// Whose rules are more has none that is read.
    const MOST: u32 = 10_000;
    again(|| {
        let (count, ticket) = count(pf, anchor, ruleset)?;
        let mut calls = Vec::new();
        for number in 0..count.min(MOST) {
            let asked = nvlist::List::default().text("anchor", anchor).number("ruleset", ruleset.action().into());
            let asked = asked.number("ticket", ticket.into()).number("nr", number.into()).pack();
            let answer = packed(pf, DIOCGETRULENV, &asked, 32 << 10)?;
            calls.push(nvlist::find_text(&answer, "anchor_call").unwrap_or_default());
        }
        Ok(calls)
    })
}

/// What the main rules are to some anchors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Main {
    /// There are none.
    Empty,
    /// They call them where packets are let through, and where senders and receivers get other addresses; `alone`: and do nothing else.
    Calls {
        /// See above.
        alone: bool,
    },
    /// They do not.
    Others,
}

/// What the main rules are to the anchors that `call` names.
pub fn main(pf: BorrowedFd<'_>, call: &str) -> io::Result<Main> {
    let mut all = Vec::new();
    for ruleset in Ruleset::ALL {
        all.push((ruleset, calls(pf, "", ruleset)?));
    }
    if all.iter().all(|(_, calls)| calls.is_empty()) {
        return Ok(Main::Empty);
    }
    let wanted = [Ruleset::Filter, Ruleset::Nat, Ruleset::Rdr];
    let is_called = |ruleset| {
        let mut calls = all.iter().filter(|(of, _)| *of == ruleset).flat_map(|(_, calls)| calls);
        calls.any(|found| found.trim_start_matches('/') == call)
    };
    if !wanted.into_iter().all(is_called) {
        return Ok(Main::Others);
    }
    Ok(Main::Calls { alone: all.iter().flat_map(|(_, calls)| calls).count() == wanted.len() })
}

/// Names of the anchors within one; none if it is not there.
pub fn anchors(pf: BorrowedFd<'_>, anchor: &str) -> io::Result<Vec<String>> {
    const AT_PATH: usize = 4;
    const NAME: usize = AT_PATH + PATH;
    again(|| {
        let mut argument = [0u8; RULESET];
        path(&mut argument, AT_PATH, anchor)?;
        match plain(pf, DIOCGETRULESETS, &mut argument) {
            Err(e) if matches!(e.raw_os_error(), Some(libc::EINVAL | libc::ENOENT)) => return Ok(Vec::new()),
            result => result?,
        }
        let mut names = Vec::new();
        for number in 0..word(&argument, 0) {
            let mut argument = [0u8; RULESET];
            path(&mut argument, AT_PATH, anchor)?;
            put(&mut argument, 0, &number.to_ne_bytes());
            plain(pf, DIOCGETRULESET, &mut argument)?;
            let name = argument.get(NAME..).unwrap_or_default().split(|byte| *byte == 0).next().unwrap_or_default();
            names.push(String::from_utf8_lossy(name).into_owned());
        }
        Ok(names)
    })
}

/// The rules that an anchor is to have, in place of those from before.
#[derive(Debug, Clone)]
pub struct Change<'a> {
    /// Which; empty: the main rules.
    pub anchor: &'a str,
    /// Which kind.
    pub ruleset: Ruleset,
    /// The rules; none: the anchor goes, if it has no other.
    pub rules: &'a [Rule],
}

/// Makes changes, all at once or none.
pub fn change(pf: BorrowedFd<'_>, changes: &[Change<'_>]) -> io::Result<()> {
    again(|| once(pf, changes))
}

fn again<T>(mut act: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    for _ in 1..TRIES {
        match act() {
            Err(e) if e.raw_os_error() == Some(libc::EBUSY) => {}
            result => return result,
        }
    }
    act()
}

fn once(pf: BorrowedFd<'_>, changes: &[Change<'_>]) -> io::Result<()> {
    /// Where an element has its anchor and its ticket.
    const ANCHOR: usize = 4;
    const TICKET: usize = ANCHOR + PATH;
    let mut elements = vec![0u8; changes.len() * ELEMENT];
    for (element, change) in elements.chunks_exact_mut(ELEMENT).zip(changes) {
        put(element, 0, &(change.ruleset as i32).to_ne_bytes());
        path(element, ANCHOR, change.anchor)?;
    }
    let ask = |number, elements: &mut Vec<u8>| {
        let count = i32::try_from(changes.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        plain(pf, number, &mut Transaction { count, each: ELEMENT as i32, elements: elements.as_mut_ptr() })
    };
    ask(DIOCXBEGIN, &mut elements)?;
    let fill = || -> io::Result<()> {
        for (element, change) in elements.chunks_exact(ELEMENT).zip(changes) {
            for rule in change.rules {
                add(pf, change.anchor, word(element, TICKET), rule)?;
            }
        }
        Ok(())
    };
    match fill() {
        Ok(()) => ask(DIOCXCOMMIT, &mut elements),
        Err(error) => {
            // What is begun is in nobody's way: the next one to begin takes its place.
            let _ = ask(DIOCXROLLBACK, &mut elements);
            Err(error)
        }
    }
}

fn add(pf: BorrowedFd<'_>, anchor: &str, ticket: u32, rule: &Rule) -> io::Result<()> {
    /// Where a `struct pfioc_pooladdr` has its ticket, `r_action`, the family, and its `pf_addr_wrap`.
    const TICKET: usize = 4;
    const ACTION: usize = 16;
    const FAMILY: usize = 18;
    const ADDRESS: usize = 1048;
    let mut pool = [0u8; POOL];
    plain(pf, DIOCBEGINADDRS, &mut pool)?;
    let pool_ticket = word(&pool, TICKET);
    if let Some((address, _)) = &rule.other {
        put(&mut pool, ACTION, &[rule.action as u8]);
        put(&mut pool, FAMILY, &[rule.family as u8]);
        put(&mut pool, ADDRESS, &in_pool(address));
        plain(pf, DIOCADDADDR, &mut pool)?;
    }
    packed(pf, DIOCADDRULENV, &rule.pack(anchor, ticket, pool_ticket), 0).map(drop)
}

/// `struct pf_addr_wrap`.
fn in_pool(address: &Address) -> [u8; 48] {
    let wrap = address.wrap();
    let mut bytes = [0; 48];
    put(&mut bytes, 0, &wrap.address);
    put(&mut bytes, 16, &wrap.mask);
    put(&mut bytes, 40, &[wrap.kind, wrap.flags]);
    bytes
}
