//! System calls that every process needs.

/// Memory, time, and use of descriptors that are already held. None of them names a file, a process or an address.
/// `mmap` and `mprotect` are without `PROT_EXEC`, `socketpair` and `socket:unix` make UNIX streams and seqpackets only, `sendto` names no
/// address (a name with a colon lifts such a limit:
/// `mmap:exec`; see `skep-sandbox`).
pub const BASE: &[&str] = &[
    "brk",
    "mmap",
    "munmap",
    "mremap",
    "mprotect",
    "madvise",
    "futex",
    "sched_yield",
    "sched_getaffinity",
    "read",
    "write",
    "readv",
    "writev",
    "pread64",
    "pwrite64",
    "ftruncate",
    "lseek",
    "close",
    "close_range",
    "dup",
    "dup3",
    "fstat",
    "fcntl",
    "poll",
    "ppoll",
    "epoll_create1",
    "epoll_ctl",
    "epoll_wait",
    "epoll_pwait",
    "eventfd2",
    "pipe2",
    "recvmsg",
    "sendmsg",
    "recvfrom",
    "sendto",
    "shutdown",
    "getsockopt",
    "setsockopt",
    "getsockname",
    "getpeername",
    "socketpair",
    "accept4",
    "clock_gettime",
    "clock_getres",
    "clock_nanosleep",
    "nanosleep",
    "gettimeofday",
    "getrandom",
    "timerfd_create",
    "timerfd_settime",
    "getpid",
    "gettid",
    "getuid",
    "geteuid",
    "getgid",
    "getegid",
    "getppid",
    "rt_sigaction",
    "rt_sigprocmask",
    "rt_sigreturn",
    "sigaltstack",
    "restart_syscall",
    "tgkill",
    "exit",
    "exit_group",
    "rseq",
    "set_robust_list",
    "membarrier",
];

use crate::table::{Descriptor, FdKind, Most};

/// The log of privileged acts.
pub const LOG_OF_ACTS: Descriptor = Descriptor {
    name: "log of acts",
    kind: FdKind::File("logs"),
    most: Most::N(2),
    rights: KEPT,
    ioctls: &[],
    why: "the record of privileged acts, and the one before it",
};

/// The service's log.
pub const LOG: Descriptor = Descriptor {
    name: "own log",
    kind: FdKind::File("logs"),
    most: Most::N(2),
    rights: KEPT,
    ioctls: &[],
    why: "what standard error goes to, and the one before it",
};

/// Of a log that is kept within its bounds: it is appended to, and when it is full its text moves to the one before it.
const KEPT: &[&str] = &["READ", "WRITE", "SEEK", "FSTAT", "FTRUNCATE", "FCNTL"];

/// The line to syslogd.
pub const SYSLOG: Descriptor = Descriptor {
    name: "syslog",
    kind: FdKind::Unix,
    most: Most::N(1),
    rights: &["WRITE", "EVENT"],
    ioctls: &[],
    why: "warnings, where a syslogd listens",
};

/// The standard three of what the spawner starts.
pub(crate) const NULL: Descriptor = Descriptor {
    name: "null",
    kind: FdKind::Null,
    most: Most::N(3),
    rights: &["READ", "WRITE"],
    ioctls: &[],
    why: "standard ones",
};

/// Standard error of what has a cell of its own beside the runner's. Rust asks poll(2) at a program's start whether it is open, and ends it if it may not.
pub(crate) const WORDS: Descriptor = Descriptor {
    name: "words",
    kind: FdKind::Fifo("console"),
    most: Most::N(1),
    rights: &["WRITE", "EVENT"],
    ioctls: &[],
    why: "standard error: a pipe that the spawner reads, and adds to the log of its kind; never waited for",
};

/// Where it tells the spawner that it serves.
pub(crate) const REPORT: Descriptor = Descriptor {
    name: "report",
    kind: FdKind::Unix,
    most: Most::N(1),
    rights: &["WRITE"],
    ioctls: &[],
    why: "tells that it is ready; then closed",
};

/// The socket that a service serves on.
pub const LISTENER: Descriptor = Descriptor {
    name: "listener",
    kind: FdKind::Listener,
    most: Most::N(1),
    rights: &["ACCEPT", "EVENT", "FCNTL", "READ", "WRITE", "GETSOCKOPT", "SETSOCKOPT", "GETPEERNAME", "GETSOCKNAME", "SHUTDOWN"],
    ioctls: &[],
    why: "its own socket in RUN; accepted sockets begin with these rights",
};

/// The word to the supervisor.
pub const READY: Descriptor = Descriptor {
    name: "ready",
    kind: FdKind::Pipe,
    most: Most::N(1),
    rights: &["WRITE"],
    ioctls: &[],
    why: "one byte to the supervisor when requests will be answered; then closed",
};

/// Sockets of its clients.
pub const CONNECTION: Descriptor = Descriptor {
    name: "connection",
    kind: FdKind::Unix,
    most: Most::Many,
    rights: &["READ", "WRITE", "EVENT"],
    ioctls: &[],
    why: "accepted from the listener, and limited to what records need",
};

/// Sockets of the clients of a server whose event loop sets them up.
pub const LOOP_CONNECTION: Descriptor =
    Descriptor { rights: LISTENER.rights, why: "accepted from the listener, whose rights it has", ..CONNECTION };
