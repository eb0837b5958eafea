//! Devices of geom_gate(4), for what serves QCOW2 and iSCSI disks. Only root may make them; who serves one gets no more than the right to answer.

use crate::platform::Gate;
use skep_rights::vm_runner::TABLE;
use skep_sandbox::limit_one;
use skep_sys::child::{Forked, fork};
use skep_sys::freebsd::ggate::{self, Next};
use skep_sys::process::exit_now;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

const CONTROL: &str = "/dev/ggctl";
/// Bytes that who looks at a new device asks for at a time.
const ROOM: usize = 1 << 20;

fn control() -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(CONTROL)
}

/// Makes one. The host looks at each new device for labels, mirrors and file systems of its own, and finds zeros: were it the guest's disk,
/// a guest could pass it off as one of the host's. It looks again whenever nobody has it open for writing any more; who serves it
/// keeps it so.
pub fn make(name: &str, size: u64, block: u32, read_only: bool, counts: &Path) -> io::Result<Gate> {
    let control = control()?;
    // Of a device of before.
    match std::fs::remove_file(counts) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let unit = ggate::create(control.as_fd(), name, size, block, read_only)?;
    let made =
        looked_at(control.as_fd(), unit, name, read_only).and_then(|device| limited(unit, control.as_fd(), device, counts));
    if made.is_err() {
        let _ = ggate::destroy(control.as_fd(), name);
    }
    made
}

/// One that is there, for another process to serve, after its former one has ended. Its machine has it open: nobody looks at it.
pub fn again(name: &str, read_only: bool, counts: &Path) -> io::Result<Option<Gate>> {
    let control = control()?;
    let Some(unit) = ggate::take_back(control.as_fd(), name)? else { return Ok(None) };
    limited(unit, control.as_fd(), open(name, read_only)?, counts).map(Some)
}

/// As others get it.
fn limited(unit: u32, control: BorrowedFd<'_>, device: OwnedFd, counts: &Path) -> io::Result<Gate> {
    let limit = |line, fd: BorrowedFd<'_>| limit_one(&TABLE, line, fd).map_err(|e| io::Error::other(e.to_string()));
    let serves = control.try_clone_to_owned()?;
    limit("control", serves.as_fd())?;
    limit("served disk", device.as_fd())?;
    let counts = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(counts)?.into();
    Ok(Gate { unit, control: serves, device, counts })
}

fn open(name: &str, read_only: bool) -> io::Result<OwnedFd> {
    Ok(OpenOptions::new().read(true).write(!read_only).open(format!("/dev/{name}"))?.into())
}

/// Has a child answer with zeros until everybody has looked; gives the device, open.
fn looked_at(control: BorrowedFd<'_>, unit: u32, name: &str, read_only: bool) -> io::Result<OwnedFd> {
    match fork()? {
        Forked::Child => {
            let served = skep_sys::fd::close_all_but(&[control.as_raw_fd()]).and_then(|()| zeros(control, unit));
            exit_now(i32::from(served.is_err()))
        }
        Forked::Parent(child) => {
            ggate::settle()?;
            let device = open(name, read_only)?;
            drop(child);
            Ok(device)
        }
    }
}

fn zeros(control: BorrowedFd<'_>, unit: u32) -> io::Result<()> {
    let mut buffer = vec![0; ROOM];
    loop {
        match ggate::next(control, unit, &mut buffer)? {
            Next::Asked(asked) => {
                // What was written there is forgotten.
                buffer.clear();
                buffer.resize(asked.length.max(ROOM), 0);
                ggate::answer(control, unit, &asked, &mut buffer, 0)?;
            }
            Next::Needs(room) => buffer.resize(room, 0),
            Next::Gone => return Ok(()),
        }
    }
}

/// Takes one away, if it is there.
pub fn take(name: &str) -> io::Result<()> {
    match control() {
        Ok(control) => ggate::destroy(control.as_fd(), name),
        // Without it there is none.
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e),
    }
}
