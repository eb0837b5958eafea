//! Deadlines that clients give their calls (`grpc-timeout`), for all methods in one place. A call that has no answer by then gets
//! DEADLINE_EXCEEDED, and a stream ends with it; whatever works on either is dropped, as when its client goes.
//!
//! tonic has a clock of its own for calls, which answers CANCELLED and says nothing more. This one is set before that and asked before
//! that, each time, so it is always the first.

use crate::convert::invalid;
use crate::status::{TRACE, status};
use skep_proto::{Reason, Refusal, TraceId};
use skep_service::Journal;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::body::Body;
use tonic::codegen::http::{HeaderMap, HeaderValue, Request, Response};
use tonic::codegen::{BoxFuture, Bytes};

/// How a client says how long it waits.
const TIMEOUT: &str = "grpc-timeout";

/// When a call is over, for work that does not end with it by itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline(Instant);

impl Deadline {
    /// Waits until then; for ever without one.
    pub(crate) async fn passed(deadline: Option<Self>) {
        match deadline {
            Some(Self(at)) => sleep_until(at).await,
            None => std::future::pending().await,
        }
    }
}

/// What is told to whoever waited too long, once.
struct Late {
    journal: Arc<Mutex<Journal>>,
    method: String,
    trace: TraceId,
    waited: Duration,
}

impl Late {
    fn refused(&self, refusal: &Refusal) -> tonic::Status {
        let mut journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        journal.info(Some(self.trace), format_args!("{}: {refusal}", self.method));
        status(refusal, self.trace)
    }

    fn passed(&self, what: &str) -> tonic::Status {
        let note = format!("its deadline of {:?} has passed; {what}", self.waited);
        self.refused(&Refusal::new(Reason::Timeout, &self.method).note(note))
    }
}

/// Has a call answered by `route`, within the time that its client gives it.
pub(crate) fn keep(
    mut request: Request<Body>, journal: &Arc<Mutex<Journal>>,
    route: impl FnOnce(Request<Body>) -> BoxFuture<Response<Body>, Infallible>,
) -> BoxFuture<Response<Body>, Infallible> {
    let Some(given) = request.headers().get(TIMEOUT) else { return route(request) };
    let wanted = time(given);
    let trace = crate::services::trace(request.headers().get(TRACE).and_then(|value| value.to_str().ok()));
    let method = request.uri().path().trim_start_matches("/skep.v1.").replace('/', ".");
    let mut late = Late { journal: journal.clone(), method, trace, waited: Duration::ZERO };
    match wanted {
        Ok(waited) => late.waited = waited,
        Err(refusal) => return at_once(late.refused(&refusal)),
    }
    if late.waited.is_zero() {
        return at_once(late.passed("nothing was begun"));
    }
    // Longer than the clock counts: never.
    let Some(at) = Instant::now().checked_add(late.waited) else { return route(request) };
    request.extensions_mut().insert(Deadline(at));
    let (answer, mut clock) = (route(request), Box::pin(sleep_until(at)));
    Box::pin(async move {
        tokio::select! {
            biased;
            response = answer => response.map(|response| response.map(|body| Body::new(Timed { body, clock, late: Some(late) }))),
            () = &mut clock => Ok(late.passed("what was asked may be done all the same").into_http()),
        }
    })
}

fn at_once(status: tonic::Status) -> BoxFuture<Response<Body>, Infallible> {
    Box::pin(async move { Ok(status.into_http()) })
}

/// A time as gRPC writes it (PROTOCOL-HTTP2.md): a number and its unit.
fn time(given: &HeaderValue) -> Result<Duration, Refusal> {
    let text = String::from_utf8_lossy(given.as_bytes());
    let wrong = || {
        let shown: String = text.chars().take(16).flat_map(char::escape_default).collect();
        invalid("call", TIMEOUT, format_args!("\"{shown}\" is not 1 to 8 digits and one of H, M, S, m, u and n"))
    };
    let (digits, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
    if !(1..=8).contains(&digits.len()) || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(wrong());
    }
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    match unit {
        "H" => Ok(Duration::from_secs(number * 3600)),
        "M" => Ok(Duration::from_secs(number * 60)),
        "S" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_millis(number)),
        "u" => Ok(Duration::from_micros(number)),
        "n" => Ok(Duration::from_nanos(number)),
        _ => Err(wrong()),
    }
}

/// What is answered, up to the deadline.
struct Timed {
    body: Body,
    clock: Pin<Box<Sleep>>,
    /// None: it has come to its end.
    late: Option<Late>,
}

impl hyper::body::Body for Timed {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>, cx: &mut Context<'_>,
    ) -> Poll<Option<Result<hyper::body::Frame<Bytes>, tonic::Status>>> {
        if self.late.is_none() {
            return Poll::Ready(None);
        }
        // First: a stream that always has more to say ends, too.
        if self.clock.as_mut().poll(cx).is_ready() {
            let late = self.late.take();
            // Whoever sends into it is told by its end.
            self.body = Body::empty();
            let mut trailers = HeaderMap::new();
            let told = late.map_or(Ok(()), |late| late.passed("the stream ends").add_header(&mut trailers));
            return Poll::Ready(Some(told.map(|()| hyper::body::Frame::trailers(trailers))));
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if frame.as_ref().is_none_or(|frame| frame.as_ref().is_ok_and(hyper::body::Frame::is_trailers)) {
            self.late = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.late.is_none() || self.body.is_end_stream()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_number_and_its_unit() {
        let of = |text: &'static str| time(&HeaderValue::from_static(text));
        for (text, want) in [
            ("1H", Duration::from_secs(3600)),
            ("2M", Duration::from_secs(120)),
            ("3S", Duration::from_secs(3)),
            ("200m", Duration::from_millis(200)),
            ("00000007u", Duration::from_micros(7)),
            ("0n", Duration::ZERO),
            ("99999999H", Duration::from_secs(99_999_999 * 3600)),
        ] {
            assert_eq!(of(text), Ok(want), "{text}");
        }
        for wrong in ["", "S", "5", "123456789S", "-1S", "+1S", " 1S", "1 S", "1.5S", "1s", "1h", "1SS"] {
            let refusal = of(wrong).expect_err(wrong);
            assert_eq!((refusal.reason, refusal.field.as_str()), (Reason::InvalidValue, TIMEOUT));
            let says = format!("\"{wrong}\" is not 1 to 8 digits");
            assert!(refusal.note.as_str().starts_with(&says), "{refusal}");
        }
        let bytes = HeaderValue::from_bytes(b"1\xff").expect("a header");
        assert!(time(&bytes).is_err());
    }
}
