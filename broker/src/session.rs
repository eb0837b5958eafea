//! One connection of the frontend is one session: the first request says who the client is, everything after is done in that name.
//! What the frontend itself claims (the user that stands in each request) counts for nothing.

use crate::broker::Broker;
use crate::db::Who;
use crate::db::requests::Once;
use crate::policy::{Proof, User, about, permit};
use crate::requests::Cx;
use crate::route::route;
use sha2::{Digest, Sha256};
use skep_ipc::ProtocolError;
use skep_ipc::aio::{Connection, Request};
use skep_proto::broker::{self as proto, BrokerRequest, CallTold, Credential, OpenSession, RequestKey, SessionState};
use skep_proto::wire::{self, Origin};
use skep_proto::{Call, Op, Reason, Refusal, TraceId};
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::unix::AsyncFd;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Sessions at a time; more are closed at once.
const SESSIONS: usize = 512;
/// How long a connection may take to say who it is for.
const OPENING: Duration = Duration::from_secs(10);

/// Serves the frontend, for ever.
pub async fn serve(broker: Rc<Broker>, listener: OwnedFd, allowed: Option<Vec<u32>>) -> std::io::Result<()> {
    skep_sys::fd::set_nonblocking(listener.as_fd(), true)?;
    // Deprecated for types that may give up their descriptor; an OwnedFd keeps it.
    #[allow(deprecated)]
    let listener = AsyncFd::new(listener)?;
    let places = Arc::new(Semaphore::new(SESSIONS));
    loop {
        let mut ready = listener.readable().await?;
        let socket = match skep_sys::sock::accept(listener.as_fd()) {
            Ok(socket) => socket,
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {
                ready.clear_ready();
                continue;
            }
            Err(e) => {
                broker.warn(TraceId::default(), format_args!("accept: {e}"));
                // Out of descriptors, most likely: until some session ends.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let peer = skep_sys::sock::peer(socket.as_fd());
        let stranger = match (&allowed, &peer) {
            (Some(uids), Ok(peer)) => !uids.contains(&peer.uid),
            (_, Err(_)) => true,
            (None, Ok(_)) => false,
        };
        if stranger {
            broker.warn(TraceId::default(), format_args!("{peer:?} is not the frontend"));
            continue;
        }
        let Ok(place) = places.clone().try_acquire_owned() else {
            broker.warn(TraceId::default(), format_args!("more than {SESSIONS} sessions"));
            continue;
        };
        let broker = broker.clone();
        tokio::task::spawn_local(async move {
            if let Err(error) = session(&broker, socket).await
                && !left(&error)
            {
                broker.warn(TraceId::default(), format_args!("a session was closed: {error}"));
            }
            drop(place);
        });
    }
}

/// Whether the frontend went away: between two records, or without having read the last one.
fn left(error: &ProtocolError) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionReset};
    match error {
        ProtocolError::Receive(skep_sys::msg::RecvError::Io(e)) | ProtocolError::Send(e) => {
            matches!(e.kind(), BrokenPipe | ConnectionReset)
        }
        error => error.is_goodbye(),
    }
}

/// Serves one connection until the frontend closes it or breaks the protocol.
pub async fn session(broker: &Rc<Broker>, socket: OwnedFd) -> Result<(), ProtocolError> {
    let mut connection = Connection::<proto::Broker>::accept(socket).await?;
    let first = timeout(OPENING, connection.next()).await;
    let first = first.unwrap_or(Err(ProtocolError::Order("silence")))?;
    let Some(Opened { proof, mut user, client }) = open(broker, &mut connection, first).await? else { return Ok(()) };
    let mut key = None;
    loop {
        let Request { origin, op, request, .. } = connection.next().await?;
        let once = key.take().map(|id| Once { owner: owner(&user), id, digest: digest(&request) });
        if matches!(request, BrokerRequest::OpenSession(_)) {
            return Err(ProtocolError::Order(op.name));
        }
        // The frontend may hold the client's socket for as long as it likes; the client's name is its own only while he is there.
        if client.as_ref().is_some_and(|client| skep_sys::sock::hung_up(client.as_fd())) {
            return Ok(());
        }
        // What he may do may have changed since the last call; and he may be nobody any more.
        let (permitted, ended) = match broker.user_of(&proof) {
            Ok(now) => {
                user = Rc::new(now);
                let rate = broker.rates.borrow_mut().take(&proof, &user.name, op, Instant::now());
                (rate.and_then(|()| broker.read(|db| permit(db, &user, &request))), false)
            }
            Err(refusal) => (Err(refusal), true),
        };
        // One that was refused says nothing about what comes next.
        if let (BrokerRequest::RequestKey(RequestKey { id }), Ok(())) = (&request, &permitted) {
            key = Some(*id);
        }
        let who = Who { trace: origin.trace, user: user.name.clone(), once };
        if let BrokerRequest::CallTold(told) = &request {
            match &permitted {
                Ok(()) => broker.told(&who, user.only.is_none(), told),
                // Too often, or nobody any more: told of all the same, in one line with others.
                Err(_) => broker.leave_out(1 + u64::from(told.untold)),
            }
            connection.answer::<CallTold>(origin.seq, permitted.map(|()| (proto::Done {}, []))).await?;
            if ended {
                return Ok(());
            }
            continue;
        }
        let about = about(&request);
        let mut desk = Desk { broker, connection: &mut connection, origin: &origin, op, permitted: Some(permitted), about };
        route(&mut desk, Cx { broker: broker.clone(), who, user: user.clone(), proof: proof.clone() }, request).await?;
        if ended {
            return Ok(());
        }
    }
}

/// Whose requests are whose: a user's by his id, whatever his name.
fn owner(user: &User) -> String {
    user.id.map_or_else(|| user.name.to_string(), |id| id.to_string())
}

/// SHA-256 of a request. What is kept of a password is Argon2id's and nothing faster, so here it is left out.
fn digest(request: &BrokerRequest) -> [u8; 32] {
    let bytes = match request {
        BrokerRequest::UserCreate(c) => wire::encode(&proto::UserCreate { password: None, ..c.clone() }),
        request => wire::encode(request),
    };
    // What came as a record can be encoded; if it could not, it would be no request's repeat.
    let bytes = bytes.unwrap_or_else(|_| TraceId::random().0.to_be_bytes().to_vec());
    Sha256::new().chain_update(bytes).finalize().into()
}

/// Whose session it is.
struct Opened {
    proof: Proof,
    user: Rc<User>,
    /// The connection of a local one.
    client: Option<OwnedFd>,
}

/// The first request.
async fn open(
    broker: &Rc<Broker>, connection: &mut Connection<proto::Broker>, first: Request<BrokerRequest>,
) -> Result<Option<Opened>, ProtocolError> {
    let Request { origin, op, request, mut fds } = first;
    let BrokerRequest::OpenSession(OpenSession { credential }) = request else { return Err(ProtocolError::Order(op.name)) };
    let client = fds.pop();
    let how = format!("{credential:?}");
    let tried = match &credential {
        Credential::Password { user, peer, .. } => format!("{how} of {user} from {peer}"),
        Credential::LocalSocket | Credential::Token(_) | Credential::Metrics | Credential::Nobody => how,
    };
    let from = match &credential {
        Credential::Password { peer, .. } => peer.to_string(),
        credential => format!("{credential:?}"),
    };
    let known = broker.recognise(credential, client.as_ref()).await;
    let result = known.as_ref().map(|(_, user)| (SessionState { user: user.name.clone() }, [])).map_err(Clone::clone);
    match &known {
        Ok((_, user)) => broker.info(origin.trace, format_args!("session of {}", user.name)),
        Err(refusal) => broker.warn(origin.trace, format_args!("no session: {refusal}")),
    }
    match &known {
        Ok((_, user)) => {
            let who = Who { trace: origin.trace, user: user.name.clone(), once: None };
            broker.called(&who, op, &tried, Ok(()));
        }
        Err(refusal) => broker.turned_away(origin.trace, op, &tried, &from, refusal),
    }
    connection.answer::<OpenSession>(origin.seq, result).await?;
    Ok(known.ok().map(|(proof, user)| Opened { proof, user: Rc::new(user), client }))
}

/// Where one request is answered.
pub struct Desk<'a> {
    broker: &'a Broker,
    connection: &'a mut Connection<proto::Broker>,
    origin: &'a Origin,
    op: &'static Op,
    /// Whether the user may ask this; taken by the answer.
    permitted: Option<Result<(), Refusal>>,
    about: String,
}

impl Desk<'_> {
    /// Does what is asked, if this user may ask it, and answers; gives up when the client is gone meanwhile.
    pub async fn answer<C: Call<Helper = proto::Broker>>(
        &mut self, who: &Who, act: impl Future<Output = Result<(C::Reply, C::ReplyFds), Refusal>>,
    ) -> Result<(), ProtocolError> {
        let permitted = self.permitted.take().unwrap_or_else(|| Err(Refusal::new(Reason::Internal, self.op.name)));
        let act = async {
            permitted?;
            act.await
        };
        let result = tokio::select! {
            biased;
            result = act => result,
            // Only whoever waits is given up so; what was begun goes on by itself.
            () = self.connection.hung_up(), if C::OP == <proto::OperationGet as Call>::OP => return Ok(()),
        };
        if result.is_ok() && skep_service::is_quiet(self.op) {
            return self.connection.answer::<C>(self.origin.seq, result).await;
        }
        self.broker.called(who, self.op, &self.about, result.as_ref().map(|_| ()));
        let op = self.op.name;
        match &result {
            Ok(_) => self.broker.info(who.trace, format_args!("{op} for {}: done", who.user)),
            Err(refusal) => self.broker.info(who.trace, format_args!("{op} for {}: {refusal}", who.user)),
        }
        self.connection.answer::<C>(self.origin.seq, result).await
    }
}
