//! What monitoring systems read: HTTP/1.1 without TLS, from a socket of its own, in Prometheus's text format 0.0.4. The broker knows
//! who asks as nobody but a reader of metrics, and gives him nothing else.

mod text;

use crate::limits::{Shares, User};
use crate::session::{BrokerAt, Caller, Peer, Way};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use skep_proto::broker::{MachineMetrics, MetricsGet};
use skep_proto::{Refusal, TraceId};
use skep_service::Journal;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, Semaphore};
use tonic::codegen::Bytes;

/// Connections at a time; more wait.
const CONNECTIONS: usize = 16;
/// Longest that a client may take to say what it wants.
const HEADERS: Duration = Duration::from_secs(10);
/// Longest life of a connection.
const LIFE: Duration = Duration::from_secs(60);
/// Bytes of a request, at most.
const REQUEST: usize = 8 << 10;
/// Whoever asks within this time of another gets the same answer: reading costs every machine something.
const FRESH: Duration = Duration::from_secs(1);
/// Where they are.
const PATH: &str = "/metrics";
/// The format.
const FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Reads metrics from the broker.
pub(crate) struct Metrics {
    peer: Arc<Peer>,
    last: Mutex<Option<(Instant, Bytes)>>,
    journal: Arc<std::sync::Mutex<Journal>>,
}

impl Metrics {
    /// Refused: no place among the connections.
    pub(crate) fn new(broker: Arc<BrokerAt>, shares: &Shares, journal: Arc<std::sync::Mutex<Journal>>) -> Result<Self, Refusal> {
        let peer = Arc::new(Peer::new(Way::Metrics, broker, shares.of(User::Metrics))?);
        Ok(Self { peer, last: Mutex::default(), journal })
    }

    /// Serves for ever.
    pub(crate) async fn serve(self, listener: TcpListener) {
        let metrics = Arc::new(self);
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            // Never closed.
            let Ok(place) = places.clone().acquire_owned().await else { return };
            let Ok((socket, _)) = listener.accept().await else {
                // Out of memory or descriptors: the queue stays, and so would the error.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let metrics = metrics.clone();
            tokio::spawn(async move {
                // A client that breaks HTTP or goes away harms itself alone.
                let _ = tokio::time::timeout(LIFE, metrics.connection(socket)).await;
                drop(place);
            });
        }
    }

    async fn connection(self: Arc<Self>, socket: TcpStream) -> Result<(), hyper::Error> {
        let answer = |request: Request<Incoming>| {
            let metrics = self.clone();
            async move { Ok::<_, Infallible>(metrics.answer(&request).await) }
        };
        let mut http = hyper::server::conn::http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(HEADERS).max_buf_size(REQUEST).keep_alive(false);
        http.serve_connection(TokioIo::new(socket), service_fn(answer)).await
    }

    /// Only the request line counts: a body is not read.
    async fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let said = |status: StatusCode, text: &str| {
            let mut response = Response::new(Full::from(Bytes::from(format!("{text}\n"))));
            *response.status_mut() = status;
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
            response
        };
        if request.uri().path() != PATH {
            return said(StatusCode::NOT_FOUND, "there is nothing but /metrics");
        }
        if ![Method::GET, Method::HEAD].contains(request.method()) {
            let mut response = said(StatusCode::METHOD_NOT_ALLOWED, "GET is expected");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        match self.page().await {
            Ok(page) => {
                let mut response = Response::new(Full::from(page));
                response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(FORMAT));
                response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
                response
            }
            // Why is in the log: whoever reads metrics has shown nothing.
            Err(()) => said(StatusCode::SERVICE_UNAVAILABLE, "the broker does not answer"),
        }
    }

    async fn page(&self) -> Result<Bytes, ()> {
        // One reading at a time; whoever waited for it gets it, too.
        let mut last = self.last.lock().await;
        if let Some((when, page)) = &*last
            && when.elapsed() < FRESH
        {
            return Ok(page.clone());
        }
        let caller = Caller { peer: self.peer.clone(), token: None, trace: TraceId::random(), known: Arc::default() };
        let page = match machines(&caller).await {
            Ok(machines) => Bytes::from(text::page(&machines)),
            Err(refusal) => {
                let mut journal = self.journal.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                journal.warn(Some(caller.trace), format_args!("metrics: {refusal}"));
                return Err(());
            }
        };
        *last = Some((Instant::now(), page.clone()));
        Ok(page)
    }
}

async fn machines(caller: &Caller) -> Result<Vec<MachineMetrics>, Refusal> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let page = caller.read(MetricsGet { after: after.clone() }).await?.0.machines;
        let last = page.last().map(|machine| machine.name.clone());
        // A broker that does not go on would be asked for ever.
        if last.is_none() || last <= after {
            return Ok(all);
        }
        all.extend(page);
        after = last;
    }
}
