//! bpf(4): the frames of one interface. Numbers are those of net/bpf.h on 64-bit FreeBSD, the same from 13 to 15.

use crate::frames::{FROM_GUEST, FROM_GUEST_6, Step, TO_GUEST};
use libc::{c_uint, c_ulong, ifreq};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

const VOID: c_ulong = 0x2000_0000;
const OUT: c_ulong = 0x4000_0000;
const IN: c_ulong = 0x8000_0000;

const fn request<T>(direction: c_ulong, number: u8) -> c_ulong {
    direction | (size_of::<T>() as c_ulong) << 16 | (b'B' as c_ulong) << 8 | number as c_ulong
}

/// `struct bpf_program`.
#[repr(C)]
struct Program {
    length: c_uint,
    steps: *const Step,
}

const BIOCGBLEN: c_ulong = request::<c_uint>(OUT, 102);
const BIOCSBLEN: c_ulong = request::<c_uint>(IN | OUT, 102);
const BIOCSETF: c_ulong = request::<Program>(IN, 103);
const BIOCSETIF: c_ulong = request::<ifreq>(IN, 108);
const BIOCIMMEDIATE: c_ulong = request::<c_uint>(IN, 112);
const BIOCSHDRCMPLT: c_ulong = request::<c_uint>(IN, 117);
const BIOCSDIRECTION: c_ulong = request::<c_uint>(IN, 119);
const BIOCLOCK: c_ulong = VOID | (b'B' as c_ulong) << 8 | 122;
const BIOCSETWF: c_ulong = request::<Program>(IN, 123);

/// Room for two of the largest frames. The system's own limit is larger (`net.bpf.maxbufsize`).
const BUFFER: c_uint = 128 << 10;

/// Makes `bpf`, an open /dev/bpf, one that gets what a guest sends to its services over the interface, and sends to it; `v6`: of IPv6, too.
/// It does not block from then on; filters and all else about it are locked, and were there before the first frame.
pub fn port(bpf: BorrowedFd<'_>, interface: &str, v6: bool) -> io::Result<()> {
    let from_guest: &[Step] = if v6 { &FROM_GUEST_6 } else { &FROM_GUEST };
    let program = |steps: &[Step]| Program { length: steps.len() as c_uint, steps: steps.as_ptr() };
    ask(bpf, BIOCSBLEN, &mut BUFFER.clone())?;
    ask(bpf, BIOCSETF, &mut program(from_guest))?;
    ask(bpf, BIOCSETWF, &mut program(&TO_GUEST))?;
    // A read gives what is there rather than wait for a full buffer.
    ask::<c_uint>(bpf, BIOCIMMEDIATE, &mut 1)?;
    // The source of a frame is as it was written.
    ask::<c_uint>(bpf, BIOCSHDRCMPLT, &mut 1)?;
    // BPF_D_IN: not what the interface sends.
    ask::<c_uint>(bpf, BIOCSDIRECTION, &mut 0)?;
    // SAFETY: an all-zero ifreq is a valid value of that plain C struct.
    let mut named: ifreq = unsafe { std::mem::zeroed() };
    named.ifr_name = super::net::name(interface)?;
    ask(bpf, BIOCSETIF, &mut named)?;
    crate::fd::set_nonblocking(bpf, true)?;
    // SAFETY: the request has no argument.
    if unsafe { libc::ioctl(bpf.as_raw_fd(), BIOCLOCK) } != 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// How many bytes a read must have room for. Fails for whatever is no bpf(4) device.
pub fn buffer_length(bpf: BorrowedFd<'_>) -> io::Result<usize> {
    let mut length: c_uint = 0;
    ask(bpf, BIOCGBLEN, &mut length)?;
    usize::try_from(length).map_err(io::Error::other)
}

fn ask<T>(bpf: BorrowedFd<'_>, request: c_ulong, argument: &mut T) -> io::Result<()> {
    // SAFETY: each request reads or writes one T, whose size it encodes: a live local, as are the steps that a program points to.
    if unsafe { libc::ioctl(bpf.as_raw_fd(), request, &raw mut *argument) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
