//! RSA (PKCS #1 v1.5) over a sum that is there already, for which ring has no door: it takes messages that are there as a whole. Pure.
//!
//! What is verified is public, so nothing here hides how long it takes. It is slow and plain on purpose: numbers are added and subtracted,
//! nothing else, once or twice an image. Tests hold it against ring.

use super::packet::Hash;

/// Exponents that ring takes, too.
const EXPONENTS: std::ops::Range<u64> = 3..1 << 33;

/// Whether the key of `n` and `e` made `signature` over this sum. Numbers begin with their highest byte, and that is not zero.
pub fn verify(n: &[u8], e: &[u8], hash: Hash, sum: &[u8], signature: &[u8]) -> bool {
    let Some(expected) = encoded(hash, sum, n.len()) else { return false };
    if e.len() > 8 || signature.len() > n.len() {
        return false;
    }
    let e = e.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
    let limbs = n.len().div_ceil(8);
    let [n, signature, expected] = [n, signature, &expected[..]].map(|bytes| number(bytes, limbs));
    let odd = |number: u64| number & 1 == 1;
    let fit = EXPONENTS.contains(&e) && odd(e) && n.first().is_some_and(|limb| odd(*limb)) && below(&signature, &n);
    fit && power(&signature, e, &n) == expected
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

/// As so many words, the lowest first.
fn number(bytes: &[u8], limbs: usize) -> Vec<u64> {
    let word = |bytes: &[u8]| bytes.iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
    bytes.rchunks(8).map(word).chain(std::iter::repeat(0)).take(limbs).collect()
}

/// `a - b`, and whether that is below zero.
fn difference(a: &[u64], b: &[u64]) -> (Vec<u64>, bool) {
    let mut borrow = false;
    let limbs = a.iter().zip(b).map(|(a, b)| {
        let (limb, first) = a.overflowing_sub(*b);
        let (limb, second) = limb.overflowing_sub(u64::from(borrow));
        borrow = first || second;
        limb
    });
    (limbs.collect(), borrow)
}

fn below(a: &[u64], b: &[u64]) -> bool {
    difference(a, b).1
}

/// `a + b` modulo `n`; both are below it.
fn sum(a: &[u64], b: &[u64], n: &[u64]) -> Vec<u64> {
    let mut carry = false;
    let limbs = a.iter().zip(b).map(|(a, b)| {
        let (limb, first) = a.overflowing_add(*b);
        let (limb, second) = limb.overflowing_add(u64::from(carry));
        carry = first || second;
        limb
    });
    let whole: Vec<u64> = limbs.collect();
    let (less, negative) = difference(&whole, n);
    if negative && !carry { whole } else { less }
}

/// `a * b` modulo `n`; both are below it.
fn product(a: &[u64], b: &[u64], n: &[u64]) -> Vec<u64> {
    let bits = b.iter().rev().flat_map(|limb| (0..64).rev().map(move |bit| limb >> bit & 1 == 1));
    bits.fold(vec![0; n.len()], |so_far, bit| {
        let twice = sum(&so_far, &so_far, n);
        if bit { sum(&twice, a, n) } else { twice }
    })
}

/// `base` to the power of `e` modulo `n`, which it is below; `e` is not zero.
fn power(base: &[u64], e: u64, n: &[u64]) -> Vec<u64> {
    (0..e.ilog2()).rev().fold(base.to_vec(), |so_far, bit| {
        let square = product(&so_far, &so_far, n);
        if e >> bit & 1 == 1 { product(&square, base, n) } else { square }
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

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

    /// Two words, the lowest first.
    fn words(number: u128) -> Vec<u64> {
        super::number(&number.to_be_bytes(), 2)
    }

    proptest! {
        #[test]
        fn sums_are_those_of_numbers(n in 2u128.., a: u128, b: u128) {
            let (a, b) = (a % n, b % n);
            let expected = a.checked_add(b).map_or_else(|| a.wrapping_add(b).wrapping_sub(n), |sum| sum % n);
            prop_assert_eq!(sum(&words(a), &words(b), &words(n)), words(expected));
            prop_assert_eq!(difference(&words(a), &words(b)), (words(a.wrapping_sub(b)), a < b));
        }

        #[test]
        fn products_and_powers_are_those_of_numbers(n in 2u64.., a: u64, b: u64, e in 1u64..200) {
            let (wide, a, b) = (u128::from(n), u128::from(a % n), u128::from(b % n));
            prop_assert_eq!(product(&words(a), &words(b), &words(wide)), words(a * b % wide));
            let expected = (1..e).fold(a, |so_far, _| so_far * a % wide);
            prop_assert_eq!(power(&words(a), e, &words(wide)), words(expected));
        }

        /// Where each word carries over into the next.
        #[test]
        fn products_of_many_words_may_be_taken_in_any_order(
            a in prop::collection::vec(prop_oneof![Just(u64::MAX), Just(0), any::<u64>()], 4),
            b in prop::collection::vec(prop_oneof![Just(u64::MAX), Just(0), any::<u64>()], 4),
            c in prop::collection::vec(any::<u64>(), 4),
            top in prop_oneof![Just(u64::MAX), 1u64..],
        ) {
            let n = [&[u64::MAX, 0, u64::MAX][..], &[top]].concat();
            // Below n, whatever they were.
            let one = words(1).into_iter().chain([0, 0]).collect::<Vec<_>>();
            let [a, b, c] = [a, b, c].map(|number| if below(&number, &n) { number } else { one.clone() });
            let times = |a: &[u64], b: &[u64]| product(a, b, &n);
            prop_assert_eq!(times(&a, &b), times(&b, &a));
            prop_assert_eq!(times(&times(&a, &b), &c), times(&a, &times(&b, &c)));
            prop_assert_eq!(times(&sum(&a, &b, &n), &c), sum(&times(&a, &c), &times(&b, &c), &n));
            prop_assert_eq!(times(&a, &one), a);
        }
    }
}
