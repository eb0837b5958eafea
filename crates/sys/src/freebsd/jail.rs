//! Jails (jail_set(2)): made and entered in one step, found by name, removed with everything in them.

use std::ffi::CString;
use std::io;

/// A parameter's value (jail(8)).
#[derive(Debug, Clone)]
pub enum Value {
    /// Set, for parameters that are only named (`allow.vmm`).
    Named,
    /// A number. Of `ip4`, `ip6` and `vnet`: 0 none, 1 one of its own, 2 the host's.
    Number(i32),
    /// A text.
    Text(String),
}

const CREATE: libc::c_int = 1;
const UPDATE: libc::c_int = 2;
const ATTACH: libc::c_int = 4;
const DYING: libc::c_int = 8;

fn vector(bytes: &[u8]) -> libc::iovec {
    libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() }
}

/// Makes a jail and puts this process into it, for good. Its number.
pub fn create_and_enter(parameters: &[(&str, Value)]) -> io::Result<i32> {
    let zero = |text: &str| CString::new(text).map(CString::into_bytes_with_nul).map_err(io::Error::from);
    let mut parts = Vec::new();
    for (name, value) in parameters {
        parts.push(zero(name)?);
        parts.push(match value {
            Value::Named => Vec::new(),
            Value::Number(number) => number.to_ne_bytes().to_vec(),
            Value::Text(text) => zero(text)?,
        });
    }
    let mut vectors: Vec<libc::iovec> = parts.iter().map(|p| vector(p)).collect();
    for (empty, part) in vectors.iter_mut().zip(&parts) {
        if part.is_empty() {
            empty.iov_base = std::ptr::null_mut();
        }
    }
    let count = libc::c_uint::try_from(vectors.len()).map_err(io::Error::other)?;
    // SAFETY: every vector is a live buffer with its true length, or null and empty; jail_set(2) reads them (there is no errmsg).
    let id = unsafe { libc::jail_set(vectors.as_mut_ptr(), count, CREATE | ATTACH) };
    if id < 0 { Err(io::Error::last_os_error()) } else { Ok(id) }
}

/// Puts this process, for good, into a jail that is dying; its end ends the jail again. Fails with `ENOENT` if there is none of this name.
pub fn enter_dying(name: &str) -> io::Result<()> {
    let mut name = CString::new(name)?.into_bytes_with_nul();
    let key = vector(c"name".to_bytes_with_nul());
    let value = libc::iovec { iov_base: name.as_mut_ptr().cast(), iov_len: name.len() };
    // SAFETY: both vectors are live, NUL-terminated texts with their true length; jail_set(2) reads them (there is no errmsg).
    let id = unsafe { libc::jail_set([key, value].as_mut_ptr(), 2, UPDATE | ATTACH | DYING) };
    if id < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The number of the jail of this name, if it lives; one that is dying does not.
pub fn find(name: &str) -> io::Result<Option<i32>> {
    get(name, 0)
}

/// Likewise, if it lives or is dying.
pub fn find_dying(name: &str) -> io::Result<Option<i32>> {
    get(name, DYING)
}

fn get(name: &str, flags: libc::c_int) -> io::Result<Option<i32>> {
    let mut name = CString::new(name)?.into_bytes_with_nul();
    let key = vector(c"name".to_bytes_with_nul());
    let value = libc::iovec { iov_base: name.as_mut_ptr().cast(), iov_len: name.len() };
    // SAFETY: both vectors are live, NUL-terminated texts with their true length. jail_get(2) reads the key, and writes the name that it
    // found back to where it read it, within its length.
    let id = unsafe { libc::jail_get([key, value].as_mut_ptr(), 2, flags) };
    match id {
        0.. => Ok(Some(id)),
        _ => match io::Error::last_os_error() {
            e if e.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            e => Err(e),
        },
    }
}

/// Puts this process into a jail, for good; its working directory becomes the jail's root.
pub fn attach(id: i32) -> io::Result<()> {
    // SAFETY: one integer.
    if unsafe { libc::jail_attach(id) } != 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Kills every process of a jail, and removes it.
pub fn remove(id: i32) -> io::Result<()> {
    // SAFETY: one integer.
    if unsafe { libc::jail_remove(id) } != 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
