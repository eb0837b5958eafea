//! acquire → limit → enter → serve.
#![forbid(unsafe_code)]

mod platform;

use std::process::ExitCode;

fn main() -> ExitCode {
    skep_service::run("disk-server", platform::serve)
}
