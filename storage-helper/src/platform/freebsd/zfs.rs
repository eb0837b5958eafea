//! How requests reach ZFS, and where the devices of volumes are seen.
//!
//! The kernel lets the helper's own uid manage volumes once root has said so (zfs-allow(8)), but their nodes in `/dev` stay root's. So
//! root mounts a devfs of the suite's own at `RUN/volumes`, which shows nothing but the volumes below the dataset, as the helper's.
//! The mount stays when the helper ends: hypervisors hold devices and locks of it.

use crate::zfs::{Command, Dataset, Kernel, Request, Volumes};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use skep_service::{Role, Start, StartError};
use skep_sys::freebsd::devfs::{Mark, Rule, show};
use skep_sys::freebsd::zfs::request;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Sizes of the structure of a request: 13 and 14, then where later releases may go.
const SIZES: std::ops::Range<usize> = 4528..8192;
/// Room for an answer's list, at first and at most: user properties of somebody else may be long.
const ROOM: (usize, usize) = (128 << 10, 16 << 20);

/// `/dev/zfs`.
struct Device {
    zfs: OwnedFd,
    /// What this kernel takes the structure to be.
    size: usize,
}

impl Kernel for Device {
    fn request(&self, what: Request, command: &mut Command, source: &[u8]) -> io::Result<Vec<u8>> {
        let mut room = ROOM.0;
        loop {
            let (mut answer, mut filled) = (vec![0; room], command.clone());
            let done = request(self.zfs.as_fd(), what as u8, self.size, filled.bytes(), source, &mut answer);
            let size = filled.answered();
            match done {
                Err(e) if e.raw_os_error() == Some(Errno::ENOMEM as i32) && (room + 1..=ROOM.1).contains(&size) => room = size,
                Err(e) => return Err(e),
                Ok(()) => {
                    answer.truncate(size);
                    *command = filled;
                    return Ok(answer);
                }
            }
        }
    }

    fn held(&self) -> Option<BorrowedFd<'_>> {
        Some(self.zfs.as_fd())
    }
}

impl Device {
    /// Opens it, and finds out which size of the structure this kernel takes: 13 does not look, later ones refuse a wrong one.
    fn open(dataset: &Dataset) -> io::Result<Self> {
        let zfs = open("/dev/zfs", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())?;
        let mut device = Self { zfs, size: SIZES.start };
        loop {
            match device.request(Request::Stats, &mut Command::about(dataset.as_str()), &[]) {
                Err(e) if e.raw_os_error() == Some(Errno::EINVAL as i32) && device.size < SIZES.end => device.size += 8,
                Err(e) => return Err(e),
                Ok(_) => return Ok(device),
            }
        }
    }
}

/// Prepares everything, as root.
pub fn volumes(start: &Start, dataset: &str) -> Result<Volumes, StartError> {
    let root: Dataset = dataset.parse().map_err(|e| StartError::Flags(format!("--zfs-dataset {dataset}: {e}")))?;
    let Some(ids) = &start.ids else {
        return Err(StartError::Flags("--zfs-dataset: only a suite that root started can open ZFS volumes".into()));
    };
    let uid = ids.of(Role::Storage);
    let kernel = Device::open(&root).map_err(StartError::step(format!("look up {root} through /dev/zfs")))?;
    let place = start.run.join("volumes");
    let mark = Mark::new(start.instance, "volumes");
    let devices =
        show(&place, &mark, &rules(&root, uid)).map_err(StartError::step(format!("mount devfs at {}", place.display())))?;
    let volumes = Volumes::new(Box::new(kernel), root, start.instance, devices);
    volumes.hand_over(uid).map_err(StartError::step(format!("let uid {uid} manage volumes below {dataset}")))?;
    Ok(volumes)
}

/// The directories on the way, and the volumes themselves.
fn rules(root: &Dataset, uid: u32) -> Vec<Rule> {
    let mut rules = vec![Rule::HideAll, Rule::Show("zvol".into())];
    let mut way = "zvol".to_owned();
    for part in root.as_str().split('/') {
        way.push('/');
        way.push_str(part);
        rules.push(Rule::Show(way.clone().into()));
    }
    rules.push(Rule::ShowTo(format!("{way}/*").into(), uid));
    rules
}
