//! DNS: names of the switch are answered here, others by a resolver (`forward`). Nothing is kept of answers.

use crate::Now;
use crate::forward::{Client, Question, Via};
use crate::port::{Identity, World};
use crate::records::{self, HEADER, Header, Offer};
use crate::wire;
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, PTR};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Port of UDP and TCP.
pub const PORT: u16 = 53;
/// Bytes of a question that are looked at.
pub const LONGEST: usize = 4096;
/// Bytes of an answer that everybody takes, and that we ask for where ours goes over UDP, too.
const USUAL: u16 = 512;
const UPSTREAM: u16 = 1232;
/// The same where ours goes over TCP.
const UPSTREAM_FOR_TCP: u16 = 4096;
/// How long an answer about a name of the switch may be kept.
const TTL: u32 = 30;

/// What becomes of a question.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// This, at once.
    Now(Vec<u8>),
    /// A resolver is asked.
    Later,
    /// Nothing: it is no question.
    Nothing,
}

/// What was asked, and how it may be answered.
struct Asked {
    header: Header,
    offer: Option<Offer>,
    query: Query,
    client: Client,
    /// Bytes that the client takes.
    room: usize,
}

/// Flags of a header: it is an answer; the operation; what is wanted, what was checked, what need not be.
const ANSWER: u16 = 0x8000;
const OPERATION: u16 = 0x7800;
const RECURSION_DESIRED: u16 = 0x0100;
const AUTHENTIC: u16 = 0x0020;
const UNCHECKED: u16 = 0x0010;

/// Answers a question, or has a resolver asked.
pub fn ask(identity: &Identity, world: &mut World, now: Now, client: Client, bytes: &[u8]) -> Answer {
    let header = Header::read(bytes).filter(|header| header.flags & ANSWER == 0 && bytes.len() <= LONGEST);
    let Some(header) = header else { return Answer::Nothing };
    let error = |code| now_or_nothing(Message::error_msg(header.id, OpCode::Query, code).to_vec().ok());
    if header.flags & OPERATION != 0 {
        return error(ResponseCode::NotImp);
    }
    let Some((query, offer)) = question(&header, bytes) else { return error(ResponseCode::FormErr) };
    let said = offer.map_or(USUAL, |offer| offer.room.max(USUAL));
    let room = match client.via {
        Via::Udp(_) => usize::from(said).min(wire::udp_room(identity.subnet.mtu)),
        Via::Udp6(..) => usize::from(said).min(wire::udp_room6(identity.subnet.mtu)),
        Via::Tcp(_) => usize::from(u16::MAX),
    };
    let asked = Asked { header, offer, query, client, room };
    if offer.is_some_and(|offer| offer.version > 0) {
        return asked.refuse(ResponseCode::BADVERS);
    }
    if asked.query.query_class() != DNSClass::IN || matches!(asked.query.query_type(), RecordType::AXFR | RecordType::IXFR) {
        return asked.refuse(ResponseCode::Refused);
    }
    match local(identity, world, &asked) {
        Some(records) => asked.reply(records),
        None => asked.forward(world, now),
    }
}

/// The one question of a message, and what its sender offers. `None`: it is malformed.
fn question(header: &Header, bytes: &[u8]) -> Option<(Query, Option<Offer>)> {
    let [1, 0, 0, more] = header.counts else { return None };
    let end = records::question(bytes)?;
    let offer = records::offer(bytes, end, more)?;
    let mut decoder = BinDecoder::new(bytes.get(HEADER..end)?);
    Some((Query::read(&mut decoder).ok()?, offer))
}

fn now_or_nothing(bytes: Option<Vec<u8>>) -> Answer {
    bytes.map_or(Answer::Nothing, Answer::Now)
}

/// What this switch knows of a name: records, or that there are none. `None`: others know.
fn local(identity: &Identity, world: &World, asked: &Asked) -> Option<Result<Vec<RData>, ResponseCode>> {
    let kind = asked.query.query_type();
    let name = plain(asked.query.name());
    if let Some(address) = name.as_deref().and_then(reverse) {
        let here = match address {
            IpAddr::V4(v4) => identity.contains(v4),
            IpAddr::V6(v6) => identity.subnet.v6.is_some_and(|net| net.contains(v6)),
        };
        return here.then(|| {
            let host = world.names.host(address).ok_or(ResponseCode::NXDomain)?;
            let name = Name::from_ascii(format!("{host}.{}.", identity.subnet.domain)).map_err(|_| ResponseCode::ServFail)?;
            Ok(if wants(kind, RecordType::PTR) { vec![RData::PTR(PTR(name))] } else { Vec::new() })
        });
    }
    let domain = identity.subnet.domain.as_str().to_ascii_lowercase();
    // A name with other characters is nobody's here.
    let name = name?;
    let below = name.strip_suffix(&domain).and_then(|rest| if rest.is_empty() { Some("") } else { rest.strip_suffix('.') });
    let host = below.unwrap_or(&name);
    if below == Some("") {
        return Some(Ok(Vec::new()));
    }
    match world.names.addresses(host) {
        Some(all) => {
            let record = |address: &IpAddr| match *address {
                IpAddr::V4(v4) => wants(kind, RecordType::A).then_some(RData::A(A(v4))),
                IpAddr::V6(v6) => wants(kind, RecordType::AAAA).then_some(RData::AAAA(AAAA(v6))),
            };
            Some(Ok(all.iter().filter_map(record).collect()))
        }
        None if below.is_some() => Some(Err(ResponseCode::NXDomain)),
        // Of addresses of a single word nobody else knows, and nobody else is told which words are asked for.
        None if !host.is_empty() && !host.contains('.') && matches!(kind, RecordType::A | RecordType::AAAA) => {
            Some(Err(ResponseCode::NXDomain))
        }
        None => None,
    }
}

fn wants(kind: RecordType, what: RecordType) -> bool {
    kind == what || kind == RecordType::ANY
}

/// In lower case, without the last dot. `None`: it has characters that no name here has.
fn plain(name: &Name) -> Option<String> {
    let mut text = String::new();
    for label in name.iter() {
        if !label.iter().all(|c| c.is_ascii_alphanumeric() || *c == b'-' || *c == b'_') {
            return None;
        }
        if !text.is_empty() {
            text.push('.');
        }
        text.extend(label.iter().map(|c| char::from(c.to_ascii_lowercase())));
    }
    Some(text)
}

/// The address that a name of the reverse tree is about.
fn reverse(name: &str) -> Option<IpAddr> {
    if let Some(digits) = name.strip_suffix(".ip6.arpa") {
        let digit = |part: &str| u128::from_str_radix(part, 16).ok().filter(|_| part.len() == 1);
        let digits: Option<Vec<u128>> = digits.rsplit('.').map(digit).collect();
        let digits = digits.filter(|digits| digits.len() == 32)?;
        return Some(Ipv6Addr::from_bits(digits.into_iter().fold(0, |all, digit| all << 4 | digit)).into());
    }
    let mut parts: Vec<&str> = name.strip_suffix(".in-addr.arpa")?.split('.').collect();
    parts.reverse();
    parts.join(".").parse::<Ipv4Addr>().ok().map(IpAddr::V4)
}

impl Asked {
    fn refuse(&self, code: ResponseCode) -> Answer {
        self.reply(Err(code))
    }

    fn reply(&self, records: Result<Vec<RData>, ResponseCode>) -> Answer {
        let mut message = self.begin();
        message.metadata.authoritative = true;
        match records {
            Ok(records) => {
                message.metadata.response_code = ResponseCode::NoError;
                let name = self.query.name();
                message.add_answers(records.into_iter().map(|data| Record::from_rdata(name.clone(), TTL, data)));
            }
            Err(code) => {
                message.metadata.authoritative = code == ResponseCode::NXDomain;
                message.metadata.response_code = code;
                if let Some(edns) = &mut message.edns {
                    edns.set_rcode_high(u8::try_from(u16::from(code) >> 4).unwrap_or(0));
                }
            }
        }
        now_or_nothing(self.sized(message))
    }

    fn begin(&self) -> Message {
        let mut message = Message::new(self.header.id, MessageType::Response, OpCode::Query);
        message.metadata.recursion_desired = self.header.flags & RECURSION_DESIRED != 0;
        message.metadata.recursion_available = true;
        message.metadata.checking_disabled = self.header.flags & UNCHECKED != 0;
        message.add_query(self.query.clone());
        if let Some(offer) = self.offer {
            let mut edns = Edns::new();
            edns.set_max_payload(UPSTREAM).set_dnssec_ok(offer.dnssec);
            message.set_edns(edns);
        }
        message
    }

    /// As bytes that fit.
    fn sized(&self, message: Message) -> Option<Vec<u8>> {
        let bytes = message.to_vec().ok()?;
        if bytes.len() <= self.room {
            return Some(bytes);
        }
        let mut cut = self.begin();
        cut.metadata.response_code = message.metadata.response_code;
        cut.metadata.truncation = true;
        cut.to_vec().ok()
    }

    /// Has a resolver asked, in words of our own.
    fn forward(self, world: &mut World, now: Now) -> Answer {
        let prepared = || {
            let flags = self.header.flags;
            let mut query = Message::new(0, MessageType::Query, OpCode::Query);
            query.metadata.recursion_desired = true;
            query.metadata.checking_disabled = flags & UNCHECKED != 0;
            query.metadata.authentic_data = flags & AUTHENTIC != 0;
            query.add_query(self.query.clone());
            let tcp = matches!(self.client.via, Via::Tcp(_));
            let own = self.offer.map(|offer| offer.dnssec);
            if tcp || own.is_some() {
                let room = u16::try_from(self.room).unwrap_or(u16::MAX).min(if tcp { UPSTREAM_FOR_TCP } else { UPSTREAM });
                let mut edns = Edns::new();
                edns.set_max_payload(room).set_dnssec_ok(own == Some(true));
                query.set_edns(edns);
            }
            let mut bare = query.clone();
            bare.edns = None;
            let bare = bare.to_vec().ok()?;
            let failed = {
                let mut message = self.begin();
                message.metadata.response_code = ResponseCode::ServFail;
                message.to_vec().ok()?
            };
            let cut = {
                let mut message = self.begin();
                message.metadata.truncation = true;
                message.to_vec().ok()?
            };
            Some(Question {
                client: self.client,
                id: self.header.id,
                edns: own.is_some(),
                room: self.room,
                question: bare.get(HEADER..)?.to_vec(),
                query: query.to_vec().ok()?,
                failed,
                cut,
            })
        };
        let Some(question) = prepared() else { return self.refuse(ResponseCode::FormErr) };
        if world.forwarder.resolvers() == 0 {
            return self.refuse(ResponseCode::Refused);
        }
        let World { forwarder, random, .. } = world;
        if forwarder.ask(now, question, random.as_mut()) { Answer::Later } else { self.refuse(ResponseCode::ServFail) }
    }
}
