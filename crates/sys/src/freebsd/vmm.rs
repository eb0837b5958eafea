//! Instances of vmm(4) outlive who made them; they are destroyed by name.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Destroys an instance as root (`hw.vmm.destroy`). One that is not there is destroyed.
pub fn destroy(name: &str) -> io::Result<()> {
    let name = CString::new(name)?;
    let bytes = name.as_bytes_with_nul();
    // SAFETY: the variable's name and the new value are live, NUL-terminated texts with their true length; nothing is read back.
    let result = unsafe {
        libc::sysctlbyname(
            c"hw.vmm.destroy".as_ptr(),
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            bytes.as_ptr().cast(),
            bytes.len(),
        )
    };
    gone(result)
}

/// Destroys an instance through `/dev/vmmctl` (15 and later), which needs no more than the right to open that.
pub fn destroy_by(vmmctl: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    #[repr(C)]
    struct Destroy {
        // VM_MAX_NAMELEN, and its NUL (sys/dev/vmm/vmm_param.h).
        name: [u8; 230],
        reserved: [libc::c_int; 16],
    }
    const _: () = assert!(size_of::<Destroy>() == 296);
    const VMMCTL_VM_DESTROY: libc::c_ulong = 0xc000_5601 | (size_of::<Destroy>() as libc::c_ulong) << 16;
    let mut request = Destroy { name: [0; 230], reserved: [0; 16] };
    let place = request.name.get_mut(..name.len()).filter(|_| name.len() < 230);
    place.ok_or(io::ErrorKind::InvalidInput)?.copy_from_slice(name.as_bytes());
    // SAFETY: the request is given the structure whose size it encodes, as a live local.
    gone(unsafe { libc::ioctl(vmmctl.as_raw_fd(), VMMCTL_VM_DESTROY, &raw mut request) })
}

/// How a machine is to end (`enum vm_suspend_how`, machine/vmm.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum How {
    /// As if the guest had reset itself.
    Reset = 1,
    /// As if it had powered itself off.
    PowerOff = 2,
    /// As if its processors had halted for good.
    Halt = 3,
    /// As if they had met a fault in a fault's handling of a fault.
    TripleFault = 4,
}

/// Ends the machine behind an instance's node in `/dev/vmm` (`VM_SUSPEND`, machine/vmm_dev.h): bhyve then ends as it does when the guest
/// comes to that end by itself.
pub fn suspend(instance: BorrowedFd<'_>, how: How) -> io::Result<()> {
    const VM_SUSPEND: libc::c_ulong = 0x8004_7604;
    let mut request = how as u32;
    // SAFETY: the request is given the structure whose size it encodes (one enum), as a live local.
    let result = unsafe { libc::ioctl(instance.as_raw_fd(), VM_SUSPEND, &raw mut request) };
    if result != 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn gone(result: libc::c_int) -> io::Result<()> {
    if result == 0 {
        return Ok(());
    }
    // 13 says ENXIO or EINVAL for one that is not there.
    match io::Error::last_os_error() {
        e if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENXIO | libc::EINVAL)) => Ok(()),
        e => Err(e),
    }
}
