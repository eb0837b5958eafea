//! Records as bytes: header, body, and the strict decoder for both.

use crate::{Call, Helper, MAX_RECORD, Refusal, Text, TraceId};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// First record on every connection, from the client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`Helper::NAME`] of the protocol that the client will speak.
    pub protocol: Text<32>,
    /// Its [`Helper::VERSION`].
    pub version: u16,
}

/// Answer to [`Hello`], from the server; it closes the connection after `Err`.
pub type Welcome = Result<u16, VersionRefused>;

/// Why a hello was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionRefused {
    /// The protocol that is served here.
    pub protocol: Text<32>,
    /// The versions that are served here.
    pub oldest: u16,
    /// See `oldest`.
    pub newest: u16,
}

/// What stands before every request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Numbers the requests of one connection, from 1; the reply repeats it.
    pub seq: u32,
    /// One user action, through all processes.
    pub trace: TraceId,
    /// The user in whose name the peer asks, as the peer says; written to the log of privileged acts.
    pub user: Text<64>,
}

/// What stands before every reply. Decoded and compared first, since postcard does not describe itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplyHead {
    /// [`Origin::seq`] of the request.
    pub seq: u32,
    /// [`Call::OP`] of the request.
    pub op: u8,
}

/// Bytes that are not one whole, valid record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// More than [`MAX_RECORD`].
    #[error("a record of more than {MAX_RECORD} bytes")]
    TooLong,
    /// Truncated, or a value out of its range.
    #[error("a record that does not decode")]
    Malformed,
    /// Bytes after the end of the value.
    #[error("a record with {0} bytes after its end")]
    Trailing(usize),
    /// A reply to something else.
    #[error("a reply to request {0}, operation {1}, which was not asked")]
    WrongReply(u32, u8),
}

/// Encodes any record or part of one.
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, WireError> {
    let bytes = postcard::to_stdvec(value).map_err(|_| WireError::Malformed)?;
    if bytes.len() > MAX_RECORD { Err(WireError::TooLong) } else { Ok(bytes) }
}

/// Decodes one whole record: nothing may be missing and nothing may follow.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, WireError> {
    if bytes.len() > MAX_RECORD {
        return Err(WireError::TooLong);
    }
    match postcard::take_from_bytes::<T>(bytes) {
        Ok((value, [])) => Ok(value),
        Ok((_, rest)) => Err(WireError::Trailing(rest.len())),
        Err(_) => Err(WireError::Malformed),
    }
}

/// A request as bytes.
pub fn encode_request<H: Helper>(origin: &Origin, request: &H::Request) -> Result<Vec<u8>, WireError> {
    encode(&(origin, request))
}

/// A request from bytes.
pub fn decode_request<H: Helper>(bytes: &[u8]) -> Result<(Origin, H::Request), WireError> {
    decode(bytes)
}

/// A reply as bytes.
pub fn encode_reply<C: Call>(seq: u32, result: &Result<C::Reply, Refusal>) -> Result<Vec<u8>, WireError> {
    encode(&(ReplyHead { seq, op: C::OP }, result))
}

/// The reply to `C` with number `seq`, from bytes.
pub fn decode_reply<C: Call>(seq: u32, bytes: &[u8]) -> Result<Result<C::Reply, Refusal>, WireError> {
    let (head, rest) = postcard::take_from_bytes::<ReplyHead>(bytes).map_err(|_| WireError::Malformed)?;
    if head != (ReplyHead { seq, op: C::OP }) {
        return Err(WireError::WrongReply(head.seq, head.op));
    }
    decode(rest)
}
