//! HTTP/1.1 as far as a file is fetched by it. Pure.

use crate::url::Url;
use std::io::{self, Read};

/// Bytes of the head of an answer, at most.
pub const LONGEST_HEAD: usize = 64 << 10;
const HEADERS: usize = 100;

/// Why an answer cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Bad {
    /// It is no HTTP.
    #[error("the server does not speak HTTP/1: {0}")]
    Head(String),
    /// Contradictory or absurd.
    #[error("the server's {0} cannot be read")]
    Header(&'static str),
}

/// What is asked for beyond the whole.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rest {
    /// From this byte.
    pub from: u64,
    /// If it is still this one.
    pub same: Option<String>,
}

/// A request for a file.
pub fn request(url: &Url, rest: &Rest) -> String {
    let mut text = format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: skep/{}\r\nAccept: */*\r\nAccept-Encoding: identity\r\nConnection: close\r\n",
        url.path,
        url.authority(),
        env!("CARGO_PKG_VERSION")
    );
    if rest.from > 0 {
        text += &format!("Range: bytes={}-\r\n", rest.from);
        if let Some(same) = &rest.same {
            text += &format!("If-Range: {same}\r\n");
        }
    }
    text + "\r\n"
}

/// How the end of a body is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// After so many bytes.
    Length(u64),
    /// By the last chunk.
    Chunked,
    /// By the end of the connection.
    Close,
}

/// The head of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// 200 and so on.
    pub status: u16,
    /// What the server says to it.
    pub reason: String,
    /// Where else it is.
    pub location: Option<String>,
    /// How its body ends.
    pub framing: Framing,
    /// By what it is known again: a strong ETag, or the time of its last change.
    pub same: Option<String>,
    /// Of a part: where it begins, and the length of the whole.
    pub range: Option<(u64, Option<u64>)>,
}

/// Reads the head of an answer; gives how many bytes it has. None: it is not whole yet.
pub fn head(bytes: &[u8]) -> Result<Option<(Head, usize)>, Bad> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut parsed = httparse::Response::new(&mut headers);
    let length = match parsed.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if bytes.len() < LONGEST_HEAD => return Ok(None),
        Ok(httparse::Status::Partial) => return Err(Bad::Head("its head has no end".into())),
        Err(e) => return Err(Bad::Head(e.to_string())),
    };
    let status = parsed.code.unwrap_or(0);
    let reason: String = parsed.reason.unwrap_or_default().chars().filter(|c| !c.is_control()).take(60).collect();
    let mut head = Head { status, reason, location: None, framing: Framing::Close, same: None, range: None };
    let (mut size, mut chunked, mut changed) = (None, false, None);
    for header in parsed.headers.iter() {
        let is = |name: &str| header.name.eq_ignore_ascii_case(name);
        let text = || std::str::from_utf8(header.value).map(str::trim).map_err(|_| ());
        if is("content-length") {
            let number = text().ok().filter(|t| t.bytes().all(|c| c.is_ascii_digit())).and_then(|t| t.parse::<u64>().ok());
            let number = number.ok_or(Bad::Header("Content-Length"))?;
            if size.is_some_and(|before| before != number) {
                return Err(Bad::Header("Content-Length"));
            }
            size = Some(number);
        } else if is("transfer-encoding") {
            chunked = text().is_ok_and(|text| text.eq_ignore_ascii_case("chunked"));
            if !chunked {
                return Err(Bad::Header("Transfer-Encoding"));
            }
        } else if is("content-encoding") {
            if !text().is_ok_and(|text| text.eq_ignore_ascii_case("identity")) {
                return Err(Bad::Header("Content-Encoding"));
            }
        } else if is("location") {
            head.location = Some(text().map_err(|()| Bad::Header("Location"))?.to_owned());
        } else if is("etag") {
            let text = text().ok().filter(|text| text.starts_with('"') && text.len() <= 256);
            head.same = text.map(str::to_owned);
        } else if is("last-modified") {
            changed = text().ok().filter(|text| text.len() <= 64).map(str::to_owned);
        } else if is("content-range") {
            head.range = Some(text().ok().and_then(range).ok_or(Bad::Header("Content-Range"))?);
        }
    }
    head.same = head.same.or(changed);
    head.framing = match (chunked, size) {
        (true, _) => Framing::Chunked,
        (false, Some(size)) => Framing::Length(size),
        (false, None) => Framing::Close,
    };
    Ok(Some((head, length)))
}

/// `bytes 5-9/10`: where it begins, and the length of the whole.
fn range(text: &str) -> Option<(u64, Option<u64>)> {
    let (part, whole) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = part.split_once('-')?;
    let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
    let whole = if whole == "*" { None } else { Some(whole.parse::<u64>().ok()?) };
    (first <= last && whole.is_none_or(|whole| last < whole)).then_some((first, whole))
}

/// A body. Reading gives 0 at its end, and `UnexpectedEof` where the stream ends before.
pub struct Body<R> {
    stream: R,
    left: Left,
}

enum Left {
    Length(u64),
    /// Bytes of the present chunk.
    Chunk(u64),
    /// The line with the length of the next.
    ChunkHead,
    Close,
    Nothing,
}

impl<R: Read> Body<R> {
    /// What follows the head on `stream`.
    pub fn new(stream: R, framing: Framing) -> Self {
        let left = match framing {
            Framing::Length(0) => Left::Nothing,
            Framing::Length(length) => Left::Length(length),
            Framing::Chunked => Left::ChunkHead,
            Framing::Close => Left::Close,
        };
        Self { stream, left }
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        loop {
            let mut byte = [0];
            self.stream.read_exact(&mut byte)?;
            match byte {
                [b'\n'] => break,
                [byte] if line.len() < 4096 => line.push(byte),
                _ => return Err(io::Error::other("a line of a chunk has no end")),
            }
        }
        let line = String::from_utf8(line).map_err(io::Error::other)?;
        Ok(line.trim_end_matches('\r').to_owned())
    }

    fn next_chunk(&mut self) -> io::Result<()> {
        let line = self.line()?;
        let digits = line.split(';').next().unwrap_or_default().trim();
        let good = !digits.is_empty() && digits.len() <= 15 && digits.bytes().all(|c| c.is_ascii_hexdigit());
        let length = Some(digits).filter(|_| good).and_then(|digits| u64::from_str_radix(digits, 16).ok());
        match length.ok_or_else(|| io::Error::other("a chunk has no length"))? {
            0 => {
                let mut lines = 0;
                while !self.line()?.is_empty() {
                    lines += 1;
                    if lines > HEADERS {
                        return Err(io::Error::other("what follows the last chunk has no end"));
                    }
                }
                self.left = Left::Nothing;
            }
            length => self.left = Left::Chunk(length),
        }
        Ok(())
    }

    fn some(&mut self, buffer: &mut [u8], left: u64) -> io::Result<u64> {
        let most = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        match self.stream.read(buffer.get_mut(..most).unwrap_or_default())? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            got => Ok(got as u64),
        }
    }
}

impl<R: Read> Read for Body<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        while matches!(self.left, Left::ChunkHead) {
            self.next_chunk()?;
        }
        let got = match self.left {
            Left::Nothing | Left::ChunkHead => 0,
            Left::Close => return self.stream.read(buffer),
            Left::Length(left) => {
                let got = self.some(buffer, left)?;
                self.left = if got == left { Left::Nothing } else { Left::Length(left - got) };
                got
            }
            Left::Chunk(left) => {
                let got = self.some(buffer, left)?;
                self.left = Left::Chunk(left - got);
                if got == left {
                    if !self.line()?.is_empty() {
                        return Err(io::Error::other("a chunk is longer than it says"));
                    }
                    self.left = Left::ChunkHead;
                }
                got
            }
        };
        Ok(usize::try_from(got).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn heads_are_read() {
        let text =
            b"HTTP/1.1 206 Partial Content\r\nContent-Length: 5\r\nETag: \"x\"\r\nContent-Range: bytes 5-9/10\r\n\r\nabcde";
        let (head, length) = head(text).unwrap().unwrap();
        assert_eq!((head.status, head.framing, length), (206, Framing::Length(5), text.len() - 5));
        assert_eq!((head.same.as_deref(), head.range), (Some("\"x\""), Some((5, Some(10)))));
        for wrong in [
            "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n",
            "HTTP/1.1 206 OK\r\nContent-Range: bytes 9-5/10\r\n\r\n",
            "SSH-2.0-OpenSSH_9.2\r\n",
        ] {
            assert!(super::head(wrong.as_bytes()).is_err(), "{wrong}");
        }
        assert_eq!(super::head(b"HTTP/1.1 200 OK\r\n"), Ok(None));
    }

    fn body(bytes: &[u8], framing: Framing) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        Body::new(bytes, framing).read_to_end(&mut all).map(|_| all)
    }

    #[test]
    fn bodies_end_as_they_say() {
        assert_eq!(body(b"abcdef", Framing::Length(3)).unwrap(), b"abc");
        assert_eq!(body(b"ab", Framing::Length(3)).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(body(b"3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nT: v\r\n\r\nmore", Framing::Chunked).unwrap(), b"abcde");
        for wrong in ["", "3\r\nab", "3\r\nabcd\r\n", "zz\r\n", "-1\r\n", "3\r\nabc\r\n", "fffffffffffffffff\r\n"] {
            assert!(body(wrong.as_bytes(), Framing::Chunked).is_err(), "{wrong}");
        }
        assert_eq!(body(b"abc", Framing::Close).unwrap(), b"abc");
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = head(&bytes);
            let _ = body(&bytes, Framing::Chunked);
        }
    }
}
