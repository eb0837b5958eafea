//! A file that comes piece by piece, and its signature, which was there first: an image. What may count is picked before it comes; whether
//! it does is said when all of it has come.

use super::Wrong;
use super::cert::{self, Signer};
use super::packet::{Hash, Signature};
use ring::digest::Context;

/// See the module. It sums up what comes, as each of the signatures wants it.
pub struct Coming<'a> {
    signers: &'a [Signer],
    /// Of the signatures those that one of the keys may have made, as they came.
    bodies: Vec<Vec<u8>>,
    sums: Vec<(Hash, Context)>,
}

impl<'a> Coming<'a> {
    /// Picks from a file of signatures, not armoured.
    ///
    /// # Errors
    /// None of them can count, whatever comes.
    pub(super) fn new(signers: &'a [Signer], file: &[u8], now: u64) -> Result<Self, Wrong> {
        let file = cert::signatures(file)?;
        let may = |body: &[u8]| cert::one(signers, body, cert::BINARY, |signer, signature| signer.may(signature, now));
        let bodies: Vec<Vec<u8>> = cert::good(file, may)?.into_iter().map(<[u8]>::to_vec).collect();
        let mut sums: Vec<(Hash, Context)> = Vec::new();
        for body in &bodies {
            let hash = Signature::parse(body)?.hash;
            if sums.iter().all(|(other, _)| *other != hash) {
                sums.push((hash, Context::new(hash.digest())));
            }
        }
        Ok(Self { signers, bodies, sums })
    }

    /// A piece came.
    pub fn update(&mut self, piece: &[u8]) {
        self.sums.iter_mut().for_each(|(_, sum)| sum.update(piece));
    }

    /// All came. One signature that is good is enough.
    ///
    /// # Errors
    /// None of the keys has signed it.
    pub fn finish(self, now: u64) -> Result<(), Wrong> {
        let has = |signer: &Signer, signature: &Signature<'_>| {
            let sum = self.sums.iter().find(|(hash, _)| *hash == signature.hash);
            signer.check(signature, now, |key| sum.is_some_and(|(_, sum)| key.made_of(signature, sum.clone())))
        };
        let bodies = self.bodies.iter().map(Vec::as_slice);
        cert::good(bodies, |body| cert::one(self.signers, body, cert::BINARY, has)).map(drop)
    }
}
