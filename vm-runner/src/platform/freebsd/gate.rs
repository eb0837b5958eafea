//! Devices of geom_gate(4), for what serves QCOW2 disks. Only root may make them; who serves one gets no more than the right to answer.

use crate::platform::Gate;
use skep_rights::vm_runner::TABLE;
use skep_sandbox::limit_one;
use skep_sys::child::{Forked, fork};
use skep_sys::freebsd::ggate::{self, Next};
use skep_sys::process::exit_now;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

const CONTROL: &str = "/dev/ggctl";
/// Seconds that a request may take: whoever waits for a disk whose server is gone goes on then. The slowest rate that a disk can be held to
/// takes less for all that bhyve asks for at a time.
const PATIENCE: u32 = 300;
/// Bytes that who looks at a new device asks for at a time.
const ROOM: usize = 1 << 20;

fn control() -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(CONTROL)
}

/// Makes one. The host looks at each new device for labels, mirrors and file systems of its own, and finds zeros: were it the guest's disk,
/// a guest could pass it off as one of the host's. It looks again whenever nobody has it open for writing any more; who serves it
/// keeps it so.
pub fn make(name: &str, size: u64, read_only: bool) -> io::Result<Gate> {
    let control = control()?;
    let unit = ggate::create(control.as_fd(), name, size, read_only, PATIENCE)?;
    let made = looked_at(control.as_fd(), unit, name, read_only).and_then(|device| {
        let limited = |line, fd: BorrowedFd<'_>| limit_one(&TABLE, line, fd).map_err(|e| io::Error::other(e.to_string()));
        let serves: OwnedFd = control.try_clone()?.into();
        limited("control", serves.as_fd())?;
        limited("served disk", device.as_fd())?;
        Ok(Gate { unit, control: serves, device })
    });
    if made.is_err() {
        let _ = ggate::destroy(control.as_fd(), name);
    }
    made
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
            let device = OpenOptions::new().read(true).write(!read_only).open(format!("/dev/{name}"))?;
            drop(child);
            Ok(device.into())
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
