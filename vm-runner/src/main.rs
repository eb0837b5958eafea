//! vm-runner: one program, two roles. The spawner makes cells; the runner is the first process inside one.
#![forbid(unsafe_code)]

mod handover;
mod platform;
mod runner;
mod spawner;

use std::process::ExitCode;

fn main() -> ExitCode {
    // The spawner starts the runner, with exactly this as its first argument.
    if std::env::args().nth(1).as_deref() == Some(handover::RUNNER) {
        skep_service::run("runner", runner::main)
    } else {
        skep_service::run("vm-runner", spawner::main)
    }
}
