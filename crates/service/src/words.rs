//! What a process in a cell says: lines to standard error, a pipe that the spawner reads. It adds the time and whose they are.

use crate::journal::is_quiet;
use crate::line::one_line;
use skep_ipc::{Observer, ProtocolError};
use skep_proto::wire::Origin;
use skep_proto::{Op, Refusal, TraceId};
use skep_sys::sock::Peer;
use std::fmt;
use std::io::{self, Write};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};

/// Characters of a line that are kept.
pub const WORDS: usize = 500;

/// Lines that the pipe did not take: it is full while the spawner has something else to do, and waiting for it would stop a guest.
static LOST: AtomicU64 = AtomicU64::new(0);
/// The last line went out in part.
static TORN: AtomicBool = AtomicBool::new(false);

/// See the module. A process has one standard error: all of these are the same.
#[derive(Debug, Clone, Copy)]
pub struct Words;

impl Words {
    /// Something worth knowing.
    pub fn info(self, trace: Option<TraceId>, what: fmt::Arguments<'_>) {
        say("info", trace, what);
    }

    /// Something that should not be.
    pub fn warn(self, trace: Option<TraceId>, what: fmt::Arguments<'_>) {
        say("warn", trace, what);
    }
}

fn say(level: &str, trace: Option<TraceId>, what: fmt::Arguments<'_>) {
    let lost = LOST.swap(0, Relaxed);
    if lost > 0 && !write(&format!("warn {lost} lines were lost before this one: nobody read them in time\n")) {
        LOST.fetch_add(lost.saturating_add(1), Relaxed);
        return;
    }
    let trace = trace.map(|t| ["trace=", &*t.to_string(), " "].concat()).unwrap_or_default();
    if !write(&[level, " ", &*trace, &*one_line(what, WORDS), "\n"].concat()) {
        LOST.fetch_add(1, Relaxed);
    }
}

/// Whether all of it went.
fn write(line: &str) -> bool {
    let torn = TORN.load(Relaxed);
    let line = if torn { &["\n", line].concat() } else { line };
    let sent = io::stderr().write(line.as_bytes()).unwrap_or(0);
    TORN.store(if sent == 0 { torn } else { sent < line.len() }, Relaxed);
    sent == line.len()
}

impl Observer for Words {
    fn begin(&mut self, _: &Origin, _: &'static Op, _: &dyn fmt::Debug) {}
    fn end(&mut self, origin: &Origin, op: &'static Op, result: Result<(), &Refusal>) {
        let trace = Some(origin.trace);
        match result {
            Ok(()) if is_quiet(op) => {}
            Ok(()) => self.info(trace, format_args!("{} for {}: done", op.name, origin.user)),
            Err(refusal) => self.warn(trace, format_args!("{} for {}: {refusal}", op.name, origin.user)),
        }
    }
    fn closed(&mut self, peer: Peer, error: &ProtocolError) {
        if !error.is_goodbye() {
            self.warn(None, format_args!("closed the connection of process {} (uid {}): {error}", peer.pid, peer.uid));
        }
    }
    fn stranger(&mut self, peer: Peer) {
        self.warn(None, format_args!("turned away process {} (uid {}), which is not the declared peer", peer.pid, peer.uid));
    }
}
