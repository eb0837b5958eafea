//! Machines from images.

use super::{Ref, Settings};
use crate::MachineName;
use serde::{Deserialize, Serialize};

/// Bytes of [`GuestData`] when encoded, at most: what fits a seed of 1 MiB with room to spare.
pub const MAX_GUEST_DATA: usize = 250 << 10;

/// Makes a machine from an image and starts it: a copy of the image, a seed with what its guest is told (NoCloud), a NIC. Through the
/// descriptor that comes with the answer goes [`GuestData`] in the form of `upload`; a repeat gets none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineLaunch {
    /// Its name; its disks are called `<name>-root` and `<name>-seed`, its NIC as it.
    pub name: MachineName,
    /// The disk that is copied.
    pub image: Ref,
    /// Its settings, but for disks.
    pub settings: Settings,
    /// Bytes of its disk; 0: as many as the image has.
    pub size: u64,
    /// The switch; none: `default`, a NAT switch that is made when it is first needed.
    pub switch: Option<Ref>,
    /// Its group; none: the one that is there from the start.
    pub group: Option<Ref>,
    /// The operation ends when the guest has phoned home; else when it is started.
    pub wait: bool,
}

/// What a guest is told of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct GuestData {
    /// Public SSH keys, one line each.
    pub keys: Vec<String>,
    /// The user's data; empty: none.
    pub user_data: Vec<u8>,
}
