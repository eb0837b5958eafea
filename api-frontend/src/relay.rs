//! Bytes between a client's gRPC stream and a descriptor that the broker handed out. Neither end is read faster than the other
//! takes; when either is gone, both are closed.

use crate::limits::Place;
use crate::services::{Call, Checked};
use serde::de::DeserializeOwned;
use skep_api::Bounded;
use skep_ipc::aio::Port;
use skep_proto::{Reason, Refusal, wire};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream as StdStream;
use std::pin::Pin;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::codegen::Bytes;

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Bytes read at a time from a console or screen.
const PIECE: usize = 16 << 10;

/// Joins a client's stream and a stream socket. The client's end of sending is passed on as a half-closed socket, and the stream
/// goes on the other way; the socket's end is the end of both.
pub(crate) fn both_ways<In, Out>(
    call: Call, place: Place, socket: OwnedFd, mut from: Checked<In>, hello: Option<Out>,
    read: impl Fn(In) -> Result<Bytes, Refusal> + Send + Sync + 'static, wrap: impl Fn(Bytes) -> Out + Send + Sync + 'static,
) -> Result<Answers<Out>, Refusal>
where
    In: Bounded + Send + 'static,
    Out: Send + 'static,
{
    let failed = |e: io::Error| Refusal::io("stream", "open", &e);
    skep_sys::fd::set_nonblocking(socket.as_fd(), true).map_err(failed)?;
    let socket = UnixStream::from_std(StdStream::from(socket)).map_err(failed)?;
    let (to, answers) = mpsc::channel(4);
    tokio::spawn(async move {
        let _place = place;
        let (mut reader, mut writer) = socket.into_split();
        if let Some(hello) = hello
            && to.send(Ok(hello)).await.is_err()
        {
            return;
        }
        let up = async {
            // One that broke off is a client that has left: nobody is told, and nothing is to be logged.
            let refused = |refusal: Refusal| match refusal.reason {
                Reason::Cancelled => Status::cancelled(refusal.note.as_str()),
                _ => call.refused(&refusal),
            };
            while let Some(message) = from.message().await.map_err(refused)? {
                let data = read(message).map_err(refused)?;
                if writer.write_all(&data).await.is_err() {
                    // The other way sees the end, after what was still to be read.
                    break;
                }
            }
            let _ = writer.shutdown().await;
            std::future::pending::<Result<(), Status>>().await
        };
        let down = async {
            let mut buffer = vec![0; PIECE];
            loop {
                let got = tokio::select! {
                    () = to.closed() => return,
                    got = reader.read(&mut buffer) => got,
                };
                let Ok(1..) = got else { return };
                let data = buffer.get(..got.unwrap_or(0)).unwrap_or_default();
                if to.send(Ok(wrap(Bytes::copy_from_slice(data)))).await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            () = down => {}
            // A client that broke the order of messages is told; one that is gone is not.
            Err(status) = up => drop(to.try_send(Err(status))),
        }
    });
    Ok(Box::pin(ReceiverStream::new(answers)))
}

/// Sends the records that come out of a socket of the broker's, until one ends it. When the broker goes away the client is told,
/// with `advice`.
pub(crate) fn records<R, Out>(
    call: Call, place: Place, socket: OwnedFd, advice: &'static str,
    convert: impl Fn(R) -> Result<Out, Refusal> + Send + Sync + 'static,
) -> Result<Answers<Out>, Refusal>
where
    R: DeserializeOwned + Send + 'static,
    Out: Send + 'static,
{
    let port = Port::new(socket).map_err(|e| Refusal::io("stream", "open", &e))?;
    let (to, answers) = mpsc::channel(16);
    tokio::spawn(async move {
        let _place = place;
        let refusal = loop {
            let record = tokio::select! {
                () = to.closed() => return,
                record = port.recv() => record,
            };
            let record = record.map_err(|e| e.to_string());
            let next = record.and_then(|record| wire::decode::<R>(&record.bytes).map_err(|e| e.to_string()));
            let next = next.map_err(|why| Refusal::new(Reason::Unavailable, "stream").note(format_args!("{why}; {advice}")));
            match next.and_then(&convert) {
                Ok(message) => {
                    if to.send(Ok(message)).await.is_err() {
                        return;
                    }
                }
                Err(refusal) => break refusal,
            }
        };
        let _ = to.send(Err(call.refused(&refusal))).await;
    });
    Ok(Box::pin(ReceiverStream::new(answers)))
}

/// A pipe or stream socket to write to.
pub(crate) type Sink = Box<dyn AsyncWrite + Send + Sync + Unpin>;

/// Takes a descriptor that the broker handed out for writing.
pub(crate) fn sink(fd: OwnedFd) -> io::Result<Sink> {
    skep_sys::fd::set_nonblocking(fd.as_fd(), true)?;
    let socket = nix::sys::socket::getsockopt(&fd, nix::sys::socket::sockopt::SockType).is_ok();
    // Unchecked: looking at its kind takes statx(2), and what is no pipe cannot be waited for anyway.
    Ok(if socket {
        Box::new(UnixStream::from_std(StdStream::from(fd))?)
    } else {
        Box::new(pipe::Sender::from_owned_fd_unchecked(fd)?)
    })
}
