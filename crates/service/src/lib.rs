//! What the mains of all services share: flags, sockets, own directories, logs.
#![forbid(unsafe_code)]

mod act;
mod journal;
mod kept;
mod line;
mod shares;
mod start;
#[cfg(test)]
mod tests;
mod time;
mod timed;
mod words;

pub use act::ActLog;
pub use journal::{Journal, SharedJournal, is_quiet};
pub use kept::{FULL, Kept, make, turn};
pub use line::one_line;
pub use shares::{shares, shares_text};
pub use start::{FETCHES, INITIATORS, Ids, Role, SLOTS, SWITCHES, Start, StartError, UIDS};
pub use time::{iso8601, now_ns};
pub use timed::Timed;
pub use words::{WORDS, Words};

use std::io::Write as _;
use std::process::ExitCode;

/// How mount points in `RUN/cells` begin that are no cell's (FreeBSD).
pub const SPARE: &str = "spare-";

/// Runs a service's main and turns its error into a line on standard error and exit code 1.
pub fn run<E: std::fmt::Display>(name: &str, main: impl FnOnce() -> Result<(), E>) -> ExitCode {
    match main() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Not eprintln, which panics on a full disk.
            let _ = writeln!(std::io::stderr(), "skep-{name}: {error}");
            ExitCode::FAILURE
        }
    }
}
