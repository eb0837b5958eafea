//! Questions that wait for a resolver's answer.
//!
//! Each has an id of its own, drawn at random, so that an answer of somebody else's making must guess it, and the question that comes
//! back must be the one that was sent. Every port may have so many that all ports together cannot use up the ids.

use crate::Now;
use crate::records::{self, HEADER};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;
use std::time::Duration;

/// Questions of a port that may wait: 1,024 ports have half of all ids.
const EACH: usize = 32;
/// How long a resolver may take. Three of these are less than what a guest's resolver waits.
const PATIENCE: Duration = Duration::from_millis(1500);

/// Who asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Client {
    /// The port that it is plugged in.
    pub port: u64,
    /// How it asked.
    pub via: Via,
}

/// How a question came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// From this port of UDP.
    Udp(u16),
    /// From this address and port of UDP over IPv6.
    Udp6(Ipv6Addr, u16),
    /// Over this connection.
    Tcp(u64),
}

/// One question.
#[derive(Debug, Clone)]
pub struct Question {
    /// Who asked.
    pub client: Client,
    /// The client's id.
    pub id: u16,
    /// Whether the client knows EDNS.
    pub edns: bool,
    /// Bytes that the client takes.
    pub room: usize,
    /// Its section of the message, as it must come back.
    pub question: Vec<u8>,
    /// The message that is sent, but for its id.
    pub query: Vec<u8>,
    /// What the client is told when nobody answers.
    pub failed: Vec<u8>,
    /// What the client is told when the answer is too long for it.
    pub cut: Vec<u8>,
}

#[derive(Debug)]
struct Waiting {
    question: Question,
    until: Now,
    tries: usize,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Forwarder {
    resolvers: usize,
    waiting: BTreeMap<u16, Waiting>,
    ends: BTreeSet<(Now, u16)>,
    each: BTreeMap<u64, usize>,
    outgoing: Vec<(usize, Vec<u8>)>,
}

impl Forwarder {
    /// How many resolvers there are.
    pub fn resolvers(&self) -> usize {
        self.resolvers
    }

    /// From now on there are so many, others than before. What waits is asked of them, too, when its time has passed.
    pub fn set_resolvers(&mut self, resolvers: usize) {
        self.resolvers = resolvers;
    }

    /// What is to be sent, and to which resolver.
    pub fn outgoing(&mut self) -> Vec<(usize, Vec<u8>)> {
        std::mem::take(&mut self.outgoing)
    }

    /// When [`Forwarder::poll`] has something to do.
    pub fn wakes(&self) -> Option<Now> {
        self.ends.first().map(|(until, _)| *until)
    }

    /// Asks. False: too many of that port wait already.
    pub fn ask(&mut self, now: Now, question: Question, random: &mut dyn FnMut() -> u64) -> bool {
        let count = self.each.get(&question.client.port).copied().unwrap_or(0);
        if count >= EACH || self.waiting.len() >= usize::from(u16::MAX) / 2 {
            return false;
        }
        let id = loop {
            // At most every other one is taken.
            let [low, high, ..] = random().to_le_bytes();
            let id = u16::from_le_bytes([low, high]);
            if !self.waiting.contains_key(&id) {
                break id;
            }
        };
        self.each.insert(question.client.port, count + 1);
        self.waiting.insert(id, Waiting { question, until: now, tries: 0 });
        self.send(now, id);
        true
    }

    /// Sends once more, to the next resolver.
    fn send(&mut self, now: Now, id: u16) {
        let (Some(waiting), true) = (self.waiting.get_mut(&id), self.resolvers > 0) else { return };
        let mut query = waiting.question.query.clone();
        query.splice(..2, id.to_be_bytes());
        self.outgoing.push((waiting.tries % self.resolvers, query));
        waiting.tries += 1;
        waiting.until = now + PATIENCE;
        self.ends.insert((waiting.until, id));
    }

    fn take(&mut self, id: u16) -> Option<Question> {
        let waiting = self.waiting.remove(&id)?;
        self.ends.remove(&(waiting.until, id));
        let port = waiting.question.client.port;
        if let Some(count) = self.each.get_mut(&port) {
            *count -= 1;
            if *count == 0 {
                self.each.remove(&port);
            }
        }
        Some(waiting.question)
    }

    /// What a resolver says. The answer for the client, if somebody waits for it.
    pub fn reply(&mut self, bytes: &[u8]) -> Option<(Client, Vec<u8>)> {
        let header = bytes.first_chunk::<HEADER>()?;
        let [first, second, flags, _, 0, 1, ..] = *header else { return None };
        let id = u16::from_be_bytes([first, second]);
        // An answer, to a query of the usual kind.
        if flags & 0xf8 != 0x80 || !is_same(&self.waiting.get(&id)?.question.question, bytes.get(HEADER..)?) {
            return None;
        }
        let question = self.take(id)?;
        Some((question.client, finish(question, bytes)))
    }

    /// Asks the next resolver what one has not answered in time, and gives up what none has.
    pub fn poll(&mut self, now: Now) -> Vec<(Client, Vec<u8>)> {
        let mut given_up = Vec::new();
        while let Some((until, id)) = self.ends.first().copied().filter(|(until, _)| *until <= now) {
            self.ends.remove(&(until, id));
            let tries = self.waiting.get(&id).map_or(usize::MAX, |waiting| waiting.tries);
            if self.resolvers > 0 && tries < self.resolvers.max(2) {
                self.send(now, id);
            } else if let Some(question) = self.take(id) {
                given_up.push((question.client, question.failed));
            }
        }
        given_up
    }

    /// Nobody at this port waits any more.
    pub fn forget(&mut self, port: u64) {
        let of_port = self.waiting.iter().filter(|(_, waiting)| waiting.question.client.port == port);
        for id in of_port.map(|(id, _)| *id).collect::<Vec<u16>>() {
            self.take(id);
        }
    }
}

/// Whether an answer begins with the question, whose name may come back in other letters.
fn is_same(question: &[u8], answer: &[u8]) -> bool {
    let Some(answer) = answer.get(..question.len()) else { return false };
    let name = question.len().saturating_sub(4);
    answer.get(..name).zip(question.get(..name)).is_some_and(|(a, b)| a.eq_ignore_ascii_case(b))
        && answer.get(name..) == question.get(name..)
}

/// The answer as this client takes it.
fn finish(question: Question, bytes: &[u8]) -> Vec<u8> {
    let tcp = matches!(question.client.via, Via::Tcp(_));
    let truncated = bytes.get(2).is_some_and(|flags| flags & 2 != 0);
    // There is no other way to the resolvers, by which the rest could be had.
    if tcp && truncated {
        return question.failed;
    }
    let mut answer = if question.edns || !tcp {
        bytes.to_vec()
    } else {
        records::without_offer(bytes).unwrap_or_else(|| question.failed.clone())
    };
    if answer.len() > question.room {
        return question.cut;
    }
    answer.splice(..2.min(answer.len()), question.id.to_be_bytes());
    answer
}
