//! UNIX sockets: made, bound, accepted, and who is at the other end.

use nix::errno::Errno;
use nix::sys::socket::{self, AddressFamily, Backlog, SockFlag, SockType, UnixAddr};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;

/// The process at the other end, as the kernel knows it: at `connect(2)` for a server, at `listen(2)` for a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Effective user id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
    /// Process id; 0 if the kernel does not say.
    pub pid: i32,
}

/// Buffer space that every seqpacket socket gets, so that a full record with its overhead always fits.
const SPACE: usize = 64 * 1024;

fn widen(fd: BorrowedFd<'_>) -> io::Result<()> {
    socket::setsockopt(&fd, socket::sockopt::SndBuf, &SPACE)?;
    socket::setsockopt(&fd, socket::sockopt::RcvBuf, &SPACE)?;
    Ok(())
}

/// A connected seqpacket pair.
pub fn seqpacket_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let pair = socket::socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
    widen(pair.0.as_fd())?;
    widen(pair.1.as_fd())?;
    Ok(pair)
}

/// A connected stream pair.
pub fn stream_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socket::socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC)?)
}

/// Binds a seqpacket socket to `path` with `mode`, replacing a stale one. It does not listen yet: whoever calls
/// [`listen`] is whom clients see as their peer.
pub fn bind_seqpacket(path: &Path, mode: u32) -> io::Result<OwnedFd> {
    bind(path, mode, SockType::SeqPacket)
}

/// Binds a stream socket likewise.
pub fn bind_stream(path: &Path, mode: u32) -> io::Result<OwnedFd> {
    bind(path, mode, SockType::Stream)
}

fn bind(path: &Path, mode: u32, kind: SockType) -> io::Result<OwnedFd> {
    use std::os::unix::fs::PermissionsExt;
    let fd = socket::socket(AddressFamily::Unix, kind, SockFlag::SOCK_CLOEXEC, None)?;
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    socket::bind(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    Ok(fd)
}

/// Begins to listen. FreeBSD refuses whoever comes when the queue is full, where Linux has him wait: it is as long as FreeBSD lets it be
/// (`kern.ipc.soacceptqueue`).
pub fn listen(fd: BorrowedFd<'_>) -> io::Result<()> {
    Ok(socket::listen(&fd, Backlog::new(128)?)?)
}

/// Accepts one connection.
pub fn accept(listener: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    loop {
        match socket::accept4(listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC) {
            Ok(fd) => {
                // SAFETY: accept4 has just made this descriptor for us.
                let fd = unsafe { OwnedFd::from_raw_fd(fd) };
                // A stream socket does not need it, and it does no harm there.
                let _ = widen(fd.as_fd());
                return Ok(fd);
            }
            Err(Errno::EINTR | Errno::ECONNABORTED) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

/// Connects to a seqpacket socket.
pub fn connect_seqpacket(path: &Path) -> io::Result<OwnedFd> {
    let fd = socket::socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
    widen(fd.as_fd())?;
    socket::connect(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(fd)
}

/// Connects to the seqpacket socket `name` in the directory that `dir` holds open, whose path is `path` (used where a path is
/// enough; capability mode needs the descriptor: connectat(2)). Never blocks: `WouldBlock` when the server's queue is full.
pub fn connect_seqpacket_at(dir: BorrowedFd<'_>, path: &Path, name: &str) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket::socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
    widen(fd.as_fd())?;
    connect_at(dir, path, name, fd.as_fd())?;
    Ok(fd)
}

#[cfg(target_os = "linux")]
fn connect_at(_dir: BorrowedFd<'_>, path: &Path, name: &str, fd: BorrowedFd<'_>) -> io::Result<()> {
    Ok(socket::connect(fd.as_raw_fd(), &UnixAddr::new(&path.join(name))?)?)
}

#[cfg(target_os = "freebsd")]
fn connect_at(dir: BorrowedFd<'_>, _path: &Path, name: &str, fd: BorrowedFd<'_>) -> io::Result<()> {
    crate::freebsd::connectat(dir, fd, &UnixAddr::new(name)?)
}

/// The path that a socket is bound to; for an accepted one, that of the listener. `None`: none, as of one that was connected.
pub fn bound_to(fd: BorrowedFd<'_>) -> io::Result<Option<std::path::PathBuf>> {
    let address: UnixAddr = socket::getsockname(fd.as_raw_fd())?;
    Ok(address.path().map(Path::to_owned))
}

/// Whether it is a socket of UDP that is connected: it can send nowhere else.
pub fn is_connected_udp(fd: BorrowedFd<'_>) -> bool {
    use socket::SockaddrLike;
    let number = |option| {
        let mut value: libc::c_int = 0;
        let mut size = size_of::<libc::c_int>() as libc::socklen_t;
        // SAFETY: at most `size` bytes are written into a live local.
        let result =
            unsafe { libc::getsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, option, (&raw mut value).cast(), &raw mut size) };
        (result == 0).then_some(value)
    };
    let udp = number(libc::SO_TYPE) == Some(libc::SOCK_DGRAM) && number(libc::SO_PROTOCOL) == Some(libc::IPPROTO_UDP);
    let peer = socket::getpeername::<socket::SockaddrStorage>(fd.as_raw_fd());
    udp && peer.is_ok_and(|peer| matches!(peer.family(), Some(AddressFamily::Inet | AddressFamily::Inet6)))
}

/// Whether the other end of a stream is closed, or no longer to be had.
pub fn hung_up(fd: BorrowedFd<'_>) -> bool {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let mut set = [PollFd::new(fd, PollFlags::empty())];
    let asked = poll(&mut set, PollTimeout::ZERO);
    asked.is_err() || set.iter().any(|p| p.revents() != Some(PollFlags::empty()))
}

/// Who is at the other end.
#[cfg(target_os = "linux")]
pub fn peer(fd: BorrowedFd<'_>) -> io::Result<Peer> {
    let c = socket::getsockopt(&fd, socket::sockopt::PeerCredentials)?;
    Ok(Peer { uid: c.uid(), gid: c.gid(), pid: c.pid() })
}

/// Who is at the other end (`LOCAL_PEERCRED`, unix(4)).
#[cfg(target_os = "freebsd")]
pub fn peer(fd: BorrowedFd<'_>) -> io::Result<Peer> {
    let c = socket::getsockopt(&fd, socket::sockopt::LocalPeerCred)?;
    let pid = crate::freebsd::peer_pid(fd).unwrap_or(0);
    Ok(Peer { uid: c.uid(), gid: c.groups().first().copied().unwrap_or(u32::MAX), pid })
}
