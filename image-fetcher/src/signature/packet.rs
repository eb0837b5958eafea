//! What OpenPGP's files are made of (RFC 9580, RFC 4880): packets, numbers, signatures. No more than signatures of version 4 by RSA and
//! Ed25519 need; whatever else comes is refused.

use super::{SIGNATURE, Wrong};
use ring::digest::{self, SHA1_FOR_LEGACY_USE_ONLY, SHA256, SHA384, SHA512};
use ring::signature::{
    RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384,
    RSA_PKCS1_2048_8192_SHA512, RsaParameters,
};
use std::fmt;

/// What is left to be read.
#[derive(Debug, Clone, Copy)]
pub struct Bytes<'a>(pub &'a [u8]);

/// A packet's kind and content.
#[derive(Debug, Clone, Copy)]
pub struct Packet<'a> {
    /// Its kind.
    pub tag: u8,
    /// What is in it.
    pub body: &'a [u8],
}

impl<'a> Bytes<'a> {
    /// So many bytes; none: there are less.
    pub fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(head)
    }

    /// So many bytes.
    pub fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }

    /// One byte.
    pub fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_be_bytes)
    }

    /// Two bytes.
    pub fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    /// Four bytes.
    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    /// A large number (MPI), without zeros before it.
    pub fn number(&mut self) -> Option<&'a [u8]> {
        let bits = usize::from(self.u16()?);
        let bytes = self.take(bits.div_ceil(8))?;
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        bytes.get(zeros..)
    }

    /// A length of one, two or five bytes. Up to `two` its first byte says that there are two; what is beyond says that the length is not
    /// known, of which nothing is read.
    fn length(&mut self, two: u8) -> Option<usize> {
        match self.u8()? {
            first @ 0..192 => Some(usize::from(first)),
            255 => usize::try_from(self.u32()?).ok(),
            first if first <= two => Some((usize::from(first) - 192) * 256 + usize::from(self.u8()?) + 192),
            _ => None,
        }
    }

    /// The next packet; none: it is cut off, or is no packet whose length is known.
    pub fn packet(&mut self) -> Option<Packet<'a>> {
        let (tag, length) = match self.u8()? {
            tag @ 0xc0.. => (tag & 0x3f, self.length(223)?),
            tag @ 0x80.. => {
                let length = match tag & 3 {
                    0 => usize::from(self.u8()?),
                    1 => usize::from(self.u16()?),
                    2 => usize::try_from(self.u32()?).ok()?,
                    _ => return None,
                };
                (tag >> 2 & 0xf, length)
            }
            _ => return None,
        };
        Some(Packet { tag, body: self.take(length)? })
    }
}

/// How what is signed is summed up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hash {
    /// SHA-1: whoever can make two files with one sum has a signature of both. It counts against a key, never for one.
    Sha1,
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

impl Hash {
    fn of(number: u8) -> Result<Self, Wrong> {
        match number {
            2 => Ok(Self::Sha1),
            8 => Ok(Self::Sha256),
            9 => Ok(Self::Sha384),
            10 => Ok(Self::Sha512),
            1 => Err(Wrong::Method("MD5".to_owned())),
            other => Err(Wrong::Method(format!("hash algorithm {other}"))),
        }
    }

    /// How ring sums it up.
    pub fn digest(self) -> &'static digest::Algorithm {
        match self {
            Self::Sha1 => &SHA1_FOR_LEGACY_USE_ONLY,
            Self::Sha256 => &SHA256,
            Self::Sha384 => &SHA384,
            Self::Sha512 => &SHA512,
        }
    }

    /// How ring takes it with RSA.
    pub fn rsa(self) -> &'static RsaParameters {
        match self {
            Self::Sha1 => &RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY,
            Self::Sha256 => &RSA_PKCS1_2048_8192_SHA256,
            Self::Sha384 => &RSA_PKCS1_2048_8192_SHA384,
            Self::Sha512 => &RSA_PKCS1_2048_8192_SHA512,
        }
    }
}

/// Which key is said to have made a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Issuer {
    /// By its fingerprint.
    Fingerprint([u8; 20]),
    /// By the end of its fingerprint.
    Id([u8; 8]),
}

impl Issuer {
    /// Whether this key may be meant.
    pub fn is(&self, fingerprint: &[u8; 20]) -> bool {
        match self {
            Self::Fingerprint(named) => named == fingerprint,
            Self::Id(named) => fingerprint.ends_with(named),
        }
    }
}

impl fmt::Display for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes: &[u8] = match self {
            Self::Fingerprint(bytes) => bytes,
            Self::Id(bytes) => bytes,
        };
        bytes.iter().try_for_each(|byte| write!(f, "{byte:02X}"))
    }
}

/// What a private key made of the sum.
#[derive(Debug, Clone, Copy)]
pub enum Value<'a> {
    /// By RSA (PKCS #1 v1.5).
    Rsa(&'a [u8]),
    /// By Ed25519.
    Edwards([u8; 64]),
}

/// A signature of version 4.
#[derive(Debug, Clone)]
pub struct Signature<'a> {
    /// What it is over: see the constants of [`super::cert`].
    pub kind: u8,
    /// By what it is summed up.
    pub hash: Hash,
    /// When it was made: seconds since 1970.
    pub created: u32,
    /// How many seconds it is good for; 0: for ever.
    pub lasts: u32,
    /// Of one over a key: how many seconds from its making that is good for; 0: for ever.
    pub key_lasts: u32,
    /// Of one over a key: what that is for, if it says so.
    pub flags: Option<u8>,
    /// By which key, if it says so. Nobody answers for it but the key.
    pub issuer: Option<Issuer>,
    /// A signature inside: of a key by the subkey that this one is over.
    pub embedded: Option<&'a [u8]>,
    /// What is summed up of itself.
    pub itself: &'a [u8],
    /// What the key made of it.
    pub value: Value<'a>,
}

/// Subpackets that hold no more than wishes or what is looked at nowhere here; they may be marked as critical all the same.
const HARMLESS: [u8; 12] = [4, 7, 11, 21, 22, 23, 24, 25, 28, 30, 34, 39];

impl<'a> Signature<'a> {
    /// Reads a packet's content.
    ///
    /// # Errors
    /// It is none, or of a kind or with conditions that are not known here.
    pub fn parse(body: &'a [u8]) -> Result<Self, Wrong> {
        let cut = || Wrong::Form(SIGNATURE, "it is cut off");
        let mut rest = Bytes(body);
        match rest.u8().ok_or_else(cut)? {
            4 => {}
            other => return Err(Wrong::Version(SIGNATURE, other)),
        }
        let kind = rest.u8().ok_or_else(cut)?;
        let algorithm = rest.u8().ok_or_else(cut)?;
        let hash = Hash::of(rest.u8().ok_or_else(cut)?)?;
        let length = usize::from(rest.u16().ok_or_else(cut)?);
        let hashed = rest.take(length).ok_or_else(cut)?;
        let itself = body.get(..6 + length).ok_or_else(cut)?;
        let length = usize::from(rest.u16().ok_or_else(cut)?);
        let other = rest.take(length).ok_or_else(cut)?;
        // The first two bytes of the sum, which tell nothing that the signature does not.
        rest.u16().ok_or_else(cut)?;
        let value = match algorithm {
            1 | 3 => Value::Rsa(rest.number().ok_or_else(cut)?),
            22 => {
                let (r, s) = (rest.number().ok_or_else(cut)?, rest.number().ok_or_else(cut)?);
                Value::Edwards(pair(r, s).ok_or(Wrong::Form(SIGNATURE, "it is too long for one of Ed25519"))?)
            }
            27 => Value::Edwards(rest.array().ok_or_else(cut)?),
            other => return Err(Wrong::Method(format!("public-key algorithm {other}"))),
        };
        if !rest.0.is_empty() {
            return Err(Wrong::Form(SIGNATURE, "more follows it"));
        }
        let (mut found, mut created) = (
            Self { kind, hash, created: 0, lasts: 0, key_lasts: 0, flags: None, issuer: None, embedded: None, itself, value },
            None,
        );
        found.subpackets(hashed, Some(&mut created))?;
        found.subpackets(other, None)?;
        found.created = created.ok_or(Wrong::Form(SIGNATURE, "it does not say when it was made"))?;
        Ok(found)
    }

    /// What is summed up of it, behind what it is over.
    pub fn end(&self) -> Vec<u8> {
        let length = u32::try_from(self.itself.len()).unwrap_or(u32::MAX).to_be_bytes();
        [self.itself, &[4, 0xff], &length].concat()
    }

    /// Reads what is said along with it. `created`: it is what the key has signed; else anybody may have said it.
    fn subpackets(&mut self, area: &'a [u8], mut created: Option<&mut Option<u32>>) -> Result<(), Wrong> {
        let bad = || Wrong::Form(SIGNATURE, "what it says of itself is damaged");
        let mut rest = Bytes(area);
        while !rest.0.is_empty() {
            let length = rest.length(254).ok_or_else(bad)?;
            let mut content = Bytes(rest.take(length).ok_or_else(bad)?);
            let kind = content.u8().ok_or_else(bad)?;
            let (critical, kind) = (kind & 0x80 != 0, kind & 0x7f);
            match (kind, &mut created) {
                (2, Some(created)) => **created = Some(content.u32().ok_or_else(bad)?),
                (3, Some(_)) => self.lasts = content.u32().ok_or_else(bad)?,
                (9, Some(_)) => self.key_lasts = content.u32().ok_or_else(bad)?,
                (27, Some(_)) => {
                    self.flags = Some(content.0.first().copied().unwrap_or(0));
                    continue;
                }
                (16, _) => {
                    let id = content.array().ok_or_else(bad)?;
                    self.issuer.get_or_insert(Issuer::Id(id));
                }
                (33, _) => {
                    // The first byte is the key's version.
                    if content.u8() == Some(4) {
                        self.issuer = Some(Issuer::Fingerprint(content.array().ok_or_else(bad)?));
                    } else {
                        continue;
                    }
                }
                (32, _) => {
                    self.embedded = Some(content.0);
                    continue;
                }
                (other, Some(_)) if critical && !HARMLESS.contains(&other) => return Err(Wrong::Critical(other)),
                _ => continue,
            }
            if !content.0.is_empty() {
                return Err(bad());
            }
        }
        Ok(())
    }
}

/// Two numbers of 32 bytes each, one behind the other.
fn pair(first: &[u8], second: &[u8]) -> Option<[u8; 64]> {
    let mut both = [0; 64];
    for (end, number) in [(32, first), (64, second)] {
        if number.len() > 32 {
            return None;
        }
        both.get_mut(end - number.len()..end)?.copy_from_slice(number);
    }
    Some(both)
}
