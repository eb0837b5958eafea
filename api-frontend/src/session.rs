//! Sessions with the broker: one pool for each client connection, so that nobody's call ever goes out in another's name.

use crate::limits::{Kind, Place, Share};
use crate::told::Known;
use skep_ipc::aio::Client;
use skep_ipc::{CallError, ProtocolError};
use skep_proto::broker::{Broker, Credential, OpenSession, OperationGet, OperationView, Ref, RequestKey, TokenCreate, TokenMade};
use skep_proto::{Call, NoFds, OperationId, Reason, Refusal, Secret, Text, TraceId, UpTo};
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Longest that a request other than a wait may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long it may take to write a disk anew.
const LONG: Duration = Duration::from_secs(6 * 3600);
/// Longest single wait for the end of an operation; then it is asked for again.
const WAIT: Duration = Duration::from_secs(24 * 3600);
/// How long a restarting broker is waited for.
const RESTART: Duration = Duration::from_secs(3);
/// Idle sessions that a client connection keeps.
const MAX_IDLE: usize = 2;

/// Where the broker is.
pub struct BrokerAt {
    run: OwnedFd,
    path: PathBuf,
}

impl BrokerAt {
    /// The broker of the suite whose RUN this is.
    pub fn new(run: OwnedFd, path: PathBuf) -> Self {
        Self { run, path }
    }

    async fn connect(&self) -> Result<Client<Broker>, CallError> {
        let socket = skep_sys::sock::connect_seqpacket_at(self.run.as_fd(), &self.path, "broker.sock");
        Client::over(socket.map_err(|error| CallError::Connect { helper: "broker", error })?).await
    }

    /// The same, waiting a moment for a broker that is being restarted.
    pub(crate) async fn reconnect(&self) -> Result<Client<Broker>, CallError> {
        let until = Instant::now() + RESTART;
        let mut pause = Duration::from_millis(10);
        loop {
            match self.connect().await {
                Err(_) if Instant::now() + pause < until => tokio::time::sleep(pause).await,
                result => return result,
            }
            pause *= 2;
        }
    }
}

impl AsFd for BrokerAt {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.run.as_fd()
    }
}

/// How a client came.
pub enum Way {
    /// Over `RUN/api.sock`: the accepted socket, which the broker asks the kernel about.
    Local(OwnedFd),
    /// Over TLS, from this address: it must show a token with each call.
    Remote(IpAddr),
    /// For metrics alone, and in nobody's name.
    Metrics,
}

struct Session {
    client: Client<Broker>,
    token: Option<Text<128>>,
    user: Text<64>,
    _place: Place,
}

impl Session {
    /// One call; before it, its key.
    async fn ask<C>(
        &mut self, trace: TraceId, key: Option<&RequestKey>, call: C, patience: Duration,
    ) -> Result<(C::Reply, C::ReplyFds), CallError>
    where
        C: Call<Helper = Broker, SendFds = NoFds>,
    {
        if let Some(key) = key {
            self.client.call(trace, &self.user, key.clone(), [], patience).await?;
        }
        self.client.call(trace, &self.user, call, [], patience).await
    }
}

/// One client connection.
pub struct Peer {
    way: Way,
    broker: Arc<BrokerAt>,
    idle: Mutex<Vec<Session>>,
    share: Arc<Share>,
    /// Of its calls one at a time is told of, so that many of one client keep nobody else waiting.
    pub(crate) telling: tokio::sync::Mutex<()>,
    _place: Place,
}

impl Peer {
    /// A connection that came `way`, with its user's share of this process.
    pub fn new(way: Way, broker: Arc<BrokerAt>, share: Arc<Share>) -> Result<Self, Refusal> {
        let place = share.place(Kind::Connection)?;
        Ok(Self { way, broker, idle: Mutex::default(), share, telling: Default::default(), _place: place })
    }

    /// A place among the streams that may be open.
    pub fn stream_place(&self) -> Result<Place, Refusal> {
        self.share.place(Kind::Stream)
    }

    /// The same for a log.
    pub fn log_place(&self, follows: bool) -> Result<Place, Refusal> {
        self.share.place(if follows { Kind::Follower } else { Kind::Stream })
    }

    fn idle(&self, token: Option<&Text<128>>) -> Option<Session> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let at = idle.iter().position(|s| s.token.as_ref() == token)?;
        Some(idle.swap_remove(at))
    }

    fn keep(&self, session: Session) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < MAX_IDLE {
            idle.push(session);
        }
    }

    async fn open(&self, caller: &Caller) -> Result<Session, CallError> {
        let place = self.share.place(Kind::Session)?;
        let (credential, fds) = match (&self.way, &caller.token) {
            (Way::Local(socket), None) => {
                let socket = socket.try_clone().map_err(|e| Refusal::io("api-frontend", "dup", &e))?;
                (Credential::LocalSocket, vec![socket])
            }
            (_, Some(token)) => (Credential::Token(token.clone()), vec![]),
            (Way::Metrics, None) => (Credential::Metrics, vec![]),
            (Way::Remote(_), None) => {
                let refusal = Refusal::new(Reason::Unauthenticated, "api-frontend");
                return Err(refusal.note("a call over TLS needs `authorization: Bearer TOKEN`").into());
            }
        };
        self.begin(caller, credential, fds, place).await
    }

    async fn begin(
        &self, caller: &Caller, credential: Credential, fds: Vec<OwnedFd>, place: Place,
    ) -> Result<Session, CallError> {
        let mut client = self.broker.reconnect().await?;
        let nobody = Text::default();
        let opened = client.call(caller.trace, &nobody, OpenSession { credential }, UpTo(fds), PATIENCE).await;
        if let Err(CallError::Refused(_)) = &opened {
            caller.known.answered(false);
        }
        let (state, []) = opened?;
        Ok(Session { client, token: caller.token.clone(), user: state.user, _place: place })
    }

    /// Where the client is, for the count of tries.
    pub(crate) fn place_of(&self) -> Text<64> {
        let text = match &self.way {
            Way::Remote(address) => address.to_canonical().to_string(),
            Way::Metrics => "metrics".into(),
            Way::Local(socket) => match skep_sys::sock::peer(socket.as_fd()) {
                Ok(peer) => format!("uid {}", peer.uid),
                Err(_) => "uid ?".into(),
            },
        };
        Text::lossy(&text)
    }
}

/// One call of a client.
#[derive(Clone)]
pub struct Caller {
    /// The connection that it came over.
    pub peer: Arc<Peer>,
    /// The token that it showed.
    pub token: Option<Text<128>>,
    /// Marks what it causes.
    pub trace: TraceId,
    /// What the broker knows of it.
    pub(crate) known: Arc<Known>,
}

impl Caller {
    /// Who a client seems to be, to find again what he left. Who he is, the broker finds out by itself.
    pub fn owner(&self) -> String {
        match &self.token {
            Some(token) => format!("token {token}"),
            None => self.peer.place_of().to_string(),
        }
    }
}

/// Whether a request that the broker may have received can be sent again.
#[derive(Clone, Copy, PartialEq)]
enum Again {
    Yes,
    No,
}

impl Caller {
    /// Asks something that changes nothing: asked once more if the broker ends meanwhile.
    pub async fn read<C>(&self, call: C) -> Result<(C::Reply, C::ReplyFds), Refusal>
    where
        C: Call<Helper = Broker, SendFds = NoFds> + Clone,
    {
        self.ask(call, Again::Yes, PATIENCE).await.map_err(CallError::into_refusal)
    }

    /// Asks for something to be done: never asked twice.
    pub async fn act<C>(&self, call: C) -> Result<(C::Reply, C::ReplyFds), Refusal>
    where
        C: Call<Helper = Broker, SendFds = NoFds> + Clone,
    {
        self.ask(call, Again::No, PATIENCE).await.map_err(CallError::into_refusal)
    }

    /// The same of what may take long: as long as the copying of a disk.
    pub async fn act_long<C>(&self, call: C) -> Result<(C::Reply, C::ReplyFds), Refusal>
    where
        C: Call<Helper = Broker, SendFds = NoFds> + Clone,
    {
        self.ask(call, Again::No, LONG).await.map_err(CallError::into_refusal)
    }

    /// Asks for something to be made. With an id that the client gave it may be asked twice.
    pub async fn make<C>(&self, request_id: &str, call: C) -> Result<(C::Reply, C::ReplyFds), Refusal>
    where
        C: Call<Helper = Broker, SendFds = NoFds> + Clone,
    {
        let Some(id) = crate::convert::optional("request", "request_id", request_id)? else { return self.act(call).await };
        self.ask_as(Some(RequestKey { id }), call, Again::Yes, PATIENCE).await.map_err(CallError::into_refusal)
    }

    /// Waits for the end of an operation.
    pub async fn ended(&self, id: OperationId) -> Result<OperationView, Refusal> {
        loop {
            let waited = self.ask(OperationGet { id, wait: true }, Again::Yes, WAIT).await;
            match waited {
                Err(CallError::Gone { error, .. }) if is_timeout(&error) => {}
                result => return result.map(|(view, [])| view).map_err(CallError::into_refusal),
            }
        }
    }

    /// Opens a session with a password, makes a token in it, and forgets both.
    pub async fn log_in(&self, user: Ref, password: Secret, token: TokenCreate) -> Result<TokenMade, Refusal> {
        let made = async {
            let place = self.peer.share.place(Kind::Session)?;
            let credential = Credential::Password { user, password, peer: self.peer.place_of() };
            let mut session = self.peer.begin(self, credential, Vec::new(), place).await?;
            let made = session.client.call(self.trace, &session.user, token, [], PATIENCE).await;
            self.heard(&made);
            let (made, []) = made?;
            Ok::<_, CallError>(made)
        };
        made.await.map_err(CallError::into_refusal)
    }

    async fn ask<C>(&self, call: C, again: Again, patience: Duration) -> Result<(C::Reply, C::ReplyFds), CallError>
    where
        C: Call<Helper = Broker, SendFds = NoFds> + Clone,
    {
        self.ask_as(None, call, again, patience).await
    }

    /// Notes what the broker knows of this call by now.
    fn heard<T>(&self, result: &Result<T, CallError>) {
        match result {
            Ok(_) => self.known.answered(true),
            Err(CallError::Refused(_)) => self.known.answered(false),
            Err(_) => {}
        }
    }

    /// A session is taken out of the pool for the time of the call; a call that is given up takes its session along.
    async fn ask_as<C>(
        &self, key: Option<RequestKey>, call: C, again: Again, patience: Duration,
    ) -> Result<(C::Reply, C::ReplyFds), CallError>
    where
        C: Call<Helper = Broker, SendFds = NoFds> + Clone,
    {
        let pooled = self.peer.idle(self.token.as_ref());
        let was_pooled = pooled.is_some();
        let mut session = match pooled {
            Some(session) => session,
            None => self.peer.open(self).await?,
        };
        let mut result = session.ask(self.trace, key.as_ref(), call.clone(), patience).await;
        if let Err(CallError::Gone { error, .. }) = &result
            // What could not be sent was not done.
            && (again == Again::Yes || was_pooled && matches!(error, ProtocolError::Send(_)))
            && !is_timeout(error)
        {
            drop(session);
            session = self.peer.open(self).await?;
            result = session.ask(self.trace, key.as_ref(), call, patience).await;
        }
        self.heard(&result);
        match &result {
            // The broker has closed it: its user is nobody any more.
            Err(CallError::Refused(refusal)) if refusal.reason == Reason::Unauthenticated => {}
            Ok(_) | Err(CallError::Refused(_)) => self.peer.keep(session),
            Err(_) => {}
        }
        result
    }
}

fn is_timeout(error: &ProtocolError) -> bool {
    matches!(error, ProtocolError::Receive(skep_sys::msg::RecvError::TimedOut))
}
