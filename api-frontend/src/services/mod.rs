//! The methods of the API. Each enters its call (who, which trace), asks the broker, and answers.

mod disks;
mod events;
mod firmware;
mod groups;
mod host;
mod machines;
mod nics;
mod operations;
mod switches;
mod users;

use crate::deadline::Deadline;
use crate::session::{Caller, Peer};
use crate::status::{TRACE, mark, status};
use crate::told::Known;
use crate::uploads::Uploads;
use crate::{convert, relay};
use skep_api::{Bounded, Exceeded};
use skep_proto::broker::Broker;
use skep_proto::{NoFds, Reason, Refusal, Text, TraceId, upload};
use skep_service::Journal;
use std::fmt;
use std::future::Future;
use std::ops::Deref;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::AsyncWriteExt;
use tokio_stream::Stream;
use tonic::metadata::MetadataMap;
use tonic::transport::server::TlsConnectInfo;
use tonic::{Request, Response, Status, Streaming};

/// Everything that a method needs; implements all services.
#[derive(Clone)]
pub struct Api {
    journal: Arc<Mutex<Journal>>,
    certificate: Arc<str>,
    uploads: Uploads,
}

/// What a method gives back.
type Answer<T> = Result<Response<T>, Status>;
/// A stream of answers.
type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Api {
    /// Logs to `journal`. Clients of the remote API know this certificate by its SHA-256; empty: there are none.
    pub fn new(journal: Arc<Mutex<Journal>>, certificate: &str) -> Self {
        Self { journal, certificate: certificate.into(), uploads: Uploads::default() }
    }

    /// Takes a request apart: the call, and its message.
    #[allow(clippy::result_large_err)]
    fn enter<T: Bounded>(&self, method: &'static str, request: Request<T>) -> Result<(Call, T), Status> {
        let trace = trace(request.metadata().get(TRACE).and_then(|value| value.to_str().ok()));
        let extensions = request.extensions();
        let tls = || extensions.get::<TlsConnectInfo<Arc<Peer>>>().map(TlsConnectInfo::get_ref);
        let peer = extensions.get::<Arc<Peer>>().or_else(tls).cloned();
        let peer = peer.ok_or_else(|| status(&Refusal::new(Reason::Internal, "api-frontend").note("no connection"), trace))?;
        let token = token(request.metadata()).map_err(|refusal| status(&refusal, trace))?;
        let known = extensions.get::<Arc<Known>>().cloned().unwrap_or_default();
        let caller = Caller { peer, token, trace, known };
        let deadline = extensions.get::<Deadline>().copied();
        let (call, message) = (Call { caller, method, deadline, api: self.clone() }, request.into_inner());
        in_bounds(&message).map_err(|refusal| call.refused(&refusal))?;
        Ok((call, message))
    }
}

/// Refuses a message that is longer somewhere than the API's definition says, or lacks what it must have.
fn in_bounds(message: &impl Bounded) -> Result<(), Refusal> {
    message.bounds().map_err(|Exceeded { field, note }| convert::invalid("request", &field, note))
}

/// A client's stream of messages, each held to its bounds.
pub(crate) struct Checked<T>(Streaming<T>);

impl<T: Bounded> Checked<T> {
    /// The next one; none: the client sends no more. A stream that broke off is cancelled.
    pub(crate) async fn message(&mut self) -> Result<Option<T>, Refusal> {
        let broken = |status: Status| Refusal::new(Reason::Cancelled, "stream").note(status.message());
        let message = self.0.message().await.map_err(broken)?;
        message.as_ref().map_or(Ok(()), in_bounds)?;
        Ok(message)
    }
}

/// One call.
#[derive(Clone)]
pub(crate) struct Call {
    caller: Caller,
    method: &'static str,
    deadline: Option<Deadline>,
    api: Api,
}

impl Deref for Call {
    type Target = Caller;
    fn deref(&self) -> &Caller {
        &self.caller
    }
}

impl Call {
    /// Does the work of a call, logs it, and answers.
    async fn run<T>(&self, work: impl Future<Output = Result<T, Refusal>>) -> Answer<T> {
        match work.await {
            Ok(message) => {
                self.log(format_args!("done"));
                let mut response = Response::new(message);
                mark(response.metadata_mut(), self.trace);
                Ok(response)
            }
            Err(refusal) => Err(self.refused(&refusal)),
        }
    }

    /// Collects the broker's pages, which are as large as a record, into one of the API's. Gives the token of the next one, too.
    async fn pages<C, V, K>(
        &self, what: &str, size: u32, token: &str, ask: impl Fn(Option<K>) -> C, values: fn(C::Reply) -> Vec<V>,
        key: fn(&V) -> &K,
    ) -> Result<(Vec<V>, String), Refusal>
    where
        C: skep_proto::Call<Helper = Broker, SendFds = NoFds> + Clone,
        K: FromStr<Err: fmt::Display> + fmt::Display,
    {
        let most = match usize::try_from(size) {
            Ok(0) => MAX_PAGE,
            Ok(size) if size <= MAX_PAGE => size,
            _ => {
                let note = format_args!("{size} is not 1 to {MAX_PAGE}, or 0 for as many");
                return Err(convert::invalid(what, "page_size", note));
            }
        };
        let (mut all, mut last) = (Vec::new(), token.to_owned());
        for _ in 0..MAX_RECORDS {
            let after = convert::optional(what, "page_token", &last)?;
            let page = values(self.read(ask(after)).await?.0);
            if page.is_empty() {
                return Ok((all, String::new()));
            }
            all.extend(page);
            all.truncate(most);
            last = all.last().map(|v| key(v).to_string()).unwrap_or_default();
            if all.len() == most {
                break;
            }
        }
        Ok((all, last))
    }

    /// Waits for the call's deadline.
    async fn over(&self) {
        Deadline::passed(self.deadline).await;
    }

    /// Logs a refusal and makes its status.
    pub(crate) fn refused(&self, refusal: &Refusal) -> Status {
        self.log(format_args!("{refusal}"));
        status(refusal, self.trace)
    }

    fn log(&self, what: fmt::Arguments<'_>) {
        let mut journal = self.api.journal.lock().unwrap_or_else(PoisonError::into_inner);
        journal.info(Some(self.trace), format_args!("{}: {what}", self.method));
    }
}

/// The trace that the client gave, if it is one; a new one otherwise.
pub(crate) fn trace(given: Option<&str>) -> TraceId {
    let given = given.filter(|text| text.len() == 16);
    let given = given.filter(|text| text.bytes().all(|b| b.is_ascii_hexdigit()));
    given.and_then(|text| u64::from_str_radix(text, 16).ok()).map_or_else(TraceId::random, TraceId)
}

/// The bearer token, if one was shown.
fn token(metadata: &MetadataMap) -> Result<Option<Text<128>>, Refusal> {
    let Some(value) = metadata.get("authorization") else { return Ok(None) };
    let wrong = || Refusal::new(Reason::Unauthenticated, "api-frontend").note("`authorization: Bearer TOKEN` is expected");
    let text = value.to_str().map_err(|_| wrong())?;
    let token = text.strip_prefix("Bearer ").or_else(|| text.strip_prefix("bearer ")).ok_or_else(wrong)?;
    Ok(Some(token.trim().parse().map_err(|_| wrong())?))
}

/// Most objects in one answer.
const MAX_PAGE: usize = 1000;
/// Most of the broker's records in one answer: each has at most 8,000 bytes, which may double, and a message has 4 MiB.
const MAX_RECORDS: usize = 200;

/// Writes what goes to the broker by a pipe, being larger than a record, or secret. If whoever reads has stopped, the operation says why.
async fn pipe_out(fd: OwnedFd, object: &str, data: &[u8]) -> Result<(), Refusal> {
    let mut sink = relay::sink(fd).map_err(|e| Refusal::io(object, "open the stream", &e))?;
    let header = upload::header(data.len());
    for part in [header.as_ref().map_or(&[][..], |header| header), data, &upload::END] {
        if sink.write_all(part).await.is_err() {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_trace_is_taken_over() {
        let with = |text| trace(Some(text));
        assert_eq!(with("00000000deadbeef"), TraceId(0xdead_beef));
        assert_ne!(with("+0000000deadbeef"), TraceId(0xdead_beef));
        assert_ne!(with("deadbeef"), TraceId(0xdead_beef));
    }

    #[test]
    fn a_token_is_a_bearer_token() {
        let with = |text: &'static str| {
            let mut metadata = MetadataMap::new();
            metadata.insert("authorization", tonic::metadata::MetadataValue::from_static(text));
            token(&metadata)
        };
        assert_eq!(with("Bearer abc").expect("valid").expect("shown").as_str(), "abc");
        assert_eq!(with("Basic abc").expect_err("refused").reason, Reason::Unauthenticated);
        assert!(token(&MetadataMap::new()).expect("valid").is_none());
    }
}
