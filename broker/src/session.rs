//! One connection of the frontend is one session: the first request says who the client is, everything after is done in that name.
//! What the frontend itself claims (the user that stands in each request) counts for nothing.

use crate::broker::Broker;
use crate::db::Who;
use crate::policy::{User, permit};
use crate::requests::Cx;
use crate::route::route;
use skep_ipc::ProtocolError;
use skep_ipc::aio::{Connection, Request};
use skep_proto::broker::{self as proto, BrokerRequest, OpenSession, SessionState};
use skep_proto::wire::Origin;
use skep_proto::{Call, Op, Refusal, TraceId};
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
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
    let Some((user, client)) = open(broker, &mut connection, first).await? else { return Ok(()) };
    loop {
        let Request { origin, op, request, .. } = connection.next().await?;
        if matches!(request, BrokerRequest::OpenSession(_)) {
            return Err(ProtocolError::Order(op.name));
        }
        // The frontend may hold the client's socket for as long as it likes; the client's name is its own only while he is there.
        if client.as_ref().is_some_and(|client| skep_sys::sock::hung_up(client.as_fd())) {
            return Ok(());
        }
        let who = Who { trace: origin.trace, user: user.name.clone() };
        let mut desk = Desk { broker, connection: &mut connection, origin: &origin, op, user: &user };
        route(&mut desk, Cx { broker: broker.clone(), who }, request).await?;
    }
}

/// The first request. Gives who the client is and, of a local one, his connection.
async fn open(
    broker: &Rc<Broker>, connection: &mut Connection<proto::Broker>, first: Request<BrokerRequest>,
) -> Result<Option<(User, Option<OwnedFd>)>, ProtocolError> {
    let Request { origin, op, request, mut fds } = first;
    let BrokerRequest::OpenSession(OpenSession { credential }) = request else { return Err(ProtocolError::Order(op.name)) };
    let client = fds.pop();
    let user = broker.recognise(&credential, client.as_ref());
    let result = user.as_ref().map(|user| (SessionState { user: user.name.clone() }, [])).map_err(Clone::clone);
    match &user {
        Ok(user) => broker.info(origin.trace, format_args!("session of {}", user.name)),
        Err(refusal) => broker.warn(origin.trace, format_args!("no session: {refusal}")),
    }
    connection.answer::<OpenSession>(origin.seq, result).await?;
    Ok(user.ok().map(|user| (user, client)))
}

/// Where one request is answered.
pub struct Desk<'a> {
    broker: &'a Broker,
    connection: &'a mut Connection<proto::Broker>,
    origin: &'a Origin,
    op: &'static Op,
    user: &'a User,
}

impl Desk<'_> {
    /// Does what is asked, if this user may ask it, and answers; gives up when the client is gone meanwhile.
    pub async fn answer<C: Call<Helper = proto::Broker>>(
        &mut self, who: &Who, act: impl Future<Output = Result<(C::Reply, C::ReplyFds), Refusal>>,
    ) -> Result<(), ProtocolError> {
        let act = async {
            permit(self.user, self.op)?;
            act.await
        };
        let result = tokio::select! {
            biased;
            result = act => result,
            // Only whoever waits is given up so; what was begun goes on by itself.
            () = self.connection.hung_up(), if C::OP == <proto::OperationGet as Call>::OP => return Ok(()),
        };
        let op = self.op.name;
        match &result {
            Ok(_) => self.broker.info(who.trace, format_args!("{op} for {}: done", who.user)),
            Err(refusal) => self.broker.info(who.trace, format_args!("{op} for {}: {refusal}", who.user)),
        }
        self.connection.answer::<C>(self.origin.seq, result).await
    }
}
