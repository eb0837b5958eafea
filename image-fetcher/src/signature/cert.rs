//! OpenPGP's keys (version 4): which of a file's may sign, and whether one of them has.

use super::packet::{Bytes, Hash, Issuer, Signature, Value};
use super::{KEY, SIGNATURE, Unusable, Wrong, days, rsa};
use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, digest};
use ring::signature::{ED25519, RsaPublicKeyComponents, UnparsedPublicKey};

/// Kinds of signatures: over a file; over text, with line ends of CR and LF.
pub const BINARY: u8 = 0x00;
/// See [`BINARY`].
pub const TEXT: u8 = 0x01;
const USERS: std::ops::RangeInclusive<u8> = 0x10..=0x13;
const SUBKEY: u8 = 0x18;
const BY_SUBKEY: u8 = 0x19;
const DIRECT: u8 = 0x1f;
const REVOKED: u8 = 0x20;
const SUBKEY_REVOKED: u8 = 0x28;
/// The flag of a key that files are signed with.
const SIGNS: u8 = 0x02;
/// The curve's name in keys of the older kind.
const ED25519_OID: &[u8] = b"\x2b\x06\x01\x04\x01\xda\x47\x0f\x01";
/// Signatures of a file that are looked at, at most.
const SIGNATURES: usize = 16;

#[derive(Debug, Clone)]
enum Public {
    Rsa(RsaPublicKeyComponents<Vec<u8>>),
    Edwards([u8; 32]),
    /// By this name nothing is verified.
    Other(String),
}

/// A public key, whatever it is for.
#[derive(Debug, Clone)]
pub(super) struct Key {
    /// What is summed up of it.
    framed: Vec<u8>,
    fingerprint: [u8; 20],
    created: u32,
    public: Public,
}

impl Key {
    fn parse(body: &[u8]) -> Result<Self, Wrong> {
        let cut = || Wrong::Form(KEY, "a key in it is cut off");
        let mut rest = Bytes(body);
        match rest.u8().ok_or_else(cut)? {
            4 => {}
            other => return Err(Wrong::Version(KEY, other)),
        }
        let created = rest.u32().ok_or_else(cut)?;
        let public = match rest.u8().ok_or_else(cut)? {
            1 | 3 => {
                let (n, e) = (rest.number().ok_or_else(cut)?, rest.number().ok_or_else(cut)?);
                match n.len() {
                    256..=1024 => Public::Rsa(RsaPublicKeyComponents { n: n.to_vec(), e: e.to_vec() }),
                    bytes => Public::Other(format!("RSA of about {} bits", bytes * 8)),
                }
            }
            22 => {
                let length = usize::from(rest.u8().ok_or_else(cut)?);
                let curve = rest.take(length).ok_or_else(cut)?;
                let point = rest.number().ok_or_else(cut)?;
                // The byte before it says that it is in the curve's own form.
                match point.strip_prefix(&[0x40]).and_then(|point| point.try_into().ok()) {
                    Some(point) if curve == ED25519_OID => Public::Edwards(point),
                    _ => Public::Other("EdDSA of another curve than Ed25519".to_owned()),
                }
            }
            27 => Public::Edwards(rest.array().ok_or_else(cut)?),
            17 => Public::Other("DSA".to_owned()),
            19 => Public::Other("ECDSA".to_owned()),
            other => Public::Other(format!("public-key algorithm {other}")),
        };
        if !rest.0.is_empty() && !matches!(public, Public::Other(_)) {
            return Err(Wrong::Form(KEY, "more follows a key in it"));
        }
        let length = u16::try_from(body.len()).map_err(|_| Wrong::Form(KEY, "a key in it is too long"))?;
        let framed = [&[0x99], &length.to_be_bytes()[..], body].concat();
        // Fingerprints of this version are SHA-1. To have another key of the same one takes more than a collision.
        let fingerprint = digest(&SHA1_FOR_LEGACY_USE_ONLY, &framed).as_ref().try_into().map_err(|_| cut())?;
        Ok(Self { framed, fingerprint, created, public })
    }

    /// Whether it has made this signature over these parts, one behind the other.
    fn made(&self, signature: &Signature<'_>, parts: &[&[u8]]) -> bool {
        let message = [&parts.concat()[..], &signature.end()].concat();
        match (&self.public, signature.value) {
            (Public::Rsa(key), Value::Rsa(value)) => {
                let Some(zeros) = key.n.len().checked_sub(value.len()) else { return false };
                let value = [&vec![0; zeros][..], value].concat();
                key.verify(signature.hash.rsa(), &message, &value).is_ok()
            }
            (Public::Edwards(point), Value::Edwards(value)) => {
                let sum = digest(signature.hash.digest(), &message);
                UnparsedPublicKey::new(&ED25519, point).verify(sum.as_ref(), &value).is_ok()
            }
            _ => false,
        }
    }

    /// Whether it has made this signature over what was summed up, by the signature's hash.
    pub(super) fn made_of(&self, signature: &Signature<'_>, mut sum: Context) -> bool {
        sum.update(&signature.end());
        let sum = sum.finish();
        match (&self.public, signature.value) {
            (Public::Rsa(key), Value::Rsa(value)) => rsa::verify(&key.n, &key.e, signature.hash, sum.as_ref(), value),
            (Public::Edwards(point), Value::Edwards(value)) => {
                UnparsedPublicKey::new(&ED25519, point).verify(sum.as_ref(), &value).is_ok()
            }
            _ => false,
        }
    }
}

/// A key that may have signed something.
#[derive(Debug, Clone)]
pub struct Signer {
    key: Key,
    /// When it ends: seconds since 1970.
    ends: Option<u64>,
    /// Why nothing of it counts.
    unusable: Option<Unusable>,
}

/// What signatures in a file of keys are over.
enum Subject {
    Primary,
    /// A user or his picture, as it is summed up.
    User(Vec<u8>),
    Subkey(Key),
}

/// A key with what is said of it.
struct Cert<'a> {
    primary: Key,
    said: Vec<(Subject, Vec<&'a [u8]>)>,
}

/// The kind of a signature, also of one that is not understood.
fn kind(body: &[u8]) -> Option<u8> {
    match body {
        // Of version 3 and older it stands one byte later.
        [0..=3, _, kind, ..] => Some(*kind),
        [_, kind, ..] => Some(*kind),
        _ => None,
    }
}

/// When something ends that was made then and lasts so long, in seconds; 0: for ever.
fn end(created: u32, lasts: u32) -> Option<u64> {
    (lasts > 0).then(|| u64::from(created) + u64::from(lasts))
}

/// The keys in a file, not armoured, as they are `now`.
///
/// # Errors
/// It is something else, or holds a secret key.
pub fn parse(file: &[u8], now: u64) -> Result<Vec<Signer>, Wrong> {
    let form = |why| Wrong::Form(KEY, why);
    let (mut rest, mut certs) = (Bytes(file), Vec::<Cert<'_>>::new());
    while !rest.0.is_empty() {
        let packet = rest.packet().ok_or(form("it is not made of whole packets"))?;
        let user = |mark: u8| {
            let length = u32::try_from(packet.body.len()).unwrap_or(u32::MAX).to_be_bytes();
            Subject::User([&[mark], &length[..], packet.body].concat())
        };
        let subject = match packet.tag {
            6 => {
                certs.push(Cert { primary: Key::parse(packet.body)?, said: vec![(Subject::Primary, Vec::new())] });
                continue;
            }
            14 => Subject::Subkey(Key::parse(packet.body)?),
            13 => user(0xb4),
            17 => user(0xd1),
            2 => {
                let last = certs.last_mut().and_then(|cert| cert.said.last_mut()).ok_or(form("it begins with a signature"))?;
                last.1.push(packet.body);
                continue;
            }
            5 | 7 => return Err(Wrong::Secret),
            // Marks, and what GnuPG notes for itself.
            10 | 12 => continue,
            _ => return Err(form("it holds something that belongs to no key")),
        };
        certs.last_mut().ok_or(form("it does not begin with a key"))?.said.push((subject, Vec::new()));
    }
    Ok(certs.into_iter().flat_map(|cert| cert.signers(now)).collect())
}

impl Cert<'_> {
    /// Its keys, and what is to be said against each.
    fn signers(self, now: u64) -> Vec<Signer> {
        let primary = &self.primary;
        // Whoever made it and wherever it stands: who doubts a key asks its owner.
        let revoked = self.said.iter().flat_map(|(_, signatures)| signatures).any(|body| kind(body) == Some(REVOKED));
        let own = self.own(now);
        let ends = own.as_ref().and_then(|(lasts, _)| end(primary.created, *lasts));
        let method = |key: &Key| match &key.public {
            Public::Other(name) => Some(Unusable::Method(name.clone())),
            _ => None,
        };
        let whole = method(primary).or(revoked.then_some(Unusable::Revoked)).or(own.is_none().then_some(Unusable::NoWord));
        let signs = |flags: Option<u8>| flags.is_none_or(|flags| flags & SIGNS != 0);
        let mute = own.is_some_and(|(_, flags)| !signs(flags)).then_some(Unusable::NotForThis);
        let mut all = vec![Signer { key: primary.clone(), ends, unusable: whole.clone().or(mute) }];
        for (subject, signatures) in &self.said {
            let Subject::Subkey(key) = subject else { continue };
            let revoked = signatures.iter().any(|body| kind(body) == Some(SUBKEY_REVOKED));
            let bound = newest(signatures.iter().filter_map(|body| {
                let signature = Signature::parse(body).ok()?;
                let good = signature.kind == SUBKEY && signature.hash != Hash::Sha1 && current(&signature, now);
                (good && primary.made(&signature, &[&primary.framed, &key.framed])).then_some(signature)
            }));
            let wrong = match &bound {
                _ if whole.is_some() => whole.clone(),
                _ if revoked => Some(Unusable::Revoked),
                None => Some(Unusable::NoWord),
                // One that does not say so is of an older program, which had them encrypt.
                Some(signature) if signature.flags.is_none_or(|flags| flags & SIGNS == 0) => Some(Unusable::NotForThis),
                Some(signature) if !answered(primary, key, signature) => Some(Unusable::NoWord),
                Some(_) => method(key),
            };
            let its = bound.and_then(|signature| end(key.created, signature.key_lasts));
            let ends = [ends, its].into_iter().flatten().min();
            all.push(Signer { key: key.clone(), ends, unusable: wrong });
        }
        all
    }

    /// What the key says of itself: how long it lasts, and what it is for. Where it says so in a way that nobody else can, that counts;
    /// what is left of older days (SHA-1) is believed too, as it only takes away.
    fn own(&self, now: u64) -> Option<(u32, Option<u8>)> {
        let primary = &self.primary;
        let signatures = self.said.iter().flat_map(|(subject, signatures)| signatures.iter().map(move |body| (subject, body)));
        let own = signatures.filter_map(|(subject, body)| {
            let signature = Signature::parse(body).ok()?;
            let own = signature.issuer.is_some_and(|issuer| issuer.is(&primary.fingerprint)) && current(&signature, now);
            let made = match subject {
                Subject::Primary => signature.kind == DIRECT && own && primary.made(&signature, &[&primary.framed]),
                Subject::User(user) => {
                    USERS.contains(&signature.kind) && own && primary.made(&signature, &[&primary.framed, user])
                }
                Subject::Subkey(_) => false,
            };
            made.then_some(signature)
        });
        newest(own).map(|signature| (signature.key_lasts, signature.flags))
    }
}

/// Whether it is over, or not yet.
fn current(signature: &Signature<'_>, now: u64) -> bool {
    u64::from(signature.created) <= now && end(signature.created, signature.lasts).is_none_or(|end| now < end)
}

/// The last word; what is made with SHA-1 counts only if there is nothing else.
fn newest<'a>(signatures: impl Iterator<Item = Signature<'a>>) -> Option<Signature<'a>> {
    signatures.max_by_key(|signature| (signature.hash != Hash::Sha1, signature.created))
}

/// Whether the subkey has signed in turn that it belongs to this key, so that nobody adorns himself with another's.
fn answered(primary: &Key, key: &Key, binding: &Signature<'_>) -> bool {
    let Some(Ok(signature)) = binding.embedded.map(Signature::parse) else { return false };
    signature.kind == BY_SUBKEY && signature.hash != Hash::Sha1 && key.made(&signature, &[&primary.framed, &key.framed])
}

/// The content of each signature in a file, not armoured.
///
/// # Errors
/// It holds something else, too.
pub fn signatures(file: &[u8]) -> Result<Vec<&[u8]>, Wrong> {
    let form = |why| Wrong::Form(SIGNATURE, why);
    let (mut rest, mut bodies) = (Bytes(file), Vec::new());
    while !rest.0.is_empty() {
        let packet = rest.packet().ok_or(form("it is not made of whole packets"))?;
        match packet.tag {
            2 if bodies.len() < SIGNATURES => bodies.push(packet.body),
            2 => return Err(form("it holds more than 16 signatures")),
            10 => {}
            _ => return Err(form("it holds something else")),
        }
    }
    Ok(bodies)
}

/// Those signatures that are judged well, of which there is at least one.
///
/// # Errors
/// There is none, and why.
pub fn good<'b>(
    bodies: impl IntoIterator<Item = &'b [u8]>, judge: impl Fn(&[u8]) -> Result<(), Wrong>,
) -> Result<Vec<&'b [u8]>, Wrong> {
    let (mut good, mut why) = (Vec::new(), None);
    for body in bodies {
        match judge(body) {
            Ok(()) => good.push(body),
            // What is wrong with a key that was given tells more than that others signed, too.
            Err(wrong) if matches!(why, None | Some(Wrong::OtherKey(_))) => why = Some(wrong),
            Err(_) => {}
        }
    }
    if good.is_empty() { Err(why.unwrap_or(Wrong::Form(SIGNATURE, "it is empty"))) } else { Ok(good) }
}

/// Holds `message` against the signatures in a file, not armoured: one that is good is enough.
///
/// # Errors
/// None of these keys has signed it, or the file holds something else, too.
pub fn check(signers: &[Signer], file: &[u8], kind: u8, message: &[u8], now: u64) -> Result<(), Wrong> {
    let judge = |signer: &Signer, signature: &Signature<'_>| signer.check(signature, now, |key| key.made(signature, &[message]));
    good(signatures(file)?, |body| one(signers, body, kind, judge)).map(drop)
}

/// Asks of those that a signature says have made it whether one has.
///
/// # Errors
/// None has, or it is not one of this kind, or none that counts whoever made it.
pub(super) fn one(
    signers: &[Signer], body: &[u8], kind: u8, judge: impl Fn(&Signer, &Signature<'_>) -> Result<(), Wrong>,
) -> Result<(), Wrong> {
    let signature = Signature::parse(body)?;
    if signature.kind != kind {
        return Err(Wrong::Kind(signature.kind));
    }
    if signature.hash == Hash::Sha1 {
        return Err(Wrong::Method("SHA-1".to_owned()));
    }
    let issuer = signature.issuer.ok_or(Wrong::Form(SIGNATURE, "it does not say which key made it"))?;
    let mut why = Wrong::OtherKey(issuer.to_string());
    // A file may hold a key twice.
    for signer in signers.iter().filter(|signer| issuer.is(&signer.key.fingerprint)) {
        match judge(signer, &signature) {
            Ok(()) => return Ok(()),
            Err(wrong) => why = wrong,
        }
    }
    Err(why)
}

impl Signer {
    fn name(&self) -> String {
        Issuer::Fingerprint(self.key.fingerprint).to_string()
    }

    /// What is to be said against it, if it made this signature (`made`), or against that.
    pub(super) fn check(&self, signature: &Signature<'_>, now: u64, made: impl Fn(&Key) -> bool) -> Result<(), Wrong> {
        self.usable(now)?;
        if !made(&self.key) {
            return Err(Wrong::Differs(self.name()));
        }
        self.in_time(signature, now)
    }

    /// The same, as long as nobody can say whether it made it.
    pub(super) fn may(&self, signature: &Signature<'_>, now: u64) -> Result<(), Wrong> {
        self.usable(now).and_then(|()| self.in_time(signature, now))
    }

    fn usable(&self, now: u64) -> Result<(), Wrong> {
        let unusable = |why| Err(Wrong::Key(self.name(), why));
        if let Some(why) = &self.unusable {
            return unusable(why.clone());
        }
        if u64::from(self.key.created) > now {
            return unusable(Unusable::Early);
        }
        match self.ends.filter(|end| now >= *end) {
            Some(end) => unusable(Unusable::Expired(days(now - end))),
            None => Ok(()),
        }
    }

    fn in_time(&self, signature: &Signature<'_>, now: u64) -> Result<(), Wrong> {
        if u64::from(signature.created) > now {
            return Err(Wrong::Early(self.name()));
        }
        if signature.created < self.key.created {
            return Err(Wrong::OlderThanKey(self.name()));
        }
        match end(signature.created, signature.lasts).filter(|end| now >= *end) {
            Some(end) => Err(Wrong::Expired(self.name(), days(now - end))),
            None => Ok(()),
        }
    }
}
