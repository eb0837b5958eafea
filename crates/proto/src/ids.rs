//! Typed identities. A name may change; an id never does.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::{fmt, str::FromStr};
use uuid::Uuid;

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident, $what:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Uuid);

        impl $name {
            /// A new random one.
            pub fn random() -> Self {
                Self(Uuid::new_v4())
            }
            /// From its 128 bits.
            pub const fn from_u128(bits: u128) -> Self {
                Self(Uuid::from_u128(bits))
            }
            /// Its 128 bits.
            pub const fn as_u128(self) -> u128 {
                self.0.as_u128()
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($what, " {}"), self.0)
            }
        }
        impl FromStr for $name {
            type Err = BadId;
            /// Only the hyphenated form in lower case, so that an id has one spelling.
            fn from_str(text: &str) -> Result<Self, BadId> {
                let id = Uuid::try_parse(text).map_err(|_| BadId($what))?;
                if id.to_string() == text { Ok(Self(id)) } else { Err(BadId($what)) }
            }
        }
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                self.0.as_bytes().serialize(s)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                Ok(Self(Uuid::from_bytes(<[u8; 16]>::deserialize(d)?)))
            }
        }
    )*};
}

ids! {
    /// A virtual machine.
    MachineId, "machine";
    /// A disk: a file or volume that storage-helper keeps.
    DiskId, "disk";
    /// A switch.
    SwitchId, "switch";
    /// A network interface card of a machine.
    NicId, "nic";
    /// Long work.
    OperationId, "operation";
    /// A snapshot of a disk.
    SnapshotId, "snapshot";
    /// A user of the API.
    UserId, "user";
    /// A group of machines.
    GroupId, "group";
    /// A request of a client's, by which it may be repeated.
    RequestId, "request";
}

/// Text that is not an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a {0} id: 36 characters of lower-case hex with hyphens are expected")]
pub struct BadId(&'static str);

/// Marks everything that one user action causes, in every process's log.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, Default)]
pub struct TraceId(pub u64);

impl TraceId {
    /// A new random one.
    pub fn random() -> Self {
        Self(Uuid::new_v4().as_u64_pair().0)
    }
}
impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // By hand: it stands in every line of every log.
        let digit = |place: u32| char::from_digit((self.0 >> (4 * place) & 15) as u32, 16).unwrap_or('0');
        (0..16).rev().try_for_each(|place| fmt::Write::write_char(f, digit(place)))
    }
}
impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "trace {self}")
    }
}

/// Marks what one state directory owns on the host: interfaces, cgroups, jails. Four characters of `a-z0-9`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct InstanceId([u8; 4]);

impl SwitchId {
    /// The cell of its guest-services goes by this id: no machine has it, since ids are random.
    pub const fn cell(self) -> MachineId {
        MachineId::from_u128(self.as_u128())
    }
}
impl DiskId {
    /// The cell of what fetches its image goes by this id, likewise.
    pub const fn cell(self) -> MachineId {
        MachineId::from_u128(self.as_u128())
    }
}
impl InstanceId {
    /// A new random one.
    pub fn random() -> Self {
        const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
        let mut bits = Uuid::new_v4().as_u128();
        Self([(); 4].map(|()| {
            let c = ALPHABET.get((bits & 31) as usize).copied().unwrap_or(b'a');
            bits >>= 5;
            c
        }))
    }
    /// A number made of it, for what suites on a host should each begin elsewhere with.
    pub fn number(self) -> u16 {
        self.0.iter().fold(0, |n: u16, c| n.wrapping_mul(37).wrapping_add(u16::from(*c)))
    }
}
impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|c| write!(f, "{}", char::from(*c)))
    }
}
impl FromStr for InstanceId {
    type Err = BadId;
    fn from_str(text: &str) -> Result<Self, BadId> {
        let bytes = <[u8; 4]>::try_from(text.as_bytes()).map_err(|_| BadId("instance"))?;
        if bytes.iter().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit()) { Ok(Self(bytes)) } else { Err(BadId("instance")) }
    }
}
