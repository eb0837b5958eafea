//! Disks of the host that a process serves (geom_gate(4); sys/geom/gate/g_gate.h, the same in 13 to 15).

use nix::errno::Errno;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

const VERSION: u32 = 3;
/// The device is named, not numbered.
const NAME_GIVEN: libc::c_int = -2;
const READ_ONLY: u32 = 1;
/// `NAME_MAX`.
const NAME: usize = 255;
/// Requests that may wait; the kernel's own greatest is 4096.
const QUEUE: u32 = 1024;

#[repr(C)]
struct Create {
    version: u32,
    size: i64,
    sector: u32,
    flags: u32,
    queue: u32,
    timeout: u32,
    name: [u8; NAME],
    info: [u8; 2048],
    read_from: [u8; NAME],
    read_offset: i64,
    unit: libc::c_int,
}

#[repr(C)]
struct Destroy {
    version: u32,
    unit: libc::c_int,
    force: libc::c_int,
    name: [u8; NAME],
}

#[repr(C)]
struct Cancel {
    version: u32,
    unit: libc::c_int,
    seq: usize,
    name: [u8; NAME],
}

#[repr(C)]
struct Io {
    version: u32,
    unit: libc::c_int,
    seq: usize,
    act: u32,
    offset: i64,
    length: i64,
    data: *mut u8,
    error: libc::c_int,
}

const fn request(number: u64, size: usize) -> u64 {
    0xc000_0000 | (size as u64) << 16 | (b'm' as u64) << 8 | number
}

const CREATE: u64 = request(0, size_of::<Create>());
const DESTROY: u64 = request(2, size_of::<Destroy>());
const CANCEL: u64 = request(3, size_of::<Cancel>());
const START: u64 = request(4, size_of::<Io>());
const DONE: u64 = request(5, size_of::<Io>());
// What the table of rights lets a server do, and what the headers come to.
const _: () = assert!(CREATE == 0xca30_6d00 && DESTROY == 0xc10c_6d02 && CANCEL == 0xc110_6d03);
const _: () = assert!(START == 0xc038_6d04 && DONE == 0xc038_6d05);

fn named(name: &str) -> io::Result<[u8; NAME]> {
    let mut bytes = [0; NAME];
    let place = bytes.get_mut(..name.len()).filter(|_| !name.is_empty() && name.len() < NAME);
    place.ok_or(io::ErrorKind::InvalidInput)?.copy_from_slice(name.as_bytes());
    Ok(bytes)
}

/// Makes the device `/dev/NAME`, of `size` bytes in blocks of `block`, whose requests wait until somebody serves them; gives its number.
pub fn create(control: BorrowedFd<'_>, name: &str, size: u64, block: u32, read_only: bool) -> io::Result<u32> {
    let mut call = Create {
        version: VERSION,
        size: i64::try_from(size).map_err(io::Error::other)?,
        sector: block,
        flags: if read_only { READ_ONLY } else { 0 },
        queue: QUEUE,
        // The kernel's does not give each request so much time: whenever it has passed, all that are 5 s old fail (`g_gate_guard`).
        timeout: 0,
        name: named(name)?,
        info: [0; 2048],
        read_from: [0; NAME],
        read_offset: 0,
        unit: NAME_GIVEN,
    };
    // SAFETY: the request is given the structure whose size it encodes, as a live local.
    if unsafe { libc::ioctl(control.as_raw_fd(), CREATE, &raw mut call) } != 0 {
        return Err(io::Error::last_os_error());
    }
    u32::try_from(call.unit).map_err(io::Error::other)
}

/// Takes a device away, whoever has it open: what waits fails. One that is not there is taken away.
pub fn destroy(control: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    let mut call = Destroy { version: VERSION, unit: NAME_GIVEN, force: 1, name: named(name)? };
    // SAFETY: the request is given the structure whose size it encodes, as a live local.
    if unsafe { libc::ioctl(control.as_raw_fd(), DESTROY, &raw mut call) } == 0 {
        return Ok(());
    }
    match io::Error::last_os_error() {
        e if e.raw_os_error() == Some(libc::ENXIO) => Ok(()),
        e => Err(e),
    }
}

/// Whoever took requests of a device is gone: they wait to be served again, in their order. Gives the device's number; `None`: it is not there.
pub fn take_back(control: BorrowedFd<'_>, name: &str) -> io::Result<Option<u32>> {
    let mut call = Cancel { version: VERSION, unit: NAME_GIVEN, seq: 0, name: named(name)? };
    // SAFETY: the request is given the structure whose size it encodes, as a live local.
    if unsafe { libc::ioctl(control.as_raw_fd(), CANCEL, &raw mut call) } == 0 {
        return u32::try_from(call.unit).map(Some).map_err(io::Error::other);
    }
    match io::Error::last_os_error() {
        e if e.raw_os_error() == Some(libc::ENXIO) => Ok(None),
        e => Err(e),
    }
}

/// What the kernel asks for (`BIO_*`, sys/bio.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Bytes are read.
    Read,
    /// Bytes are written.
    Write,
    /// They are needed no more.
    Delete,
    /// What was written has to be on the disk.
    Flush,
    /// Something else.
    Other,
}

/// A request.
#[derive(Debug)]
pub struct Asked {
    seq: usize,
    /// What.
    pub act: Act,
    /// From which byte on.
    pub offset: u64,
    /// How many.
    pub length: usize,
}

/// What came of waiting for a request.
#[derive(Debug)]
pub enum Next {
    /// One came. The bytes of a write are in the buffer.
    Asked(Asked),
    /// One has come whose bytes need a buffer of so many; wait again with one.
    Needs(usize),
    /// The device is gone.
    Gone,
}

/// Waits for the next request.
pub fn next(control: BorrowedFd<'_>, unit: u32, buffer: &mut [u8]) -> io::Result<Next> {
    let mut call = Io {
        version: VERSION,
        unit: libc::c_int::try_from(unit).map_err(io::Error::other)?,
        seq: 0,
        act: 0,
        offset: 0,
        length: i64::try_from(buffer.len()).map_err(io::Error::other)?,
        data: buffer.as_mut_ptr(),
        error: 0,
    };
    // SAFETY: the request is given the structure whose size it encodes; the kernel writes at most `length` bytes to `data`, the buffer's.
    if unsafe { libc::ioctl(control.as_raw_fd(), START, &raw mut call) } != 0 {
        return match io::Error::last_os_error() {
            e if e.raw_os_error() == Some(libc::ENXIO) => Ok(Next::Gone),
            e => Err(e),
        };
    }
    let length = usize::try_from(call.length).map_err(io::Error::other)?;
    match call.error {
        0 => {}
        libc::ENOMEM => return Ok(Next::Needs(length)),
        libc::ECANCELED => return Ok(Next::Gone),
        other => return Err(io::Error::from_raw_os_error(other)),
    }
    let act = match call.act {
        1 => Act::Read,
        2 => Act::Write,
        3 => Act::Delete,
        5 => Act::Flush,
        _ => Act::Other,
    };
    let offset = u64::try_from(call.offset).map_err(io::Error::other)?;
    Ok(Next::Asked(Asked { seq: call.seq, act, offset, length }))
}

/// Answers a request: `data` are the bytes of a read, and `error` is 0 or a number of errno(2).
pub fn answer(control: BorrowedFd<'_>, unit: u32, asked: &Asked, data: &mut [u8], error: i32) -> io::Result<()> {
    let short = asked.act == Act::Read && data.len() < asked.length;
    let mut call = Io {
        version: VERSION,
        unit: libc::c_int::try_from(unit).map_err(io::Error::other)?,
        seq: asked.seq,
        act: 0,
        offset: 0,
        length: 0,
        data: data.as_mut_ptr(),
        error: if short && error == 0 { Errno::EIO as i32 } else { error },
    };
    // SAFETY: the request is given the structure whose size it encodes; the kernel reads the length of the request from `data`, if it was a
    // read and has succeeded, and so many are there.
    if unsafe { libc::ioctl(control.as_raw_fd(), DONE, &raw mut call) } == 0 {
        return Ok(());
    }
    match io::Error::last_os_error() {
        // It was given up meanwhile, or its device was taken away.
        e if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENXIO)) => Ok(()),
        e => Err(e),
    }
}

/// Waits until everything that the kernel's list of disks has to do is done: who looks at a new one has looked at it (`g_waitfor_event`
/// of the variable's reader, sys/geom/geom_kern.c).
pub fn settle() -> io::Result<()> {
    let mut size = 0;
    let name = c"kern.geom.conftxt";
    // SAFETY: the name ends in NUL; only the size is written, to a live local.
    let result = unsafe { libc::sysctlbyname(name.as_ptr(), std::ptr::null_mut(), &raw mut size, std::ptr::null(), 0) };
    if result != 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
