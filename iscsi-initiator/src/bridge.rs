//! Between a machine's hypervisor and the target: what the one asks over NBD, the other is asked over iSCSI. Pure.
//!
//! What was under way when a session broke is asked again in the next one: reads and writes of blocks may be repeated. The next login has the
//! same session id, so the target ends what is left of the former before it takes anything new.

use crate::scsi::{Ask, Status};
use crate::session::{Broken, COMMANDS, Session};
use skep_nbd::{Client, Geometry, Over, Request, error};
use std::collections::{BTreeMap, VecDeque};

/// How often something is asked again at once, and later.
const TRIES: u32 = 100;

/// Something that the client asked, or had been asked by one before it.
#[derive(Debug)]
struct Job {
    /// Of which client.
    client: u64,
    handle: u64,
    ask: Ask,
    data: Vec<u8>,
    reads: usize,
    tries: u32,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Bridge {
    /// The hypervisor.
    pub client: Option<Client>,
    /// The target.
    pub session: Option<Session>,
    number: u64,
    next: u64,
    waiting: VecDeque<Job>,
    flying: BTreeMap<u64, Job>,
    /// The target was busy: nothing is asked until [`Bridge::rested`].
    rests: bool,
}

impl Bridge {
    /// Another client takes the former one's place; what that one still waits for, nobody does.
    pub fn take(&mut self, client: Client) {
        self.number += 1;
        self.waiting.clear();
        self.client = Some(client);
    }

    /// Its client is gone.
    pub fn hang_up(&mut self) {
        self.waiting.clear();
        self.client = None;
    }

    /// Another session.
    pub fn begin(&mut self, session: Session) {
        self.lose();
        self.session = Some(session);
        self.rests = false;
    }

    /// The session is gone; what was under way waits for another.
    pub fn lose(&mut self) {
        let Some(mut session) = self.session.take() else { return };
        for (id, data) in session.take_back().into_iter().rev() {
            if let Some(job) = self.flying.remove(&id).filter(|job| job.client == self.number && self.client.is_some()) {
                self.waiting.push_front(Job { data, ..job });
            }
        }
        self.flying.clear();
    }

    /// Whether more of the client's words are taken.
    pub fn listens(&self) -> bool {
        self.waiting.len() < COMMANDS
    }

    /// Whether it rests.
    pub fn rests(&self) -> bool {
        self.rests
    }

    /// A moment has passed.
    pub fn rested(&mut self) {
        self.rests = false;
    }

    /// Carries over what there is.
    pub fn carry(&mut self) -> Result<(), Over> {
        loop {
            let mut moved = false;
            while self.listens()
                && let Some(request) = self.client.as_mut().map_or(Ok(None), Client::asked)?
            {
                self.hear(request);
                moved = true;
            }
            while !self.rests
                && let Some(session) = self.session.as_mut().filter(|session| session.takes())
                && let Some(mut job) = self.waiting.pop_front()
            {
                self.next += 1;
                session.command(self.next, &job.ask, std::mem::take(&mut job.data), job.reads);
                self.flying.insert(self.next, job);
                moved = true;
            }
            while let Some(done) = self.session.as_mut().and_then(Session::ended) {
                if let Some(job) = self.flying.remove(&done.id) {
                    self.end(job, done.status, done.data);
                }
                moved = true;
            }
            if !moved {
                return Ok(());
            }
        }
    }

    /// Bytes came from the target.
    pub fn target(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        self.session.as_mut().map_or(Ok(()), |session| session.hear(bytes))
    }

    fn block(&self) -> u64 {
        self.client.as_ref().map_or(512, |client| u64::from(client.geometry().block)).max(1)
    }

    fn hear(&mut self, request: Request) {
        let block = self.block();
        let count = |length: usize| u32::try_from(length as u64 / block).unwrap_or(0);
        let (handle, ask, data, reads) = match request {
            Request::Read { handle, at, length } => {
                (handle, Ask::Read { block: at / block, blocks: count(length as usize) }, Vec::new(), length as usize)
            }
            Request::Write { handle, at, data, now } => {
                (handle, Ask::Write { block: at / block, blocks: count(data.len()), now }, data, 0)
            }
            Request::Flush { handle } => (handle, Ask::Flush, Vec::new(), 0),
        };
        self.waiting.push_back(Job { client: self.number, handle, ask, data, reads, tries: 0 });
    }

    fn end(&mut self, job: Job, status: Status, data: Vec<u8>) {
        let Some(client) = self.client.as_mut().filter(|_| job.client == self.number) else { return };
        let writes = matches!(job.ask, Ask::Write { .. });
        let error = match status {
            Status::Good => 0,
            // A unit without a cache need not know how to empty it.
            Status::Unknown if job.ask == Ask::Flush => 0,
            Status::Again | Status::Busy if job.tries < TRIES => {
                self.rests |= status == Status::Busy;
                let data = if writes { data } else { Vec::new() };
                return self.waiting.push_front(Job { data, tries: job.tries + 1, ..job });
            }
            Status::Protected => error::PERM,
            Status::Full => error::NOSPC,
            Status::Again | Status::Busy | Status::Unknown | Status::Failed => error::IO,
        };
        let data = if error == 0 && job.reads > 0 { data } else { Vec::new() };
        client.answer(job.handle, error, &data);
    }
}

/// A client that would be told of a smaller disk than it knows.
pub fn fits(known: Geometry, now: Geometry) -> bool {
    known.block == now.block && known.blocks <= now.blocks
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::login::Agreed;
    use crate::pdu::{self, FINAL, Header, Reader, Unit};

    fn session() -> Session {
        Session::new(Agreed { unit: 8192, at_once: 8192, command: 1, status: 1, most: 100 }, 0)
    }

    fn client() -> Client {
        let mut client = Client::new(Geometry { blocks: 2048, block: 512 }, false);
        client.feed(&3u32.to_be_bytes());
        client.feed(b"IHAVEOPT\0\0\0\x07\0\0\0\x06\0\0\0\0\0\0");
        client
    }

    fn ask(kind: u16, handle: u64, data: &[u8]) -> Vec<u8> {
        let length: u32 = if kind == 3 { 0 } else { 512 };
        [
            &0x2560_9513u32.to_be_bytes()[..],
            &[0, 0],
            &kind.to_be_bytes(),
            &handle.to_be_bytes(),
            &[0; 8],
            &length.to_be_bytes(),
            data,
        ]
        .concat()
    }

    fn sent(bridge: &mut Bridge) -> Vec<Unit> {
        let session = bridge.session.as_mut().unwrap();
        let mut reader = Reader::default();
        reader.feed(session.pending());
        session.sent(usize::MAX / 2);
        std::iter::from_fn(|| reader.unit().unwrap()).collect()
    }

    fn answer(bridge: &mut Bridge, task: u32, status: u8, sense: &[u8]) {
        let header = Header::new(pdu::from::RESPONSE, FINAL).number(16, task).number(32, 100).with(3, &[status]);
        let mut data = u16::try_from(sense.len()).unwrap().to_be_bytes().to_vec();
        data.extend_from_slice(sense);
        let mut bytes = Vec::new();
        pdu::write(&mut bytes, header, &data);
        bridge.target(&bytes).unwrap();
        bridge.carry().unwrap();
    }

    fn answers(bridge: &mut Bridge) -> Vec<(u64, u32)> {
        let client = bridge.client.as_mut().unwrap();
        let bytes = client.pending().to_vec();
        client.sent(bytes.len());
        let number = |part: &[u8]| u32::from_be_bytes(part.try_into().unwrap());
        bytes.chunks(16).map(|part| (u64::from_be_bytes(part[8..16].try_into().unwrap()), number(&part[4..8]))).collect()
    }

    fn begun() -> Bridge {
        let mut bridge = Bridge::default();
        bridge.take(client());
        bridge.carry().unwrap();
        let length = bridge.client.as_ref().unwrap().pending().len();
        bridge.client.as_mut().unwrap().sent(length);
        bridge.begin(session());
        bridge
    }

    #[test]
    fn what_was_under_way_is_asked_again_after_a_break() {
        let mut bridge = begun();
        bridge.client.as_mut().unwrap().feed(&[ask(1, 5, &[7; 512]), ask(1, 6, &[8; 512]), ask(3, 7, &[])].concat());
        bridge.carry().unwrap();
        let first = sent(&mut bridge);
        assert_eq!(first.len(), 3);
        answer(&mut bridge, first[0].header.task(), 0, &[]);
        assert_eq!(answers(&mut bridge), [(5, 0)]);
        bridge.lose();
        bridge.carry().unwrap();
        assert_eq!(answers(&mut bridge), []);
        bridge.begin(session());
        bridge.carry().unwrap();
        let again = sent(&mut bridge);
        assert_eq!((again.len(), again[0].data.as_slice()), (2, &[8; 512][..]));
        for unit in &again {
            answer(&mut bridge, unit.header.task(), 0, &[]);
        }
        assert_eq!(answers(&mut bridge), [(6, 0), (7, 0)]);
    }

    #[test]
    fn attention_is_passed_over_and_errors_are_told() {
        let mut bridge = begun();
        bridge.client.as_mut().unwrap().feed(&ask(1, 5, &[7; 512]));
        bridge.carry().unwrap();
        let sense = |key: u8, code: u8, more: u8| [0x70, 0, key, 0, 0, 0, 0, 10, 0, 0, 0, 0, code, more];
        let task = sent(&mut bridge)[0].header.task();
        answer(&mut bridge, task, 2, &sense(6, 0x29, 0));
        let again = sent(&mut bridge);
        assert_eq!((again.len(), again[0].data.len()), (1, 512));
        answer(&mut bridge, again[0].header.task(), 8, &[]);
        // Busy: later.
        assert!(bridge.rests() && sent(&mut bridge).is_empty());
        bridge.rested();
        bridge.carry().unwrap();
        let task = sent(&mut bridge)[0].header.task();
        answer(&mut bridge, task, 2, &sense(7, 0x27, 7));
        assert_eq!(answers(&mut bridge), [(5, error::NOSPC)]);
        // A flush that it does not know.
        bridge.client.as_mut().unwrap().feed(&ask(3, 6, &[]));
        bridge.carry().unwrap();
        let task = sent(&mut bridge)[0].header.task();
        answer(&mut bridge, task, 2, &sense(5, 0x20, 0));
        assert_eq!(answers(&mut bridge), [(6, 0)]);
    }

    #[test]
    fn another_client_hears_nothing_of_what_the_former_asked() {
        let mut bridge = begun();
        bridge.client.as_mut().unwrap().feed(&ask(1, 5, &[7; 512]));
        bridge.carry().unwrap();
        let task = sent(&mut bridge)[0].header.task();
        bridge.take(client());
        bridge.carry().unwrap();
        answers_of_greeting(&mut bridge);
        answer(&mut bridge, task, 0, &[]);
        assert_eq!(answers(&mut bridge), []);
        bridge.lose();
        bridge.begin(session());
        bridge.carry().unwrap();
        assert!(sent(&mut bridge).is_empty());
    }

    fn answers_of_greeting(bridge: &mut Bridge) {
        let client = bridge.client.as_mut().unwrap();
        let length = client.pending().len();
        client.sent(length);
    }
}
