//! What is asked of the kernel, the same on both.

#[cfg(target_os = "freebsd")]
mod freebsd;
#[cfg(target_os = "linux")]
mod linux;

#[cfg(target_os = "freebsd")]
pub use freebsd::Host;
#[cfg(target_os = "linux")]
pub use linux::Host;

use skep_proto::{IfName, Text};
use std::io;
use std::os::fd::OwnedFd;

/// An interface, as the kernel shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Index.
    pub index: u32,
    /// Name.
    pub name: IfName,
    /// Kind as the kernel says; empty for hardware.
    pub kind: Text<16>,
    /// Up.
    pub up: bool,
    /// A loopback.
    pub loopback: bool,
    /// MTU in bytes.
    pub mtu: u32,
    /// Index of the bridge (or bond, or the like) that it is a member of.
    pub bridge: Option<u32>,
    /// Alias or description, for people.
    pub note: String,
}

impl Link {
    /// Whether it is a bridge.
    pub fn is_bridge(&self) -> bool {
        self.kind.as_str() == "bridge"
    }
    /// Whether it is a tap: Linux calls them `tun`.
    pub fn is_tap(&self) -> bool {
        matches!(self.kind.as_str(), "tap" | "tun")
    }
}

/// A step that the kernel refused.
#[derive(Debug, thiserror::Error)]
#[error("{step}: {error}")]
pub struct HostError {
    /// What was being done.
    pub step: &'static str,
    /// Why it failed.
    pub error: io::Error,
}

impl HostError {
    /// Names a step.
    pub fn step<E: Into<io::Error>>(step: &'static str) -> impl FnOnce(E) -> Self {
        move |error| Self { step, error: error.into() }
    }
}

/// The kernel's network. Each method is one act: it is done, or nothing of it is.
pub trait NetHost {
    /// Every interface whose name is an [`IfName`], by index.
    fn links(&mut self) -> Result<Vec<Link>, HostError>;

    /// One of them.
    fn link(&mut self, name: &IfName) -> Result<Option<Link>, HostError> {
        Ok(self.links()?.into_iter().find(|link| link.name == *name))
    }

    /// Makes a bridge, down, without members and without spanning tree.
    fn make_bridge(&mut self, name: &IfName) -> Result<(), HostError>;

    /// Makes a tap, down, and opens it. On Linux it ends with the descriptor.
    fn make_tap(&mut self, name: &IfName) -> Result<OwnedFd, HostError>;

    /// Deletes a bridge, which releases its members, or a tap. One that is not there is no error.
    fn delete(&mut self, name: &IfName) -> Result<(), HostError>;

    /// Writes the note and, where the kernel can be told (Linux), has the host itself neither take an address on the interface nor
    /// listen to guests there.
    fn mark(&mut self, name: &IfName, note: &str) -> Result<(), HostError>;

    /// Sets it up or down.
    fn set_up(&mut self, name: &IfName, up: bool) -> Result<(), HostError>;

    /// Makes `port`, which is a member of nothing, a member of `bridge`.
    fn join(&mut self, port: &IfName, bridge: &IfName) -> Result<(), HostError>;

    /// Releases `port` from `bridge`.
    fn leave(&mut self, port: &IfName, bridge: &IfName) -> Result<(), HostError>;
}
