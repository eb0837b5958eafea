//! Everything that is opened by name, before the sandbox.

use crate::session::BrokerAt;
use crate::tls::{self, Identity};
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use skep_sandbox::Held;
use skep_service::{Journal, Start, StartError};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// What the frontend holds.
pub struct Acquired {
    pub(crate) local: OwnedFd,
    pub(crate) remote: Option<(TcpListener, Identity)>,
    pub(crate) metrics: Option<TcpListener>,
    pub(crate) broker: BrokerAt,
    pub(crate) ready: Option<OwnedFd>,
    pub(crate) journal: Journal,
}

impl Acquired {
    /// Binds `RUN/api.sock` for everybody (the broker decides by uid) and, with `--listen ADDRESS:PORT`, TCP; with
    /// `--metrics ADDRESS:PORT` another for metrics. With `--ready-fd N`
    /// one byte is written there when the first client can be served.
    pub fn acquire(start: &Start) -> Result<Self, StartError> {
        let path = start.run.join("api.sock");
        let step = |what: &str| StartError::step(format!("{what} {}", path.display()));
        std::fs::create_dir_all(&start.run).map_err(step("make the directory of"))?;
        let local = skep_sys::sock::bind_stream(&path, 0o666).map_err(step("bind"))?;
        skep_sys::sock::listen(local.as_fd()).map_err(step("listen on"))?;
        let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let run = nix::fcntl::open(&start.run, flags, Mode::empty()).map_err(|e| step("open the directory of")(e.into()))?;
        let remote = start.extra.get("listen").map(|address| listen(start, address)).transpose()?;
        let metrics = start.extra.get("metrics").map(|address| bind("metrics", address)).transpose()?.map(|(_, socket)| socket);
        let ready = start.extra.get("ready-fd").map(|number| inherited(number)).transpose()?;
        // Its own log only: it does nothing privileged.
        let journal = Journal::new("api-frontend", None).keeping(start.own_log("api-frontend")?);
        Ok(Self { local, remote, metrics, broker: BrokerAt::new(run, start.run.clone()), ready, journal })
    }
}

fn listen(start: &Start, address: &str) -> Result<(TcpListener, Identity), StartError> {
    let (parsed, socket) = bind("listen", address)?;
    Ok((socket, tls::identity(start, parsed)?))
}

fn bind(flag: &str, address: &str) -> Result<(SocketAddr, TcpListener), StartError> {
    let parsed = address.parse().map_err(|_| StartError::Flags(format!("--{flag} {address}: ADDRESS:PORT is expected")))?;
    let socket = TcpListener::bind(parsed).map_err(StartError::step(format!("listen on {address}")))?;
    // Not by its own method, which takes ioctl(2).
    skep_sys::fd::set_nonblocking(socket.as_fd(), true).map_err(StartError::step(format!("listen on {address}")))?;
    Ok((parsed, socket))
}

fn inherited(number: &str) -> Result<OwnedFd, StartError> {
    let wrong = |_| StartError::Flags(format!("--ready-fd {number}: a number is expected"));
    skep_sys::fd::inherited(number.parse().map_err(wrong)?).map_err(StartError::step("take over --ready-fd"))
}

impl Held for Acquired {
    fn held(&self) -> Vec<(&'static str, BorrowedFd<'_>)> {
        let mut held = vec![("listener", self.local.as_fd()), ("RUN", self.broker.as_fd())];
        held.extend(self.remote.iter().map(|(socket, _)| ("remote listener", socket.as_fd())));
        held.extend(self.metrics.iter().map(|socket| ("metrics listener", socket.as_fd())));
        held.extend(self.ready.iter().map(|fd| ("ready", fd.as_fd())));
        held.extend(self.journal.held());
        held
    }
}

/// Tells whoever started this process that it serves.
pub(crate) fn tell_ready(fd: OwnedFd) -> io::Result<()> {
    nix::unistd::write(&fd, b"\n")?;
    Ok(())
}
