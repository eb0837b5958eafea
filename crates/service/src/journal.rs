//! A service's log: one line an event, to standard error and to syslog, with the trace of the user action.

use crate::act::ActLog;
use crate::kept::Kept;
use crate::line::one_line;
use crate::time::{iso8601, now_ns};
use skep_ipc::{Observer, ProtocolError};
use skep_proto::wire::Origin;
use skep_proto::{Op, Reason, Refusal, Text, TraceId};
use skep_sys::sock::Peer;
use std::cell::RefCell;
use std::fmt;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

type Syslog = syslog::Logger<syslog::LoggerBackend, syslog::Formatter3164>;

/// The log, and the record of privileged acts.
pub struct Journal {
    name: &'static str,
    acts: Option<ActLog>,
    syslog: Option<Syslog>,
    /// The file that standard error goes to.
    kept: Option<Kept>,
    ready: Option<OwnedFd>,
}

impl Journal {
    /// A log for the service `name`; acts are recorded in `acts`.
    pub fn new(name: &'static str, acts: Option<Kept>) -> Self {
        let formatter = syslog::Formatter3164 {
            facility: syslog::Facility::LOG_DAEMON,
            hostname: None,
            process: format!("skep-{name}"),
            pid: std::process::id(),
        };
        // Where no syslogd listens there is none; standard error goes to a file in any case.
        Self {
            name,
            acts: acts.map(|file| ActLog::new(name, file)),
            syslog: syslog::unix(formatter).ok(),
            kept: None,
            ready: None,
        }
    }

    /// Keeps the file that standard error goes to within its bounds.
    #[must_use]
    pub fn keeping(mut self, kept: Option<Kept>) -> Self {
        self.kept = kept;
        self
    }

    /// Has [`Journal::serves`] tell the supervisor, through this pipe.
    #[must_use]
    pub fn telling(mut self, ready: Option<OwnedFd>) -> Self {
        self.ready = ready;
        self
    }

    /// To be called when the sandbox was entered and requests will be answered.
    pub fn serves(&mut self) {
        self.info(None, format_args!("serves"));
        if let Some(ready) = self.ready.take() {
            // A supervisor that went away needs no word.
            let _ = File::from(ready).write_all(b"r");
        }
    }

    /// The descriptors that it holds: lines `log of acts`, `own log`, `syslog` and `ready` of the table.
    pub fn held(&self) -> Vec<(&'static str, BorrowedFd<'_>)> {
        let mut held: Vec<_> = self.acts.iter().flat_map(ActLog::held).map(|fd| ("log of acts", fd)).collect();
        held.extend(self.kept.iter().flat_map(Kept::held).map(|fd| ("own log", fd)));
        if let Some(Syslog { backend: syslog::LoggerBackend::Unix(socket), .. }) = &self.syslog {
            held.push(("syslog", socket.as_fd()));
        }
        held.extend(self.ready.iter().map(|ready| ("ready", ready.as_fd())));
        held
    }

    /// Something worth knowing.
    pub fn info(&mut self, trace: Option<TraceId>, what: fmt::Arguments<'_>) {
        self.line(now_ns(), "info", trace, what);
    }

    /// Something that should not be.
    pub fn warn(&mut self, trace: Option<TraceId>, what: fmt::Arguments<'_>) {
        self.line(now_ns(), "warn", trace, what);
    }

    /// Records a call that has ended among the privileged acts; nothing in the log.
    pub fn called(&mut self, trace: TraceId, user: &Text<64>, op: &'static Op, about: &str, result: Result<(), &Refusal>) {
        if let Some(acts) = &mut self.acts {
            acts.called(now_ns(), &Origin { seq: 0, trace, user: user.clone() }, op, about, result);
        }
    }

    /// The same of a call whose outcome somebody else tells.
    pub fn told(&mut self, trace: TraceId, user: &Text<64>, op: &'static Op, about: &str, reason: Option<Reason>) {
        if let Some(acts) = &mut self.acts {
            acts.told(now_ns(), &Origin { seq: 0, trace, user: user.clone() }, op, about, reason);
        }
    }

    fn line(&mut self, time: i64, level: &str, trace: Option<TraceId>, what: fmt::Arguments<'_>) {
        let what = one_line(what, 2000);
        let trace = trace.map(|t| [" trace=", &*t.to_string()].concat()).unwrap_or_default();
        let line = [&*iso8601(time), " ", self.name, " ", level, &*trace, " ", &*what, "\n"].concat();
        if let Some(kept) = &mut self.kept {
            kept.make_room(line.len());
        }
        // A full disk must not end a service: a line that cannot be written is lost.
        let _ = std::io::stderr().write_all(line.as_bytes());
        if level == "warn"
            && let Some(syslog) = &mut self.syslog
        {
            let _ = syslog.warning(format!("{what}{trace}"));
        }
    }
}

/// What only reads counters or lists, and comes as often as somebody watches: were each time recorded, whoever watches could push the
/// record of acts out of its bounds. What is refused is recorded all the same.
pub fn is_quiet(op: &Op) -> bool {
    ["CellUsage", "CountTaps", "ListInterfaces", "MetricsGet"].contains(&op.name)
}

impl Observer for Journal {
    fn begin(&mut self, origin: &Origin, op: &'static Op, request: &dyn fmt::Debug) {
        if let Some(acts) = self.acts.as_mut().filter(|_| !is_quiet(op)) {
            acts.begin(now_ns(), origin, op, request);
        }
    }
    fn end(&mut self, origin: &Origin, op: &'static Op, result: Result<(), &Refusal>) {
        if is_quiet(op) && result.is_ok() {
            return;
        }
        // One moment for both.
        let (time, trace) = (now_ns(), Some(origin.trace));
        if let Some(acts) = &mut self.acts {
            acts.end(time, origin, op, result);
        }
        match result {
            Ok(()) => self.line(time, "info", trace, format_args!("{} for {}: done", op.name, origin.user)),
            Err(refusal) => self.line(time, "warn", trace, format_args!("{} for {}: {refusal}", op.name, origin.user)),
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

/// A journal that a helper's service and its server's observer share. Helpers have one thread.
#[derive(Clone)]
pub struct SharedJournal(Rc<RefCell<Journal>>);

impl SharedJournal {
    /// Shares a journal.
    pub fn new(journal: Journal) -> Self {
        Self(Rc::new(RefCell::new(journal)))
    }

    /// Something worth knowing.
    pub fn info(&self, trace: Option<TraceId>, what: fmt::Arguments<'_>) {
        self.with(|journal| journal.info(trace, what));
    }

    /// Something that should not be.
    pub fn warn(&self, trace: Option<TraceId>, what: fmt::Arguments<'_>) {
        self.with(|journal| journal.warn(trace, what));
    }

    /// See [`Journal::serves`].
    pub fn serves(&self) {
        self.with(Journal::serves);
    }

    fn with(&self, act: impl FnOnce(&mut Journal)) {
        // Never borrowed twice: no method of the journal calls back.
        if let Ok(mut journal) = self.0.try_borrow_mut() {
            act(&mut journal);
        }
    }
}

impl Observer for SharedJournal {
    fn begin(&mut self, origin: &Origin, op: &'static Op, request: &dyn fmt::Debug) {
        self.with(|journal| journal.begin(origin, op, request));
    }
    fn end(&mut self, origin: &Origin, op: &'static Op, result: Result<(), &Refusal>) {
        self.with(|journal| journal.end(origin, op, result));
    }
}
