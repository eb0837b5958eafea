//! What only FreeBSD has.

use crate::attempt;

/// There is no such means here.
pub fn refuse(call: &str) {
    panic!("{call}: no system call can be made to fail on FreeBSD")
}

pub fn attempts() {
    attempt("leave capability mode", capsicum::enter().and_then(|()| std::fs::File::open("/")));
    attempt("attach to a jail", std::fs::read_dir("/dev"));
}
