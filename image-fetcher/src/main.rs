//! acquire → limit → enter → serve.
#![forbid(unsafe_code)]

use nix::sys::uio::pread;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use skep_image_fetcher::channel::Channel;
use skep_image_fetcher::fetch::{self, Fetcher};
use skep_image_fetcher::signature::Keys;
use skep_image_fetcher::url::Url;
use skep_proto::fetch::{MAX_KEYS, MAX_RESOLVERS, MAX_ROOTS};
use skep_proto::{Reason, Refusal};
use skep_rights::fetcher::TABLE;
use skep_sandbox::{EnterError, Held, Scene, enter, limit, limit_one};
use skep_service::Words;
use skep_sys::{fd, msg, sock};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::ExitCode;
use std::sync::Arc;

/// Descriptors as the spawner numbers them.
const REPORT: i32 = 3;
const LISTENER: i32 = 4;
const CHANNEL: i32 = 5;

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{0}: {1}; image-fetcher is started by the spawner")]
    Step(&'static str, io::Error),
    #[error(transparent)]
    Enter(#[from] EnterError),
}

struct Acquired {
    report: OwnedFd,
    /// Nobody is served over it: by it the spawner knows whom to end.
    listener: OwnedFd,
    channel: OwnedFd,
}

impl Held for Acquired {
    fn held(&self) -> Vec<(&'static str, BorrowedFd<'_>)> {
        vec![("report", self.report.as_fd()), ("listener", self.listener.as_fd()), ("channel", self.channel.as_fd())]
    }
}

fn main() -> ExitCode {
    skep_service::run("image-fetcher", serve)
}

fn serve() -> Result<(), Error> {
    let scene = Scene { state: "/".into(), run: "/run".into(), identity: None, group: None, in_cell: true, with_parent: false };
    let Acquired { report, listener: _listener, channel } = enter(limit(acquire()?, &TABLE)?, &scene)?.into_inner();
    msg::send(report.as_fd(), b"ready", &[], None).map_err(|e| Error::Step("report", e))?;
    drop(report);
    Words.info(None, format_args!("serves"));
    let channel = Channel::new(channel);
    let fetched = fetch(&channel);
    match &fetched {
        Ok(()) => Words.info(None, format_args!("all of it has come")),
        Err(refusal) => Words.warn(None, format_args!("{refusal}")),
    }
    channel.done(fetched);
    Ok(())
}

fn acquire() -> Result<Acquired, Error> {
    let take = |number| fd::inherited(number).map_err(|e| Error::Step("take over descriptors", e));
    let listener = take(LISTENER)?;
    sock::listen(listener.as_fd()).map_err(|e| Error::Step("listen", e))?;
    Ok(Acquired { report: take(REPORT)?, listener, channel: take(CHANNEL)? })
}

fn fetch(channel: &Channel) -> Result<(), Refusal> {
    let (order, fds) = channel.begin()?;
    // No more of the address: what is behind the server's name may be secret.
    if let Ok(url) = Url::parse(order.url.as_str()) {
        Words.info(None, format_args!("fetches from {}", url.authority()));
    }
    let mut fds = fds.into_iter();
    let wrong = |note: &str| Refusal::new(Reason::InvalidValue, "image-fetcher").note(note);
    let tls = tls(&held(fds.next(), "certificates", MAX_ROOTS)?)?;
    let keys = match order.signed {
        true => Some(keys(&held(fds.next(), "keys", MAX_KEYS)?)?),
        false => None,
    };
    let resolvers: Vec<OwnedFd> = fds.take(MAX_RESOLVERS).collect();
    for resolver in &resolvers {
        if !sock::is_connected_udp(resolver.as_fd()) {
            return Err(wrong("a connected socket of UDP is expected"));
        }
        limit_one(&TABLE, "resolver", resolver.as_fd()).map_err(|e| Refusal::new(Reason::Internal, "resolver").note(e))?;
    }
    Fetcher { channel, resolvers, tls, keys }.fetch(&order)
}

/// What is in a sealed memory file.
fn held(file: Option<OwnedFd>, what: &str, most: usize) -> Result<Vec<u8>, Refusal> {
    let failed = |e: nix::Error| Refusal::io(what, "read", &e.into());
    let file = file.ok_or_else(|| Refusal::new(Reason::InvalidValue, "image-fetcher").note(format_args!("no {what} came")))?;
    let mut bytes = vec![0; most];
    let mut length = 0;
    while let Some(rest) = bytes.get_mut(length..).filter(|rest| !rest.is_empty()) {
        match pread(&file, rest, i64::try_from(length).unwrap_or(i64::MAX)).map_err(failed)? {
            0 => break,
            got => length += got,
        }
    }
    bytes.truncate(length);
    Ok(bytes)
}

/// Trusts what these keys have signed.
fn keys(file: &[u8]) -> Result<Keys, Refusal> {
    Keys::parse(file, fetch::now()).map_err(|e| Refusal::new(Reason::InvalidValue, "").field("signed_by").note(e))
}

/// Trusts these certificates, and nobody else.
fn tls(pem: &[u8]) -> Result<Arc<ClientConfig>, Refusal> {
    let mut store = RootCertStore::empty();
    // The host's bundle may have some that rustls does not take; they are left out.
    store.add_parsable_certificates(CertificateDer::pem_slice_iter(pem).filter_map(Result::ok));
    if store.is_empty() {
        let refusal = Refusal::new(Reason::NotFound, "certificates");
        return Err(
            refusal.note("this host trusts no authority that signs servers' certificates: install ca-certificates, or say --ca")
        );
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(|e| Refusal::new(Reason::Internal, "TLS").note(e))?;
    Ok(Arc::new(config.with_root_certificates(store).with_no_client_auth()))
}
