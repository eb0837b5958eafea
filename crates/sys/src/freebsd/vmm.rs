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
