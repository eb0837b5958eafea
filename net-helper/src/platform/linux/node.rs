//! `/dev/net/tun` for a process that is not root.
//!
//! The mode of the host's node differs: udev gives 0666, others leave 0600 root. Making a tap needs CAP_NET_ADMIN in any case, so the
//! helper gets a node of its own, in a mount namespace of its own; the host's stays as it is.

use super::super::HostError;
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::{Gid, Uid, chown};

/// Documentation/admin-guide/devices.txt.
const TUN_DEVICE: (u64, u64) = (10, 200);

/// Puts a node that belongs to `uid` where the host's is. Needs root.
pub fn own_tun(uid: u32, gid: u32) -> Result<(), HostError> {
    unshare(CloneFlags::CLONE_NEWNS).map_err(HostError::step("a mount namespace"))?;
    let none = None::<&str>;
    // What the host unmounts goes here, too; what is mounted here stays here.
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none).map_err(HostError::step("keep mounts from the host"))?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    match mount(Some("skep"), "/dev/net", Some("tmpfs"), flags, Some("mode=0755,size=4k,nr_inodes=4")) {
        // No such directory: this kernel has no taps, as making one will say.
        Err(Errno::ENOENT) => return Ok(()),
        result => result.map_err(HostError::step("mount on /dev/net"))?,
    }
    let device = makedev(TUN_DEVICE.0, TUN_DEVICE.1);
    mknod(super::TUN, SFlag::S_IFCHR, Mode::S_IRUSR | Mode::S_IWUSR, device).map_err(HostError::step("make /dev/net/tun"))?;
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    chown(super::TUN, Some(uid), Some(gid)).map_err(HostError::step("chown /dev/net/tun"))
}
