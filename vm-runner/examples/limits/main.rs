//! Limits by cgroup as a cell gets them, tried from inside a test guest, whose kernel has what the host's may lack: see
//! `tests/limits.rs`.

mod platform;

fn main() {
    platform::main();
}
