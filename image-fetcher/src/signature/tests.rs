//! What GnuPG 2.2 made on 2026-11-01 (by its clock): one key of RSA, and one of Ed25519 that signs with a subkey.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use super::*;
use proptest::prelude::*;
use proptest::sample::Index;

const MADE: u64 = 1_793_491_200;
const KEYS: &[u8] = include_bytes!("vectors/keys.asc");
const LIST: &[u8] = include_bytes!("vectors/list");
const BY_RSA: &[u8] = include_bytes!("vectors/list.rsa");
const BY_ED: &[u8] = include_bytes!("vectors/list.ed");
const SIGNED: &[u8] = include_bytes!("vectors/list.asc");
/// Of signify, for what it is not meant for.
const OTHER: &[u8] = b"untrusted comment: x\nRWRZMmz/e/DwQkWkEXhhr96COkX7Q+8cu9gmdv0OkL9wHOTw3FsDFZ34\n";
const ED: &str = "7F5D03EBBC17E9EC4F9A9945606FFFA709A1A9C4";

fn keys() -> Keys {
    Keys::parse(KEYS, MADE).unwrap()
}

/// The packets of the keys, or of a signature.
fn packets(file: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut rest = packet::Bytes(file);
    std::iter::from_fn(|| rest.packet()).map(|packet| (packet.tag, packet.body.to_vec())).collect()
}

/// Packets put together again, each as the newer kind with four bytes of length.
fn joined(packets: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let length = |body: &[u8]| u32::try_from(body.len()).unwrap().to_be_bytes();
    packets.iter().flat_map(|(tag, body)| [&[0xc0 | tag, 0xff], &length(body)[..], body].concat()).collect()
}

#[test]
fn what_was_signed_is_taken_and_nothing_else() {
    let keys = keys();
    for signature in [BY_RSA, BY_ED] {
        assert_eq!(keys.detached(signature, LIST, MADE), Ok(()));
        assert!(matches!(keys.detached(signature, &LIST[1..], MADE), Err(Wrong::Differs(_))));
        assert!(matches!(keys.detached(signature, LIST, MADE - 1), Err(Wrong::Key(_, _))));
        assert!(matches!(keys.detached(&[], LIST, MADE), Err(Wrong::Form(..))));
    }
    assert_eq!(keys.inline(SIGNED, MADE), Ok(Cow::Borrowed(LIST)));
    assert_eq!(keys.inline(LIST, MADE), Err(Wrong::Unsigned));
    let other = Keys::parse(OTHER, MADE).unwrap();
    assert_eq!(other.detached(BY_ED, LIST, MADE), Err(Wrong::OtherKey(ED.to_owned())));
    // Line ends and white space behind lines are not signed, and come out of it as they went in.
    let crlf = String::from_utf8(SIGNED.to_vec()).unwrap().replace('\n', " \r\n");
    assert_eq!(keys.inline(crlf.as_bytes(), MADE), Ok(Cow::Borrowed(LIST)));
}

#[test]
fn nothing_beside_what_is_signed_is_taken() {
    let keys = keys();
    let text = String::from_utf8(SIGNED.to_vec()).unwrap();
    for changed in [
        format!("x\n{text}"),
        format!("{text}x\n"),
        text.replacen("Hash:", "Comment:", 1),
        text.replacen("\n\n", "\nSHA256 (b.img) = 00\n\n", 1),
        text.replacen("- - a", "- a", 1),
        text.replacen("- - a", "-a", 1),
        text.replacen("-----BEGIN PGP SIG", "b\n-----BEGIN PGP SIG", 1),
        text.replacen("=byRD", "x", 1),
        text.replacen("-----END PGP SIGNATURE-----", "", 1),
    ] {
        assert!(keys.inline(changed.as_bytes(), MADE).is_err(), "{changed}");
    }
    // What is signed as text is not signed as a file.
    let signed = armour::signed(SIGNED).unwrap();
    assert_eq!(keys.detached(&signed.signature, &signed.summed, MADE), Err(Wrong::Kind(1)));
    assert!(keys.detached(&[BY_RSA, b"x"].concat(), LIST, MADE).is_err());
    assert!(keys.detached(&[BY_RSA, &joined(&[(11, vec![1])])].concat(), LIST, MADE).is_err());
    assert!(keys.detached(&BY_RSA.repeat(17), LIST, MADE).is_err());
    assert_eq!(keys.detached(&BY_RSA.repeat(16), LIST, MADE), Ok(()));
    // One of a stranger before it hinders nobody.
    assert!(matches!(keys.detached(&strangers(), LIST, MADE), Err(Wrong::OtherKey(_))));
    assert_eq!(keys.detached(&[strangers(), BY_RSA.to_vec()].concat(), LIST, MADE), Ok(()));
}

/// One by a key that nobody gave.
fn strangers() -> Vec<u8> {
    let mut packets = packets(BY_RSA);
    let id = hex("49020498CFFCEE0D");
    // At the end of its fingerprint, and by itself.
    let body = &mut packets[0].1;
    let found: Vec<_> = (0..body.len()).filter(|at| body[*at..].starts_with(&id)).collect();
    assert_eq!(found.len(), 2);
    found.into_iter().for_each(|at| body[at] ^= 1);
    joined(&packets)
}

fn hex(text: &str) -> Vec<u8> {
    text.as_bytes().chunks(2).map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// What is said of something that comes piece by piece.
fn comes(keys: &Keys, signature: &[u8], pieces: &[&[u8]]) -> Result<(), Wrong> {
    let mut coming = keys.coming(signature, MADE)?;
    pieces.iter().for_each(|piece| coming.update(piece));
    coming.finish(MADE)
}

#[test]
fn what_comes_piece_by_piece_is_judged_when_all_of_it_has_come() {
    let keys = keys();
    let (first, rest) = LIST.split_at(7);
    let last = LIST.len() - 1;
    for signature in [BY_RSA, BY_ED] {
        for pieces in [&[LIST][..], &[first, rest], &[b"", first, b"", rest, b""]] {
            assert_eq!(comes(&keys, signature, pieces), Ok(()));
        }
        assert_eq!(comes(&keys, signature, &LIST.chunks(1).collect::<Vec<_>>()), Ok(()));
        // Cut off, longer, out of order, twice the same after a break, something else, nothing.
        let others = [&[first, &rest[..last - 7]][..], &[LIST, b"\n"], &[rest, first], &[first, first, rest], &[&KEYS[..9]], &[]];
        for pieces in others {
            assert!(matches!(comes(&keys, signature, pieces), Err(Wrong::Differs(_))), "{pieces:?}");
        }
    }
}

#[test]
fn what_counts_for_nothing_that_may_come_is_refused_before_it_does() {
    let keys = keys();
    let before = |signature: &[u8], now| keys.coming(signature, now).map(drop);
    let stranger = strangers();
    assert!(matches!(before(&stranger, MADE), Err(Wrong::OtherKey(_))));
    assert!(matches!(before(BY_RSA, MADE - 1), Err(Wrong::Key(_, Unusable::Early))));
    assert_eq!(before(&armour::signed(SIGNED).unwrap().signature, MADE), Err(Wrong::Kind(1)));
    assert_eq!(before(OTHER, MADE), Err(Wrong::AllAtOnce));
    for file in [&[][..], SIGNED, LIST, &BY_RSA[..BY_RSA.len() - 1], &[BY_RSA, b"x"].concat(), &BY_RSA.repeat(17)] {
        assert!(matches!(before(file, MADE), Err(Wrong::Form(..))), "{}", String::from_utf8_lossy(file));
    }
    for (at, to) in [(2, 17), (3, 1), (3, 2), (3, 11)] {
        let mut other = packets(BY_RSA);
        other[0].1[at] = to;
        assert!(matches!(before(&joined(&other), MADE), Err(Wrong::Method(_))), "{at}: {to}");
    }
    // One that may count is enough: of a stranger's and two of keys that were given, of which one is of something else.
    let mut damaged = packets(BY_RSA);
    *damaged[0].1.last_mut().unwrap() ^= 1;
    let (damaged, by_ed) = (joined(&damaged), armour::signature(BY_ED).unwrap());
    for order in [[&stranger, &damaged, &by_ed], [&by_ed, &damaged, &stranger]] {
        assert_eq!(comes(&keys, &order.map(Vec::as_slice).concat(), &[LIST]), Ok(()));
    }
    for order in [[&stranger, &damaged], [&damaged, &stranger]] {
        assert!(matches!(comes(&keys, &order.map(Vec::as_slice).concat(), &[LIST]), Err(Wrong::Differs(_))));
    }
}

#[test]
fn a_key_counts_only_as_its_owner_says() {
    let all = packets(&armour::keys(KEYS).unwrap());
    // RSA: key, user, signature; Ed25519: the same, and a subkey with its binding.
    assert_eq!(all.iter().map(|(tag, _)| *tag).collect::<Vec<_>>(), [6, 13, 2, 6, 13, 2, 14, 2]);
    let with = |packets: &[(u8, Vec<u8>)], signature: &[u8]| {
        Keys::parse(&joined(packets), MADE).and_then(|keys| keys.detached(signature, LIST, MADE))
    };
    let why = |result: Result<(), Wrong>| match result {
        Err(Wrong::Key(_, why)) => why,
        other => panic!("{other:?}"),
    };
    assert_eq!(with(&all[..3], BY_RSA), Ok(()));
    assert_eq!(with(&all[3..], BY_ED), Ok(()));
    // Unless it says who it is, and what the subkey is for.
    assert_eq!(why(with(&all[..2], BY_RSA)), Unusable::NoWord);
    assert_eq!(why(with(&all[3..7], BY_ED)), Unusable::NoWord);
    // By another user's signature, or for another user.
    let other = [&all[..1], &[(13, b"other".to_vec())], &all[2..3]].concat();
    assert_eq!(why(with(&other, BY_RSA)), Unusable::NoWord);
    // The other key's subkey is nobody's here, nor is its primary one to sign files.
    assert_eq!(why(with(&[&all[..3], &all[6..]].concat(), BY_ED)), Unusable::NoWord);
    // Each that is taken back, by whoever.
    for (kind, at) in [(0x20, 1), (0x20, 3)] {
        let mut revoked = all[..3].to_vec();
        let mut signature = all[2].1.clone();
        signature[1] = kind;
        revoked.insert(at, (2, signature));
        assert_eq!(why(with(&revoked, BY_RSA)), Unusable::Revoked);
    }
    let mut revoked = all[3..].to_vec();
    let mut signature = all[7].1.clone();
    signature[1] = 0x28;
    revoked.push((2, signature));
    assert_eq!(why(with(&revoked, BY_ED)), Unusable::Revoked);
    // What is no such file.
    for wrong in [&all[1..], &[(5, all[0].1.clone())], &[(11, Vec::new())], &[(6, vec![6; 40])], &[]] {
        assert!(Keys::parse(&joined(wrong), MADE).is_err(), "{wrong:?}");
    }
    assert_eq!(Keys::parse(b"-----BEGIN PGP PRIVATE KEY BLOCK-----\n", MADE).unwrap_err(), Wrong::Secret);
}

#[test]
fn the_key_that_comes_with_a_template_counts() {
    let file = include_bytes!("../../../packaging/templates/keys/ubuntu-cloud.key");
    let keys = Keys::parse(file, MADE).unwrap();
    // What another key signed, in its name: it is refused for that, not for what the key is.
    let mut forged = packets(BY_RSA);
    let (other, own) = (hex("A1C1FAA6FEDFCD37844F5F1549020498CFFCEE0D"), hex("D2EB44626FDDC30B513D5BB71A5D6C4C7DB87C81"));
    let at = forged[0].1.windows(20).position(|bytes| bytes == other).unwrap();
    forged[0].1[at..at + 20].copy_from_slice(&own);
    let why = keys.detached(&joined(&forged), LIST, MADE);
    assert_eq!(why, Err(Wrong::Differs("D2EB44626FDDC30B513D5BB71A5D6C4C7DB87C81".to_owned())));
}

#[test]
fn every_packet_that_is_cut_off_is_refused() {
    let keys = keys();
    for length in 0..BY_RSA.len() {
        assert!(keys.detached(&BY_RSA[..length], LIST, MADE).is_err(), "{length}");
    }
    let all = armour::keys(KEYS).unwrap();
    for length in 0..all.len() {
        let _ = Keys::parse(&all[..length], MADE).map(|keys| keys.detached(BY_ED, LIST, MADE).unwrap_err());
    }
    // Lengths that are not known.
    for head in [[0xc2, 0xe0], [0x8b, 0]] {
        assert!(keys.detached(&[&head[..], &BY_RSA[3..]].concat(), LIST, MADE).is_err());
    }
}

#[test]
fn conditions_that_are_not_known_are_refused() {
    let body = packets(BY_RSA)[0].1.clone();
    let length = usize::from(u16::from_be_bytes([body[4], body[5]]));
    let with = |more: &[u8]| {
        let hashed = [&body[6..6 + length], more].concat();
        [&body[..4], &u16::try_from(hashed.len()).unwrap().to_be_bytes(), &hashed, &body[6 + length..]].concat()
    };
    assert!(packet::Signature::parse(&with(&[])).is_ok());
    assert!(packet::Signature::parse(&with(&[2, 26, 0])).is_ok());
    assert_eq!(packet::Signature::parse(&with(&[2, 26 | 0x80, 0])).unwrap_err(), Wrong::Critical(26));
    assert!(packet::Signature::parse(&with(&[2, 23 | 0x80, 0])).is_ok());
    for damaged in [&[0][..], &[9, 26], &[4, 2, 0, 0, 0], &[6, 3, 0, 0, 0, 0, 0], &[255]] {
        assert!(packet::Signature::parse(&with(damaged)).is_err(), "{damaged:?}");
    }
    let version = [&[3], &body[1..]].concat();
    assert_eq!(packet::Signature::parse(&version).unwrap_err(), Wrong::Version(SIGNATURE, 3));
    for (at, to) in [(2, 17), (3, 1), (3, 11)] {
        let mut other = body.clone();
        other[at] = to;
        assert!(matches!(packet::Signature::parse(&other), Err(Wrong::Method(_))));
    }
}

proptest! {
    // Of RSA each takes a while, as it is slow and plain.
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn what_comes_piece_by_piece_is_taken_as_what_is_there_is(of: bool, at: Index, bit in 0u8..8, changed: bool) {
        let (keys, mut file) = (keys(), if of { BY_RSA.to_vec() } else { armour::signature(BY_ED).unwrap() });
        let at = at.index(file.len());
        file[at] ^= u8::from(changed) << bit;
        // RSA is ring's for the one, and of `signature/rsa.rs` for the other.
        prop_assert_eq!(comes(&keys, &file, &[LIST]).is_ok(), keys.detached(&file, LIST, MADE).is_ok());
    }
}

proptest! {
    #[test]
    fn no_changed_bit_is_taken(of: bool, at: Index, bit in 0u8..8) {
        let (keys, original) = (keys(), if of { BY_RSA.to_vec() } else { armour::signature(BY_ED).unwrap() });
        let mut file = original.clone();
        let at = at.index(file.len());
        file[at] ^= 1 << bit;
        // Beside what is signed stand its length's form, the issuer's name and two bytes of the sum.
        let taken = keys.detached(&file, LIST, MADE).is_ok();
        let (old, new) = (packets(&original), packets(&file));
        let itself = |packets: &[(u8, Vec<u8>)]| packet::Signature::parse(&packets[0].1).unwrap().itself.to_vec();
        let same = taken && new.len() == 1 && itself(&new) == itself(&old);
        prop_assert!(!taken || same);
    }

    #[test]
    fn no_changed_bit_of_a_key_makes_another_of_it(at: Index, bit in 0u8..8) {
        let mut all = packets(&armour::keys(KEYS).unwrap());
        let at = at.index(all[0].1.len());
        all[0].1[at] ^= 1 << bit;
        let keys = Keys::parse(&joined(&all), MADE);
        prop_assert!(keys.clone().and_then(|keys| keys.detached(BY_RSA, LIST, MADE)).is_err());
        prop_assert!(keys.and_then(|keys| comes(&keys, BY_RSA, &[LIST])).is_err());
    }

    #[test]
    fn any_file_is_read(file in proptest::collection::vec(any::<u8>(), 0..300), tag in 0u8..64) {
        let keys = keys();
        for file in [file.clone(), joined(&[(tag, file)])] {
            let _ = keys.detached(&file, LIST, MADE);
            let _ = keys.inline(&file, MADE);
            let _ = comes(&keys, &file, &[LIST]);
            let _ = Keys::parse(&file, MADE);
        }
    }

    #[test]
    fn any_text_is_read(lines in proptest::collection::vec("(-----(BEGIN|END) PGP (SIGNATURE|SIGNED MESSAGE|PUBLIC KEY BLOCK)-----|[-=a-zA-Z: ]{0,9})", 0..12)) {
        let (keys, text) = (keys(), lines.join("\n"));
        let _ = keys.detached(text.as_bytes(), LIST, MADE);
        let _ = keys.inline(text.as_bytes(), MADE);
        let _ = Keys::parse(text.as_bytes(), MADE);
    }
}
