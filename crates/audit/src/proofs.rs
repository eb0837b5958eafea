//! The tests that show what no kernel lets anybody read.

/// Landlock's rules (`landlock(7)`: there is no way to read them back).
pub const PATHS: &str = "a_path_outside_the_table_cannot_be_opened";
/// The list of a seccomp filter (`PTRACE_SECCOMP_GET_FILTER` would have to stop the process).
pub const SYSTEM_CALLS: &str = "a_system_call_outside_the_table_is_refused";
/// Ioctls, likewise, and Capsicum's lists of them.
pub const IOCTLS: &str = "an_ioctl_outside_the_table_is_refused";
/// Addresses inside a jail with a network stack of its own.
pub const NETWORK: &str = "a_process_without_network_reaches_none";

/// All of them; `cargo xtask tidy` wants each to exist.
pub const PROOFS: &[&str] = &[PATHS, SYSTEM_CALLS, IOCTLS, NETWORK];
