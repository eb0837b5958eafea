//! When the bytes of a machine's log came. What comes out of a machine bears no time; so each file of its log begins with a table of marks, kept by
//! whoever writes it: up to this byte, all came by this time. Its size is fixed: when it is full, one gives way to the next. The newest
//! stand a second apart, older ones the farther the older.

/// Bytes of the table. The text comes after it.
pub const TABLE: u64 = 4096;
/// How a file with a table begins. One without is of a former version: all of it is text.
pub const MAGIC: [u8; 16] = *b"skep log, times\n";

/// Bytes of a mark: end and time, little-endian.
const MARK: usize = 16;
/// Marks in the table.
const MOST: usize = TABLE as usize / MARK - 1;
/// Nanoseconds that a mark stands for, while it is the newest.
const FINE: i64 = 1_000_000_000;

/// Up to this byte of the file all came by this time, in nanoseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark {
    end: u64,
    by_ns: i64,
}

impl Mark {
    fn bytes(self) -> [u8; MARK] {
        (u128::from(self.end) | u128::from(self.by_ns.cast_unsigned()) << 64).to_le_bytes()
    }
}

/// The marks of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Marks {
    marks: Vec<Mark>,
    /// When the newest was begun; none: before this process was.
    begun_ns: Option<i64>,
}

impl Marks {
    /// From a file's first bytes. None: there is no table, or what it says cannot be.
    pub fn parse(table: &[u8]) -> Option<Self> {
        let entries = table.get(..TABLE as usize)?.strip_prefix(&MAGIC)?;
        let mut marks: Vec<Mark> = Vec::new();
        let (entries, _) = entries.as_chunks::<MARK>();
        let mut over = false;
        for entry in entries {
            let bits = u128::from_le_bytes(*entry);
            if bits == 0 {
                over = true;
                continue;
            }
            let (end, time) = (u64::try_from(bits & u128::from(u64::MAX)).ok()?, u64::try_from(bits >> 64).ok()?);
            if over || end <= marks.last().map_or(TABLE, |last| last.end) {
                return None;
            }
            marks.push(Mark { end, by_ns: time.cast_signed() });
        }
        Some(Self { marks, begun_ns: None })
    }

    /// The whole table.
    pub fn table(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        self.marks.iter().for_each(|mark| bytes.extend(mark.bytes()));
        bytes.resize(TABLE as usize, 0);
        bytes
    }

    /// Where marked bytes end.
    pub fn end(&self) -> u64 {
        self.marks.last().map_or(TABLE, |last| last.end)
    }

    /// When the first of them came, at the latest.
    pub fn first_ns(&self) -> Option<i64> {
        self.marks.first().map(|first| first.by_ns)
    }

    /// The first byte that may have come at this time or later; none: what is marked came before.
    pub fn since(&self, time_ns: i64) -> Option<u64> {
        let index = self.marks.iter().position(|mark| mark.by_ns >= time_ns)?;
        Some(index.checked_sub(1).and_then(|before| self.marks.get(before)).map_or(TABLE, |before| before.end))
    }

    /// The file reaches to `end` by now. What is to be written of the table, and where.
    pub fn note(&mut self, end: u64, now_ns: i64) -> (u64, Vec<u8>) {
        let mark = Mark { end, by_ns: now_ns };
        let fine = self.begun_ns.is_some_and(|begun| (begun..begun.saturating_add(FINE)).contains(&now_ns));
        match self.marks.last_mut() {
            Some(last) if fine => *last = mark,
            _ => {
                self.begun_ns = Some(now_ns);
                self.marks.push(mark);
            }
        }
        if self.marks.len() > MOST {
            self.thin(now_ns);
            return (0, self.table());
        }
        ((self.marks.len() * MARK) as u64, mark.bytes().into())
    }

    /// Has one give way to the next: the one that is missed least, for its age.
    fn thin(&mut self, now_ns: i64) {
        let between = |from: i64, to: i64| u128::try_from(i128::from(to) - i128::from(from)).unwrap_or(0);
        let missed = |triple: &[Mark]| match triple {
            [before, _, next] => {
                (between(before.by_ns, next.by_ns) << 40) / (between(next.by_ns, now_ns) + u128::from(FINE.unsigned_abs()))
            }
            _ => u128::MAX,
        };
        let least = self.marks.windows(3).enumerate().min_by_key(|(_, triple)| missed(triple));
        if let Some((before, _)) = least {
            self.marks.remove(before + 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    /// A byte every `step` nanoseconds: the marks, and the table as it was written.
    fn written(bytes: u64, step: i64) -> (Marks, Vec<u8>) {
        let mut marks = Marks::default();
        let mut table = marks.table();
        for n in 0..bytes {
            let (at, piece) = marks.note(TABLE + n + 1, i64::try_from(n).expect("small") * step);
            let at = usize::try_from(at).expect("small");
            table[at..at + piece.len()].copy_from_slice(&piece);
        }
        (marks, table)
    }

    #[test]
    fn a_time_is_found_again_and_nothing_of_later_is_left_out() {
        for (bytes, step) in [(1, SECOND), (200, SECOND), (MOST as u64 + 1, SECOND), (50_000, SECOND), (5_000, SECOND / 100)] {
            let (marks, table) = written(bytes, step);
            assert_eq!(table.len() as u64, TABLE);
            let read = Marks::parse(&table).expect("a table");
            assert_eq!((&read.marks, read.end()), (&marks.marks, TABLE + bytes));
            let last = i64::try_from(bytes - 1).expect("small") * step;
            for age in (0..).map(|n: u32| SECOND << n).take_while(|age| *age <= last) {
                let since = last - age;
                let at = read.since(since).expect("there is something");
                let came = i64::try_from(at - TABLE).expect("small") * step;
                // At most a second, or a part of its age, too early; never too late.
                assert!((since - SECOND - age / 8..=since).contains(&came), "{bytes} {step} {age}: {came} for {since}");
            }
            assert_eq!((read.since(i64::MIN), read.since(last + 1)), (Some(TABLE), None));
        }
    }

    #[test]
    fn a_successor_begins_a_mark_of_its_own() {
        let (_, table) = written(3, SECOND);
        let mut read = Marks::parse(&table).expect("a table");
        assert_eq!(read.note(TABLE + 9, 2 * SECOND + 1).0, 64);
        assert_eq!(read.since(2 * SECOND + 1), Some(TABLE + 3));
        // The clock was set back: rather too much than too little.
        read.note(TABLE + 10, SECOND);
        assert_eq!(read.since(2 * SECOND), Some(TABLE + 2));
        assert_eq!((read.since(3 * SECOND), read.first_ns()), (None, Some(0)));
    }

    #[test]
    fn what_cannot_be_is_no_table() {
        let (_, table) = written(10, SECOND);
        assert_eq!(Marks::parse(&table[..TABLE as usize - 1]), None);
        assert_eq!(Marks::parse(b"text of a former version"), None);
        let with = |index: usize, mark: Mark| {
            let mut table = table.clone();
            table[index * MARK..(index + 1) * MARK].copy_from_slice(&mark.bytes());
            Marks::parse(&table)
        };
        assert!(with(11, Mark { end: TABLE + 11, by_ns: 0 }).is_some());
        for end in [0, 1, TABLE, TABLE + 10] {
            assert_eq!(with(11, Mark { end, by_ns: 1 }), None, "{end}");
        }
        // After a gap, and before another.
        assert_eq!(with(13, Mark { end: TABLE + 11, by_ns: 0 }), None);
        assert_eq!(with(5, Mark { end: u64::MAX, by_ns: -1 }), None);
    }
}
