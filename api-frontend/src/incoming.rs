//! Accepted connections, each with the pool of sessions that belongs to it.

use crate::limits::{Shares, User};
use crate::session::{BrokerAt, Peer, Way};
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::time::Sleep;
use tokio_stream::Stream;
use tonic::transport::server::Connected;

/// A listening socket.
pub(crate) trait Listener: Unpin {
    /// What it accepts.
    type Io: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    /// Accepts one.
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<Self::Io>>;
    /// Whose share it takes, and how it came.
    fn way(io: &Self::Io) -> io::Result<(User, Way)>;
}

impl Listener for UnixListener {
    type Io = UnixStream;
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<UnixStream>> {
        UnixListener::poll_accept(self, cx).map_ok(|(io, _)| io)
    }
    fn way(io: &UnixStream) -> io::Result<(User, Way)> {
        let socket = io.as_fd().try_clone_to_owned()?;
        Ok((User::Uid(skep_sys::sock::peer(io.as_fd())?.uid), Way::Local(socket)))
    }
}

impl Listener for TcpListener {
    type Io = TcpStream;
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<TcpStream>> {
        TcpListener::poll_accept(self, cx).map_ok(|(io, _)| io)
    }
    fn way(io: &TcpStream) -> io::Result<(User, Way)> {
        io.set_nodelay(true)?;
        let address = io.peer_addr()?.ip();
        Ok((User::Address(address), Way::Remote(address)))
    }
}

/// Accepts for ever. A connection that cannot be served is closed; nothing ends this stream.
pub(crate) struct Incoming<L> {
    listener: L,
    shares: Arc<Shares>,
    broker: Arc<BrokerAt>,
    pause: Option<Pin<Box<Sleep>>>,
}

impl<L: Listener> Incoming<L> {
    pub(crate) fn new(listener: L, shares: Arc<Shares>, broker: Arc<BrokerAt>) -> Self {
        Self { listener, shares, broker, pause: None }
    }

    fn admit(&self, io: L::Io) -> Option<Accepted<L::Io>> {
        let (user, way) = L::way(&io).ok()?;
        let peer = Peer::new(way, self.broker.clone(), self.shares.of(user)).ok()?;
        Some(Accepted { io, peer: Arc::new(peer) })
    }
}

impl<L: Listener> Stream for Incoming<L> {
    type Item = Result<Accepted<L::Io>, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(cx));
                self.pause = None;
            }
            match ready!(self.listener.poll_accept(cx)) {
                Ok(io) => {
                    if let Some(accepted) = self.admit(io) {
                        return Poll::Ready(Some(Ok(accepted)));
                    }
                }
                // Out of memory or descriptors: the queue stays, and so would the error.
                Err(_) => self.pause = Some(Box::pin(tokio::time::sleep(Duration::from_millis(100)))),
            }
        }
    }
}

/// An accepted connection.
pub(crate) struct Accepted<Io> {
    io: Io,
    peer: Arc<Peer>,
}

impl<Io> Connected for Accepted<Io> {
    type ConnectInfo = Arc<Peer>;
    fn connect_info(&self) -> Arc<Peer> {
        self.peer.clone()
    }
}

impl<Io: AsyncRead + Unpin> AsyncRead for Accepted<Io> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<Io: AsyncWrite + Unpin> AsyncWrite for Accepted<Io> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }
    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }
    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
