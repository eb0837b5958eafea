//! What no kernel lets anybody read: shown by trying. The audit names these tests beside the lines that it cannot confirm.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{TABLE, place};
use std::fs::File;
use std::io::ErrorKind;

fn outcome<T>(result: std::io::Result<T>) -> String {
    match result {
        Ok(_) => "succeeded".into(),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => "refused".into(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_path_outside_the_table_cannot_be_opened() {
    let place = place();
    let (within, without) = (place.options.state.join("open/file"), place.options.state.join("file"));
    let act = || format!("{} {}", outcome(File::open(&within)), outcome(File::open(&without)));
    assert_eq!(act(), "succeeded succeeded", "without the sandbox both can be read");
    assert_eq!(place.child(&TABLE, 1, false, act).answer, "succeeded refused");
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
    // On a pipe, FIONREAD's kin is allowed to everybody: only the list is in its way.
    let act = || {
        let Ok((reader, _writer)) = nix::unistd::pipe() else { return "no pipe".into() };
        match nix::sys::termios::tcgetattr(&reader) {
            Err(nix::errno::Errno::ENOTTY) => "reached the kernel".to_owned(),
            Err(nix::errno::Errno::EPERM) => "refused".into(),
            other => format!("{other:?}"),
        }
    };
    assert_eq!(act(), "reached the kernel");
    assert_eq!(place.child(&TABLE, 1, false, act).answer, "refused");
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
