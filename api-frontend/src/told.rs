//! Calls that the broker has not seen, or whose end it does not know: it is told of them, so that its record has every call.
//!
//! It is told before the client is answered, who is there so long: the broker asks the kernel who he is. So a flood of calls that are refused
//! here is as slow as one of calls that are not. What the broker could not be told of is counted, and told with the next.

use crate::session::{BrokerAt, Caller, Peer};
use skep_ipc::CallError;
use skep_ipc::aio::Client;
use skep_proto::broker::{Broker, CallTold, Credential, OpenSession};
use skep_proto::{Reason, Text, TraceId, UpTo};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU8, AtomicU32};
use std::time::Duration;
use tokio::sync::{Mutex, Semaphore};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response, StatusCode};
use tonic::transport::server::TlsConnectInfo;
use tonic_types::StatusExt;

/// Calls that are told of at a time; others wait for their turn.
const AT_ONCE: usize = 16;
/// How long the broker may take to hear of one.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the broker knows of a call, by its last answer.
#[derive(Debug, Default)]
pub(crate) struct Known(AtomicU8);

impl Known {
    const NOTHING: u8 = 0;
    const DONE: u8 = 1;
    const REFUSED: u8 = 2;

    /// The broker has answered.
    pub(crate) fn answered(&self, well: bool) {
        self.0.store(if well { Self::DONE } else { Self::REFUSED }, Relaxed);
    }
}

/// See the module.
#[derive(Clone)]
pub(crate) struct Teller {
    broker: Arc<BrokerAt>,
    places: Arc<Semaphore>,
    /// A session of nobody, in which one call at a time is told of.
    nobody: Arc<Mutex<Option<Client<Broker>>>>,
    untold: Arc<AtomicU32>,
}

/// A call that may have to be told of.
pub(crate) struct Watched {
    teller: Teller,
    known: Arc<Known>,
    peer: Arc<Peer>,
    token: Option<Text<128>>,
    trace: TraceId,
    method: String,
}

/// How a call ends of which the broker has to hear.
pub(crate) struct Ended {
    reason: Option<Reason>,
    note: Text<512>,
}

impl Teller {
    /// Tells this broker.
    pub(crate) fn new(broker: Arc<BrokerAt>) -> Self {
        Self { broker, places: Arc::new(Semaphore::new(AT_ONCE)), nobody: Arc::default(), untold: Arc::default() }
    }

    /// Before a call is answered. Its trace is in its metadata.
    pub(crate) fn watch(&self, request: &mut Request<Body>, trace: TraceId) -> Option<Watched> {
        let extensions = request.extensions();
        let tls = || extensions.get::<TlsConnectInfo<Arc<Peer>>>().map(TlsConnectInfo::get_ref);
        let peer = extensions.get::<Arc<Peer>>().or_else(tls).cloned()?;
        let known = Arc::new(Known::default());
        request.extensions_mut().insert(known.clone());
        let shown = request.headers().get("authorization").and_then(|value| value.to_str().ok());
        // One that is none is seen as nobody's.
        let token = shown.map(|text| text.split_once(' ').map_or(text, |(_, token)| token.trim()).parse().unwrap_or_default());
        let method = request.uri().path().trim_start_matches("/skep.v1.").replace('/', ".");
        Some(Watched { teller: self.clone(), known, peer, token, trace, method })
    }
}

impl Watched {
    /// It is answered so: whether the broker has to hear of it.
    pub(crate) fn ends(&self, response: &Response<Body>) -> Option<Ended> {
        let status = Status::from_header_map(response.headers()).filter(|status| status.code() != tonic::Code::Ok);
        let refused = status.is_some() || response.status() != StatusCode::OK;
        // A stream that ends with a refusal has begun with the broker.
        let is_known = match self.known.0.load(Relaxed) {
            Known::NOTHING => false,
            Known::REFUSED => true,
            _ => !refused,
        };
        let reason = refused.then(|| status.as_ref().map_or(Reason::InvalidValue, reason));
        (!is_known).then(|| Ended { reason, note: Text::lossy(status.as_ref().map_or("", Status::message)) })
    }

    /// Ends when the broker has heard of it.
    pub(crate) async fn tell(self, Ended { reason, note }: Ended) {
        let call = CallTold {
            method: Text::lossy(&self.method),
            from: self.peer.place_of(),
            reason,
            note,
            untold: self.teller.untold.swap(0, Relaxed),
        };
        let Self { teller, peer, token, trace, .. } = self;
        let caller = Caller { peer, token, trace, known: Arc::default() };
        let (untold, count) = (teller.untold.clone(), call.untold.saturating_add(1));
        // A task of its own: it goes on when the client goes.
        let told = tokio::spawn(async move { tokio::time::timeout(PATIENCE, teller.tell(&caller, call)).await.unwrap_or(false) });
        if !told.await.unwrap_or(false) {
            untold.fetch_add(count, Relaxed);
        }
    }
}

impl Teller {
    /// Whether the broker has heard of it.
    async fn tell(&self, caller: &Caller, call: CallTold) -> bool {
        let _turn = caller.peer.telling.lock().await;
        let Ok(_place) = self.places.acquire().await else { return false };
        match caller.act(call.clone()).await {
            Ok(_) => true,
            // It is nobody whom the broker knows.
            Err(refusal) if [Reason::Unauthenticated, Reason::PermissionDenied].contains(&refusal.reason) => {
                let mut session = self.nobody.lock().await;
                self.tell_of_nobody(&mut session, caller.trace, call).await.is_ok()
            }
            // Too often, which the broker has counted.
            Err(refusal) => refusal.reason == Reason::TooManyTries,
        }
    }

    async fn tell_of_nobody(
        &self, session: &mut Option<Client<Broker>>, trace: TraceId, call: CallTold,
    ) -> Result<(), CallError> {
        let user = Text::default();
        // One that is given up within a call is of no more use.
        let mut client = match session.take() {
            Some(client) => client,
            None => {
                let mut client = self.broker.reconnect().await?;
                let open = OpenSession { credential: Credential::Nobody };
                client.call(trace, &user, open, UpTo(vec![]), PATIENCE).await?;
                client
            }
        };
        match client.call(trace, &user, call, [], PATIENCE).await {
            // Refused: it has counted it.
            Ok(_) | Err(CallError::Refused(_)) => {
                *session = Some(client);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

/// The reason that a status stands for.
fn reason(status: &Status) -> Reason {
    let details = status.get_error_details();
    let named = details.error_info().and_then(|info| Reason::ALL.iter().find(|reason| reason.row().name == info.reason));
    // tonic's own have none; a message that is too long is out of its range.
    if named.is_none() && status.code() == tonic::Code::OutOfRange {
        return Reason::TooLarge;
    }
    let like = || Reason::ALL.iter().find(|reason| i32::from(reason.row().grpc) == status.code() as i32);
    named.or_else(like).copied().unwrap_or(Reason::Internal)
}
