//! OpenPGP's files as text: armour around packets, and text with its signature behind it (RFC 9580, 6 and 7).

use super::{KEY, SIGNATURE, Wrong};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// The packets of a file of keys, which may be text with several blocks and other things between them.
///
/// # Errors
/// It holds no block of public keys, or one that is damaged.
pub fn keys(file: &[u8]) -> Result<Vec<u8>, Wrong> {
    if is_packets(file) {
        return Ok(file.to_vec());
    }
    let mut lines = Lines(file);
    let (mut packets, mut found) = (Vec::new(), false);
    while let Some(line) = lines.next() {
        if line.starts_with(b"-----BEGIN PGP PRIVATE KEY") {
            return Err(Wrong::Secret);
        }
        if line == b"-----BEGIN PGP PUBLIC KEY BLOCK-----" {
            found = true;
            packets.extend(block(&mut lines, KEY, b"-----END PGP PUBLIC KEY BLOCK-----")?);
        }
    }
    if found { Ok(packets) } else { Err(Wrong::Form(KEY, "it holds neither packets nor a block of public keys")) }
}

/// The packets of a signature in a file of its own.
///
/// # Errors
/// It is something else, or damaged.
pub fn signature(file: &[u8]) -> Result<Vec<u8>, Wrong> {
    if is_packets(file) {
        return Ok(file.to_vec());
    }
    let mut lines = Lines(file);
    if lines.next() != Some(b"-----BEGIN PGP SIGNATURE-----") {
        return Err(Wrong::Form(SIGNATURE, "it holds neither packets nor a block of a signature"));
    }
    last(&mut lines)
}

/// Text with its signature.
#[derive(Debug, PartialEq, Eq)]
pub struct Signed {
    /// The text.
    pub text: Vec<u8>,
    /// What is signed of it: without white space at the ends of lines, which end in CR and LF, without the last one's.
    pub summed: Vec<u8>,
    /// The packets of its signature.
    pub signature: Vec<u8>,
}

/// How such a text begins.
pub const BEGIN_SIGNED: &[u8] = b"-----BEGIN PGP SIGNED MESSAGE-----";

/// Reads one.
///
/// # Errors
/// It is something else, or damaged, or holds more than that.
pub fn signed(file: &[u8]) -> Result<Signed, Wrong> {
    let wrong = |why| Wrong::Form("signed text", why);
    let mut lines = Lines(file);
    if lines.next() != Some(BEGIN_SIGNED) {
        return Err(wrong("it does not begin as one"));
    }
    loop {
        match lines.next() {
            Some(b"") => break,
            // The signature says itself by what it is summed up.
            Some(line) if line.starts_with(b"Hash: ") => {}
            _ => return Err(wrong("its head has no end, or says more than the hash")),
        }
    }
    let (mut text, mut summed) = (Vec::new(), Vec::new());
    loop {
        let line = lines.next().ok_or(wrong("it has no signature"))?;
        let line = match line.strip_prefix(b"- ") {
            Some(escaped) => escaped,
            None if line == b"-----BEGIN PGP SIGNATURE-----" => break,
            None if line.starts_with(b"-") => return Err(wrong("a line begins with - and no space")),
            None => line,
        };
        if !text.is_empty() {
            summed.extend(b"\r\n");
        }
        summed.extend(line);
        text.extend(line);
        text.push(b'\n');
    }
    Ok(Signed { text, summed, signature: last(&mut lines)? })
}

/// Of packets the first byte has its highest bit set, of text in ASCII no one.
fn is_packets(file: &[u8]) -> bool {
    file.first().is_some_and(|byte| byte & 0x80 != 0)
}

/// Lines without their ends and the white space before.
struct Lines<'a>(&'a [u8]);

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.0.is_empty() {
            return None;
        }
        let (line, rest) = match self.0.iter().position(|byte| *byte == b'\n') {
            Some(end) => (self.0.get(..end)?, self.0.get(end + 1..)?),
            None => (self.0, &[][..]),
        };
        self.0 = rest;
        Some(line.trim_ascii_end())
    }
}

/// The signature at the end of a file.
fn last(lines: &mut Lines<'_>) -> Result<Vec<u8>, Wrong> {
    let packets = block(lines, SIGNATURE, b"-----END PGP SIGNATURE-----")?;
    if lines.all(<[u8]>::is_empty) { Ok(packets) } else { Err(Wrong::Form(SIGNATURE, "more follows it")) }
}

/// What is in a block, whose first line is read.
fn block(lines: &mut Lines<'_>, what: &'static str, end: &[u8]) -> Result<Vec<u8>, Wrong> {
    let wrong = |why| Wrong::Form(what, why);
    loop {
        match lines.next() {
            Some(b"") => break,
            Some(line) if line.contains(&b':') => {}
            _ => return Err(wrong("the head of its block has no end")),
        }
    }
    let mut text = Vec::new();
    loop {
        match lines.next().ok_or(wrong("its block has no end"))? {
            line if line == end => break,
            // A sum against damage on the way, of which signatures tell, too.
            [b'=', _, _, _, _] => {
                if lines.next() != Some(end) {
                    return Err(wrong("its block has no end"));
                }
                break;
            }
            line => text.extend(line),
        }
    }
    STANDARD.decode(text).map_err(|_| wrong("its block is not in base64"))
}
