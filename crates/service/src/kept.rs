//! A log that does not outgrow its bounds, from within a sandbox: two files that were opened before. When the one is full, its text
//! moves to the other, and it begins anew under its name.

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::fstat;
use nix::unistd::{Whence, lseek};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Bytes in one of the two.
pub const FULL: u64 = 4 << 20;
/// Bytes that are moved at a time.
const PIECE: usize = 64 << 10;

/// See the module.
#[derive(Debug)]
pub struct Kept {
    live: File,
    former: File,
    /// Bytes in `live`, as far as this process wrote them.
    written: u64,
}

impl Kept {
    /// Opens `<name>.log` and `<name>.1.log` in a directory.
    pub fn open(dir: &Path, name: &str) -> io::Result<Self> {
        let open = |name: String| {
            let mut options = OpenOptions::new();
            options.create(true).read(true).append(true).mode(0o640).custom_flags(OFlag::O_NOFOLLOW.bits());
            options.open(dir.join(name))
        };
        let (live, former) = (open(format!("{name}.log"))?, open(format!("{name}.1.log"))?);
        Ok(Self::of(live, former))
    }

    /// Of two files that are open for reading and appending.
    pub fn of(live: File, former: File) -> Self {
        let written = length(&live);
        Self { live, former, written }
    }

    /// The same as [`Kept::open`] for what goes to standard error, if it goes to that file, and to its end. None: it is somebody else's to bound.
    pub fn of_standard_error(dir: &Path, name: &str) -> io::Result<Option<Self>> {
        let error = io::stderr();
        let flags = OFlag::from_bits_retain(fcntl(&error, FcntlArg::F_GETFL)?);
        let its = fstat(&error)?;
        let same =
            |path: &Path| nix::sys::stat::lstat(path).is_ok_and(|there| (there.st_dev, there.st_ino) == (its.st_dev, its.st_ino));
        if !flags.contains(OFlag::O_APPEND) || !same(&dir.join(format!("{name}.log"))) {
            return Ok(None);
        }
        Self::open(dir, name).map(Some)
    }

    /// Lets a group read both files.
    pub fn show_to(&self, group: u32) -> io::Result<()> {
        show(&self.live, group)?;
        show(&self.former, group)
    }

    /// Both files.
    pub fn held(&self) -> [BorrowedFd<'_>; 2] {
        [self.live.as_fd(), self.former.as_fd()]
    }

    /// Appends a line.
    pub fn add(&mut self, line: &[u8]) -> io::Result<()> {
        self.make_room(line.len());
        // One write, so that lines of two processes never mix.
        self.live.write_all(line)
    }

    /// To be called before so many bytes are appended to the file by other means.
    pub fn make_room(&mut self, bytes: usize) {
        self.written = self.written.saturating_add(bytes as u64);
        if self.written <= FULL {
            return;
        }
        let full = length(&self.live);
        // On a full disk the former text is lost rather than the bounds.
        let _ = self.former.set_len(0).and_then(|()| self.pass_on(full));
        let _ = self.live.set_len(0);
        self.written = bytes as u64;
    }

    fn pass_on(&mut self, full: u64) -> io::Result<()> {
        let mut buffer = vec![0; PIECE];
        // What somebody else let it grow to is of no interest beyond what may be kept.
        let mut at = full.saturating_sub(FULL);
        while at < full {
            let got = self.live.read_at(&mut buffer, at)?;
            let Some(piece) = buffer.get(..got).filter(|piece| !piece.is_empty()) else { break };
            self.former.write_all(piece)?;
            at += got as u64;
        }
        Ok(())
    }
}

/// Not by fstat(3), which a C library may make of newfstatat(2), and that takes names.
fn length(file: &File) -> u64 {
    lseek(file, 0, Whence::SeekEnd).ok().and_then(|length| u64::try_from(length).ok()).unwrap_or(0)
}

/// Makes the log that a service manager will write to, where it is not there, and lets a group read it.
pub fn make(dir: &Path, name: &str, group: u32) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.create(true).append(true).mode(0o640).custom_flags(OFlag::O_NOFOLLOW.bits());
    show(&options.open(dir.join(format!("{name}.log")))?, group)
}

/// Whoever follows a log is told when it changes hands, so only if it is not so already.
fn show(file: &File, group: u32) -> io::Result<()> {
    let meta = file.metadata()?;
    if meta.gid() != group {
        nix::unistd::fchown(file, None, Some(nix::unistd::Gid::from_raw(group)))?;
    }
    if meta.mode() & 0o777 != 0o640 {
        file.set_permissions(fs::Permissions::from_mode(0o640))?;
    }
    Ok(())
}

/// Before a log is opened, by whoever may rename it: one that is full becomes the former.
pub fn turn(dir: &Path, name: &str) -> io::Result<()> {
    let live = dir.join(format!("{name}.log"));
    match fs::symlink_metadata(&live) {
        Ok(meta) if meta.len() > FULL => fs::rename(&live, dir.join(format!("{name}.1.log"))),
        Ok(_) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_keeps_its_newest_lines_and_its_bounds() {
        let dir = tempfile::tempdir().expect("a directory");
        let text = |name: &str| fs::read_to_string(dir.path().join(name)).expect("there");
        let mut log = Kept::open(dir.path(), "broker").expect("open");
        let line = |n: u32| format!("{n:099}\n");
        for n in 0..100_000 {
            log.add(line(n).as_bytes()).expect("written");
        }
        let (former, live) = (text("broker.1.log"), text("broker.log"));
        assert!(former.len() as u64 <= FULL && live.len() as u64 <= FULL, "{} {}", former.len(), live.len());
        let both = former + &live;
        let first = 100_000 - u32::try_from(both.len() / 100).expect("few");
        assert!(both.len() as u64 > FULL && both == (first..100_000).map(line).collect::<String>());
        // Its successor counts what is there.
        drop(log);
        let mut log = Kept::open(dir.path(), "broker").expect("open");
        for n in 0..50_000 {
            log.add(line(n).as_bytes()).expect("written");
        }
        assert!(text("broker.log").len() as u64 <= FULL && text("broker.1.log").len() as u64 <= FULL);
    }

    #[test]
    fn a_log_that_somebody_else_filled_is_cut_to_its_bounds() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join("up.log"), vec![b'x'; 9 << 20]).expect("written");
        Kept::open(dir.path(), "up").and_then(|mut log| log.add(b"new\n")).expect("written");
        assert_eq!(fs::read(dir.path().join("up.log")).expect("there"), b"new\n");
        assert_eq!(fs::metadata(dir.path().join("up.1.log")).expect("there").len(), FULL);
        fs::write(dir.path().join("up.log"), vec![b'y'; 5 << 20]).expect("written");
        turn(dir.path(), "up").expect("turned");
        assert!(!dir.path().join("up.log").exists());
        assert_eq!(fs::metadata(dir.path().join("up.1.log")).expect("there").len(), 5 << 20);
    }
}
