//! Names, asked of the host's resolvers.

use crate::channel::Channel;
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use nix::poll::PollFlags;
use nix::sys::socket::{MsgFlags, recv, send};
use skep_proto::{Reason, Refusal};
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// How long a resolver may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often each is asked.
const TRIES: usize = 2;
/// Bytes of an answer over UDP that reach everybody.
const ROOM: u16 = 1232;
/// Addresses of a name that are tried.
const ADDRESSES: usize = 8;

/// A question about a name.
pub fn question(name: &Name, kind: RecordType, id: u16) -> Message {
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name.clone(), kind));
    let mut edns = Edns::new();
    edns.set_max_payload(ROOM);
    message.set_edns(edns);
    message
}

/// The addresses in an answer to this question; none: it is no answer to it.
pub fn answer(question: &Message, bytes: &[u8]) -> Option<Result<Vec<IpAddr>, ResponseCode>> {
    let message = Message::from_vec(bytes).ok()?;
    let same = message.metadata.id == question.metadata.id && message.queries == question.queries;
    if !same || message.metadata.message_type != MessageType::Response {
        return None;
    }
    if message.metadata.response_code != ResponseCode::NoError {
        return Some(Err(message.metadata.response_code));
    }
    // What its aliases lead to is in the same answer.
    let address = |data: &RData| match data {
        RData::A(a) => Some(IpAddr::V4(a.0)),
        RData::AAAA(a) => Some(IpAddr::V6(a.0)),
        _ => None,
    };
    Some(Ok(message.answers.iter().filter_map(|record| address(&record.data)).take(ADDRESSES).collect()))
}

/// The addresses of a host.
pub fn resolve(channel: &Channel, resolvers: &[OwnedFd], host: &str) -> Result<Vec<IpAddr>, Refusal> {
    if let Ok(address) = host.parse() {
        return Ok(vec![address]);
    }
    let refuse = |reason, note: String| Refusal::new(reason, format_args!("host {host}")).note(format_args!("{host}: {note}"));
    let name = Name::from_ascii(format!("{}.", host.trim_end_matches('.')));
    let name = name.map_err(|e| refuse(Reason::InvalidValue, e.to_string()))?;
    let mut why = "no resolver of this host's was reached".to_owned();
    for resolver in resolvers.iter().cycle().take(resolvers.len() * TRIES) {
        let (mut addresses, mut answered) = (Vec::new(), false);
        for kind in [RecordType::A, RecordType::AAAA] {
            match ask(channel, resolver, &name, kind) {
                Some(Ok(found)) => {
                    answered = true;
                    addresses.extend(found);
                }
                Some(Err(ResponseCode::NXDomain)) => return Err(refuse(Reason::NotFound, "there is no such name".into())),
                Some(Err(code)) => why = format!("the resolver says {code}"),
                None => why = "the resolver does not answer".to_owned(),
            }
        }
        if !addresses.is_empty() {
            return Ok(addresses);
        }
        if answered {
            return Err(refuse(Reason::NotFound, "the name has no address".into()));
        }
    }
    Err(refuse(Reason::Unavailable, why))
}

fn ask(channel: &Channel, resolver: &OwnedFd, name: &Name, kind: RecordType) -> Option<Result<Vec<IpAddr>, ResponseCode>> {
    let id = u16::try_from(uuid::Uuid::new_v4().as_u128() & 0xffff).unwrap_or(0);
    let question = question(name, kind, id);
    let until = Instant::now() + PATIENCE;
    send(resolver.as_raw_fd(), &question.to_vec().ok()?, MsgFlags::MSG_NOSIGNAL).ok()?;
    let mut buffer = [0; 4096];
    loop {
        let left = until.checked_duration_since(Instant::now())?;
        channel.wait(resolver.as_fd(), PollFlags::POLLIN, left).ok()?;
        // Errors of ICMP come here, too: the next one is asked.
        let got = recv(resolver.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT).ok()?;
        if let Some(answer) = answer(&question, buffer.get(..got)?) {
            return Some(answer);
        }
    }
}
