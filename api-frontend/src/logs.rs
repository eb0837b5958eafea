//! Logs as streams: their last lines, what was written since, and what is written later. The kernel says when there is more.

use crate::limits::Place;
use crate::services::Call;
use skep_api::CHUNK;
use skep_proto::broker::LogOpened;
use skep_proto::marks::{MAGIC, Marks, TABLE};
use skep_proto::{Refusal, UpTo};
use skep_sys::changes::{Change, Changes};
use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::codegen::Bytes;

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Bytes of a time at the beginning of a line: `2026-01-31T12:00:00.000000Z`.
const TIME: usize = 27;

/// How the two files of a log follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// A machine's: they take turns. When one is full the other is begun anew.
    Turns,
    /// A service's: the newer is written to. When it is full its text moves to the older, and it is begun anew.
    Moves,
}

/// What somebody wants of a log.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    /// So many of the last lines; none: all.
    pub tail: Option<u32>,
    /// What came at this time or later, in nanoseconds since 1970.
    pub since: Option<i64>,
    /// What is written later, too.
    pub follow: bool,
}

/// A log that is being read, at places that are kept here: where a descriptor's own place is counts for nothing.
struct Log {
    older: Option<File>,
    newer: File,
    order: Order,
    /// Place in the older file, until it is read.
    left: Option<u64>,
    /// Place in the newer one.
    at: u64,
    /// Length of the older one when it was looked at last.
    known: u64,
}

impl Log {
    fn open(files: Vec<OwnedFd>, order: Order, wanted: &Wanted) -> io::Result<Self> {
        let mut files = files.into_iter().map(File::from).rev();
        let newer = files.next().ok_or_else(|| io::Error::other("no file came"))?;
        let older = files.next();
        let known = older.as_ref().map_or(Ok(0), length)?;
        let (former, live) = (older.as_ref(), &newer);
        let since = match (wanted.since, order) {
            (None, _) => (false, 0),
            (Some(time), Order::Turns) => marked_since(former, live, time)?,
            (Some(time), Order::Moves) => written_since(former, live, &skep_service::iso8601(time))?,
        };
        let begin = (older.is_none(), 0).max(since).max(tail(former, live, order, wanted)?);
        let (in_newer, place) = begin;
        let (left, at) = if in_newer { (None, place) } else { (Some(place), 0) };
        Ok(Self { older, newer, order, left, at, known })
    }

    /// The next piece; empty: there is no more for now.
    fn next(&mut self) -> io::Result<Vec<u8>> {
        loop {
            if self.order == Order::Turns {
                // Times are not text.
                if let (Some(0), Some(older)) = (self.left, &self.older) {
                    self.left = Some(text(older)?);
                }
                if self.at == 0 {
                    self.at = text(&self.newer)?;
                }
            }
            if let (Some(place), Some(older)) = (self.left, &self.older) {
                let piece = read(older, place)?;
                if !piece.is_empty() {
                    self.left = Some(place + piece.len() as u64);
                    return Ok(piece);
                }
                self.left = None;
            }
            let there = self.older.as_ref().map_or(Ok(0), length)?;
            let piece = read(&self.newer, self.at)?;
            if !piece.is_empty() {
                self.at += piece.len() as u64;
                return Ok(piece);
            }
            let begun_anew = length(&self.newer)? < self.at;
            match (self.order, &mut self.older) {
                // What was still to be read of it is at the same place of the older one by now.
                (Order::Moves, _) if begun_anew => (self.left, self.at) = (Some(self.at), 0),
                // It was looked at before this one was read to its end: nothing more comes here.
                (Order::Turns, Some(older)) if there != self.known => {
                    std::mem::swap(older, &mut self.newer);
                    (self.known, self.at) = (length(older)?, 0);
                }
                (Order::Turns, _) if begun_anew => self.at = 0,
                _ => return Ok(piece),
            }
        }
    }
}

fn length(mut file: &File) -> io::Result<u64> {
    file.seek(SeekFrom::End(0))
}

fn read(file: &File, at: u64) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; CHUNK];
    let got = file.read_at(&mut buffer, at)?;
    buffer.truncate(got);
    Ok(buffer)
}

/// Where the text of a machine's log begins: within the file, whoever wrote it.
fn text(file: &File) -> io::Result<u64> {
    let mut head = [0; MAGIC.len()];
    let got = file.read_at(&mut head, 0)?;
    Ok(if got == head.len() && head == MAGIC && length(file)? >= TABLE { TABLE } else { 0 })
}

/// The times of a machine's log. None: it has none, or they cannot be: all of it counts then.
fn times(file: &File) -> io::Result<Option<Marks>> {
    let mut table = vec![0; TABLE as usize];
    let got = file.read_at(&mut table, 0)?;
    table.truncate(got);
    Ok(Marks::parse(&table))
}

/// Bytes of a file in which the beginning is looked for, from its end: a log is shorter, unless whoever writes it has been taken over.
const SEARCHED: u64 = 16 << 20;

/// Where to begin: whether in the newer file, and at which place.
type Begin = (bool, u64);

/// The first byte of a machine's log that came at that time or later, as far as its times say.
fn marked_since(older: Option<&File>, newer: &File, time: i64) -> io::Result<Begin> {
    let of_newer = times(newer)?;
    let first = of_newer.as_ref().and_then(Marks::first_ns);
    if let Some(older) = older.filter(|_| first.is_none_or(|first| first >= time)) {
        match times(older)? {
            None => return Ok((false, 0)),
            Some(marks) => {
                // After the last mark it may be of any time.
                let at = marks.since(time).unwrap_or(marks.end());
                if at < length(older)? {
                    return Ok((false, at));
                }
            }
        }
    }
    match of_newer {
        None => Ok((true, 0)),
        Some(marks) => Ok((true, marks.since(time).unwrap_or(marks.end()).min(length(newer)?))),
    }
}

/// The first line of that time or a later one.
fn written_since(older: Option<&File>, newer: &File, time: &str) -> io::Result<Begin> {
    let older = older.into_iter().map(|file| (false, file));
    for (is_newer, file) in older.chain([(true, newer)]) {
        let mut at = length(file)?.saturating_sub(SEARCHED);
        // In the middle of a line no time begins.
        let (mut begin, mut head) = (at, if at == 0 { Vec::with_capacity(TIME) } else { vec![0; TIME] });
        loop {
            let piece = read(file, at)?;
            if piece.is_empty() {
                break;
            }
            for byte in piece {
                at += 1;
                if byte == b'\n' {
                    begin = at;
                    head.clear();
                } else if head.len() < TIME {
                    head.push(byte);
                    if head.len() == TIME && head.ends_with(b"Z") && head.as_slice() >= time.as_bytes() {
                        return Ok((is_newer, begin));
                    }
                }
            }
        }
    }
    Ok((true, length(newer)?))
}

/// The first of the last lines.
fn tail(older: Option<&File>, newer: &File, order: Order, wanted: &Wanted) -> io::Result<Begin> {
    let Some(mut lines) = wanted.tail else { return Ok((false, 0)) };
    if lines == 0 {
        return Ok((true, length(newer)?));
    }
    // The end of the last line begins none.
    let mut is_last = true;
    for (is_newer, file) in [(true, newer)].into_iter().chain(older.map(|file| (false, file))) {
        let mut end = length(file)?;
        let first = if order == Order::Turns { text(file)? } else { 0 };
        let least = end.saturating_sub(SEARCHED).max(first);
        while end > least {
            let begin = end.saturating_sub(CHUNK as u64).max(first);
            let mut piece = read(file, begin)?;
            piece.truncate(usize::try_from(end - begin).unwrap_or(CHUNK));
            for (place, byte) in piece.iter().enumerate().rev() {
                if *byte == b'\n' && !std::mem::take(&mut is_last) {
                    lines -= 1;
                    if lines == 0 {
                        return Ok((is_newer, begin + place as u64 + 1));
                    }
                }
                is_last = false;
            }
            end = begin;
        }
        if least > first {
            return Ok((is_newer, least));
        }
    }
    Ok((false, 0))
}

/// Sends what is wanted of a log that the broker opened.
pub(crate) fn stream<Out>(
    call: Call, place: Place, opened: (LogOpened, UpTo<3>), order: Order, wanted: &Wanted,
    wrap: impl Fn(Bytes) -> Out + Send + Sync + 'static,
) -> Result<Answers<Out>, Refusal>
where
    Out: Send + 'static,
{
    let failed = |e: io::Error| Refusal::io("log", "read", &e);
    let (LogOpened { files }, UpTo(mut fds)) = opened;
    let watcher = fds.split_off(usize::from(files).min(fds.len())).into_iter().next();
    let (to, answers) = mpsc::channel(2);
    if fds.is_empty() {
        // It was never written.
        return Ok(Box::pin(ReceiverStream::new(answers)));
    }
    let changes = match wanted.follow {
        true => {
            let files: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
            let changes = Changes::new(&files, watcher).map_err(failed)?;
            // A kqueue can only be read; deprecated for types that may give up their descriptor, which this one keeps.
            #[allow(deprecated)]
            Some(AsyncFd::with_interest(changes, Interest::READABLE).map_err(failed)?)
        }
        false => None,
    };
    let mut log = Log::open(fds, order, wanted).map_err(failed)?;
    tokio::spawn(async move {
        let _place = place;
        let mut gone = false;
        loop {
            // Local files: reading does not block for long, and only as fast as the client takes it.
            let answer = match log.next() {
                Ok(piece) if piece.is_empty() => {
                    let Some(changes) = changes.as_ref().filter(|_| !gone) else { return };
                    let changed = tokio::select! {
                        () = to.closed() => return,
                        changed = changed(changes) => changed,
                    };
                    match changed {
                        Ok(change) => {
                            gone = change == Change::Gone;
                            continue;
                        }
                        Err(e) => Err(call.refused(&Refusal::io("log", "follow", &e))),
                    }
                }
                Ok(piece) => Ok(wrap(Bytes::from(piece))),
                Err(e) => Err(call.refused(&Refusal::io("log", "read", &e))),
            };
            let last = answer.is_err();
            if to.send(answer).await.is_err() || last {
                return;
            }
        }
    });
    Ok(Box::pin(ReceiverStream::new(answers)))
}

async fn changed(changes: &AsyncFd<Changes>) -> io::Result<Change> {
    loop {
        let mut ready = changes.readable().await?;
        if let Ok(change) = ready.try_io(|changes| changes.get_ref().take()) {
            return change;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn file(text: &str) -> File {
        let file = tempfile::tempfile().expect("a file");
        (&file).write_all(text.as_bytes()).expect("written");
        file
    }

    fn rest_bytes(log: &mut Log) -> Vec<u8> {
        std::iter::from_fn(|| Some(log.next().expect("read")).filter(|piece| !piece.is_empty())).flatten().collect()
    }

    fn rest(log: &mut Log) -> String {
        String::from_utf8(rest_bytes(log)).expect("text")
    }

    fn open(files: &[&File], order: Order, wanted: &Wanted) -> Log {
        let files = files.iter().map(|file| file.try_clone().expect("a file").into()).collect();
        Log::open(files, order, wanted).expect("open")
    }

    #[test]
    fn the_last_lines_and_those_since_a_time_are_found() {
        let time = |second| format!("2026-01-31T12:00:{second:02}.000000Z line\n");
        let older: String = (0..10).map(time).collect();
        let newer: String = (10..20).map(time).collect::<String>() + "no time\n";
        let (a, b) = (file(&older), file(&newer));
        let count = |wanted: Wanted| rest(&mut open(&[&a, &b], Order::Moves, &wanted)).lines().count();
        assert_eq!(count(Wanted::default()), 21);
        for lines in [0, 1, 10, 11, 12, 20, 21, 1000] {
            assert_eq!(count(Wanted { tail: Some(lines), ..Wanted::default() }), lines.min(21) as usize, "{lines}");
        }
        for (second, lines) in [(0, 21), (5, 16), (9, 12), (10, 11), (19, 2), (20, 0)] {
            let at = format!("2026-01-31T12:00:{second:02}.000000Z").parse::<prost_types::Timestamp>().expect("a time");
            let since = || Some(at.seconds * 1_000_000_000);
            assert_eq!(count(Wanted { since: since(), ..Wanted::default() }), lines, "{second}");
            assert_eq!(count(Wanted { since: since(), tail: Some(3), follow: false }), lines.min(3), "{second}");
        }
        // Longer than what is read at a time, and without an end of line.
        let long = file(&format!("first\n{}\nlast", "x".repeat(3 * CHUNK)));
        let wanted = |lines| Wanted { tail: Some(lines), ..Wanted::default() };
        assert_eq!(rest(&mut open(&[&long], Order::Turns, &wanted(1))), "last");
        assert_eq!(rest(&mut open(&[&long], Order::Turns, &wanted(2))).len(), 3 * CHUNK + 5);
        assert!(rest(&mut open(&[&file("")], Order::Turns, &wanted(2))).is_empty());
    }

    #[test]
    fn a_file_with_a_hole_is_searched_at_its_end_only() {
        let hollow = file("2026-01-31T12:00:01.000000Z first\n");
        hollow.set_len(1 << 40).expect("a hole");
        let text = b"\n2026-01-31T12:00:02.000000Z last\n";
        hollow.write_all_at(text, (1 << 40) - 64).expect("written");
        hollow.set_len((1 << 40) - 64 + text.len() as u64).expect("cut");
        let all = |wanted: Wanted| rest(&mut open(&[&hollow], Order::Moves, &wanted));
        assert_eq!(all(Wanted { tail: Some(1), ..Wanted::default() }), "2026-01-31T12:00:02.000000Z last\n");
        let since = Some(1_769_860_801_000_000_000);
        assert_eq!(all(Wanted { since, ..Wanted::default() }), "2026-01-31T12:00:02.000000Z last\n");
        assert!(all(Wanted { tail: Some(100), ..Wanted::default() }).len() as u64 <= SEARCHED);
    }

    #[test]
    fn halves_that_take_turns_are_followed() {
        let (mut a, mut b) = (file("old\n"), file("new\n"));
        let mut log = open(&[&a, &b], Order::Turns, &Wanted::default());
        assert_eq!(rest(&mut log), "old\nnew\n");
        b.write_all(b"more\n").expect("written");
        assert_eq!(rest(&mut log), "more\n");
        // The writer turns, with something that nobody has read yet.
        b.write_all(b"last of b\n").expect("written");
        a.set_len(0).and_then(|()| a.rewind()).and_then(|()| a.write_all(b"first of a\n")).expect("written");
        assert_eq!(rest(&mut log), "last of b\nfirst of a\n");
        b.set_len(0).and_then(|()| b.rewind()).and_then(|()| b.write_all(b"b\n")).expect("written");
        assert_eq!(rest(&mut log), "b\n");
    }

    /// A half as a machine's log has it: lines that came at these seconds.
    fn half(lines: &[(i64, &str)]) -> File {
        let file = tempfile::tempfile().expect("a file");
        let mut timed = skep_service::Timed::open(file.try_clone().expect("a file").into());
        lines.iter().for_each(|(second, line)| assert_eq!(timed.add(line.as_bytes(), second * 1_000_000_000), line.len()));
        file
    }

    #[test]
    fn what_came_since_a_time_is_found_in_both_halves() {
        let (a, b) = (half(&[(10, "a\n"), (20, "b\n"), (30, "c\n")]), half(&[(40, "d\n"), (50, "e\n")]));
        let all = |files: &[&File], wanted: Wanted| rest(&mut open(files, Order::Turns, &wanted));
        let since = |second: i64| Wanted { since: Some(second * 1_000_000_000), ..Wanted::default() };
        assert_eq!(all(&[&a, &b], Wanted::default()), "a\nb\nc\nd\ne\n");
        for (second, text) in
            [(0, "a\nb\nc\nd\ne\n"), (20, "b\nc\nd\ne\n"), (31, "d\ne\n"), (40, "d\ne\n"), (41, "e\n"), (51, "")]
        {
            assert_eq!(all(&[&a, &b], since(second)), text, "{second}");
        }
        assert_eq!(all(&[&a, &b], Wanted { tail: Some(1), ..since(20) }), "e\n");
        assert_eq!(all(&[&a, &b], Wanted { tail: Some(4), ..since(31) }), "d\ne\n");
        assert_eq!(all(&[&a, &b], Wanted { tail: Some(4), ..Wanted::default() }), "b\nc\nd\ne\n");
        assert_eq!(all(&[&a, &b], Wanted { tail: Some(99), ..Wanted::default() }), "a\nb\nc\nd\ne\n");
        // The half that was begun anew, and one that was never written.
        assert_eq!(all(&[&half(&[]), &b], since(41)), "e\n");
        assert_eq!(all(&[&b], since(41)), "e\n");
        // What is not marked is of unknown time.
        a.write_all_at(b"?\n", length(&a).expect("a length")).expect("written");
        assert_eq!(all(&[&a, &b], since(31)), "?\nd\ne\n");
        assert_eq!(all(&[&a, &b], since(41)), "e\n");
        // Times that cannot be, and text of a former version, hide nothing.
        b.write_all_at(&[0xff; 20], 16).expect("written");
        assert_eq!(all(&[&b], since(51)), "d\ne\n");
        assert_eq!(all(&[&file("former\n")], since(51)), "former\n");
        // A table that was cut off is text, too, and ends nothing.
        b.set_len(100).expect("cut");
        assert_eq!(rest_bytes(&mut open(&[&b], Order::Turns, &since(51))).len(), 100);
    }

    #[test]
    fn a_follower_gets_no_times() {
        let (a, b) = (half(&[(1, "a\n")]), half(&[(2, "b\n")]));
        let mut log = open(&[&a, &b], Order::Turns, &Wanted { since: Some(2_000_000_000), ..Wanted::default() });
        assert_eq!(rest(&mut log), "b\n");
        let mut timed = skep_service::Timed::open(a.try_clone().expect("a file").into());
        timed.restart();
        timed.add(b"again\n", 3_000_000_000);
        assert_eq!(rest(&mut log), "again\n");
        timed.add(b"more\n", 9_000_000_000);
        assert_eq!(rest(&mut log), "more\n");
    }

    #[test]
    fn text_that_moves_is_read_once() {
        let (mut former, mut live) = (file("former\n"), file("one\n"));
        let mut log = open(&[&former, &live], Order::Moves, &Wanted::default());
        assert_eq!(rest(&mut log), "former\none\n");
        former.set_len(0).and_then(|()| former.rewind()).and_then(|()| former.write_all(b"one\ntwo\n")).expect("written");
        live.set_len(0).and_then(|()| live.rewind()).and_then(|()| live.write_all(b"3\n")).expect("written");
        assert_eq!(rest(&mut log), "two\n3\n");
        assert_eq!(rest(&mut log), "");
    }
}
