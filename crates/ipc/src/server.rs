//! The serving side of a helper: one listener, a few connections, one request at a time.

use crate::{Answered, Ask, Observer, ProtocolError, RECORD_DEADLINE};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use skep_proto::wire::{self, Hello, VersionRefused, Welcome};
use skep_proto::{Helper, MAX_FDS, MAX_RECORD, Text};
use skep_sys::{msg, sock};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// What a helper does.
pub trait Service<H: Helper> {
    /// Answers one request: a `match` without a `_` arm, one line per operation.
    fn serve(&mut self, ask: Ask<'_>, request: H::Request) -> Result<Answered, ProtocolError>;

    /// Descriptors to wait for beside the clients (jobs, children), each with a number of the service's own.
    fn watched(&self) -> Vec<Watch<'_>> {
        Vec::new()
    }

    /// A watched descriptor is ready.
    fn ready(&mut self, _token: u64, _flags: PollFlags) {}

    /// A connection ended; `error` is what the peer did wrong, or goodbye.
    fn closed(&mut self, peer: sock::Peer, error: &ProtocolError);

    /// Somebody connected who may not.
    fn stranger(&mut self, peer: sock::Peer);

    /// Whether to go on serving.
    fn goes_on(&self) -> bool {
        true
    }
}

/// A descriptor to wait for.
#[derive(Debug)]
pub struct Watch<'a> {
    /// The descriptor.
    pub fd: BorrowedFd<'a>,
    /// For what.
    pub flags: PollFlags,
    /// Given back to [`Service::ready`].
    pub token: u64,
}

/// Takes rights from an accepted socket.
pub type Limit = fn(BorrowedFd<'_>) -> io::Result<()>;

/// Connections at a time; more are closed at once.
const MAX_CONNECTIONS: usize = 32;

struct Connection {
    socket: OwnedFd,
    peer: sock::Peer,
    greeted: bool,
    next: u32,
}

/// A listener and its connections.
pub struct Server<H: Helper> {
    listener: OwnedFd,
    allowed: Option<Vec<u32>>,
    limit: Limit,
    connections: Vec<Connection>,
    protocol: std::marker::PhantomData<H>,
}

impl<H: Helper> Server<H> {
    /// Serves `listener`, which listens already, to peers with one of these uids. `None`: to whoever the socket's permissions let
    /// in (inside a user namespace the kernel cannot show the peer's uid).
    pub fn new(listener: OwnedFd, allowed: Option<Vec<u32>>) -> Self {
        Self { listener, allowed, limit: |_| Ok(()), connections: Vec::new(), protocol: std::marker::PhantomData }
    }

    /// Has `limit` take from each connection what it does not need: on FreeBSD it is born with the rights of the listener. One that
    /// cannot be limited is closed.
    #[must_use]
    pub fn limiting(self, limit: Limit) -> Self {
        Self { limit, ..self }
    }

    /// Serves until the service says that it is enough. Fails only if the kernel refuses poll(2) itself.
    pub fn run(&mut self, service: &mut dyn Service<H>, observer: &mut dyn Observer) -> io::Result<()> {
        while service.goes_on() {
            let (incoming, from, watched) = self.wait(service)?;
            for (token, flags) in watched {
                service.ready(token, flags);
            }
            // From the end, so that removal does not disturb what is still to come.
            for index in from.into_iter().rev() {
                let Some(connection) = self.connections.get_mut(index) else { continue };
                if let Err(error) = connection.serve_one::<H>(service, observer) {
                    let gone = self.connections.swap_remove(index);
                    observer.closed(gone.peer, &error);
                    service.closed(gone.peer, &error);
                }
            }
            if incoming {
                self.accept(service, observer);
            }
        }
        Ok(())
    }

    #[allow(clippy::type_complexity)]
    fn wait(&self, service: &dyn Service<H>) -> io::Result<(bool, Vec<usize>, Vec<(u64, PollFlags)>)> {
        let watched = service.watched();
        let mut set = vec![PollFd::new(self.listener.as_fd(), PollFlags::POLLIN)];
        set.extend(self.connections.iter().map(|c| PollFd::new(c.socket.as_fd(), PollFlags::POLLIN)));
        set.extend(watched.iter().map(|w| PollFd::new(w.fd, w.flags)));
        loop {
            match nix::poll::poll(&mut set, PollTimeout::NONE) {
                Ok(_) => break,
                Err(Errno::EINTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
        let flags: Vec<PollFlags> = set.iter().map(|p| p.revents().unwrap_or(PollFlags::POLLERR)).collect();
        let incoming = flags.first().is_some_and(|f| !f.is_empty());
        let ready = |f: &&PollFlags| !f.is_empty();
        let from = flags.iter().skip(1).take(self.connections.len()).enumerate();
        let from = from.filter(|(_, f)| ready(f)).map(|(i, _)| i).collect();
        let rest = flags.iter().skip(1 + self.connections.len()).zip(&watched);
        let watched = rest.filter(|(f, _)| ready(f)).map(|(f, w)| (w.token, *f)).collect();
        Ok((incoming, from, watched))
    }

    fn accept(&mut self, service: &mut dyn Service<H>, observer: &mut dyn Observer) {
        // A failure here concerns the one who connected, not us.
        let Ok(socket) = sock::accept(self.listener.as_fd()) else { return };
        let Ok(peer) = sock::peer(socket.as_fd()) else { return };
        if self.allowed.as_ref().is_some_and(|uids| !uids.contains(&peer.uid)) {
            observer.stranger(peer);
            service.stranger(peer);
        } else if self.connections.len() < MAX_CONNECTIONS && (self.limit)(socket.as_fd()).is_ok() {
            self.connections.push(Connection { socket, peer, greeted: false, next: 1 });
        }
    }
}

impl Connection {
    fn serve_one<H: Helper>(&mut self, service: &mut dyn Service<H>, observer: &mut dyn Observer) -> Result<(), ProtocolError> {
        let record = msg::recv_begun(self.socket.as_fd(), MAX_RECORD, MAX_FDS, RECORD_DEADLINE)?;
        if !self.greeted {
            let reply = greet::<H>(&record.bytes, record.fds.len());
            self.greeted = true;
            let (reply, result) = match reply {
                Ok(()) => (Welcome::Ok(H::VERSION), Ok(())),
                Err(error) => {
                    let protocol = Text::lossy(H::NAME);
                    (Welcome::Err(VersionRefused { protocol, oldest: H::OLDEST, newest: H::VERSION }), Err(error))
                }
            };
            msg::send_within(self.socket.as_fd(), &wire::encode(&reply)?, &[], RECORD_DEADLINE).map_err(ProtocolError::Send)?;
            return result;
        }
        let (origin, request) = wire::decode_request::<H>(&record.bytes)?;
        if origin.seq != self.next {
            return Err(ProtocolError::Sequence(origin.seq, self.next));
        }
        self.next = self.next.wrapping_add(1);
        let op = H::op(&request);
        let ask = Ask::new(self.socket.as_fd(), origin, op, record.fds, observer);
        let Answered { .. } = service.serve(ask, request)?;
        Ok(())
    }
}

/// Checks a hello.
pub(crate) fn greet<H: Helper>(bytes: &[u8], fds: usize) -> Result<(), ProtocolError> {
    let hello: Hello = wire::decode(bytes)?;
    if fds != 0 {
        return Err(ProtocolError::FdCount("Hello", fds));
    }
    if hello.protocol.as_str() == H::NAME && (H::OLDEST..=H::VERSION).contains(&hello.version) {
        Ok(())
    } else {
        Err(ProtocolError::Hello(hello.protocol.as_str().to_owned(), hello.version))
    }
}
