//! A file of a machine's log, with the times of what it holds ([`skep_proto::marks`]).

use skep_proto::marks::{MAGIC, Marks, TABLE};
use std::fs::File;
use std::io::{ErrorKind, Seek, SeekFrom};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

/// See the module.
#[derive(Debug)]
pub struct Timed {
    file: File,
    /// None: it is empty, or of a former version, which kept no times.
    marks: Option<Marks>,
    length: u64,
}

impl AsFd for Timed {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Timed {
    /// Goes on where the file ends.
    pub fn open(fd: OwnedFd) -> Self {
        let file = File::from(fd);
        let length = (&file).seek(SeekFrom::End(0)).unwrap_or(0);
        let mut timed = Self { file, marks: None, length };
        let mut table = vec![0; TABLE as usize];
        let got = timed.file.read_at(&mut table, 0).unwrap_or(0);
        table.truncate(got);
        if table.starts_with(&MAGIC) {
            if got as u64 != TABLE {
                // Cut off before there was any text.
                timed.restart();
                return timed;
            }
            timed.marks = Marks::parse(&table).filter(|marks| marks.end() <= length);
            if timed.marks.is_none() {
                // The next mark counts for all before.
                timed.marks = timed.put(&Marks::default().table(), 0).map(|()| Marks::default());
            }
        }
        timed
    }

    /// Bytes of text in it.
    pub fn text(&self) -> u64 {
        self.length.saturating_sub(if self.marks.is_some() { TABLE } else { 0 })
    }

    /// Empties it. If that fails it is overwritten from its beginning.
    pub fn restart(&mut self) {
        let _ = self.file.set_len(0);
        (self.marks, self.length) = (None, 0);
    }

    /// Appends what came at this time, in nanoseconds since 1970. How much of it could be written.
    pub fn add(&mut self, bytes: &[u8], now_ns: i64) -> usize {
        if self.length == 0 && self.put(&Marks::default().table(), 0).is_some() {
            (self.marks, self.length) = (Some(Marks::default()), TABLE);
        } else if self.length == 0 {
            let _ = self.file.set_len(0);
        }
        let mut done = 0;
        while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
            match self.file.write_at(rest, self.length) {
                Ok(n) if n > 0 => {
                    done += n;
                    self.length += n as u64;
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                _ => break,
            }
        }
        if done > 0
            && let Some(marks) = &mut self.marks
        {
            let (at, piece) = marks.note(self.length, now_ns);
            // Without it the next one counts for these bytes, too.
            let _ = self.put(&piece, at);
        }
        done
    }

    fn put(&self, bytes: &[u8], at: u64) -> Option<()> {
        self.file.write_all_at(bytes, at).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(file: &File) -> Option<Marks> {
        let mut table = vec![0; TABLE as usize];
        file.read_exact_at(&mut table, 0).ok()?;
        Marks::parse(&table)
    }

    fn text(file: &File) -> String {
        let mut text = vec![0; 64];
        let got = file.read_at(&mut text, TABLE).unwrap();
        String::from_utf8_lossy(&text[..got]).into_owned()
    }

    fn again(file: &File) -> Timed {
        Timed::open(file.try_clone().unwrap().into())
    }

    #[test]
    fn its_successor_knows_its_times() {
        let file = tempfile::tempfile().unwrap();
        assert_eq!(again(&file).add(b"one ", 5_000_000_000), 4);
        let mut timed = again(&file);
        assert_eq!((timed.text(), timed.add(b"two", 9_000_000_000), timed.text()), (4, 3, 7));
        let marks = table(&file).unwrap();
        assert_eq!((text(&file).as_str(), marks.since(5_000_000_001)), ("one two", Some(TABLE + 4)));
        timed.restart();
        timed.add(b"three", 10_000_000_000);
        assert_eq!((text(&file).as_str(), table(&file).unwrap().first_ns()), ("three", Some(10_000_000_000)));
    }

    #[test]
    fn a_table_that_cannot_be_is_begun_anew_and_text_of_before_stays_text() {
        let file = tempfile::tempfile().unwrap();
        again(&file).add(b"one ", 5);
        file.write_all_at(&[0xff; 40], 20).unwrap();
        again(&file).add(b"two", 9);
        assert_eq!((text(&file).as_str(), table(&file).unwrap().since(6)), ("one two", Some(TABLE)));
        // Its end lies beyond the file's.
        file.set_len(TABLE + 2).unwrap();
        again(&file).add(b"!", 20);
        assert_eq!((text(&file).as_str(), table(&file).unwrap().since(10)), ("on!", Some(TABLE)));
        // Cut off in the middle of the table.
        file.set_len(100).unwrap();
        again(&file).add(b"anew", 30);
        assert_eq!(text(&file), "anew");
        let former = tempfile::tempfile().unwrap();
        former.write_all_at(b"former ", 0).unwrap();
        again(&former).add(b"later", 40);
        let mut all = [0; 20];
        let got = former.read_at(&mut all, 0).unwrap();
        assert_eq!((&all[..got], again(&former).text()), (&b"former later"[..], 12));
    }
}
