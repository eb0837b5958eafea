//! Lists of checksums, as vendors have them beside their images. Pure.

use sha2::{Digest, Sha256, Sha512};

/// A checksum that something must have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sum {
    /// SHA-256.
    Sha256(Vec<u8>),
    /// SHA-512.
    Sha512(Vec<u8>),
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text.chars().map(|c| u8::try_from(c.to_digit(16)?).ok()).collect();
    digits.map(|digits| digits.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect())
}

fn sum(text: &str) -> Option<Sum> {
    match text.len() {
        64 => hex(text).map(Sum::Sha256),
        128 => hex(text).map(Sum::Sha512),
        _ => None,
    }
}

/// The sum of the file `name` in a list: lines of `HEX  NAME` or `HEX *NAME` (sha256sum(1)), `SHA256 (NAME) = HEX` (sha256(1)), or one
/// line of `HEX` alone, which is of whatever it lies beside.
pub fn find(list: &str, name: &str) -> Option<Sum> {
    let is_it = |found: &str| found.trim_start_matches(['*']).trim_start_matches("./") == name;
    let line = |line: &str| {
        if let Some((kind, rest)) = line.split_once(" (").filter(|(kind, _)| ["SHA256", "SHA512"].contains(kind)) {
            let (found, value) = rest.rsplit_once(") = ")?;
            return sum(value)
                .filter(|sum| is_it(found) && matches!((kind, sum), ("SHA256", Sum::Sha256(_)) | ("SHA512", Sum::Sha512(_))));
        }
        let (value, found) = line.split_once(char::is_whitespace)?;
        sum(value).filter(|_| is_it(found.trim_start()))
    };
    let lines = || list.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines().find_map(line).or_else(|| {
        let mut all = lines();
        all.next().filter(|_| all.next().is_none()).and_then(sum)
    })
}

/// Sums up what comes, if that is wanted.
pub enum Hash {
    /// Nothing is wanted.
    None,
    /// SHA-256, and what it must be.
    Sha256(Sha256, Vec<u8>),
    /// SHA-512, likewise.
    Sha512(Box<Sha512>, Vec<u8>),
}

impl Hash {
    /// Begins.
    pub fn new(wanted: Option<Sum>) -> Self {
        match wanted {
            None => Self::None,
            Some(Sum::Sha256(wanted)) => Self::Sha256(Sha256::new(), wanted),
            Some(Sum::Sha512(wanted)) => Self::Sha512(Box::default(), wanted),
        }
    }

    /// A piece came.
    pub fn update(&mut self, piece: &[u8]) {
        match self {
            Self::None => {}
            Self::Sha256(hash, _) => hash.update(piece),
            Self::Sha512(hash, _) => hash.update(piece),
        }
    }

    /// All came. Whether it is what it must be.
    pub fn fits(self) -> bool {
        match self {
            Self::None => true,
            Self::Sha256(hash, wanted) => hash.finalize().as_slice() == wanted,
            Self::Sha512(hash, wanted) => hash.finalize().as_slice() == wanted,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sums_are_found_in_each_form() {
        let (a, b) = ("0a".repeat(32), "b0".repeat(64));
        let sum_a = Some(Sum::Sha256(vec![0x0a; 32]));
        let list = format!("# comment\n{b}  other.img\n{a} *x.img\n");
        assert_eq!(find(&list, "x.img"), sum_a);
        assert_eq!(find(&list, "other.img"), Some(Sum::Sha512(vec![0xb0; 64])));
        assert_eq!(find(&list, "img"), None);
        assert_eq!(find(&format!("SHA256 (x.img) = {a}\nSHA512 (x.img) = {b}"), "x.img"), sum_a);
        assert_eq!(find(&format!("SHA512 (x.img) = {a}\n"), "x.img"), None);
        assert_eq!(find(&format!("{a}  ./x.img"), "x.img"), sum_a);
        assert_eq!(find(&a, "whatever"), sum_a);
        assert_eq!(find(&format!("{a}\n{a}"), "whatever"), None);
        assert_eq!(find(&format!("{}g  x.img", &a[1..]), "x.img"), None);
    }

    proptest! {
        #[test]
        fn any_list_is_read(list in "[0-9a-f (=)*\\n]{0,300}", name in "[a-f0-9.]{0,4}") {
            let _ = find(&list, &name);
        }
    }
}
