//! Reads the records of privileged acts (`STATE/logs/audit-*.log`), which each process that acts writes for itself.
//!
//! The files are hostile: a taken-over process wrote one of them, perhaps. A line that is none is counted, never fatal.

use serde::Serialize;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Longest line that is read; a record has some 1,300 bytes at most.
const LONGEST: u64 = 8192;

/// One line: something that a process was about to do, or how it ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Act {
    /// When; RFC 3339, UTC.
    pub time: String,
    /// Which process acted.
    pub service: String,
    /// Its process id.
    pub pid: u32,
    /// The user action that it is part of.
    pub trace: String,
    /// In whose name.
    pub user: String,
    /// Which operation.
    pub operation: String,
    /// `begin`, `done`, or the reason of the refusal.
    pub result: String,
    /// The request, or what was refused.
    pub detail: String,
}

/// What a directory holds.
#[derive(Debug, Clone, Default)]
pub struct Acts {
    /// All records, by time.
    pub acts: Vec<Act>,
    /// Lines that are no records.
    pub bad_lines: usize,
}

/// Reads and merges all records in `directory`.
pub fn read(directory: &Path) -> io::Result<Acts> {
    let mut found = Acts::default();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if !name.starts_with("audit-") || !name.contains(".log") {
            continue;
        }
        // Neither a link to elsewhere nor a pipe that never ends is followed.
        let file = OpenOptions::new().read(true).custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK).open(&path)?;
        if file.metadata()?.is_file() {
            lines(file, &mut found)?;
        }
    }
    // Stable: a process's own lines keep their order.
    found.acts.sort_by(|a, b| a.time.cmp(&b.time));
    Ok(found)
}

fn lines(file: File, found: &mut Acts) -> io::Result<()> {
    let mut reader = BufReader::new(file);
    loop {
        let mut line = Vec::new();
        if reader.by_ref().take(LONGEST).read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        let whole = line.last() == Some(&b'\n');
        match std::str::from_utf8(&line).ok().filter(|_| whole).and_then(parse) {
            Some(act) => found.acts.push(act),
            None => found.bad_lines += 1,
        }
        if !whole {
            skip_line(&mut reader)?;
        }
    }
}

/// The rest of a line that is too long.
fn skip_line(reader: &mut BufReader<File>) -> io::Result<()> {
    loop {
        let buffer = reader.fill_buf()?;
        if buffer.is_empty() {
            return Ok(());
        }
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let length = end.map_or(buffer.len(), |end| end + 1);
        reader.consume(length);
        if end.is_some() {
            return Ok(());
        }
    }
}

/// A line of `skep-service`'s log of acts: eight fields between tabs.
fn parse(line: &str) -> Option<Act> {
    let line = line.strip_suffix('\n')?;
    let fields: Vec<&str> = line.split('\t').collect();
    let [time, service, pid, trace, user, operation, result, detail] = fields.as_slice() else { return None };
    let word = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_:.".contains(c));
    let hex = trace.len() == 16 && trace.chars().all(|c| c.is_ascii_hexdigit());
    let valid = word(time)
        && word(service)
        && word(operation)
        && word(result)
        && hex
        && !line.chars().any(|c| c.is_control() && c != '\t');
    valid.then_some(())?;
    Some(Act {
        time: (*time).to_owned(),
        service: (*service).to_owned(),
        pid: pid.parse().ok()?,
        trace: (*trace).to_owned(),
        user: (*user).to_owned(),
        operation: (*operation).to_owned(),
        result: (*result).to_owned(),
        detail: (*detail).to_owned(),
    })
}
