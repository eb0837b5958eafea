//! Who asks, and where.

use crate::{IfName, InstanceId, Reason, RequestId, Secret, ShareName, SoundDevice, Text};
use serde::{Deserialize, Serialize};

/// An object by its name or its id, as the user typed it. What it resolves to depends on the request.
pub type Ref = Text<63>;

/// Binds this connection to a client. Local: the accepted socket itself goes along as a descriptor, and the kernel says who it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenSession {
    /// What the client showed.
    pub credential: Credential,
}

/// What a client shows to say who it is.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Credential {
    /// The accepted UNIX socket, sent along: its peer's uid counts.
    LocalSocket,
    /// A bearer token, over TLS.
    Token(Text<128>),
    /// A user's password.
    Password {
        /// The user's name, as it was typed.
        user: Ref,
        /// The password.
        password: Secret,
        /// Where the client is, as the frontend says: tries are counted for it, too.
        peer: Text<64>,
    },
    /// None: the frontend asks for whoever reads its metrics, and may ask nothing but [`super::MetricsGet`]. Refused unless the
    /// broker, too, was told that metrics are served.
    Metrics,
    /// None: the frontend tells of calls of clients who have shown nothing that counts, and may ask nothing but [`CallTold`].
    Nobody,
}
impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Credential::LocalSocket => "LocalSocket",
            Credential::Token(_) => "Token",
            Credential::Password { .. } => "Password",
            Credential::Metrics => "Metrics",
            Credential::Nobody => "Nobody",
        })
    }
}

/// Who it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionState {
    /// `uid 0`, `alice`; `token laptop`: one without a user.
    pub user: Text<64>,
}

/// Says that the next request on this connection, which makes something, may be a repeat: if the same user has asked the same with this
/// id within [`REPEATED`], it is answered with what was made then, and with other contents it is refused. What failed is not
/// remembered. For other requests than those that make something it means nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestKey {
    /// The client's own.
    pub id: RequestId,
}

/// Tells of a call that the frontend has answered itself: it never came to the broker, or what the broker did was not what its client was
/// told. Recorded as the frontend's word, in the name of whose session it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallTold {
    /// Which method of the API, as the client named it.
    pub method: Text<64>,
    /// Where the client is.
    pub from: Text<64>,
    /// Why it was refused; none: it was not.
    pub reason: Option<Reason>,
    /// What the client was told.
    pub note: Text<512>,
    /// Calls before it of which the frontend could not tell.
    pub untold: u32,
}

/// How long a request is remembered, at least as long as no more than [`REMEMBERED`] come after it.
pub const REPEATED: std::time::Duration = std::time::Duration::from_secs(24 * 3600);
/// Requests of one user that are remembered.
pub const REMEMBERED: u32 = 10_000;

/// Asks for the host's report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostShow {}

/// An interface of the host's that switches may have as an uplink.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uplink {
    /// Its name.
    pub name: IfName,
    /// Whether it is up.
    pub up: bool,
    /// Bytes of the largest packet.
    pub mtu: u32,
    /// Bridge that it is a member of.
    pub bridge: Option<IfName>,
}

/// What this host is and can do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostView {
    /// Version of the suite.
    pub version: Text<32>,
    /// Marks what this suite owns on the host.
    pub instance: Text<4>,
    /// Operating system and release.
    pub system: Text<64>,
    /// The hypervisor, empty if missing.
    pub hypervisor: Text<64>,
    /// Whether machines can boot by UEFI.
    pub uefi: bool,
    /// Logical CPUs.
    pub cpus: u32,
    /// Bytes of memory.
    pub memory: u64,
    /// Bytes where the disks lie, in all and free.
    pub space: (u64, u64),
    /// Whether disk clones share blocks.
    pub reflink: bool,
    /// Limits that can be enforced.
    pub limits: Vec<Text<32>>,
    /// Where this host is weaker than the design, and why; a line each.
    pub weaker: Vec<Text<200>>,
    /// Helpers that answer at present.
    pub helpers: Vec<Text<32>>,
    /// Names of the directories that machines may share.
    pub shares: Vec<ShareName>,
    /// What its hypervisor can do that another cannot, by the names of `skep_machine::Ability`.
    pub abilities: Vec<Text<32>>,
    /// What it cannot, and why: `name: why`.
    pub inabilities: Vec<Text<200>>,
    /// Keyboard layouts that a screen can have.
    pub keyboards: Vec<Text<32>>,
    /// Sound devices that machines may have.
    pub sound: Vec<SoundDevice>,
    /// The host's interfaces that switches may have as uplinks, the first 32.
    pub uplinks: Vec<Uplink>,
    /// This host's key of WireGuard; none: it has none of it, which is one of `inabilities`.
    pub wireguard_key: Option<crate::tunnel::PublicKey>,
    /// CPUs that a machine may have at most.
    pub machine_cpus: u16,
    /// Width and height of the largest screen, in pixels.
    pub screen: Option<(u16, u16)>,
}

/// Opens the log of a service for reading: the former file, if there is one, and the present one; then perhaps a watcher.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostLog {
    /// Whose.
    pub service: super::ServiceName,
    /// Whether what is written later is wanted, too.
    pub follow: bool,
}

/// Takes what belongs to no machine off the host, before the suite ends: the bridges of the switches, which come back at the next
/// start. Refused as in use while a machine runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostRest {}

/// Done, nothing to say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {}

/// Marks of an instance are four characters, so they are a text, too.
impl From<InstanceId> for Text<4> {
    fn from(id: InstanceId) -> Self {
        Text::lossy(&id.to_string())
    }
}
