//! One fetch: names, connections, TLS, redirections, and going on after a break.

use crate::channel::Channel;
use crate::http::{self, Body, Framing, Head, Rest};
use crate::signature::{Coming, Keys, Wrong};
use crate::sums::{self, Hash};
use crate::url::Url;
use crate::{dns, http::LONGEST_HEAD};
use nix::poll::PollFlags;
use nix::sys::socket::{MsgFlags, getsockopt, send, sockopt};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use skep_proto::fetch::FetchOrder;
use skep_proto::{Reason, Refusal, upload};
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Redirections that are followed.
const REDIRECTIONS: usize = 8;
/// How long a connection may take to be made.
const CONNECTING: Duration = Duration::from_secs(15);
/// How long nothing may come.
const SILENCE: Duration = Duration::from_secs(60);
/// Breaks without a byte between them after which it is given up.
const BREAKS: u32 = 5;
/// Breaks in all.
const ALL_BREAKS: u32 = 100;
/// Bytes of a list of checksums, at most.
const LONGEST_LIST: u64 = 4 << 20;
/// Bytes of a signature, at most.
const LONGEST_SIGNATURE: u64 = 64 << 10;
/// Bytes that are passed on at a time.
const PIECE: usize = 256 << 10;

/// A socket that is waited for.
struct Waiting<'a> {
    socket: OwnedFd,
    channel: &'a Channel,
}

impl Waiting<'_> {
    fn retry<T>(&self, flags: PollFlags, mut act: impl FnMut(i32) -> nix::Result<T>) -> io::Result<T> {
        loop {
            match act(self.socket.as_raw_fd()) {
                Err(nix::errno::Errno::EAGAIN) => self.channel.wait(self.socket.as_fd(), flags, SILENCE)?,
                Err(nix::errno::Errno::EINTR) => {}
                result => return Ok(result?),
            }
        }
    }
}

impl Read for Waiting<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let socket = &self.socket;
        self.retry(PollFlags::POLLIN, |_| nix::unistd::read(socket, buffer))
    }
}

impl Write for Waiting<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.retry(PollFlags::POLLOUT, |fd| send(fd, bytes, MsgFlags::MSG_NOSIGNAL))
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

type Stream<'a> = StreamOwned<ClientConnection, Waiting<'a>>;

/// Why something did not work: once more may help, or not.
enum Failed {
    Broke(Refusal),
    Final(Refusal),
}

impl From<Refusal> for Failed {
    fn from(refusal: Refusal) -> Self {
        Self::Final(refusal)
    }
}

impl Failed {
    fn refusal(self) -> Refusal {
        match self {
            Self::Broke(refusal) | Self::Final(refusal) => refusal,
        }
    }
}

fn refuse(reason: Reason, url: &Url, note: impl std::fmt::Display) -> Refusal {
    Refusal::new(reason, format_args!("server {}", url.authority())).note(note)
}

/// A stream's error, which is TLS's or the net's.
fn broke(url: &Url, error: &io::Error) -> Failed {
    if error.kind() == io::ErrorKind::ConnectionAborted {
        return Failed::Final(Refusal::new(Reason::Cancelled, ""));
    }
    if let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        return Failed::Final(refuse(Reason::Unavailable, url, format_args!("TLS: {tls}")));
    }
    Failed::Broke(refuse(Reason::Unavailable, url, error))
}

/// With what it works.
pub struct Fetcher<'a> {
    /// Who makes connections.
    pub channel: &'a Channel,
    /// Who knows names.
    pub resolvers: Vec<OwnedFd>,
    /// Whom to trust.
    pub tls: Arc<ClientConfig>,
    /// Who must have signed the list of checksums or, without one, the image; none: nobody.
    pub keys: Option<Keys>,
}

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

/// By what an image is judged when all of it has come.
struct Judged<'a> {
    sum: Hash,
    signed: Option<Coming<'a>>,
}

impl Judged<'_> {
    fn update(&mut self, piece: &[u8]) {
        self.sum.update(piece);
        if let Some(signed) = &mut self.signed {
            signed.update(piece);
        }
    }

    fn end(self, url: &Url, signature: Option<&Url>) -> Result<(), Refusal> {
        if !self.sum.fits() {
            let note = "its checksum is not that of the list";
            return Err(refuse(Reason::ChecksumMismatch, url, note).field("sums"));
        }
        let wrong = |e| bad(signature.unwrap_or(url), e);
        self.signed.map_or(Ok(()), |signed| signed.finish(now()).map_err(wrong))
    }
}

/// What is at this address does not count, and why.
fn bad(url: &Url, why: Wrong) -> Refusal {
    refuse(Reason::BadSignature, url, format_args!("{url}: {why}")).field("signed_by")
}

/// What a server has begun to send.
struct Answer<'a> {
    url: Url,
    head: Head,
    body: Body<io::Chain<io::Cursor<Vec<u8>>, Stream<'a>>>,
}

impl<'a> Fetcher<'a> {
    /// Fetches what is ordered into the pipe that the broker gives for it.
    pub fn fetch(&self, order: &FetchOrder) -> Result<(), Refusal> {
        let parse = |text: &str| Url::parse(text).map_err(|e| Refusal::new(Reason::InvalidValue, text).field("url").note(e));
        let url = parse(order.url.as_str())?;
        let signature = order.signature.as_ref().map(|signature| parse(signature.as_str())).transpose()?;
        let sum = order.sums.as_ref().map(|list| {
            let list = parse(list.as_str())?;
            let text = self.list(&list, signature.as_ref())?;
            let none = || refuse(Reason::NotFound, &list, format_args!("{list} has no checksum of {}", url.file()));
            sums::find(&text, url.file()).ok_or_else(none)
        });
        let mut judged = Judged {
            sum: Hash::new(sum.transpose()?),
            signed: if order.sums.is_none() { self.signed(signature.as_ref())? } else { None },
        };
        let mut answer = self.get(&url, &Rest::default()).map_err(Failed::refusal)?;
        let length = match answer.head.framing {
            Framing::Length(length) => length,
            Framing::Chunked | Framing::Close => 0,
        };
        let out = self.channel.found(length)?;
        limit("import", out.as_fd())?;
        let mut out = File::from(out);
        let same = answer.head.same.take();
        let (mut done, mut breaks, mut in_a_row, mut buffer) = (0u64, 0, 0, vec![0; PIECE]);
        loop {
            let before = done;
            let broken = match self.pass(&mut answer, &mut out, &mut judged, &mut done, &mut buffer) {
                Ok(()) => break,
                Err(Failed::Final(refusal)) => return Err(refusal),
                Err(Failed::Broke(refusal)) => refusal,
            };
            in_a_row = if done > before { 0 } else { in_a_row };
            answer = loop {
                (breaks, in_a_row) = (breaks + 1, in_a_row + 1);
                let whole = (length > 0).then_some(length);
                if breaks > ALL_BREAKS || in_a_row > BREAKS || whole.is_none() || done == 0 && in_a_row > 1 {
                    return Err(broken.note(format_args!("it broke off after {done} bytes")));
                }
                if !self.channel.pause(Duration::from_millis(100 << in_a_row.min(6))) {
                    return Err(Refusal::new(Reason::Cancelled, ""));
                }
                match self.get(&url, &Rest { from: done, same: same.clone() }) {
                    Ok(next) if done == 0 || next.head.range == Some((done, whole)) => break next,
                    Ok(_) => {
                        let note = format_args!("after a break at byte {done} it is another file, or sends no parts");
                        return Err(refuse(Reason::Unavailable, &url, note));
                    }
                    Err(Failed::Final(refusal)) => return Err(refusal),
                    Err(Failed::Broke(_)) => {}
                }
            };
        }
        if length > 0 && done != length {
            return Err(refuse(Reason::BadImage, &url, format_args!("{done} bytes came where {length} were announced")));
        }
        judged.end(&url, signature.as_ref())?;
        // Whole only now.
        write(&mut out, &upload::END)
    }

    /// A list of checksums, as it is or as one of the keys has signed it.
    fn list(&self, url: &Url, signature: Option<&Url>) -> Result<String, Refusal> {
        let mut list = self.whole(url, LONGEST_LIST)?;
        match (&self.keys, signature) {
            (Some(keys), Some(signature)) => {
                let bytes = self.whole(signature, LONGEST_SIGNATURE)?;
                keys.detached(&bytes, &list, now()).map_err(|e| bad(signature, e))?;
            }
            (Some(keys), None) => list = keys.inline(&list, now()).map_err(|e| bad(url, e))?.into_owned(),
            (None, None) => {}
            (None, Some(_)) => return Err(Refusal::new(Reason::InvalidValue, "").field("signed_by").note("no keys came")),
        }
        let text = String::from_utf8(list);
        text.map_err(|_| refuse(Reason::InvalidValue, url, format_args!("{url}: a list of checksums is text")))
    }

    /// What is to be held against the image's own signature, if it must have one.
    fn signed(&self, signature: Option<&Url>) -> Result<Option<Coming<'_>>, Refusal> {
        let lacks = |field, note| Err(Refusal::new(Reason::InvalidValue, "").field(field).note(note));
        match (&self.keys, signature) {
            (Some(keys), Some(signature)) => {
                let bytes = self.whole(signature, LONGEST_SIGNATURE)?;
                keys.coming(&bytes, now()).map(Some).map_err(|e| bad(signature, e))
            }
            (Some(_), None) => lacks("signature_url", "an image carries no signature of its own"),
            (None, Some(_)) => lacks("signed_by", "no keys came"),
            (None, None) => Ok(None),
        }
    }

    /// A small file, whole.
    fn whole(&self, url: &Url, most: u64) -> Result<Vec<u8>, Refusal> {
        let answer = self.get(url, &Rest::default()).map_err(Failed::refusal)?;
        let mut bytes = Vec::new();
        answer.body.take(most + 1).read_to_end(&mut bytes).map_err(|e| broke(url, &e).refusal())?;
        if bytes.len() as u64 > most {
            return Err(refuse(Reason::TooLarge, url, format_args!("{url}: more than {most} bytes")));
        }
        Ok(bytes)
    }

    /// Passes on what comes.
    fn pass(
        &self, answer: &mut Answer<'_>, out: &mut File, judged: &mut Judged<'_>, done: &mut u64, buffer: &mut [u8],
    ) -> Result<(), Failed> {
        loop {
            let got = match answer.body.read(buffer) {
                Ok(0) => return Ok(()),
                Ok(got) => got,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(broke(&answer.url, &e)),
            };
            let piece = buffer.get(..got).unwrap_or_default();
            let header = upload::header(got).unwrap_or(upload::END);
            write(out, &header)?;
            write(out, piece)?;
            judged.update(piece);
            *done += got as u64;
        }
    }

    /// Asks for a file, where redirections lead.
    fn get(&self, url: &Url, rest: &Rest) -> Result<Answer<'a>, Failed> {
        let mut url = url.clone();
        for _ in 0..=REDIRECTIONS {
            let mut stream = self.connect(&url)?;
            stream.write_all(http::request(&url, rest).as_bytes()).map_err(|e| broke(&url, &e))?;
            let (head, left) = read_head(&url, &mut stream)?;
            match (head.status, &head.location) {
                (200, _) | (206, _) if (head.status == 206) == (rest.from > 0) || head.status == 200 => {
                    let body = Body::new(io::Cursor::new(left).chain(stream), head.framing);
                    return Ok(Answer { url, head, body });
                }
                (301 | 302 | 303 | 307 | 308, Some(location)) => {
                    let to = url.join(location);
                    url = to.map_err(|e| refuse(Reason::InvalidValue, &url, format_args!("it leads to {location}: {e}")))?;
                }
                (status @ (404 | 410), _) => {
                    return Err(refuse(Reason::NotFound, &url, format_args!("{url}: it answers {status} {}", head.reason)).into());
                }
                (status @ 500.., _) => {
                    return Err(Failed::Broke(refuse(
                        Reason::Unavailable,
                        &url,
                        format_args!("it answers {status} {}", head.reason),
                    )));
                }
                (status, _) => {
                    return Err(
                        refuse(Reason::Unavailable, &url, format_args!("{url}: it answers {status} {}", head.reason)).into()
                    );
                }
            }
        }
        Err(refuse(Reason::LimitReached, &url, format_args!("more than {REDIRECTIONS} redirections")).into())
    }

    /// A connection to a host, by whichever of its addresses answers first.
    fn connect(&self, url: &Url) -> Result<Stream<'a>, Failed> {
        let addresses = dns::resolve(self.channel, &self.resolvers, &url.host);
        let addresses = addresses.map_err(|refusal| match refusal.reason {
            Reason::Unavailable => Failed::Broke(refusal),
            _ => Failed::Final(refusal),
        })?;
        let mut why = None;
        for address in addresses {
            match self.reach(url, address) {
                Ok(socket) => return self.greet(url, socket),
                // What is refused may not be reached at all; another address may.
                Err(failed) => why = Some(failed),
            }
        }
        Err(why.unwrap_or_else(|| Failed::Final(refuse(Reason::NotFound, url, "it has no address"))))
    }

    fn reach(&self, url: &Url, address: IpAddr) -> Result<OwnedFd, Failed> {
        let socket = self.channel.connect(address, url.port)?;
        limit("resolver", socket.as_fd())?;
        let about = |e: io::Error| broke(url, &io::Error::new(e.kind(), format!("{address}: {e}")));
        self.channel.wait(socket.as_fd(), PollFlags::POLLOUT, CONNECTING).map_err(about)?;
        match getsockopt(&socket, sockopt::SocketError) {
            Ok(0) => Ok(socket),
            Ok(error) => Err(about(io::Error::from_raw_os_error(error))),
            Err(e) => Err(about(e.into())),
        }
    }

    fn greet(&self, url: &Url, socket: OwnedFd) -> Result<Stream<'a>, Failed> {
        let name = ServerName::try_from(url.host.clone());
        let name = name.map_err(|e| refuse(Reason::InvalidValue, url, e))?;
        let session = ClientConnection::new(self.tls.clone(), name);
        let session = session.map_err(|e| refuse(Reason::Unavailable, url, format_args!("TLS: {e}")))?;
        Ok(StreamOwned::new(session, Waiting { socket, channel: self.channel }))
    }
}

/// Limits what the broker gave to its line of the table.
fn limit(line: &'static str, fd: BorrowedFd<'_>) -> Result<(), Refusal> {
    skep_sandbox::limit_one(&skep_rights::fetcher::TABLE, line, fd).map_err(|e| Refusal::new(Reason::Internal, line).note(e))
}

fn read_head(url: &Url, stream: &mut Stream<'_>) -> Result<(Head, Vec<u8>), Failed> {
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let got = stream.read(&mut buffer).map_err(|e| broke(url, &e))?;
        if got == 0 {
            return Err(broke(url, &io::ErrorKind::UnexpectedEof.into()));
        }
        bytes.extend(buffer.get(..got).unwrap_or_default());
        if let Some((head, length)) = http::head(&bytes).map_err(|e| refuse(Reason::Unavailable, url, e))? {
            return Ok((head, bytes.split_off(length)));
        }
        if bytes.len() > LONGEST_HEAD {
            return Err(refuse(Reason::Unavailable, url, "its head has no end").into());
        }
    }
}

/// Writes to the import, which says itself why it reads no more.
fn write(out: &mut File, bytes: &[u8]) -> Result<(), Refusal> {
    out.write_all(bytes).map_err(|_| Refusal::new(Reason::Cancelled, "").note("the import reads no more"))
}
