//! HTTP/1.1, as much of it as metadata services need.

use crate::Now;
use crate::metadata::{Body, Content};
use crate::port::{Identity, World};
use crate::token;
use std::rc::Rc;

/// TCP port.
pub const PORT: u16 = 80;
/// Bytes of a request before its body.
pub const LONGEST_HEAD: usize = 8192;
/// Bytes of a body; nothing of it is kept.
const LONGEST_BODY: u64 = 64 << 10;
/// Headers.
const HEADERS: usize = 64;

const TOKEN: &str = "x-aws-ec2-metadata-token";
const TOKEN_TTL: &str = "x-aws-ec2-metadata-token-ttl-seconds";

/// An answer on its way.
#[derive(Debug)]
pub struct Reply {
    /// Status line and headers.
    pub head: Vec<u8>,
    /// What follows them.
    pub body: Body,
    /// Whether the connection ends behind it.
    pub close: bool,
}

/// What a request's bytes are.
#[derive(Debug)]
pub enum Read {
    /// Not all of it is there.
    Partial,
    /// A whole head of so many bytes, a body of so many after it, and the answer.
    Whole(usize, u64, Reply),
}

/// What a request asks for.
struct Request<'a> {
    method: &'a str,
    path: &'a str,
    keep: bool,
    body: u64,
    token: Option<&'a [u8]>,
    ttl: Option<&'a [u8]>,
}

/// Reads a request, and answers it. `home`: set when it says that the guest is done.
pub fn read(identity: &Identity, world: &World, content: Option<&Content>, now: Now, bytes: &[u8], home: &mut bool) -> Read {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut parsed = httparse::Request::new(&mut headers);
    let length = match parsed.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if bytes.len() < LONGEST_HEAD => return Read::Partial,
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            return Read::Whole(bytes.len(), 0, error(431, "Request Header Fields Too Large"));
        }
        Err(_) => return Read::Whole(bytes.len(), 0, error(400, "Bad Request")),
    };
    match checked(&parsed) {
        // What follows is not understood.
        Err(reply) => Read::Whole(bytes.len(), 0, reply),
        Ok(request) => {
            let mut reply = answer(identity, world, content, now, &request, home);
            reply.close |= !request.keep;
            Read::Whole(length, request.body, reply)
        }
    }
}

/// What it asks for, or why it is not heard.
fn checked<'a>(parsed: &httparse::Request<'_, 'a>) -> Result<Request<'a>, Reply> {
    let bad = || error(400, "Bad Request");
    let mut keep = parsed.version == Some(1);
    let (mut body, mut host, mut token, mut ttl) = (None, None, None, None);
    for header in parsed.headers.iter() {
        let is = |name: &str| header.name.eq_ignore_ascii_case(name);
        if is("x-forwarded-for") {
            // It comes from somewhere else, by way of a proxy that does not know what it does.
            return Err(error(403, "Forbidden"));
        } else if is("transfer-encoding") {
            return Err(error(411, "Length Required"));
        } else if is("content-length") {
            let text = std::str::from_utf8(header.value).map_err(|_| bad())?;
            let length = Some(text).filter(|text| text.bytes().all(|c| c.is_ascii_digit())).and_then(|text| text.parse().ok());
            if body.replace(length.ok_or_else(bad)?).is_some() {
                return Err(bad());
            }
        } else if is("connection") {
            let words = header.value.split(|c| *c == b',').map(<[u8]>::trim_ascii);
            for word in words {
                keep = if word.eq_ignore_ascii_case(b"close") { false } else { keep || word.eq_ignore_ascii_case(b"keep-alive") };
            }
        } else if is("host") {
            host = Some(header.value);
        } else if is(TOKEN) {
            token = Some(header.value);
        } else if is(TOKEN_TTL) {
            ttl = Some(header.value);
        }
    }
    // A page in a guest's browser may have our address under a name of its own (DNS rebinding).
    if host.is_some_and(|host| !matches!(host, b"" | b"169.254.169.254" | b"169.254.169.254:80")) {
        return Err(error(421, "Misdirected Request"));
    }
    let body = body.unwrap_or(0);
    if body > LONGEST_BODY {
        return Err(error(413, "Content Too Large"));
    }
    let (Some(method), Some(path)) = (parsed.method, parsed.path) else { return Err(bad()) };
    let path = path.strip_prefix("http://169.254.169.254").unwrap_or(path);
    let path = path.split(['?', '#']).next().unwrap_or_default();
    if !path.starts_with('/') {
        return Err(bad());
    }
    Ok(Request { method, path, keep, body, token, ttl })
}

fn answer(
    identity: &Identity, world: &World, content: Option<&Content>, now: Now, request: &Request<'_>, home: &mut bool,
) -> Reply {
    if request.token.is_some_and(|token| !world.key.check(identity.nic, now, token)) {
        return Reply { close: false, ..error(401, "Unauthorized") };
    }
    let found = |status, reason, kind, body, bare| {
        let mut reply = reply(status, reason, kind, body, "", false);
        if bare {
            reply.body = Rc::from([]);
        }
        reply
    };
    let allow = |methods: &str| reply(405, "Method Not Allowed", "text/plain", text("Method Not Allowed"), methods, false);
    match (request.method, request.path.trim_end_matches('/')) {
        ("PUT", "/latest/api/token") => {
            let seconds = request.ttl.and_then(|ttl| std::str::from_utf8(ttl).ok()?.parse().ok());
            match seconds.filter(|seconds| (1..=token::LONGEST).contains(seconds)) {
                Some(seconds) => {
                    let extra = format!("{TOKEN_TTL}: {seconds}\r\n");
                    reply(200, "OK", "text/plain", text(&world.key.make(identity.nic, now, seconds)), &extra, false)
                }
                None => Reply { close: false, ..error(400, "Bad Request") },
            }
        }
        (_, "/latest/api/token") => allow("Allow: PUT\r\n"),
        ("POST", "/phone-home") => {
            *home = true;
            found(200, "OK", "text/plain", text(""), false)
        }
        (_, "/phone-home") => allow("Allow: POST\r\n"),
        ("GET" | "HEAD", path) => {
            let bare = request.method == "HEAD";
            match content.and_then(|content| content.get(path)) {
                Some((kind, body)) => found(200, "OK", kind, body, bare),
                None => found(404, "Not Found", "text/plain", text("Not Found"), bare),
            }
        }
        _ => allow("Allow: GET, HEAD\r\n"),
    }
}

fn text(text: &str) -> Body {
    text.as_bytes().into()
}

/// After which nothing more is read.
pub fn error(status: u16, reason: &str) -> Reply {
    reply(status, reason, "text/plain", text(reason), "", true)
}

fn reply(status: u16, reason: &str, kind: &str, body: Body, extra: &str, close: bool) -> Reply {
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status} {reason}\r\nServer: skep\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nCache-Control: no-store\r\n{extra}"
    );
    Reply { head: head.into_bytes(), body, close }
}

impl Reply {
    /// Ends the head: whether the connection stays is known by then.
    pub fn seal(&mut self) {
        let connection: &[u8] = if self.close { b"Connection: close\r\n\r\n" } else { b"Connection: keep-alive\r\n\r\n" };
        self.head.extend_from_slice(connection);
    }
}
