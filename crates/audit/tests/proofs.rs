//! What no kernel lets anybody read: shown by trying. The audit names these tests beside the lines that it cannot confirm.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::platform::FREEBSD;
use common::{TABLE, place};
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::net::UnixStream;

/// On FreeBSD nothing has a path any more in capability mode: what a table grants is held as a directory (ECAPMODE, ENOTCAPABLE).
const WITHIN: &str = if FREEBSD { "refused" } else { "succeeded" };
const CAPSICUM: [i32; 2] = [93, 94];

fn outcome<T>(result: std::io::Result<T>) -> String {
    match result {
        Ok(_) => "succeeded".into(),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => "refused".into(),
        Err(error) if FREEBSD && error.raw_os_error().is_some_and(|n| CAPSICUM.contains(&n)) => "refused".into(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_path_outside_the_table_cannot_be_opened() {
    let place = place();
    let (within, without) = (place.options.state.join("open/file"), place.options.state.join("file"));
    let act = || format!("{} {}", outcome(File::open(&within)), outcome(File::open(&without)));
    assert_eq!(act(), "succeeded succeeded", "without the sandbox both can be read");
    assert_eq!(place.child(&TABLE, 1, false, act).answer, format!("{WITHIN} refused"));
}

#[test]
fn a_system_call_outside_the_table_is_refused() {
    let place = place();
    let within = place.options.state.join("open/file");
    // stat(2) of a path that Landlock would allow: only the list of system calls is in its way.
    let act = || outcome(std::fs::metadata(&within));
    assert_eq!(act(), "succeeded");
    assert_eq!(place.child(&TABLE, 1, false, act).answer, "refused");
}

#[test]
fn an_ioctl_outside_the_table_is_refused() {
    let place = place();
    // A socket is no terminal, which everybody may be told: only the list is in its way.
    let act = |socket: &UnixStream| match nix::sys::termios::tcgetattr(socket) {
        // What Linux and FreeBSD say of a socket.
        Err(nix::errno::Errno::ENOTTY | nix::errno::Errno::EOPNOTSUPP) => "reached the kernel".to_owned(),
        Err(e) => outcome::<()>(Err(e.into())),
        Ok(_) => "a terminal".into(),
    };
    assert_eq!(act(&UnixStream::pair().unwrap().0), "reached the kernel");
    assert_eq!(place.child_with(&TABLE, 1, false, |things| act(&things.line)).answer, "refused");
}

#[test]
fn a_process_without_network_reaches_none() {
    let place = place();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let act = || outcome(std::net::TcpStream::connect(address));
    assert_eq!(act(), "succeeded");
    assert_eq!(place.child(&TABLE, 1, false, act).answer, "refused");
}
