//! What the kernel says about processes and jails: sysctl(3), jail_get(2).

use std::ffi::CStr;
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

/// The numbers of the sysctl variable or node with this name.
pub fn sysctl_numbers(name: &CStr) -> io::Result<Vec<libc::c_int>> {
    let mut numbers = [0; CTL_MAXNAME];
    let mut count = numbers.len();
    // SAFETY: the name ends in NUL; at most `count` integers, those of a live local, are written.
    if unsafe { libc::sysctlnametomib(name.as_ptr(), numbers.as_mut_ptr(), &raw mut count) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(numbers.get(..count).unwrap_or_default().to_vec())
}

/// The numbers of the variable that follows these, which need not be there themselves; `None`: none does (`CTL_SYSCTL_NEXT`).
pub fn sysctl_next(after: &[libc::c_int]) -> io::Result<Option<Vec<libc::c_int>>> {
    match sysctl(&[&[0, 2], after].concat()) {
        Ok(bytes) => Ok(Some(bytes.as_chunks().0.iter().map(|number| libc::c_int::from_ne_bytes(*number)).collect())),
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(e) => Err(e),
    }
}

/// The name of a variable by its numbers (`CTL_SYSCTL_NAME`).
pub fn sysctl_name(of: &[libc::c_int]) -> io::Result<String> {
    sysctl(&[&[0, 1], of].concat()).map(|bytes| text_of(&bytes))
}

/// What a variable says that is a text.
pub fn text_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned()
}

/// Most numbers of a name (sys/sysctl.h).
const CTL_MAXNAME: usize = 24;

/// A mount, as mount(8) lists it.
#[derive(Debug, Clone)]
pub struct Mount {
    /// Type of the file system.
    pub kind: String,
    /// What is mounted.
    pub from: String,
    /// Where.
    pub at: String,
    /// `ro`
    pub read_only: bool,
    /// `noexec`
    pub no_exec: bool,
    /// `nosuid`
    pub no_suid: bool,
}

/// Every mount that the caller may see (getfsstat(2)).
pub fn mounts() -> io::Result<Vec<Mount>> {
    // SAFETY: without a buffer the kernel only counts.
    let count = unsafe { libc::getfsstat(std::ptr::null_mut(), 0, libc::MNT_NOWAIT) };
    // More may be mounted meanwhile.
    let room = usize::try_from(count).map_err(|_| io::Error::last_os_error())?.saturating_add(64);
    let mut seen: Vec<libc::statfs> = Vec::with_capacity(room);
    let size =
        room.checked_mul(size_of::<libc::statfs>()).and_then(|size| size.try_into().ok()).ok_or(io::ErrorKind::InvalidInput)?;
    // SAFETY: the buffer has room for `size` bytes, and the kernel writes no more.
    let count = unsafe { libc::getfsstat(seen.as_mut_ptr(), size, libc::MNT_NOWAIT) };
    let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?.min(room);
    // SAFETY: the kernel wrote that many, whole.
    unsafe { seen.set_len(count) };
    let has = |one: &libc::statfs, flag: libc::c_int| one.f_flags & u64::from(flag.cast_unsigned()) != 0;
    Ok(seen
        .iter()
        .map(|one| Mount {
            kind: text(&one.f_fstypename),
            from: text(&one.f_mntfromname),
            at: text(&one.f_mntonname),
            read_only: has(one, libc::MNT_RDONLY),
            no_exec: has(one, libc::MNT_NOEXEC),
            no_suid: has(one, libc::MNT_NOSUID),
        })
        .collect())
}

/// Up to its NUL, or the array's end.
fn text(name: &[libc::c_char]) -> String {
    let bytes: Vec<u8> = name.iter().take_while(|c| **c != 0).map(|c| c.cast_unsigned()).collect();
    String::from_utf8_lossy(&bytes).into_owned()
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
    /// `enforce_statfs`
    pub enforce_statfs: i32,
    /// `devfs_ruleset`
    pub ruleset: i32,
    /// Which of `allow.*` it has, without that prefix.
    pub allowed: Vec<&'static str>,
}

/// `allow.*` of jail(8), of every supported release; those of file systems and of vmm are there only with their modules.
const ALLOW: &[&CStr] = &[
    c"allow.adjtime",
    c"allow.chflags",
    c"allow.extattr",
    c"allow.mlock",
    c"allow.mount",
    c"allow.mount.devfs",
    c"allow.mount.fdescfs",
    c"allow.mount.fusefs",
    c"allow.mount.linprocfs",
    c"allow.mount.linsysfs",
    c"allow.mount.nullfs",
    c"allow.mount.procfs",
    c"allow.mount.tmpfs",
    c"allow.mount.zfs",
    c"allow.nfsd",
    c"allow.quotas",
    c"allow.raw_sockets",
    c"allow.read_msgbuf",
    c"allow.reserved_ports",
    c"allow.routing",
    c"allow.set_hostname",
    c"allow.setaudit",
    c"allow.settime",
    c"allow.socket_af",
    c"allow.suser",
    c"allow.sysvipc",
    c"allow.unprivileged_parent_tampering",
    c"allow.unprivileged_proc_debug",
    c"allow.vmm",
];

/// Whether a jail has one of them; one that this kernel does not know it has not.
fn allowed(mut id: i32, name: &CStr) -> bool {
    let mut value = 0i32;
    fn vector(start: *mut libc::c_void, length: usize) -> libc::iovec {
        libc::iovec { iov_base: start, iov_len: length }
    }
    let key = |name: &CStr| vector(name.as_ptr().cast_mut().cast(), name.to_bytes_with_nul().len());
    let number = |value: &mut i32| vector((value as *mut i32).cast(), size_of::<i32>());
    let mut vectors = [key(c"jid"), number(&mut id), key(name), number(&mut value)];
    // SAFETY: every vector is a live local or a constant with its true length; keys are read only (jail_get(2)).
    let found = unsafe { libc::jail_get(vectors.as_mut_ptr(), 4, 0) };
    found >= 0 && value != 0
}

/// Asks for a jail by its number.
pub fn jail(mut id: i32) -> io::Result<Jail> {
    let mut name = [0u8; 256];
    let mut path = [0u8; 1024];
    let (mut vnet, mut ip4, mut ip6, mut securelevel, mut children) = (0i32, 0i32, 0i32, 0i32, 0i32);
    let (mut enforce_statfs, mut ruleset) = (0i32, 0i32);
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
        key(c"enforce_statfs"),
        number(&mut enforce_statfs),
        key(c"devfs_ruleset"),
        number(&mut ruleset),
    ];
    let count = libc::c_uint::try_from(vectors.len()).unwrap_or(0);
    // SAFETY: every vector is a live local or a constant with its true length; keys are read only (jail_get(2)).
    if unsafe { libc::jail_get(vectors.as_mut_ptr(), count, 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned();
    let prefix = "allow.".len();
    let names = ALLOW.iter().filter(|name| allowed(id, name)).filter_map(|name| name.to_str().ok()?.get(prefix..));
    Ok(Jail {
        name: text(&name),
        path: text(&path),
        vnet,
        ip4,
        ip6,
        securelevel,
        children,
        enforce_statfs,
        ruleset,
        allowed: names.collect(),
    })
}
