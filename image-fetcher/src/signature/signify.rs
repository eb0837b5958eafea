//! Signatures as signify(1) of OpenBSD makes them, in a file of their own or before what they sign (`SHA256.sig`). Pure; the signature is
//! a stranger's, the keys are those of whoever asked.

use super::{KEY, SIGNATURE, Wrong};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{ED25519, UnparsedPublicKey};
use std::fmt;

/// What each file begins with.
const COMMENT: &[u8] = b"untrusted comment: ";
/// Bytes of a line that are looked at, at most: signify(1) itself takes 1024.
const LINE: usize = 1024;

/// Whether a file begins as signify's do.
pub fn is(file: &[u8]) -> bool {
    file.starts_with(COMMENT)
}

/// The number that a key and its signatures have in common. It is drawn by lot and says nothing of trust.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Number([u8; 8]);

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A public key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Its number.
    pub number: Number,
    point: [u8; 32],
}

/// The `N` bytes after algorithm and number, the number, and what follows the two lines.
fn body<'a, const N: usize>(file: &'a [u8], what: &'static str) -> Result<(Number, [u8; N], &'a [u8]), Wrong> {
    let wrong = |why| Wrong::Form(what, why);
    let line = |bytes: &'a [u8]| {
        let end = bytes.iter().take(LINE).position(|byte| *byte == b'\n')?;
        Some((bytes.get(..end)?, bytes.get(end + 1..)?))
    };
    let (comment, rest) = line(file).ok_or(wrong("its first line has no end"))?;
    if !comment.starts_with(COMMENT) {
        return Err(wrong("its first line is no comment"));
    }
    let (text, rest) = line(rest).ok_or(wrong("its second line has no end"))?;
    let bytes = STANDARD.decode(text).map_err(|_| wrong("its second line is not in base64"))?;
    let bytes = match bytes.split_first_chunk() {
        Some((b"Ed", bytes)) => bytes,
        Some((b"ED", _)) => return Err(Wrong::Method("BLAKE2b, as minisign does by default".to_owned())),
        _ => return Err(wrong("it is not of Ed25519")),
    };
    let (number, bytes) = bytes.split_first_chunk::<8>().ok_or(wrong("it is cut off"))?;
    let bytes = <[u8; N]>::try_from(bytes).map_err(|_| wrong("it has not the length of one"))?;
    Ok((Number(*number), bytes, rest))
}

impl Key {
    /// Reads the file of a public key.
    ///
    /// # Errors
    /// [`Wrong::Form`]: it is something else, a secret key say.
    pub fn parse(file: &[u8]) -> Result<Self, Wrong> {
        let (number, point, rest) = body(file, KEY)?;
        if rest.is_empty() { Ok(Self { number, point }) } else { Err(Wrong::Form(KEY, "more follows the key")) }
    }
}

/// The key of this number; of several (it is drawn by lot, and can be copied) the one that fits.
fn check(keys: &[Key], number: Number, signature: &[u8; 64], message: &[u8]) -> Result<(), Wrong> {
    let mut all = keys.iter().filter(|key| key.number == number).peekable();
    if all.peek().is_none() {
        return Err(Wrong::OtherKey(number.to_string()));
    }
    let fits = all.any(|key| UnparsedPublicKey::new(&ED25519, key.point).verify(message, signature).is_ok());
    if fits { Ok(()) } else { Err(Wrong::Differs(number.to_string())) }
}

/// Holds `message` against a signature in a file of its own.
///
/// # Errors
/// None of the keys has signed it.
pub fn detached(keys: &[Key], file: &[u8], message: &[u8]) -> Result<(), Wrong> {
    let (number, signature, rest) = body(file, SIGNATURE)?;
    if !rest.is_empty() {
        return Err(Wrong::Form(SIGNATURE, "more follows it"));
    }
    check(keys, number, &signature, message)
}

/// What a file holds behind its signature (`signify -S -e`). Nothing else of the file may be believed: not its comment.
///
/// # Errors
/// None of the keys has signed it.
pub fn embedded<'a>(keys: &[Key], file: &'a [u8]) -> Result<&'a [u8], Wrong> {
    let (number, signature, message) = body(file, SIGNATURE)?;
    check(keys, number, &signature, message).map(|()| message)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    // Made by signify-openbsd 31 (Debian): `-G -n`, `-S -s a.sec -m list`; python-cryptography verifies it, too.
    const A: &str = "untrusted comment: skep test public key\nRWRZMmz/e/DwQkWkEXhhr96COkX7Q+8cu9gmdv0OkL9wHOTw3FsDFZ34\n";
    const B: &str = "untrusted comment: skep test public key\nRWRUSt5CXSA/SQGvnUWWpDzoajXZqypjj6rs1zgCCSwajhrgh6zLZ+Ro\n";
    const SIGNATURE: &str = "untrusted comment: verify with a.pub\nRWRZMmz/e/DwQuxC5kTyA5ylxy6x0WpnoF9RD/UGmiX5vlnWa9iQ66IaAQKxA3c4hqk8JW71VS6NgkTL0ZBIb+0rF3NsUmLGQgw=\n";
    const LIST: &str = "SHA256 (install.iso) = 2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881\n";

    fn keys(texts: &[&str]) -> Vec<Key> {
        texts.iter().map(|text| Key::parse(text.as_bytes()).unwrap()).collect()
    }

    #[test]
    fn what_signify_signed_is_taken_and_nothing_else() {
        let (both, other) = (keys(&[B, A]), keys(&[B]));
        let file = format!("{SIGNATURE}{LIST}");
        let number = both[1].number;
        let (others, differs) = (Err(Wrong::OtherKey(number.to_string())), Err(Wrong::Differs(number.to_string())));
        assert_eq!(number.to_string(), "59326cff7bf0f042");
        assert_eq!(embedded(&both, file.as_bytes()), Ok(LIST.as_bytes()));
        assert_eq!(detached(&both, SIGNATURE.as_bytes(), LIST.as_bytes()), Ok(()));
        assert_eq!(embedded(&other, file.as_bytes()), others);
        assert_eq!(embedded(&[], file.as_bytes()), others);
        assert_eq!(embedded(&both, format!("{file}\n").as_bytes()), differs);
        assert_eq!(embedded(&both, file.replacen("2d71", "2d72", 1).as_bytes()), differs);
        // The number is no secret: another key may bear it.
        let forged = Key { number, ..other[0].clone() };
        assert_eq!(embedded(std::slice::from_ref(&forged), file.as_bytes()), differs);
        assert_eq!(embedded(&[forged, both[1].clone()], file.as_bytes()), Ok(LIST.as_bytes()));
        assert!(matches!(detached(&both, file.as_bytes(), LIST.as_bytes()), Err(Wrong::Form(..))));
        // minisign's number of the other method.
        let hashed = SIGNATURE.replacen("RWRZ", "RURZ", 1);
        assert!(matches!(detached(&both, hashed.as_bytes(), LIST.as_bytes()), Err(Wrong::Method(_))));
    }

    #[test]
    fn other_files_are_no_signatures() {
        let both = keys(&[A, B]);
        for file in
            ["", "\n\n", LIST, A, &SIGNATURE[..60], &SIGNATURE.replacen("RWRZ", "RWQZ", 1), &SIGNATURE.replacen("RWR", "SWR", 1)]
        {
            assert!(detached(&both, file.as_bytes(), LIST.as_bytes()).is_err(), "{file}");
        }
        assert!(Key::parse(SIGNATURE.as_bytes()).is_err());
        assert!(Key::parse(format!("{A}{B}").as_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn no_changed_byte_is_taken(at in 0usize..1000, to in any::<u8>()) {
            let mut file = format!("{SIGNATURE}{LIST}").into_bytes();
            // The comment is not signed.
            let begin = SIGNATURE.find('\n').unwrap() + 1;
            let at = begin + at % (file.len() - begin);
            prop_assume!(file[at] != to);
            file[at] = to;
            prop_assert!(embedded(&keys(&[A]), &file).is_err());
        }

        #[test]
        fn any_file_is_read(file in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = embedded(&keys(&[A]), &file);
        }
    }
}
