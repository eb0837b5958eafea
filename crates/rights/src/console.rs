//! The rights of a console-proxy: the process that reads what guests send.

use crate::base::{CONNECTION, LISTENER, NULL, REPORT, WORDS};
use crate::table::*;

const STREAM: &[&str] = &["READ", "WRITE", "EVENT", "SHUTDOWN"];

/// See the module.
pub static TABLE: Process = Process {
    name: "console-proxy",
    program: "skep-console-proxy",
    task: "carries what guests send to serial lines and screens",
    uid: Uid::PerMachine,
    namespaces: &[
        Namespace::User,
        Namespace::Mount,
        Namespace::Pid,
        Namespace::Net,
        Namespace::Ipc,
        Namespace::Uts,
        Namespace::Cgroup,
    ],
    capabilities: &[],
    network: Network::None,
    descriptors: &[
        LISTENER,
        CONNECTION,
        NULL,
        WORDS,
        REPORT,
        Descriptor {
            name: "serial line",
            kind: FdKind::Line,
            most: Most::N(4),
            rights: STREAM,
            ioctls: &[],
            why: "each from the runner",
        },
        Descriptor {
            name: "log",
            kind: FdKind::File("logs"),
            most: Most::N(8),
            rights: &["READ", "WRITE", "SEEK", "FTRUNCATE", "FSTAT"],
            ioctls: &[],
            why: "both halves of each line's log, opened by storage-helper; the times of what was logged before are read",
        },
        Descriptor {
            name: "alarm",
            kind: FdKind::Event,
            most: Most::N(4),
            rights: &["READ", "EVENT", "KQUEUE_EVENT", "KQUEUE_CHANGE"],
            ioctls: &[],
            why: "of each line that is held to a speed: when it may go on",
        },
        Descriptor {
            name: "client",
            kind: FdKind::Unix,
            most: Most::Many,
            rights: UNLIMITED,
            ioctls: &[],
            why: "readers, writers, screens, channels, a debugger",
        },
    ],
    paths: Paths::Only(&[]),
    syscalls: &[Syscalls { names: &["ftruncate"], why: "begins the older half of the log anew" }],
    ioctls: &[],
    max_descriptors: 128,
    operations: &[
        Operation { name: "AttachSerial", does: "joins a stream to the first serial line", test: "boots_answers_and_powers_off" },
        Operation {
            name: "AttachPort",
            does: "joins a stream to a serial line by its number",
            test: "each_port_has_a_line_readers_and_a_log_of_its_own",
        },
        Operation { name: "AttachScreen", does: "joins two streams", test: "the_screen_speaks_rfb" },
        Operation { name: "Status", does: "nothing", test: "a_killed_console_proxy_is_replaced" },
    ],
    freebsd: FreeBsd { capability_mode: true, root: Root::Never, note: "and a uid of its own" },
};
