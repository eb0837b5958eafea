//! Requests to `/dev/zfs`, without ZFS's libraries: those read a sysctl in their first request, which capability mode refuses, and
//! then end the process (FREEBSD.md 10). A request is one structure, `zfs_cmd_t`, with packed lists beside it.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Length of a buffer for the structure. It has some 4.5 KB and has grown a little from release to release.
pub const ROOM: usize = 16 << 10;

/// `_IOWR('Z', 0, struct zfs_iocparm)`
const FIRST: libc::c_ulong = 0xc018_5a00;
/// `ZFS_IOCVER_OZFS`: OpenZFS, in FreeBSD from 13 on.
const VERSION: u32 = 15;

/// Where `zfs_cmd_t` has pointers, and two lengths.
const SOURCE: usize = 1024;
const SOURCE_SIZE: usize = 1032;
const ANSWER: usize = 1040;
const ANSWER_SIZE: usize = 1048;
const OTHERS: [usize; 4] = [1064, 3384, 3456, 3464];

#[repr(C)]
struct Parameter {
    version: u32,
    command: u64,
    size: u64,
}
const _: () = assert!(size_of::<Parameter>() == 24);

/// One request. `size` is what the kernel takes its structure to be; one that is told another says `EINVAL` (14 and later). The
/// structure comes back in `command`, a list, perhaps, in `answer`: the number of its bytes is given, and may be more than there was
/// room for, in which case it is not there.
pub fn request(
    zfs: BorrowedFd<'_>, number: u8, size: usize, command: &mut [u8], source: &[u8], answer: &mut [u8],
) -> io::Result<()> {
    if command.len() < ROOM || size > ROOM {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    let mut put = |at: usize, value: u64| {
        if let Some(place) = command.get_mut(at..at + 8) {
            place.copy_from_slice(&value.to_ne_bytes());
        }
    };
    put(SOURCE, if source.is_empty() { 0 } else { source.as_ptr().expose_provenance() as u64 });
    put(SOURCE_SIZE, source.len() as u64);
    put(ANSWER, answer.as_mut_ptr().expose_provenance() as u64);
    put(ANSWER_SIZE, answer.len() as u64);
    for at in OTHERS {
        put(at, 0);
    }
    let command = command.as_mut_ptr().expose_provenance() as u64;
    let mut parameter = Parameter { version: VERSION, command, size: size as u64 };
    // SAFETY: the kernel reads and writes the structure behind `command`, which has room for every release's; its only pointers are
    // to the live `source` and `answer`, with their lengths, or null.
    let result = unsafe { libc::ioctl(zfs.as_raw_fd(), FIRST | libc::c_ulong::from(number), &raw mut parameter) };
    if result != 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
