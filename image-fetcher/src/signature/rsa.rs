//! RSA (PKCS #1 v1.5) over a sum that is there already, for which ring has no door: it takes messages that are there as a whole. Pure.
//!
//! What is verified is public, so nothing here hides how long it takes. Tests hold it against ring.

use super::packet::Hash;
use num_bigint::BigUint;

/// Exponents that ring takes, too.
const EXPONENTS: std::ops::Range<u64> = 3..1 << 33;

/// Whether the key of `n` and `e` made `signature` over this sum. Numbers begin with their highest byte, and that is not zero.
pub fn verify(n: &[u8], e: &[u8], hash: Hash, sum: &[u8], signature: &[u8]) -> bool {
    let Some(expected) = encoded(hash, sum, n.len()) else { return false };
    if e.len() > 8 || signature.len() > n.len() {
        return false;
    }
    let exponent = e.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
    let [n, e, signature, expected] = [n, e, signature, &expected[..]].map(BigUint::from_bytes_be);
    // A modulus that is odd is not zero.
    EXPONENTS.contains(&exponent) && n.bit(0) && signature < n && signature.modpow(&e, &n) == expected
}

/// What RSA makes of a good signature: `length` bytes, all of which are fixed (RFC 8017, 9.2).
fn encoded(hash: Hash, sum: &[u8], length: usize) -> Option<Vec<u8>> {
    let algorithm = match hash {
        Hash::Sha1 => return None,
        Hash::Sha256 => 1,
        Hash::Sha384 => 2,
        Hash::Sha512 => 3,
    };
    let size = u8::try_from(sum.len()).ok().filter(|_| sum.len() == hash.digest().output_len())?;
    let name = [0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, algorithm];
    let head = [&[0x30, 17 + size, 0x30, 13, 6, 9], &name[..], &[5, 0, 4, size]].concat();
    let filling = length.checked_sub(3 + head.len() + sum.len()).filter(|filling| *filling >= 8)?;
    Some([&[0, 1], &vec![0xff; filling][..], &[0], &head, sum].concat())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const E: &[u8] = &[1, 0, 1];

    #[test]
    fn numbers_that_are_none_of_rsa_s_are_refused() {
        // With a signature of 1 what comes out is 1, whatever the key is; with 0 and n likewise 0.
        let n = [&[0xff; 255][..], &[0xfd]].concat();
        let sum = [0; 32];
        for (n, e, signature) in [
            (&n[..], E, &[1][..]),
            (&n, E, &[]),
            (&n, E, &n),
            (&n, E, &[0xff; 256]),
            (&n, E, &[1; 257]),
            (&n, &[], &[2]),
            (&n, &[1], &[2]),
            (&n, &[2], &[2]),
            (&n, &[0xff; 9], &[2]),
            (&n[..40], E, &[1]),
            (&[0xfe; 256], E, &[2]),
            (&[], E, &[]),
        ] {
            assert!(!verify(n, e, Hash::Sha256, &sum, signature), "{n:x?} {e:x?} {signature:x?}");
        }
        // With an exponent of 1 everybody could sign: what comes out is what went in.
        let signature = encoded(Hash::Sha256, &sum, 256).unwrap();
        assert!(!verify(&n, &[1], Hash::Sha256, &sum, &signature));
        for (hash, sum) in [(Hash::Sha1, &[0; 20][..]), (Hash::Sha256, &[0; 31]), (Hash::Sha512, &[0; 32])] {
            assert_eq!(encoded(hash, sum, 256), None);
        }
    }
}
