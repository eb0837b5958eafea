//! Signatures of lists of checksums, and of images themselves: whether one of the keys that came along has made them. OpenPGP (RSA, Ed25519)
//! and, for lists, signify(1). Pure; signatures, lists and images are a stranger's, keys those of whoever asked.

mod armour;
mod cert;
mod coming;
mod packet;
mod rsa;
pub mod signify;

pub use coming::Coming;
use std::borrow::Cow;

const KEY: &str = "file of public keys";
const SIGNATURE: &str = "signature";

/// Why nothing is signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    /// It is something else than what it is to be, or damaged.
    #[error("it is no {0} that is understood: {1}")]
    Form(&'static str, &'static str),
    /// It is of another version of OpenPGP.
    #[error("it is a {0} of version {1} of OpenPGP; version 4 is expected")]
    Version(&'static str, u8),
    /// Whoever asked gave away more than he wanted.
    #[error("it holds a secret key; the public one is expected")]
    Secret,
    /// A list by itself.
    #[error("it carries no signature of its own, and the address of none was given")]
    Unsigned,
    /// None of the keys made it.
    #[error("it was made by key {0}, which is none of those that were given")]
    OtherKey(String),
    /// The key made it, or says so, but does not count.
    #[error("key {0} {1}")]
    Key(String, Unusable),
    /// How it was made is not known here, or not trusted.
    #[error("it was made by way of {0}; RSA or Ed25519 is expected, with SHA-256, SHA-384 or SHA-512")]
    Method(String),
    /// It is over something else: a key, say.
    #[error("it is of kind {0:#04x}, which is none of files")]
    Kind(u8),
    /// It has conditions.
    #[error("it depends on something that is not known here (subpacket {0})")]
    Critical(u8),
    /// It is not over a sum.
    #[error(
        "it is signify's, over all bytes at once and not over a sum of them, which is not judged for an image; a list of checksums that signify signed is taken"
    )]
    AllAtOnce,
    /// The key's name is in it, but what was signed is something else.
    #[error("what came is not what key {0} has signed")]
    Differs(String),
    /// It ended.
    #[error("what key {0} has signed held until {1} days ago")]
    Expired(String, u64),
    /// By this host's clock it is yet to be made.
    #[error("key {0} signed it at a time that has not come by this host's clock")]
    Early(String),
    /// It is older than its key.
    #[error("key {0} signed it before it was made")]
    OlderThanKey(String),
}

/// What is to be said against a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// Its owner takes it back.
    #[error("is revoked")]
    Revoked,
    /// It ended so many days ago.
    #[error("has expired, {0} days ago")]
    Expired(u64),
    /// By this host's clock it is yet to be made.
    #[error("is of a time that has not come by this host's clock")]
    Early,
    /// It is not known here, or too weak.
    #[error("is of a kind that is not taken: {0}; RSA of 2048 to 8192 bits or Ed25519 is expected")]
    Method(String),
    /// Nothing in its file that it has signed says what it is for, or whose.
    #[error("is not confirmed in its file by its own signature")]
    NoWord,
    /// It is there to encrypt, or to sign other keys.
    #[error("is not one that its owner signs files with")]
    NotForThis,
}

/// Whole days.
fn days(seconds: u64) -> u64 {
    seconds / 86400
}

/// Whom to trust.
#[derive(Debug, Clone)]
pub struct Keys {
    openpgp: Vec<cert::Signer>,
    signify: Vec<signify::Key>,
}

impl Keys {
    /// Reads a file of public keys: OpenPGP's, armoured or not, or one of signify's. `now`: seconds since 1970.
    ///
    /// # Errors
    /// It is something else, holds a secret key, or nothing.
    pub fn parse(file: &[u8], now: u64) -> Result<Self, Wrong> {
        if signify::is(file) {
            return Ok(Self { openpgp: Vec::new(), signify: vec![signify::Key::parse(file)?] });
        }
        let openpgp = cert::parse(&armour::keys(file)?, now)?;
        if openpgp.is_empty() { Err(Wrong::Form(KEY, "it is empty")) } else { Ok(Self { openpgp, signify: Vec::new() }) }
    }

    /// Holds a list against a signature in a file of its own.
    ///
    /// # Errors
    /// None of the keys has signed it.
    pub fn detached(&self, signature: &[u8], list: &[u8], now: u64) -> Result<(), Wrong> {
        if signify::is(signature) {
            return signify::detached(&self.signify, signature, list);
        }
        cert::check(&self.openpgp, &armour::signature(signature)?, cert::BINARY, list, now)
    }

    /// Picks from the signature of something that is yet to come, piece by piece, what may count for it.
    ///
    /// # Errors
    /// None of the keys can have signed it, whatever it is; or it is signify's.
    pub fn coming(&self, signature: &[u8], now: u64) -> Result<Coming<'_>, Wrong> {
        if signify::is(signature) {
            return Err(Wrong::AllAtOnce);
        }
        Coming::new(&self.openpgp, &armour::signature(signature)?, now)
    }

    /// What is signed of a list that carries its signature: text with OpenPGP's, or as `signify -S -e` makes it.
    ///
    /// # Errors
    /// None of the keys has signed it, or it carries none.
    pub fn inline<'a>(&self, list: &'a [u8], now: u64) -> Result<Cow<'a, [u8]>, Wrong> {
        if signify::is(list) {
            return signify::embedded(&self.signify, list).map(Cow::Borrowed);
        }
        if !list.starts_with(armour::BEGIN_SIGNED) {
            return Err(Wrong::Unsigned);
        }
        let signed = armour::signed(list)?;
        cert::check(&self.openpgp, &signed.signature, cert::TEXT, &signed.summed, now)?;
        Ok(Cow::Owned(signed.text))
    }
}

#[cfg(test)]
mod tests;
