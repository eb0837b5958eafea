//! Which cores processes, threads and jails run on (cpuset(2)).

use libc::{CPU_LEVEL_WHICH, CPU_WHICH_JAIL, CPU_WHICH_PID, CPU_WHICH_TID, cpuset_t};
use std::io;

fn none() -> cpuset_t {
    // SAFETY: all-zero is a valid value of that plain C struct: no core.
    unsafe { std::mem::zeroed() }
}

fn ask(which: libc::c_int, id: i64) -> io::Result<Vec<usize>> {
    let mut set = none();
    // SAFETY: at most the size that is given is written into a live local.
    let result = unsafe { libc::cpuset_getaffinity(CPU_LEVEL_WHICH, which, id, size_of::<cpuset_t>(), &raw mut set) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: each number is within the set.
    Ok((0..8 * size_of::<cpuset_t>()).filter(|core| unsafe { libc::CPU_ISSET(*core, &set) }).collect())
}

fn set(which: libc::c_int, id: i64, cores: impl Iterator<Item = usize>) -> io::Result<()> {
    let mut set = none();
    for core in cores {
        if core >= 8 * size_of::<cpuset_t>() {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        // SAFETY: it is within the set.
        unsafe { libc::CPU_SET(core, &mut set) };
    }
    // SAFETY: the set is a live local of the size that is given with it.
    let result = unsafe { libc::cpuset_setaffinity(CPU_LEVEL_WHICH, which, id, size_of::<cpuset_t>(), &raw const set) };
    if result != 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The cores that this process may run on.
pub fn allowed() -> io::Result<Vec<usize>> {
    ask(CPU_WHICH_PID, -1)
}

/// The cores that a thread may run on.
pub fn of_thread(thread: i32) -> io::Result<Vec<usize>> {
    ask(CPU_WHICH_TID, thread.into())
}

/// The cores that a jail's processes may run on.
pub fn of_jail(id: i32) -> io::Result<Vec<usize>> {
    ask(CPU_WHICH_JAIL, id.into())
}

/// Has a process run on these cores only. Numbers beyond what the kernel's sets hold are `InvalidInput`.
pub fn place(pid: i32, cores: &[usize]) -> io::Result<()> {
    set(CPU_WHICH_PID, pid.into(), cores.iter().copied())
}

/// Has a jail's processes, present and future, run on these cores only, whatever they ask for. From outside of the jail, as root.
pub fn place_jail(id: i32, cores: impl Iterator<Item = usize>) -> io::Result<()> {
    set(CPU_WHICH_JAIL, id.into(), cores)
}
