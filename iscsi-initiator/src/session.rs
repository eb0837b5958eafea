//! The full feature phase: commands, their data both ways, and how they end (RFC 7143, section 11). Pure.
//!
//! One connection, no error recovery but a new login (`ErrorRecoveryLevel` 0), data in order, one burst at a time.

use crate::login::Agreed;
use crate::pdu::{self, BadUnit, FINAL, Header, NOTHING, Reader, Unit};
use crate::scsi::{self, Ask, Status};
use std::collections::{BTreeMap, VecDeque};

/// Bytes that wait to be sent, at most: what all commands at a time can hold, and some.
const WAITING: usize = 64 << 20;
/// Commands at a time.
pub const COMMANDS: usize = 16;

/// Why a session is of no further use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// What came is no unit.
    #[error(transparent)]
    Unit(#[from] BadUnit),
    /// It is not what was agreed on.
    #[error("the target does not keep to RFC 7143: {0}")]
    Strange(String),
    /// It does not want to go on.
    #[error("the target ends the session: {0}")]
    Ended(String),
}

fn strange(what: impl ToString) -> Broken {
    Broken::Strange(what.to_string())
}

/// A command that is under way.
#[derive(Debug)]
struct Task {
    id: u64,
    /// What is written, or what came.
    data: Vec<u8>,
    writes: bool,
    /// Bytes that have gone, or come.
    done: usize,
    /// All of them are needed.
    exact: bool,
}

/// A command that has ended.
#[derive(Debug, PartialEq, Eq)]
pub struct Done {
    /// Which.
    pub id: u64,
    /// How.
    pub status: Status,
    /// What was to be written, or what came.
    pub data: Vec<u8>,
}

/// A session.
#[derive(Debug)]
pub struct Session {
    reader: Reader,
    out: Vec<u8>,
    sent: usize,
    lun: [u8; 8],
    agreed: Agreed,
    tasks: BTreeMap<u32, Task>,
    tag: u32,
    ended: VecDeque<Done>,
    asked: Option<u32>,
    heard: bool,
}

impl Session {
    /// After a login.
    pub fn new(agreed: Agreed, lun: u16) -> Self {
        Self {
            reader: Reader::default(),
            out: Vec::new(),
            sent: 0,
            lun: scsi::lun(lun),
            agreed,
            tasks: BTreeMap::new(),
            tag: 1,
            ended: VecDeque::new(),
            asked: None,
            heard: true,
        }
    }

    /// What is to be sent.
    pub fn pending(&self) -> &[u8] {
        self.out.get(self.sent..).unwrap_or_default()
    }

    /// So much of it was.
    pub fn sent(&mut self, bytes: usize) {
        self.sent += bytes;
        if self.sent >= self.out.len() {
            self.out.clear();
            self.sent = 0;
        }
    }

    /// Whether it takes another command.
    pub fn takes(&self) -> bool {
        self.tasks.len() < COMMANDS && pdu::up_to(self.agreed.command, self.agreed.most)
    }

    /// Whether an end is waited for.
    pub fn is_at_work(&self) -> bool {
        !self.tasks.is_empty()
    }

    /// The next command that has ended.
    pub fn ended(&mut self) -> Option<Done> {
        self.ended.pop_front()
    }

    /// What is still under way: which, and what was to be written.
    pub fn take_back(&mut self) -> Vec<(u64, Vec<u8>)> {
        let tasks = std::mem::take(&mut self.tasks);
        tasks.into_values().map(|task| (task.id, if task.writes { task.data } else { Vec::new() })).collect()
    }

    fn next_tag(&mut self) -> u32 {
        self.tag = self.tag.wrapping_add(1);
        if self.tag == NOTHING {
            self.tag = 1;
        }
        self.tag
    }

    /// Sends a command: `data` is what it writes, `reads` bytes are what it reads.
    pub fn command(&mut self, id: u64, ask: &Ask, data: Vec<u8>, reads: usize) {
        let tag = self.next_tag();
        let writes = matches!(ask, Ask::Write { .. });
        let length = if writes { data.len() } else { reads };
        // The last of what goes unasked; read, write; a simple task.
        let flags = FINAL | if writes { 0x20 } else { 0 } | if reads > 0 { 0x40 } else { 0 } | 1;
        let header = Header::new(pdu::to::COMMAND, flags)
            .with(8, &self.lun)
            .number(16, tag)
            .number(20, u32::try_from(length).unwrap_or(0))
            .number(24, self.agreed.command)
            .number(28, self.agreed.status)
            .with(32, &ask.cdb());
        self.agreed.command = self.agreed.command.wrapping_add(1);
        let at_once = if writes { data.get(..self.agreed.at_once).unwrap_or(&data) } else { &[] };
        pdu::write(&mut self.out, header, at_once);
        let done = at_once.len();
        let exact = matches!(ask, Ask::Read { .. } | Ask::Write { .. });
        let data = if writes { data } else { vec![0; reads] };
        self.tasks.insert(tag, Task { id, data, writes, done, exact });
    }

    /// Asks the target whether it is there. False: it was asked before, and said nothing since.
    pub fn ask(&mut self) -> bool {
        if std::mem::take(&mut self.heard) {
            self.asked = None;
            return true;
        }
        if self.asked.is_some() {
            return false;
        }
        let tag = self.next_tag();
        self.asked = Some(tag);
        self.nop(tag, NOTHING, [0; 8]);
        true
    }

    fn nop(&mut self, task: u32, transfer: u32, lun: [u8; 8]) {
        let header = Header::new(pdu::to::NOP | pdu::to::IMMEDIATE, FINAL)
            .with(8, &lun)
            .number(16, task)
            .number(20, transfer)
            .number(24, self.agreed.command)
            .number(28, self.agreed.status);
        pdu::write(&mut self.out, header, &[]);
    }

    /// Bytes came.
    pub fn hear(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        self.heard = true;
        self.reader.feed(bytes);
        while let Some(unit) = self.reader.unit()? {
            self.unit(unit)?;
            if self.out.len() > WAITING {
                return Err(strange("it asks for more than it was told of"));
            }
        }
        Ok(())
    }

    fn unit(&mut self, unit: Unit) -> Result<(), Broken> {
        let header = unit.header;
        // All of a target's units have it there.
        let most = header.get(32);
        if pdu::up_to(self.agreed.most, most) {
            self.agreed.most = most;
        }
        let task = header.task();
        match header.operation() {
            pdu::from::NOP => {
                if task != NOTHING {
                    self.counted(&header);
                } else if header.get(20) != NOTHING {
                    let lun = header.bytes(8..16).try_into().unwrap_or_default();
                    self.nop(NOTHING, header.get(20), lun);
                }
                Ok(())
            }
            pdu::from::RESPONSE => {
                self.counted(&header);
                self.response(&header, &unit.data)
            }
            pdu::from::DATA => self.came(&header, &unit.data),
            pdu::from::READY => self.wanted(&header),
            pdu::from::MESSAGE => {
                self.counted(&header);
                match header.byte(36) {
                    // Of the logical unit: commands tell what is the matter.
                    0 => Ok(()),
                    event => Err(Broken::Ended(format!("asynchronous event {event}"))),
                }
            }
            pdu::from::REJECT => Err(Broken::Ended(format!("it rejects what we sent, for reason {:#04x}", header.byte(2)))),
            other => Err(strange(format_args!("operation {other:#04x}"))),
        }
    }

    /// It bears a status' number.
    fn counted(&mut self, header: &Header) {
        self.agreed.status = header.get(24).wrapping_add(1);
    }

    fn response(&mut self, header: &Header, data: &[u8]) -> Result<(), Broken> {
        let length = data.first_chunk::<2>().map_or(0, |length| usize::from(u16::from_be_bytes(*length)));
        let sense = data.get(2..2 + length).unwrap_or_default();
        // Not even asked of the unit, or all of it and no more.
        let status = if header.byte(2) == 0 { scsi::status(header.byte(3), sense) } else { Status::Failed };
        self.finish(header, status)
    }

    fn finish(&mut self, header: &Header, status: Status) -> Result<(), Broken> {
        let Some(task) = self.tasks.remove(&header.task()) else {
            return Err(strange("an end of what was not begun"));
        };
        // Less, or more, than was said.
        let odd = header.byte(1) & 0x06 != 0 && header.get(44) != 0;
        let short = !task.writes && task.done < task.data.len();
        let status = if status == Status::Good && task.exact && (odd || short) { Status::Failed } else { status };
        let mut data = task.data;
        if !task.writes {
            data.truncate(task.done);
        }
        self.ended.push_back(Done { id: task.id, status, data });
        Ok(())
    }

    fn came(&mut self, header: &Header, data: &[u8]) -> Result<(), Broken> {
        let at = header.get(40) as usize;
        let task = self.tasks.get_mut(&header.task()).filter(|task| !task.writes && task.done == at);
        let task = task.ok_or_else(|| strange("data that nobody asked for"))?;
        let place =
            task.data.get_mut(at..at.saturating_add(data.len())).ok_or_else(|| strange("more data than was asked for"))?;
        place.copy_from_slice(data);
        task.done += data.len();
        // The status comes along.
        if header.byte(1) & 1 != 0 {
            self.counted(header);
            return self.finish(header, scsi::status(header.byte(3), &[]));
        }
        Ok(())
    }

    fn wanted(&mut self, header: &Header) -> Result<(), Broken> {
        let (at, length) = (header.get(40) as usize, header.get(44) as usize);
        let (tag, transfer, unit) = (header.task(), header.get(20), self.agreed.unit);
        let task = self.tasks.get_mut(&tag).filter(|task| task.writes && task.done == at && length > 0);
        let task = task.ok_or_else(|| strange("it wants data that it was not told of"))?;
        let burst = task.data.get(at..at.saturating_add(length)).ok_or_else(|| strange("it wants more data than there is"))?;
        task.done += length;
        let pieces = burst.chunks(unit.max(512));
        let last = pieces.len().saturating_sub(1);
        for (number, piece) in (0u32..).zip(pieces) {
            let flags = if number as usize == last { FINAL } else { 0 };
            let offset = at + number as usize * unit.max(512);
            let header = Header::new(pdu::to::DATA, flags)
                .with(8, &self.lun)
                .number(16, tag)
                .number(20, transfer)
                .number(28, self.agreed.status)
                .number(36, number)
                .number(40, u32::try_from(offset).unwrap_or(0));
            pdu::write(&mut self.out, header, piece);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn session(at_once: usize) -> Session {
        Session::new(Agreed { unit: 1024, at_once, command: 1, status: 5, most: 2 }, 3)
    }

    fn sent(session: &mut Session) -> Vec<Unit> {
        let mut reader = Reader::default();
        reader.feed(session.pending());
        let length = session.pending().len();
        session.sent(length);
        std::iter::from_fn(|| reader.unit().unwrap()).collect()
    }

    fn from(operation: u8, flags: u8, task: u32) -> Header {
        Header::new(operation, flags).number(16, task).number(24, 5).number(28, 1).number(32, 9)
    }

    fn bytes(header: Header, data: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        pdu::write(&mut out, header, data);
        out
    }

    #[test]
    fn a_write_goes_in_bursts_that_the_target_asks_for() {
        let mut session = session(512);
        session.command(7, &Ask::Write { block: 1, blocks: 8, now: false }, vec![9; 4096], 0);
        let first = sent(&mut session);
        assert_eq!((first.len(), first[0].data.len(), first[0].header.get(20)), (1, 512, 4096));
        assert_eq!((first[0].header.byte(1), first[0].header.bytes(8..10)), (0xa1, &[0, 3][..]));
        let tag = first[0].header.task();
        let ready = |at: u32, length: u32| {
            bytes(from(pdu::from::READY, FINAL, tag).number(20, 77).number(40, at).number(44, length), &[])
        };
        session.hear(&ready(512, 2048)).unwrap();
        let data = sent(&mut session);
        let shape: Vec<_> =
            data.iter().map(|u| (u.header.get(40), u.data.len(), u.header.get(36), u.header.is_final())).collect();
        assert_eq!(shape, [(512, 1024, 0, false), (1536, 1024, 1, true)]);
        assert_eq!(data[0].header.get(20), 77);
        session.hear(&ready(2560, 1536)).unwrap();
        assert_eq!(sent(&mut session).len(), 2);
        // The same once more, or beyond the end.
        assert!(matches!(session.hear(&ready(2560, 1536)), Err(Broken::Strange(_))));
        session.hear(&bytes(from(pdu::from::RESPONSE, FINAL, tag), &[])).unwrap();
        let done = session.ended().unwrap();
        assert_eq!((done.id, done.status, done.data.len()), (7, Status::Good, 4096));
    }

    #[test]
    fn what_is_read_is_whole_or_failed() {
        let mut session = session(0);
        let read = Ask::Read { block: 0, blocks: 2 };
        session.command(1, &read, Vec::new(), 1024);
        session.command(2, &read, Vec::new(), 1024);
        // Two were to come, and the second is there: it takes no third yet.
        assert!(!session.takes());
        let tags: Vec<u32> = sent(&mut session).iter().map(|unit| unit.header.task()).collect();
        session.hear(&bytes(from(pdu::from::DATA, 0, tags[0]), &[1; 512])).unwrap();
        assert!(session.takes());
        session.hear(&bytes(from(pdu::from::DATA, FINAL | 1, tags[0]).number(40, 512), &[2; 512])).unwrap();
        let done = session.ended().unwrap();
        assert_eq!((done.id, done.status, done.data[511], done.data[512]), (1, Status::Good, 1, 2));
        session.hear(&bytes(from(pdu::from::DATA, 0, tags[1]), &[1; 512])).unwrap();
        session.hear(&bytes(from(pdu::from::RESPONSE, FINAL, tags[1]), &[])).unwrap();
        assert_eq!(session.ended().unwrap().status, Status::Failed);
        assert!(session.hear(&bytes(from(pdu::from::RESPONSE, FINAL, tags[1]), &[])).is_err());
        session.command(3, &read, Vec::new(), 1024);
        let tag = sent(&mut session)[0].header.task();
        assert!(session.hear(&bytes(from(pdu::from::DATA, 0, tag), &[1; 1032])).is_err());
    }

    #[test]
    fn a_silent_target_is_asked_once_and_then_given_up() {
        let mut session = session(0);
        assert!(session.ask());
        assert!(session.ask());
        let ping = sent(&mut session);
        assert_eq!((ping.len(), ping[0].header.byte(0)), (1, 0x40));
        assert!(!session.ask());
        session.hear(&bytes(from(pdu::from::NOP, FINAL, ping[0].header.task()).number(20, NOTHING), &[])).unwrap();
        assert!(session.ask());
        // A target's own question is answered.
        session.hear(&bytes(from(pdu::from::NOP, FINAL, NOTHING).number(20, 5), &[])).unwrap();
        let pong = sent(&mut session);
        assert_eq!((pong[0].header.task(), pong[0].header.get(20)), (NOTHING, 5));
        assert!(matches!(
            session.hear(&bytes(from(pdu::from::MESSAGE, FINAL, NOTHING).with(36, &[1]), &[])),
            Err(Broken::Ended(_))
        ));
    }

    proptest! {
        #[test]
        fn whatever_a_target_sends_ends(pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..100), 0..8)) {
            let mut session = session(512);
            session.command(7, &Ask::Write { block: 1, blocks: 8, now: false }, vec![9; 4096], 0);
            session.command(8, &Ask::Read { block: 1, blocks: 8 }, Vec::new(), 4096);
            for piece in pieces {
                if session.hear(&piece).is_err() {
                    break;
                }
            }
            session.take_back();
        }
    }
}
