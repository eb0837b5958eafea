//! The login phase (RFC 7143, sections 6 and 13): who we are, what for, CHAP if the target wants it, and what both can. Pure.

use crate::pdu::{self, Header, Unit};
use md5::{Digest, Md5};
use skep_proto::iscsi::{Chap, LoginOrder};
use skep_proto::{Reason, Refusal};

/// Stages: security, what both can, and full features.
const SECURITY: u8 = 0;
const OPERATIONAL: u8 = 1;
const FULL: u8 = 3;
/// Asks for the next stage.
const TRANSIT: u8 = 0x80;
/// More of this text is to come.
const CONTINUE: u8 = 0x40;
/// Turns that a login may take.
const TURNS: u32 = 32;
/// Bytes of text that a target may send in one turn.
const LONGEST: usize = 64 << 10;
/// The number of the first command.
const FIRST: u32 = 1;
/// Bytes that a target takes in one unit if it says nothing.
const DEFAULT: usize = 8192;
/// Bytes of one burst, and of what goes with a command at once.
const BURST: usize = 1 << 20;
const AT_ONCE: usize = 64 << 10;

/// What was agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Agreed {
    /// Bytes of data that the target takes in one unit.
    pub unit: usize,
    /// Bytes of data that go with a command.
    pub at_once: usize,
    /// The number of the next command.
    pub command: u32,
    /// The status that is to come next.
    pub status: u32,
    /// The last command that the target takes now.
    pub most: u32,
}

/// What a step of the login leads to.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// These bytes are to be sent.
    Send(Vec<u8>),
    /// It is done.
    Done(Agreed),
}

/// A login under way.
#[derive(Debug)]
pub struct Login<'a> {
    order: &'a LoginOrder,
    stage: u8,
    session: [u8; 2],
    status: Option<u32>,
    turns: u32,
    heard: Vec<u8>,
    /// CHAP was answered: the target has to be content now.
    answered: bool,
    said: bool,
    unit: usize,
    first: usize,
    immediate: bool,
}

fn refuse(reason: Reason, order: &LoginOrder, note: impl std::fmt::Display) -> Refusal {
    Refusal::new(reason, format_args!("target {}", order.target)).note(format_args!("{}: {note}", order.portal))
}

impl<'a> Login<'a> {
    /// Begins; the bytes are to be sent first.
    pub fn new(order: &'a LoginOrder) -> (Self, Vec<u8>) {
        let mut login = Self {
            order,
            stage: SECURITY,
            session: [0; 2],
            status: None,
            turns: 0,
            heard: Vec::new(),
            answered: false,
            said: false,
            unit: DEFAULT,
            first: AT_ONCE,
            immediate: true,
        };
        let method = if order.chap.is_some() { "CHAP,None" } else { "None" };
        let pairs = [
            ("InitiatorName", order.initiator.to_string()),
            ("TargetName", order.target.to_string()),
            ("SessionType", "Normal".to_owned()),
            ("AuthMethod", method.to_owned()),
        ];
        // Who has nothing to show asks for the next stage at once.
        let bytes = login.say(&pairs, order.chap.is_none());
        (login, bytes)
    }

    fn say(&mut self, pairs: &[(&str, String)], transit: bool) -> Vec<u8> {
        let next = if self.stage == SECURITY { OPERATIONAL } else { FULL };
        let flags = if transit { TRANSIT | self.stage << 2 | next } else { self.stage << 2 };
        let header = Header::new(pdu::to::LOGIN | pdu::to::IMMEDIATE, flags)
            .with(8, &self.order.isid)
            .with(14, &self.session)
            .number(16, 1)
            .number(24, FIRST)
            .number(28, self.status.map_or(0, |n| n.wrapping_add(1)));
        let mut out = Vec::new();
        pdu::write(&mut out, header, &pdu::text(pairs));
        out
    }

    fn strange(&self, what: impl std::fmt::Display) -> Refusal {
        refuse(Reason::Unavailable, self.order, format_args!("{what}; this is no login as RFC 7143 has it"))
    }

    /// A unit came.
    pub fn hear(&mut self, unit: &Unit) -> Result<Step, Refusal> {
        let header = &unit.header;
        self.turns += 1;
        if header.operation() != pdu::from::LOGIN || self.turns > TURNS || self.heard.len() + unit.data.len() > LONGEST {
            return Err(self.strange(format_args!("it answered with operation {:#04x}", header.operation())));
        }
        let (class, detail) = (header.byte(36), header.byte(37));
        if class != 0 {
            return Err(self.refused(class, detail));
        }
        self.status = Some(header.get(24));
        self.session.copy_from_slice(header.bytes(14..16));
        self.heard.extend_from_slice(&unit.data);
        let flags = header.byte(1);
        if flags & CONTINUE != 0 {
            return Ok(Step::Send(self.say(&[], false)));
        }
        if flags >> 2 & 3 != self.stage {
            return Err(self.strange("it is in another stage"));
        }
        let pairs = pdu::pairs(&std::mem::take(&mut self.heard));
        if self.stage == SECURITY {
            let bytes = self.security(&pairs, flags)?;
            return Ok(Step::Send(bytes));
        }
        for (key, value) in &pairs {
            self.agree(key, value)?;
        }
        if flags & TRANSIT != 0 && flags & 3 == FULL {
            let at_once = if self.immediate { self.first.min(self.unit) } else { 0 };
            let status = header.get(24).wrapping_add(1);
            return Ok(Step::Done(Agreed { unit: self.unit, at_once, command: FIRST, status, most: header.get(32) }));
        }
        Ok(Step::Send(self.operational()))
    }

    fn security(&mut self, pairs: &[(String, String)], flags: u8) -> Result<Vec<u8>, Refusal> {
        let get = |key: &str| pairs.iter().find(|(there, _)| there == key).map(|(_, value)| value.as_str());
        if flags & TRANSIT != 0 {
            if flags & 3 != OPERATIONAL {
                return Err(self.strange("it leaves out what both can"));
            }
            self.stage = OPERATIONAL;
            return Ok(self.operational());
        }
        let Some(Chap { user, secret }) = &self.order.chap else {
            return Err(self.unknown_user());
        };
        if let Some(challenge) = get("CHAP_C") {
            let id = get("CHAP_I").and_then(|id| id.parse::<u8>().ok());
            let challenge = binary(challenge).filter(|bytes| !bytes.is_empty() && bytes.len() <= 1024);
            let (Some(id), Some(challenge), false) = (id, challenge, self.answered) else {
                return Err(self.strange("it sent no challenge that can be answered"));
            };
            self.answered = true;
            let mut hashed = vec![id];
            hashed.extend_from_slice(secret.expose().as_bytes());
            hashed.extend_from_slice(&challenge);
            let answer = Md5::digest(&hashed).iter().fold("0x".to_owned(), |text, byte| text + &format!("{byte:02x}"));
            // A String takes everything; what was hashed goes with its memory.
            hashed.fill(0);
            return Ok(self.say(&[("CHAP_N", user.to_string()), ("CHAP_R", answer)], true));
        }
        match get("AuthMethod") {
            Some("CHAP") => Ok(self.say(&[("CHAP_A", "5".to_owned())], false)),
            Some("None") => Ok(self.say(&[], true)),
            Some(other) => Err(self.strange(format_args!("it wants {other} of us"))),
            None => Err(self.strange("it does not say how it knows us")),
        }
    }

    fn unknown_user(&self) -> Refusal {
        let note = "it wants CHAP: give the disk a user and a secret (--chap-user, --chap-secret-file)";
        refuse(Reason::PermissionDenied, self.order, note).field("chap")
    }

    /// What we can, once; nothing after that.
    fn operational(&mut self) -> Vec<u8> {
        if std::mem::replace(&mut self.said, true) {
            return self.say(&[], true);
        }
        let yes = || "Yes".to_owned();
        let pairs = [
            ("HeaderDigest", "None".to_owned()),
            ("DataDigest", "None".to_owned()),
            ("MaxRecvDataSegmentLength", pdu::MOST.to_string()),
            ("MaxBurstLength", BURST.to_string()),
            ("FirstBurstLength", AT_ONCE.to_string()),
            ("InitialR2T", yes()),
            ("ImmediateData", yes()),
            ("MaxConnections", "1".to_owned()),
            ("MaxOutstandingR2T", "1".to_owned()),
            ("DataPDUInOrder", yes()),
            ("DataSequenceInOrder", yes()),
            ("ErrorRecoveryLevel", "0".to_owned()),
            ("DefaultTime2Wait", "0".to_owned()),
            ("DefaultTime2Retain", "0".to_owned()),
        ];
        self.say(&pairs, true)
    }

    fn agree(&mut self, key: &str, value: &str) -> Result<(), Refusal> {
        let number = || value.parse::<usize>().ok().filter(|n| (512..1 << 24).contains(n));
        let wrong = || self.strange(format_args!("{key} is {value}"));
        match key {
            "MaxRecvDataSegmentLength" => self.unit = number().ok_or_else(wrong)?.min(BURST),
            "FirstBurstLength" => self.first = number().ok_or_else(wrong)?.min(AT_ONCE),
            "ImmediateData" => self.immediate = value == "Yes",
            "HeaderDigest" | "DataDigest" if value != "None" => return Err(wrong()),
            _ => {}
        }
        Ok(())
    }

    /// What a status means (RFC 7143, 11.13.5).
    fn refused(&self, class: u8, detail: u8) -> Refusal {
        let (reason, note) = match (class, detail) {
            (1, _) => (Reason::Unsupported, "it sends us to another portal: give that one to the disk (--portal)"),
            (2, 1) if self.order.chap.is_none() => return self.unknown_user(),
            (2, 1) => {
                let refusal = refuse(Reason::PermissionDenied, self.order, "it refuses the user or the secret of CHAP");
                return refusal.field("chap");
            }
            (2, 2) => (Reason::PermissionDenied, "it does not let this initiator in; `skep disk show` has its name"),
            (2, 3) => (Reason::NotFound, "it has no such target"),
            (2, 4) => (Reason::NotFound, "the target was removed"),
            (2, 6) => (Reason::LimitReached, "it takes no more connections"),
            (3, _) => (Reason::Unavailable, "the target has no room, or is being served no more; try again later"),
            _ => {
                return refuse(
                    Reason::Unavailable,
                    self.order,
                    format_args!("it refuses the login with status {class}/{detail}"),
                );
            }
        };
        refuse(reason, self.order, note)
    }
}

/// Binary text (RFC 7143, 6.1): `0x…`, or `0b…` in base 64.
fn binary(text: &str) -> Option<Vec<u8>> {
    let (kind, digits) = text.split_at_checked(2)?;
    let nibble = |c: u8| char::from(c).to_digit(16).and_then(|n| u8::try_from(n).ok());
    match kind {
        "0x" | "0X" => {
            let digits: Option<Vec<u8>> = digits.bytes().map(nibble).collect();
            let mut digits = digits?;
            if digits.len() % 2 == 1 {
                digits.insert(0, 0);
            }
            Some(digits.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect())
        }
        "0b" | "0B" => base64(digits.trim_end_matches('=')),
        _ => None,
    }
}

fn base64(digits: &str) -> Option<Vec<u8>> {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bytes, mut bits, mut held) = (Vec::new(), 0u32, 0);
    for digit in digits.bytes() {
        bits = bits << 6 | u32::try_from(ALPHABET.iter().position(|c| *c == digit)?).ok()?;
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push(u8::try_from(bits >> held & 0xff).ok()?);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use crate::pdu::{Reader, pairs};

    pub(crate) fn order(chap: bool) -> LoginOrder {
        LoginOrder {
            initiator: "iqn.2026-11.internal.skep:test".parse().unwrap(),
            isid: [0x80, 1, 2, 3, 4, 5],
            portal: "192.0.2.1:3260".parse().unwrap(),
            target: "iqn.2001-04.com.example:storage.disk1".parse().unwrap(),
            lun: 0,
            chap: chap.then(|| Chap { user: "joe".parse().unwrap(), secret: "very secret".parse().unwrap() }),
        }
    }

    fn unit(bytes: &[u8]) -> Unit {
        let mut reader = Reader::default();
        reader.feed(bytes);
        reader.unit().unwrap().unwrap()
    }

    fn reply(flags: u8, status: [u8; 2], text: &[(&str, String)]) -> Unit {
        let mut bytes = Vec::new();
        let header = Header::new(pdu::from::LOGIN, flags).with(14, &[0, 9]).number(24, 4).number(32, 40).with(36, &status);
        pdu::write(&mut bytes, header, &pdu::text(text));
        unit(&bytes)
    }

    fn text(key: &'static str, value: &str) -> (&'static str, String) {
        (key, value.to_owned())
    }

    #[test]
    fn a_login_without_chap_takes_two_turns() {
        let order = order(false);
        let (mut login, first) = Login::new(&order);
        let first = unit(&first);
        assert_eq!((first.header.byte(0), first.header.byte(1)), (0x43, 0x81));
        assert!(pairs(&first.data).contains(&("AuthMethod".to_owned(), "None".to_owned())));
        let Step::Send(second) = login.hear(&reply(0x81, [0, 0], &[])).unwrap() else { panic!() };
        let second = unit(&second);
        assert_eq!((second.header.byte(1), second.header.bytes(14..16), second.header.get(28)), (0x87, &[0, 9][..], 5));
        let said = [text("MaxRecvDataSegmentLength", "16384"), text("ImmediateData", "Yes"), text("FirstBurstLength", "32768")];
        let Step::Done(agreed) = login.hear(&reply(0x87, [0, 0], &said)).unwrap() else { panic!() };
        assert_eq!(agreed, Agreed { unit: 16384, at_once: 16384, command: 1, status: 5, most: 40 });
    }

    #[test]
    fn chap_is_answered_and_refusals_say_what_to_do() {
        let order = self::order(true);
        let (mut login, first) = Login::new(&order);
        assert_eq!(unit(&first).header.byte(1), 0);
        let Step::Send(offer) = login.hear(&reply(0, [0, 0], &[text("AuthMethod", "CHAP")])).unwrap() else { panic!() };
        assert_eq!(pairs(&unit(&offer).data), [("CHAP_A".to_owned(), "5".to_owned())]);
        let challenge = [text("CHAP_A", "5"), text("CHAP_I", "7"), text("CHAP_C", "0x0102")];
        let Step::Send(answer) = login.hear(&reply(0, [0, 0], &challenge)).unwrap() else { panic!() };
        let answer = pairs(&unit(&answer).data);
        let digest = Md5::digest(b"\x07very secret\x01\x02").iter().map(|b| format!("{b:02x}")).collect::<String>();
        assert_eq!(answer, [("CHAP_N".to_owned(), "joe".to_owned()), ("CHAP_R".to_owned(), format!("0x{digest}"))]);
        // A second challenge would have a target ask for as many answers as it likes.
        assert!(login.hear(&reply(0, [0, 0], &challenge)).is_err());
        let refused = Login::new(&order).0.hear(&reply(0, [2, 1], &[])).unwrap_err();
        assert_eq!((refused.reason, refused.field.as_str()), (Reason::PermissionDenied, "chap"));
        assert!(!refused.to_string().contains("very secret"));
        let open = self::order(false);
        let wanted = Login::new(&open).0.hear(&reply(0, [0, 0], &[text("AuthMethod", "CHAP")])).unwrap_err();
        assert!(wanted.to_string().contains("--chap-user"), "{wanted}");
        assert_eq!(Login::new(&open).0.hear(&reply(0, [2, 3], &[])).unwrap_err().reason, Reason::NotFound);
    }

    #[test]
    fn binary_text_is_read_in_both_forms() {
        assert_eq!(binary("0xABc"), Some(vec![0x0a, 0xbc]));
        assert_eq!(binary("0bAQID"), Some(vec![1, 2, 3]));
        assert_eq!(binary("0bAQI="), Some(vec![1, 2]));
        assert_eq!((binary("12"), binary("0xg"), binary("")), (None, None, None));
    }

    proptest::proptest! {
        #[test]
        fn whatever_a_target_says_ends(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 48..300)) {
            let order = order(true);
            let (mut login, _) = Login::new(&order);
            let mut reader = Reader::default();
            reader.feed(&bytes);
            while let Ok(Some(unit)) = reader.unit() {
                let _ = login.hear(&unit);
            }
            let _ = binary(&String::from_utf8_lossy(&bytes));
        }
    }
}
