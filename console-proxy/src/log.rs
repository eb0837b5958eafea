//! The log of the line: two files that take turns. What could not be written is counted, and marked where it is missing.

use nix::sys::stat::fstat;
use nix::unistd::{Whence, ftruncate, lseek, write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Bytes in a half.
const HALF: u64 = 1 << 20;

/// See the module.
#[derive(Debug)]
pub struct Log {
    halves: [OwnedFd; 2],
    second: bool,
    written: u64,
    /// Bytes missing since the last mark.
    gap: u64,
    /// Bytes missing in all.
    pub unlogged: u64,
}

impl Log {
    /// Goes on where its predecessor ended: in the half that was written last.
    pub fn new(halves: [OwnedFd; 2]) -> Self {
        let [first, second] = &halves;
        // An empty half was never written, whatever its time.
        let time = |fd: &OwnedFd| fstat(fd).ok().filter(|s| s.st_size > 0).map(|s| (s.st_mtime, s.st_mtime_nsec));
        let second = time(second) > time(first);
        let mut log = Self { halves, second, written: 0, gap: 0, unlogged: 0 };
        log.written = lseek(log.half(), 0, Whence::SeekEnd).ok().and_then(|n| u64::try_from(n).ok()).unwrap_or(0);
        log
    }

    /// Both files.
    pub fn held(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.halves.iter().map(AsFd::as_fd)
    }

    fn half(&self) -> &OwnedFd {
        let [first, second] = &self.halves;
        if self.second { second } else { first }
    }

    /// Appends.
    pub fn add(&mut self, bytes: &[u8]) {
        if self.written >= HALF {
            self.second = !self.second;
            // If this fails, the half is overwritten from where it stands; it stays bounded by the file's own limit.
            let _ = ftruncate(self.half(), 0);
            let _ = lseek(self.half(), 0, Whence::SeekSet);
            self.written = 0;
        }
        if self.gap > 0 {
            let mark = format!("\n[skep: {} bytes were not logged]\n", self.gap);
            if self.put(mark.as_bytes()) == mark.len() {
                self.gap = 0;
            }
        }
        let done = if self.gap == 0 { self.put(bytes) } else { 0 };
        let lost = (bytes.len() - done) as u64;
        self.gap += lost;
        self.unlogged += lost;
    }

    fn put(&mut self, bytes: &[u8]) -> usize {
        let mut done = 0;
        while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
            match write(self.half(), rest) {
                Ok(n) if n > 0 => done += n,
                Err(nix::errno::Errno::EINTR) => {}
                _ => break,
            }
        }
        self.written += done as u64;
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek};

    fn text(fd: &OwnedFd) -> String {
        let mut file = std::fs::File::from(fd.try_clone().unwrap());
        let mut text = String::new();
        file.rewind().unwrap();
        file.read_to_string(&mut text).unwrap();
        text
    }

    fn files() -> [OwnedFd; 2] {
        [(); 2].map(|()| tempfile::tempfile().unwrap().into())
    }

    #[test]
    fn the_older_half_is_begun_anew() {
        let mut log = Log::new(files());
        for n in 0..40_000 {
            log.add(format!("line {n:06} of what the guest said, and no other line is like it\n").as_bytes());
        }
        let [first, second] = &log.halves;
        let (a, b) = (text(first), text(second));
        assert!(a.len() as u64 <= HALF + 100 && b.len() as u64 <= HALF + 100);
        let (older, newer) = if log.second { (a, b) } else { (b, a) };
        assert!((older + &newer).ends_with("line 039999 of what the guest said, and no other line is like it\n"));
        assert_eq!(log.unlogged, 0);
    }

    #[test]
    fn the_first_half_is_begun_first_whichever_was_made_later() {
        let [first, second] = files();
        let later = nix::sys::time::TimeSpec::new(4_000_000_000, 0);
        nix::sys::stat::futimens(&second, &later, &later).unwrap();
        let mut log = Log::new([first, second]);
        log.add(b"one");
        assert_eq!(text(&log.halves[0]), "one");
    }

    #[test]
    fn its_successor_goes_on_where_it_ended() {
        let halves = files();
        let again = halves.each_ref().map(|fd| fd.try_clone().unwrap());
        Log::new(halves).add(b"one ");
        let mut log = Log::new(again);
        log.add(b"two");
        assert_eq!(text(&log.halves[0]), "one two");
    }

    #[test]
    fn a_full_disk_is_marked_as_a_gap() {
        let Ok(full) = std::fs::OpenOptions::new().write(true).open("/dev/full") else { return };
        let [good, other] = files();
        let mut log = Log::new([full.into(), other]);
        log.second = false;
        log.add(b"lost");
        assert_eq!(log.unlogged, 4);
        log.halves[0] = good;
        log.add(b"kept");
        assert_eq!(text(&log.halves[0]), "\n[skep: 4 bytes were not logged]\nkept");
    }
}
