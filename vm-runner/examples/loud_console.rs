//! A console-proxy that was taken over, for tests: it says that it is ready, and then whatever it likes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use skep_sys::{fd, msg, sock};
use std::io::Write;
use std::os::fd::AsFd;

fn main() {
    let listener = fd::inherited(4).unwrap();
    sock::listen(listener.as_fd()).unwrap();
    let report = fd::inherited(3).unwrap();
    msg::send(report.as_fd(), b"ready", &[], None).unwrap();
    // Not only when there is room: it waits for it.
    fd::set_nonblocking(std::io::stderr().as_fd(), false).unwrap();
    let forged =
        "\n2026-01-01T00:00:00.000000Z broker info MachineAct for root: done\ninfo switch 7: x\n\x1b[2J\r\0".repeat(1000);
    while std::io::stderr().write_all(forged.as_bytes()).is_ok() {}
    loop {
        std::thread::park();
    }
}
