//! One record in, one record out, on a UNIX seqpacket socket, the same on every kernel.
//!
//! Linux and FreeBSD 13 keep records whole; FreeBSD 15 made seqpacket a stream with end marks, which may shorten sends and split
//! records. So: one `sendmsg(2)` with `MSG_EOR` per record, short sends are completed, and the receiver collects until the end
//! mark. Anything truncated is an error, and descriptors that came are closed.

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

/// Why a record could not be received.
#[derive(Debug, thiserror::Error)]
pub enum RecvError {
    /// The peer closed the connection between records.
    #[error("the peer closed the connection")]
    Closed,
    /// The peer closed it within a record.
    #[error("the peer closed the connection within a record")]
    ClosedInside,
    /// More bytes than fit, or the kernel cut the record.
    #[error("a record longer than {0} bytes")]
    TooLong(usize),
    /// More descriptors than allowed, or the kernel dropped some.
    #[error("a record with more than {0} descriptors, or some were lost")]
    TooManyFds(usize),
    /// Nothing came in time.
    #[error("the deadline passed")]
    TimedOut,
    /// The system call failed.
    #[error("receive: {0}")]
    Io(#[from] io::Error),
}

/// A received record.
#[derive(Debug)]
pub struct Record {
    /// Its bytes; never empty.
    pub bytes: Vec<u8>,
    /// Descriptors that came with it, close-on-exec.
    pub fds: Vec<OwnedFd>,
}

/// Until when to wait.
#[derive(Clone, Copy)]
enum Until {
    Ever,
    At(Instant),
    /// So long from the first wait on: whoever needs not wait needs not look at the clock, which is a system call on some hosts.
    Within(Duration),
}

impl From<Option<Instant>> for Until {
    fn from(deadline: Option<Instant>) -> Self {
        deadline.map_or(Self::Ever, Self::At)
    }
}

/// Waits until `fd` is ready for `flags`.
fn wait(fd: BorrowedFd<'_>, flags: PollFlags, until: &mut Until) -> io::Result<bool> {
    loop {
        let left = match *until {
            Until::Ever => None,
            Until::At(at) => Some(at.saturating_duration_since(Instant::now())),
            Until::Within(patience) => {
                *until = Until::At(Instant::now() + patience);
                Some(patience)
            }
        };
        let timeout = left.map_or(PollTimeout::NONE, |left| {
            // Rounded up: a wait that ends just before the deadline would spin.
            let left = (left + Duration::from_micros(999)).min(Duration::from_secs(3600));
            PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
        });
        match nix::poll::poll(&mut [PollFd::new(fd, flags)], timeout) {
            Ok(0) if matches!(*until, Until::At(at) if Instant::now() >= at) => return Ok(false),
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => return Ok(true),
            Err(e) => return Err(e.into()),
        }
    }
}

/// Sends one record with its descriptors, whole, or fails. Blocks until `deadline` (`TimedOut`); a passed deadline tries once.
/// After an error in mid-record the connection is of no more use and must be closed.
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>], deadline: Option<Instant>) -> io::Result<()> {
    send_until(socket, bytes, fds, deadline.into())
}

/// [`send`] that waits for room no longer than `patience`.
pub fn send_within(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>], patience: Duration) -> io::Result<()> {
    send_until(socket, bytes, fds, Until::Within(patience))
}

fn send_until(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>], mut until: Until) -> io::Result<()> {
    if bytes.is_empty() {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let mut rest = bytes;
    let mut control: &[ControlMessage<'_>] = if raw.is_empty() { &[] } else { &rights };
    let flags = MsgFlags::MSG_EOR | MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    while !rest.is_empty() {
        // Without descriptors a call that can name no address: lists of system calls can tell the two apart.
        let sent = if control.is_empty() {
            nix::sys::socket::send(socket.as_raw_fd(), rest, flags)
        } else {
            sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(rest)], control, flags, None)
        };
        match sent {
            Ok(0) => return Err(io::Error::from(io::ErrorKind::WriteZero)),
            Ok(sent) => {
                rest = rest.get(sent..).unwrap_or_default();
                control = &[];
            }
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => {
                if !wait(socket, PollFlags::POLLOUT, &mut until)? {
                    return Err(io::Error::from(io::ErrorKind::TimedOut));
                }
            }
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

/// Receives one whole record of at most `max_bytes` and `max_fds`.
pub fn recv(socket: BorrowedFd<'_>, max_bytes: usize, max_fds: usize, deadline: Option<Instant>) -> Result<Record, RecvError> {
    let mut until = Until::from(deadline);
    if deadline.is_some() && !wait(socket, PollFlags::POLLIN, &mut until)? {
        return Err(RecvError::TimedOut);
    }
    recv_until(socket, max_bytes, max_fds, until)
}

/// [`recv`] of a record whose beginning is there already, as poll(2) has said. What is missing must come within `patience`.
pub fn recv_begun(socket: BorrowedFd<'_>, max_bytes: usize, max_fds: usize, patience: Duration) -> Result<Record, RecvError> {
    recv_until(socket, max_bytes, max_fds, Until::Within(patience))
}

fn recv_until(socket: BorrowedFd<'_>, max_bytes: usize, max_fds: usize, mut until: Until) -> Result<Record, RecvError> {
    let flags = if matches!(until, Until::Ever) { MsgFlags::empty() } else { MsgFlags::MSG_DONTWAIT };
    let mut bytes = Vec::new();
    let mut fds = Vec::new();
    loop {
        match recv_piece(socket, max_bytes, max_fds, &mut bytes, &mut fds, flags) {
            Ok(true) => return Ok(Record { bytes, fds }),
            Ok(false) => {}
            Err(RecvError::Io(e)) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(RecvError::Io(e)) if e.kind() == io::ErrorKind::WouldBlock => {
                if !wait(socket, PollFlags::POLLIN, &mut until)? {
                    return Err(RecvError::TimedOut);
                }
            }
            Err(e) => return Err(e),
        }
    }
}

/// One `recvmsg(2)`, appended to what came before. True at the end of the record.
pub fn recv_piece(
    socket: BorrowedFd<'_>, max_bytes: usize, max_fds: usize, bytes: &mut Vec<u8>, fds: &mut Vec<OwnedFd>, flags: MsgFlags,
) -> Result<bool, RecvError> {
    // One byte more than allowed shows a record that is too long on kernels that split instead of truncating.
    let room = (max_bytes + 1).saturating_sub(bytes.len());
    let mut buffer = vec![0u8; room];
    let (got, flags, came) = match recvmsg(socket, &mut buffer, flags | MsgFlags::MSG_CMSG_CLOEXEC) {
        // FreeBSD, where there is no number left for a descriptor (EMFILE from 15 on): it has closed them all (sys/kern/uipc_usrreq.c).
        Err(e) if matches!(e.raw_os_error(), Some(libc::EMSGSIZE | libc::EMFILE)) => return Err(RecvError::TooManyFds(max_fds)),
        result => result?,
    };
    fds.extend(came);
    if flags.contains(MsgFlags::MSG_CTRUNC) || fds.len() > max_fds {
        return Err(RecvError::TooManyFds(max_fds));
    }
    let (ended, cut) = (flags.contains(MsgFlags::MSG_EOR), flags.contains(MsgFlags::MSG_TRUNC));
    if got == 0 {
        return Err(if bytes.is_empty() && fds.is_empty() { RecvError::Closed } else { RecvError::ClosedInside });
    }
    bytes.extend_from_slice(buffer.get(..got).unwrap_or_default());
    if cut || bytes.len() > max_bytes {
        return Err(RecvError::TooLong(max_bytes));
    }
    // Linux keeps records whole whether or not the sender gave MSG_EOR; FreeBSD marks the end.
    Ok(ended || cfg!(target_os = "linux"))
}

/// recvmsg(2). Takes over every descriptor that the kernel has made, also when it dropped others, because the buffer was short or
/// this process has too many open (`MSG_CTRUNC`; nix then gives none, and they would stay open).
fn recvmsg(socket: BorrowedFd<'_>, buffer: &mut [u8], flags: MsgFlags) -> io::Result<(usize, MsgFlags, Vec<OwnedFd>)> {
    // Of u64, since it is read as headers; room for more descriptors than any record of ours has.
    let mut control = [0u64; 16];
    let mut slice = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: all-zero is a valid value of this plain C struct.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut slice;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control) as _;
    // SAFETY: the message points to live locals, with their sizes.
    let got = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags.bits()) };
    let got = usize::try_from(got).map_err(|_| io::Error::last_os_error())?;
    let mut fds = Vec::new();
    // SAFETY: the kernel has filled the message in.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    // SAFETY: null, or within `control`, which is aligned for it.
    while let Some(item) = unsafe { header.as_ref() } {
        if (item.cmsg_level, item.cmsg_type) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
            // SAFETY: arithmetic only.
            let length = (item.cmsg_len as u64).saturating_sub(u64::from(unsafe { libc::CMSG_LEN(0) }));
            // SAFETY: the data of this item lie within `control`.
            let data = unsafe { libc::CMSG_DATA(header) };
            // A kernel that cuts an item may leave the length that it had: nothing beyond the buffer is read.
            let room = (control.as_ptr_range().end as usize).saturating_sub(data as usize);
            // SAFETY: the kernel has written that many bytes there, and they are within `control`.
            let data = unsafe { std::slice::from_raw_parts(data, (length as usize).min(room)) };
            for number in data.as_chunks().0 {
                // SAFETY: the kernel has just made this descriptor for us; nobody else knows its number.
                fds.push(unsafe { OwnedFd::from_raw_fd(RawFd::from_ne_bytes(*number)) });
            }
        }
        // SAFETY: `header` is one of this message's.
        header = unsafe { libc::CMSG_NXTHDR(&raw const message, header) };
    }
    Ok((got, MsgFlags::from_bits_retain(message.msg_flags), fds))
}

/// Borrows each of `fds`, for [`send`].
pub fn borrow(fds: &[OwnedFd]) -> Vec<BorrowedFd<'_>> {
    fds.iter().map(AsFd::as_fd).collect()
}
