//! Hears what processes say that have a cell of their own, and adds it to the log of their kind.
//!
//! Each has a named pipe of its own as standard error, which lies beside its socket: so the kernel says who speaks, whatever he says, and
//! who comes after this process hears him, too. What speaks may have been taken over. It is never waited for, and gets a bounded place in
//! the log; a line of it is one line, after its name.

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, open};
use nix::poll::PollFlags;
use nix::sys::stat::{Mode, SFlag, fstat};
use nix::unistd::{mkfifoat, read};
use skep_ipc::Watch;
use skep_proto::MachineId;
use skep_proto::storage::ServiceName;
use skep_rights::vm_runner::TABLE;
use skep_sandbox::limit_one;
use skep_service::{Kept, Role, Start, StartError, WORDS, iso8601, now_ns, one_line};
use skep_sys::alarm::Alarm;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Those that are heard.
const SPEAKERS: [ServiceName; 5] =
    [ServiceName::Console, ServiceName::GuestServices, ServiceName::Fetcher, ServiceName::Initiator, ServiceName::DiskServer];

/// What one may say in a [`TURN`], in lines and in bytes; then it is not listened to until the turn is over.
const LINES: u32 = 120;
const BYTES: usize = 32 << 10;
const TURN: Duration = Duration::from_secs(60);
/// Bytes that are read at a time.
const PIECE: usize = 4 << 10;
/// Bytes of a line; what comes after them is left out. A character has four at most.
const LINE: usize = 4 * WORDS;

/// Tokens: the alarm's; those of pipes come after it, and are not used again.
const ALARM: u64 = 0;

/// See the module.
pub struct Words {
    dir: PathBuf,
    logs: Vec<(ServiceName, Kept)>,
    /// Rings when somebody is listened to again.
    alarm: Alarm,
    ears: BTreeMap<u64, Ear>,
    /// Whoever dies and comes again has no more to say for that.
    said: BTreeMap<Speaker, Said>,
    next: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Speaker {
    cell: MachineId,
    /// Its place in [`SPEAKERS`].
    kind: usize,
}

impl Speaker {
    fn of(service: ServiceName, cell: MachineId) -> Option<Self> {
        SPEAKERS.iter().position(|known| *known == service).map(|kind| Self { cell, kind })
    }

    fn from_name(name: &str) -> Option<Self> {
        let (cell, service) = name.split_once('.')?;
        let kind = SPEAKERS.iter().position(|known| known.word() == service)?;
        Some(Self { cell: cell.parse().ok()?, kind })
    }

    fn service(self) -> ServiceName {
        SPEAKERS.get(self.kind).copied().unwrap_or(ServiceName::Console)
    }

    fn path(self, dir: &Path) -> PathBuf {
        dir.join(format!("{}.{}", self.cell, self.service().word()))
    }

    /// Whose it is.
    fn object(self) -> String {
        let noun = match self.service() {
            ServiceName::GuestServices => "switch",
            ServiceName::Fetcher | ServiceName::Initiator | ServiceName::DiskServer => "disk",
            _ => "machine",
        };
        format!("{noun} {}", self.cell)
    }
}

/// What one has said in its present turn.
struct Said {
    since: Instant,
    lines: u32,
    bytes: usize,
    left_out: u64,
}

impl Said {
    fn new(now: Instant) -> Self {
        Self { since: now, lines: 0, bytes: 0, left_out: 0 }
    }

    fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= TURN
    }

    fn is_enough(&self) -> bool {
        self.lines >= LINES || self.bytes >= BYTES
    }
}

struct Ear {
    speaker: Speaker,
    pipe: OwnedFd,
    /// A line that has not ended yet.
    line: Vec<u8>,
    /// Until then nothing is read.
    rests: Option<Instant>,
}

impl Words {
    /// Opens the logs. storage-helper's group may read them, for administrators elsewhere.
    pub fn acquire(start: &Start) -> Result<Self, StartError> {
        let dir = start.state.join("logs");
        let step = |what: &str| StartError::step(format!("{what} {}", dir.display()));
        let mut logs = Vec::new();
        for service in SPEAKERS {
            let kept = Kept::open(&dir, service.word()).map_err(step("open logs of cells in"))?;
            if let Some(ids) = &start.ids {
                kept.show_to(ids.group_of(Role::Storage)).map_err(step("chown logs of cells in"))?;
            }
            logs.push((service, kept));
        }
        let alarm = Alarm::new().map_err(StartError::step("make a timer"))?;
        let dir = start.run.join("console");
        Ok(Self { dir, logs, alarm, ears: BTreeMap::new(), said: BTreeMap::new(), next: ALARM })
    }

    /// What it holds from the start.
    pub fn held(&self) -> Vec<(&'static str, BorrowedFd<'_>)> {
        let logs = self.logs.iter().flat_map(|(_, kept)| kept.held()).map(|fd| ("logs of cells", fd));
        logs.chain([("alarm", self.alarm.as_fd())]).collect()
    }

    /// Hears those again that a former spawner has started, and removes the pipes of those that have ended. Nobody else makes files in
    /// the directory.
    pub fn resume(&mut self) {
        let Ok(entries) = std::fs::read_dir(&self.dir) else { return };
        for entry in entries.filter_map(Result::ok) {
            let Some(speaker) = entry.file_name().to_str().and_then(Speaker::from_name) else { continue };
            let Ok(pipe) = ear(&entry.path()) else { continue };
            // To FreeBSD a pipe that nobody has written to since it was opened has not ended: one comes and goes.
            drop(open(&entry.path(), OFlag::O_WRONLY | FLAGS, Mode::empty()));
            let token = self.listen(speaker, pipe);
            if !self.hear(token) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }

    /// Makes a pipe; gives the end that the process gets as its standard error. Writing to it never waits.
    pub fn open(&mut self, service: ServiceName, cell: MachineId) -> io::Result<OwnedFd> {
        let speaker = Speaker::of(service, cell).ok_or(io::ErrorKind::InvalidInput)?;
        let path = speaker.path(&self.dir);
        let now = Instant::now();
        self.said.retain(|speaker, said| !said.is_over(now) || self.ears.values().any(|ear| ear.speaker == *speaker));
        // The former one's, who has perhaps something left to say.
        remove(&path)?;
        mkfifoat(AT_FDCWD, &path, Mode::S_IRUSR | Mode::S_IWUSR)?;
        let pipe = ear(&path)?;
        let end = open(&path, OFlag::O_WRONLY | FLAGS, Mode::empty())?;
        limit_one(&TABLE, "mouth", end.as_fd()).map_err(|e| io::Error::other(e.to_string()))?;
        self.listen(speaker, pipe);
        Ok(end)
    }

    /// Removes the pipes of a cell that has ended. What is in them is still heard.
    pub fn sweep(&self, cell: MachineId) -> io::Result<()> {
        (0..SPEAKERS.len()).try_for_each(|kind| remove(&Speaker { cell, kind }.path(&self.dir)))
    }

    fn listen(&mut self, speaker: Speaker, pipe: OwnedFd) -> u64 {
        self.next += 1;
        self.ears.insert(self.next, Ear { speaker, pipe, line: Vec::new(), rests: None });
        self.next
    }

    /// What is waited for.
    pub fn watched(&self) -> Vec<Watch<'_>> {
        let ears = self.ears.iter().filter(|(_, ear)| ear.rests.is_none());
        let ears = ears.map(|(token, ear)| Watch { fd: ear.pipe.as_fd(), flags: PollFlags::POLLIN, token: *token });
        let alarm = Watch { fd: self.alarm.as_fd(), flags: PollFlags::POLLIN, token: ALARM };
        [alarm].into_iter().chain(ears).collect()
    }

    /// One of these is ready.
    pub fn ready(&mut self, token: u64) {
        if token == ALARM {
            let _ = self.alarm.clear();
            let now = Instant::now();
            for ear in self.ears.values_mut() {
                ear.rests = ear.rests.filter(|until| *until > now);
            }
            self.wind(now);
        } else {
            self.hear(token);
        }
    }

    /// Sets the alarm to the first one who is listened to again.
    fn wind(&self, now: Instant) {
        if let Some(first) = self.ears.values().filter_map(|ear| ear.rests).min() {
            // A timer that is set to nothing is not set; one of FreeBSD's counts milliseconds.
            let wait = first.saturating_duration_since(now) + Duration::from_millis(1);
            let _ = self.alarm.set(wait);
        }
    }

    /// Reads a piece. `false`: its speaker has ended.
    fn hear(&mut self, token: u64) -> bool {
        let now = Instant::now();
        let Some(ear) = self.ears.get_mut(&token) else { return false };
        let speaker = ear.speaker;
        let mut piece = [0; PIECE];
        let came = match read(&ear.pipe, &mut piece) {
            Err(Errno::EAGAIN | Errno::EINTR) => return true,
            Ok(came) => piece.get(..came).unwrap_or_default(),
            Err(_) => &[],
        };
        let lines = ear.take(came);
        let said = self.said.entry(speaker).or_insert_with(|| Said::new(now));
        let before = if said.is_over(now) { std::mem::replace(said, Said::new(now)).left_out } else { 0 };
        let had_enough = said.is_enough();
        said.bytes = said.bytes.saturating_add(came.len());
        let room = usize::try_from(LINES.saturating_sub(said.lines)).unwrap_or(usize::MAX);
        let more = lines.len().saturating_sub(room);
        said.lines = said.lines.saturating_add(u32::try_from(lines.len()).unwrap_or(u32::MAX));
        said.left_out = said.left_out.saturating_add(more as u64);
        let (until, enough) = (said.since + TURN, said.is_enough());
        // Of the turn before; at the end of the present one.
        let at_end = if came.is_empty() { std::mem::take(&mut said.left_out) } else { 0 };
        let left_out = |count: u64| (count > 0).then(|| format!("warn {count} lines were left out: it said too much"));
        left_out(before).into_iter().for_each(|text| self.add(speaker, &text));
        for line in lines.iter().take(room) {
            self.add(speaker, &String::from_utf8_lossy(line));
        }
        if came.is_empty() {
            left_out(at_end).into_iter().for_each(|text| self.add(speaker, &text));
            self.ears.remove(&token);
            return false;
        }
        if enough {
            if let Some(ear) = self.ears.get_mut(&token) {
                ear.rests = Some(until);
            }
            if !had_enough {
                self.add(speaker, "warn it says too much: it is not listened to for the rest of a minute");
            }
            self.wind(now);
        }
        true
    }

    /// Adds a line of somebody's. It says itself only whether that should be.
    fn add(&mut self, speaker: Speaker, text: &str) {
        let service = speaker.service();
        let (level, text) = match text.split_once(' ') {
            Some(("info", text)) => ("info", text),
            Some(("warn", text)) => ("warn", text),
            _ => ("warn", text),
        };
        let (time, object) = (iso8601(now_ns()), speaker.object());
        // Its trace is among the text.
        let text = one_line(format_args!("{text}"), 2 * WORDS);
        let line = [&*time, " ", service.word(), " ", level, " ", &*object, ": ", &*text, "\n"].concat();
        if let Some((_, kept)) = self.logs.iter_mut().find(|(of, _)| *of == service) {
            // A full disk must not end a service: a line that cannot be written is lost.
            let _ = kept.add(line.as_bytes());
        }
    }
}

impl Ear {
    /// Lines that are whole with what came; nothing: the last one, such as it is. Empty ones are none.
    fn take(&mut self, came: &[u8]) -> Vec<Vec<u8>> {
        let mut lines = Vec::new();
        for byte in came {
            if *byte == b'\n' {
                lines.push(std::mem::take(&mut self.line));
            } else if self.line.len() < LINE {
                self.line.push(*byte);
            }
        }
        if came.is_empty() {
            lines.push(std::mem::take(&mut self.line));
        }
        lines.retain(|line| !line.is_empty());
        lines
    }
}

const FLAGS: OFlag = OFlag::O_NONBLOCK.union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// The end that is read.
fn ear(path: &Path) -> io::Result<OwnedFd> {
    let pipe = open(path, OFlag::O_RDONLY | FLAGS, Mode::empty())?;
    let kind = SFlag::from_bits_truncate(fstat(&pipe)?.st_mode) & SFlag::S_IFMT;
    if kind != SFlag::S_IFIFO {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    limit_one(&TABLE, "ear", pipe.as_fd()).map_err(|e| io::Error::other(e.to_string()))?;
    Ok(pipe)
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
