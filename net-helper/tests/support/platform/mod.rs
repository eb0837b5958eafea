/// Gives the calling thread, and those that it makes, a table of descriptors that no other test changes.
#[cfg(target_os = "linux")]
pub fn own_descriptors() {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_FILES).unwrap();
}

/// Each test is a process of its own there.
#[cfg(target_os = "freebsd")]
pub fn own_descriptors() {}

/// How many descriptors are open.
pub fn open() -> usize {
    let list = if cfg!(target_os = "linux") { "/proc/thread-self/fd" } else { "/dev/fd" };
    std::fs::read_dir(list).unwrap().count()
}

/// Moves the calling thread into an empty network namespace. False, and a named skip, without root.
#[cfg(target_os = "linux")]
pub fn own_network() -> bool {
    own_descriptors();
    if let Err(error) = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET) {
        println!("SKIP {}: a network namespace: {error}", std::thread::current().name().unwrap_or("?"));
        return false;
    }
    true
}
