//! The way to a directory that is shared.

use super::PLACE;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::{Mode, SFlag, fstat};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path};

/// Opens a directory by an absolute path, step by step, so that no symbolic link on the way leads elsewhere; `ELOOP`: there is one.
pub fn walk(path: &Path) -> io::Result<OwnedFd> {
    let how = PLACE | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut at = open("/", how | OFlag::O_DIRECTORY, Mode::empty())?;
    for part in path.components().skip(1) {
        let Component::Normal(name) = part else { return Err(Errno::EINVAL.into()) };
        let next = match openat(&at, name, how, Mode::empty()) {
            // FreeBSD's word for it.
            Err(Errno::EMLINK) => return Err(Errno::ELOOP.into()),
            next => next?,
        };
        match SFlag::from_bits_truncate(fstat(&next)?.st_mode) & SFlag::S_IFMT {
            SFlag::S_IFDIR => at = next,
            SFlag::S_IFLNK => return Err(Errno::ELOOP.into()),
            _ => return Err(Errno::ENOTDIR.into()),
        }
    }
    Ok(at)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn no_link_on_the_way_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        std::fs::create_dir_all(dir.join("a/b")).unwrap();
        std::fs::write(dir.join("file"), "").unwrap();
        std::os::unix::fs::symlink("a", dir.join("link")).unwrap();
        std::os::unix::fs::symlink("/etc", dir.join("a/out")).unwrap();
        let errno = |below: &str| walk(&dir.join(below)).err().and_then(|e| e.raw_os_error());
        assert_eq!(errno("a/b"), None);
        for (below, wanted) in [
            ("link", Errno::ELOOP),
            ("link/b", Errno::ELOOP),
            ("a/out", Errno::ELOOP),
            ("file", Errno::ENOTDIR),
            ("file/b", Errno::ENOTDIR),
            ("a/none", Errno::ENOENT),
            ("a/../a", Errno::EINVAL),
        ] {
            assert_eq!(errno(below), Some(wanted as i32), "{below}");
        }
    }
}
