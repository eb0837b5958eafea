//! The log of the line: two files that take turns, each with the times of what it holds. What could not be written is counted, and marked where it
//! is missing.

use nix::sys::stat::fstat;
use skep_service::{Timed, now_ns};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Bytes of text in a half.
const HALF: u64 = 1 << 20;

/// See the module.
#[derive(Debug)]
pub struct Log {
    halves: [Timed; 2],
    second: bool,
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
        Self { halves: halves.map(Timed::open), second, gap: 0, unlogged: 0 }
    }

    /// Both files.
    pub fn held(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.halves.iter().map(AsFd::as_fd)
    }

    fn half(&mut self) -> &mut Timed {
        let [first, second] = &mut self.halves;
        if self.second { second } else { first }
    }

    /// Appends.
    pub fn add(&mut self, bytes: &[u8]) {
        if self.half().text() >= HALF {
            self.second = !self.second;
            // If this fails, the half is overwritten; it stays bounded by the file's own limit.
            self.half().restart();
        }
        let now = now_ns();
        if self.gap > 0 {
            let mark = format!("\n[skep: {} bytes were not logged]\n", self.gap);
            if self.half().add(mark.as_bytes(), now) == mark.len() {
                self.gap = 0;
            }
        }
        let done = if self.gap == 0 { self.half().add(bytes, now) } else { 0 };
        let lost = (bytes.len() - done) as u64;
        self.gap += lost;
        self.unlogged += lost;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use skep_proto::marks::TABLE;
    use std::io::{Read, Seek, SeekFrom};

    fn text(half: &Timed) -> String {
        let mut file = std::fs::File::from(half.as_fd().try_clone_to_owned().unwrap());
        let mut text = String::new();
        file.seek(SeekFrom::Start(TABLE)).unwrap();
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
        log.halves[0] = Timed::open(good);
        log.add(b"kept");
        assert_eq!(text(&log.halves[0]), "\n[skep: 4 bytes were not logged]\nkept");
    }
}
