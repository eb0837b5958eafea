//! Names and texts that are valid by construction, and are checked again when they are decoded.

use crate::ids::InstanceId;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use std::{fmt, str::FromStr};

/// A name that is not acceptable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    /// Rules of names that users give.
    #[error("a {0} name has 1 to 63 of the characters a-z, A-Z, 0-9, '.', '_', '-' and begins with a letter or digit")]
    Name(&'static str),
    /// Rules of shares' names.
    #[error("a share's name has 1 to 31 of the characters a-z, A-Z, 0-9, '.', '_', '-' and begins with a letter or digit")]
    Share,
    /// Rules of interface names.
    #[error("an interface name has 1 to 15 of the characters a-z, A-Z, 0-9, '.', '_', '-'")]
    Interface,
    /// A text that is too long or holds control characters.
    #[error("a text of at most {0} bytes without control characters is expected")]
    Text(usize),
}

macro_rules! validated {
    ($name:ident $(<$(const $n:ident: usize),*>)?, $check:expr) => {
        impl $(<$(const $n: usize),*>)? $name $(<$($n),*>)? {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl $(<$(const $n: usize),*>)? fmt::Display for $name $(<$($n),*>)? {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
        impl $(<$(const $n: usize),*>)? FromStr for $name $(<$($n),*>)? {
            type Err = BadName;
            fn from_str(text: &str) -> Result<Self, BadName> {
                let check: fn(&str) -> Result<(), BadName> = $check;
                check(text).map(|()| Self(text.to_owned()))
            }
        }
        impl $(<$(const $n: usize),*>)? Serialize for $name $(<$($n),*>)? {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                self.0.serialize(s)
            }
        }
        impl<'de $($(, const $n: usize)*)?> Deserialize<'de> for $name $(<$($n),*>)? {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                String::deserialize(d)?.parse().map_err(D::Error::custom)
            }
        }
    };
}

fn user_name(text: &str, what: &'static str) -> Result<(), BadName> {
    let word = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-');
    let first = text.bytes().next().is_some_and(|c| c.is_ascii_alphanumeric());
    if first && text.len() <= 63 && text.bytes().all(word) { Ok(()) } else { Err(BadName::Name(what)) }
}

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident, $what:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);
        validated!($name, |text| user_name(text, $what));
    )*};
}

names! {
    /// What users call a machine.
    MachineName, "machine";
    /// What users call a disk.
    DiskName, "disk";
    /// What users call a snapshot of a disk.
    SnapshotName, "snapshot";
    /// What users call a switch.
    SwitchName, "switch";
    /// What users call a NIC.
    NicName, "nic";
    /// What a user of the API is called.
    UserName, "user";
    /// What users call a group of machines.
    GroupName, "group";
}

/// A directory of the host that its administrator lets machines share; also the tag that the guest mounts it by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShareName(String);
validated!(ShareName, |text| { user_name(text, "share").ok().filter(|()| text.len() <= 31).ok_or(BadName::Share) });

/// A share of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// Which.
    pub name: ShareName,
    /// Whether the guest can only read it.
    pub read_only: bool,
}

/// A network interface on the host (`IFNAMSIZ` less its NUL: 15).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct IfName(String);
validated!(IfName, |text| {
    let word = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-');
    let ok = (1..=15).contains(&text.len()) && text.bytes().all(word) && text != "." && text != "..";
    if ok { Ok(()) } else { Err(BadName::Interface) }
});

impl IfName {
    /// The bridge of the switch with this number: `sk<instance>b<number>`.
    pub fn bridge(instance: InstanceId, number: u16) -> Self {
        Self(format!("sk{instance}b{number}"))
    }
    /// The tap of the NIC with this number: `sk<instance>t<number>`.
    pub fn tap(instance: InstanceId, number: u16) -> Self {
        Self(format!("sk{instance}t{number}"))
    }
    /// The tunnel of the switch with this number: `sk<instance>v<number>`.
    pub fn tunnel(instance: InstanceId, number: u16) -> Self {
        Self(format!("sk{instance}v{number}"))
    }
    /// An interface of WireGuard that is there for a moment, to learn this host's key: `sk<instance>key`.
    pub fn keying(instance: InstanceId) -> Self {
        Self(format!("sk{instance}key"))
    }
    /// The interface of WireGuard that this tunnel goes through: `sk<instance>w<number>`.
    pub fn beneath(&self) -> Self {
        // Behind the last of its letters is its number.
        Self(self.0.rsplit_once('v').map_or_else(|| self.0.clone(), |(front, number)| format!("{front}w{number}")))
    }
    /// The ends of the pair with this number: `sk<instance>p<number>a` and `b`.
    pub fn pair(instance: InstanceId, number: u16) -> [Self; 2] {
        ["a", "b"].map(|end| Self(format!("sk{instance}p{number}{end}")))
    }
    /// Whether this interface belongs to `instance`.
    pub fn is_of(&self, instance: InstanceId) -> bool {
        self.0.starts_with(&format!("sk{instance}"))
    }
}

/// Printable text of at most `N` bytes: no control characters, so it is safe on a terminal and in a line of a log.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Text<const N: usize>(String);
validated!(Text<const N: usize>, |text| {
    if text.len() <= N && !text.chars().any(char::is_control) { Ok(()) } else { Err(BadName::Text(N)) }
});

impl<const N: usize> Text<N> {
    /// As much of `text` as is valid: control characters become spaces, the end is cut.
    pub fn lossy(text: &str) -> Self {
        let mut out = String::with_capacity(text.len().min(N));
        for c in text.chars() {
            let c = if c.is_control() { ' ' } else { c };
            if out.len() + c.len_utf8() > N {
                break;
            }
            out.push(c);
        }
        Self(out)
    }
}
