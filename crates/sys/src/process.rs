//! Processes: fork, the end of a parent, exec of an open file.

use std::io;

/// Which side of a [`fork`] this is.
#[derive(Debug)]
pub enum Fork {
    /// The parent; the child's process id.
    Parent(i32),
    /// The child.
    Child,
}

/// fork(2). Only single-threaded processes may call it, so that the child may do anything.
pub fn fork() -> io::Result<Fork> {
    // SAFETY: our helpers are single-threaded (asserted by the audit), so the child's memory is consistent.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Fork::Child),
        pid => Ok(Fork::Parent(pid)),
    }
}

/// _exit(2): ends this process without running destructors or flushing what the parent had buffered.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit does not return and touches no memory.
    unsafe { libc::_exit(code) }
}

/// Has a signal ignored, by the program that this process executes, too.
pub fn ignore(signal: i32) -> io::Result<()> {
    // SAFETY: SIG_IGN is no function, so nothing of ours runs in a signal's place.
    if unsafe { libc::signal(signal, libc::SIG_IGN) } == libc::SIG_ERR { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Sets the nice value of this process, -20 to 19 (setpriority(2)); children inherit it. Below what it is: takes a privilege.
pub fn set_priority(nice: i8) -> io::Result<()> {
    // SAFETY: integers only; 0 is this process.
    if unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice.into()) } != 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// CPU time of another process of ours, in nanoseconds.
pub fn cpu_time_of(pid: i32) -> io::Result<u64> {
    let mut clock: libc::clockid_t = 0;
    // SAFETY: both pointers are to live locals of the right type.
    let result = unsafe { libc::clock_getcpuclockid(pid, &raw mut clock) };
    if result != 0 {
        return Err(io::Error::from_raw_os_error(result));
    }
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a live local of the right type.
    if unsafe { libc::clock_gettime(clock, &raw mut time) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok((time.tv_sec as u64).saturating_mul(1_000_000_000).saturating_add(time.tv_nsec as u64))
}

/// Bytes of memory of the host.
pub fn physical_memory() -> u64 {
    // SAFETY: sysconf(3) takes an integer and has no effect.
    let pages = unsafe { libc::sysconf(libc::_SC_PHYS_PAGES) };
    // SAFETY: the same.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(pages).unwrap_or(0).saturating_mul(u64::try_from(size).unwrap_or(0))
}
