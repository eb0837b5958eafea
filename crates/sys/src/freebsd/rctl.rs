//! Limits and counters of jails (rctl(4), rctl_add_rule(2)); there only if the kernel was booted with `kern.racct.enable=1`.

use std::ffi::CString;
use std::io;

const RCTL_GET_RACCT: libc::c_int = 525;
const RCTL_GET_RULES: libc::c_int = 526;
const RCTL_ADD_RULE: libc::c_int = 528;
const RCTL_REMOVE_RULE: libc::c_int = 529;

fn call(number: libc::c_int, text: &str, answer: &mut [u8]) -> io::Result<()> {
    let text = CString::new(text)?;
    let bytes = text.as_bytes_with_nul();
    // SAFETY: the request is a live, NUL-terminated text with its length, the answer a live buffer with its length.
    let result = unsafe { libc::syscall(number, bytes.as_ptr(), bytes.len(), answer.as_mut_ptr(), answer.len()) };
    if result != 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Adds a rule, `jail:NAME:vmemoryuse:deny=BYTES`; the jail need not be there yet.
pub fn add(rule: &str) -> io::Result<()> {
    call(RCTL_ADD_RULE, rule, &mut [])
}

/// Removes all rules that match, `jail:NAME`.
pub fn remove(filter: &str) -> io::Result<()> {
    match call(RCTL_REMOVE_RULE, filter, &mut []) {
        Err(e) if e.raw_os_error() != Some(libc::ESRCH) => Err(e),
        _ => Ok(()),
    }
}

/// What a subject uses: `cputime=3,vmemoryuse=4096,…`.
pub fn usage(subject: &str) -> io::Result<String> {
    text(RCTL_GET_RACCT, subject, 4096)
}

/// All rules that match (`jail:` is every jail's), as the kernel writes them: `jail:NAME:maxproc:deny=64`.
pub fn rules(filter: &str) -> io::Result<Vec<String>> {
    let mut room = 8 << 10;
    loop {
        match text(RCTL_GET_RULES, filter, room) {
            // What the kernel says when they do not fit.
            Err(e) if e.raw_os_error() == Some(libc::ERANGE) && room < MOST => room *= 4,
            answer => return Ok(answer?.split(',').filter(|rule| !rule.is_empty()).map(str::to_owned).collect()),
        }
    }
}

/// Bytes of rules that the kernel tells at most (`kern.racct.rctl.maxbufsize`).
const MOST: usize = 128 << 10;

fn text(number: libc::c_int, subject: &str, room: usize) -> io::Result<String> {
    let mut answer = vec![0; room];
    call(number, subject, &mut answer)?;
    let end = answer.iter().position(|b| *b == 0).unwrap_or(answer.len());
    answer.truncate(end);
    String::from_utf8(answer).map_err(io::Error::other)
}
