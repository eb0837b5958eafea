//! ZFS volumes: disks below one dataset, named by their ids and marked as this suite's by user properties. Pure but for [`Kernel`]:
//! how a request reaches the kernel is in [`crate::platform`].

pub mod command;
pub mod list;
pub mod names;
mod remove;
mod snapshot;
mod volumes;

pub use command::{Command, Kernel, Request};
pub use list::{List, Value};
pub use names::{Dataset, Mark};
pub use volumes::{BLOCK, Stage, Volume, Volumes, whole_blocks};

#[cfg(test)]
mod tests;
