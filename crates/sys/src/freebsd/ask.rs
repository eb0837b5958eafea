//! What the kernel says about processes and jails: sysctl(3), jail_get(2).

use std::io;

/// Most bytes that are read: the open files of a process with 20,000 of them are some 27 MB.
const MOST: usize = 64 << 20;

/// The bytes of a sysctl variable, by its numbers (`kern.proc.*`, sys/user.h).
pub fn sysctl(name: &[libc::c_int]) -> io::Result<Vec<u8>> {
    let numbers = libc::c_uint::try_from(name.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut size = 0;
    // SAFETY: the name is `numbers` integers long; without a buffer only `size`, a live local, is written.
    let result = unsafe { libc::sysctl(name.as_ptr(), numbers, std::ptr::null_mut(), &raw mut size, std::ptr::null(), 0) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    loop {
        // It may grow between the two calls.
        let mut bytes = vec![0u8; size.saturating_add(size / 4).saturating_add(4096).min(MOST)];
        let mut got = bytes.len();
        // SAFETY: at most `got` bytes, the buffer's length, are written into it; the name is as above.
        let result =
            unsafe { libc::sysctl(name.as_ptr(), numbers, bytes.as_mut_ptr().cast(), &raw mut got, std::ptr::null(), 0) };
        if result == 0 {
            bytes.truncate(got);
            return Ok(bytes);
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::ENOMEM) || bytes.len() >= MOST {
            return Err(error);
        }
        size = bytes.len();
    }
}

/// A jail's parameters (jail(8)).
#[derive(Debug, Clone)]
pub struct Jail {
    /// `name`
    pub name: String,
    /// `path`
    pub path: String,
    /// `vnet`: 1 is a network stack of its own.
    pub vnet: i32,
    /// `ip4`: 0 disabled, 1 addresses of its own, 2 the host's.
    pub ip4: i32,
    /// `ip6` likewise.
    pub ip6: i32,
    /// `securelevel`
    pub securelevel: i32,
    /// `children.max`
    pub children: i32,
}

/// Asks for a jail by its number.
pub fn jail(mut id: i32) -> io::Result<Jail> {
    let mut name = [0u8; 256];
    let mut path = [0u8; 1024];
    let (mut vnet, mut ip4, mut ip6, mut securelevel, mut children) = (0i32, 0i32, 0i32, 0i32, 0i32);
    fn vector(start: *mut libc::c_void, length: usize) -> libc::iovec {
        libc::iovec { iov_base: start, iov_len: length }
    }
    let key = |name: &std::ffi::CStr| vector(name.as_ptr().cast_mut().cast(), name.to_bytes_with_nul().len());
    let number = |value: &mut i32| vector((value as *mut i32).cast(), size_of::<i32>());
    let mut vectors = [
        key(c"jid"),
        number(&mut id),
        key(c"name"),
        vector(name.as_mut_ptr().cast(), name.len()),
        key(c"path"),
        vector(path.as_mut_ptr().cast(), path.len()),
        key(c"vnet"),
        number(&mut vnet),
        key(c"ip4"),
        number(&mut ip4),
        key(c"ip6"),
        number(&mut ip6),
        key(c"securelevel"),
        number(&mut securelevel),
        key(c"children.max"),
        number(&mut children),
    ];
    let count = libc::c_uint::try_from(vectors.len()).unwrap_or(0);
    // SAFETY: every vector is a live local or a constant with its true length; keys are read only (jail_get(2)).
    if unsafe { libc::jail_get(vectors.as_mut_ptr(), count, 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned();
    Ok(Jail { name: text(&name), path: text(&path), vnet, ip4, ip6, securelevel, children })
}
