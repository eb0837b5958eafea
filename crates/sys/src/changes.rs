//! Being woken when files change: inotify(7) on Linux, `EVFILT_VNODE` of kqueue(2) on FreeBSD. Nobody asks again and again.
//!
//! inotify takes names, so on Linux the watcher is made where the files were opened, and handed on with them. A kqueue cannot be
//! handed on, but takes descriptors, so on FreeBSD it is made where they are read.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Something was written or cut off.
    Written,
    /// A file was deleted or renamed, or is somebody else's by now.
    Gone,
}

/// A watcher to be handed on with the files; none where the reader makes it.
#[cfg(target_os = "linux")]
pub fn watcher(files: &[BorrowedFd<'_>]) -> io::Result<Option<OwnedFd>> {
    // SAFETY: an integer.
    let fd = unsafe { libc::inotify_init1(libc::IN_NONBLOCK | libc::IN_CLOEXEC) };
    let watcher = owned(fd)?;
    for file in files {
        // This very file, whatever its name is by now.
        let path = std::ffi::CString::new(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
        let mask = libc::IN_MODIFY | libc::IN_ATTRIB | libc::IN_MOVE_SELF;
        // SAFETY: the path is a live, terminated string; the descriptor is open.
        if unsafe { libc::inotify_add_watch(watcher.as_raw_fd(), path.as_ptr(), mask) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(Some(watcher))
}

/// See above: the reader makes it.
#[cfg(target_os = "freebsd")]
pub fn watcher(_files: &[BorrowedFd<'_>]) -> io::Result<Option<OwnedFd>> {
    Ok(None)
}

fn owned(fd: RawFd) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Readable when one of some files has changed.
#[derive(Debug)]
pub struct Changes(OwnedFd);

impl AsFd for Changes {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Changes {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

#[cfg(target_os = "linux")]
impl Changes {
    /// Of these files, with the watcher that came along.
    pub fn new(_files: &[BorrowedFd<'_>], watcher: Option<OwnedFd>) -> io::Result<Self> {
        watcher.map(Self).ok_or_else(|| io::Error::other("no watcher came along"))
    }

    /// What has happened since the last time; `WouldBlock`: nothing. To be asked until it says so.
    pub fn take(&self) -> io::Result<Change> {
        const HEAD: usize = size_of::<libc::inotify_event>();
        let mut buffer = [0u8; 4096];
        // SAFETY: at most as many bytes are written as the live buffer has.
        let got = unsafe { libc::read(self.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) };
        let got = usize::try_from(got).map_err(|_| io::Error::last_os_error())?;
        let mut rest = buffer.get(..got).unwrap_or_default();
        while let Some(head) = rest.get(..HEAD) {
            // struct inotify_event: wd, mask, cookie, len; names only come from directories.
            let word = |at: usize| head.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_ne_bytes);
            if word(4) & (libc::IN_ATTRIB | libc::IN_MOVE_SELF | libc::IN_IGNORED) != 0 {
                return Ok(Change::Gone);
            }
            rest = rest.get(HEAD + word(12) as usize..).unwrap_or_default();
        }
        Ok(Change::Written)
    }
}

#[cfg(target_os = "freebsd")]
impl Changes {
    /// Of these files.
    pub fn new(files: &[BorrowedFd<'_>], _watcher: Option<OwnedFd>) -> io::Result<Self> {
        // SAFETY: no arguments.
        let queue = owned(unsafe { libc::kqueue() })?;
        for file in files {
            let wanted = libc::kevent {
                ident: usize::try_from(file.as_raw_fd()).map_err(io::Error::other)?,
                filter: libc::EVFILT_VNODE,
                flags: libc::EV_ADD | libc::EV_CLEAR,
                fflags: libc::NOTE_WRITE | libc::NOTE_EXTEND | libc::NOTE_DELETE | libc::NOTE_RENAME,
                data: 0,
                udata: std::ptr::null_mut(),
                ext: [0; 4],
            };
            // SAFETY: one live change is read, nothing is written.
            let done =
                unsafe { libc::kevent(queue.as_raw_fd(), &raw const wanted, 1, std::ptr::null_mut(), 0, std::ptr::null()) };
            if done < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(Self(queue))
    }

    /// What has happened since the last time; `WouldBlock`: nothing. To be asked until it says so.
    pub fn take(&self) -> io::Result<Change> {
        let mut event =
            libc::kevent { ident: 0, filter: 0, flags: 0, fflags: 0, data: 0, udata: std::ptr::null_mut(), ext: [0; 4] };
        let at_once = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: at most one event is written into the live local.
        let got = unsafe { libc::kevent(self.as_raw_fd(), std::ptr::null(), 0, &raw mut event, 1, &raw const at_once) };
        match got {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            n if n < 0 => Err(io::Error::last_os_error()),
            _ if event.fflags & (libc::NOTE_DELETE | libc::NOTE_RENAME) != 0 => Ok(Change::Gone),
            _ => Ok(Change::Written),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn writing_wakes_and_deleting_ends() {
        let dir = std::env::temp_dir().join(format!("skep-changes-{}", std::process::id()));
        let mut writer = std::fs::File::create(&dir).unwrap();
        let reader = std::fs::File::open(&dir).unwrap();
        let changes = Changes::new(&[reader.as_fd()], watcher(&[reader.as_fd()]).unwrap()).unwrap();
        let nothing = || assert_eq!(changes.take().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        nothing();
        writer.write_all(b"x").unwrap();
        assert_eq!(changes.take().unwrap(), Change::Written);
        nothing();
        writer.set_len(0).unwrap();
        writer.write_all(b"y").unwrap();
        assert_eq!(changes.take().unwrap(), Change::Written);
        std::fs::remove_file(&dir).unwrap();
        while changes.take().unwrap() != Change::Gone {}
    }
}
