//! The record of privileged acts: written by the process that acts, before and after, appended to a file of its own.
//! One line a record, tab-separated: time, service, pid, trace, user, operation, `begin` or the result, the request.

use crate::kept::Kept;
use crate::line::one_line;
use crate::time::iso8601;
use skep_proto::wire::Origin;
use skep_proto::{Op, Reason, Refusal};
use std::fmt;
use std::io::{self, Write};
use std::os::fd::BorrowedFd;

/// An open record.
#[derive(Debug)]
pub struct ActLog {
    name: &'static str,
    /// Asked for once: no service goes on as another process.
    pid: String,
    file: Kept,
}

impl ActLog {
    pub(crate) fn new(name: &'static str, file: Kept) -> Self {
        Self { name, pid: std::process::id().to_string(), file }
    }

    /// The time of all of these is nanoseconds since 1970.
    pub(crate) fn begin(&mut self, time: i64, origin: &Origin, op: &'static Op, request: &dyn fmt::Debug) {
        self.write(time, origin, op, "begin", format_args!("{request:?}"));
    }

    pub(crate) fn end(&mut self, time: i64, origin: &Origin, op: &'static Op, result: Result<(), &Refusal>) {
        match result {
            Ok(()) => self.write(time, origin, op, "done", format_args!("")),
            Err(refusal) => self.write(time, origin, op, refusal.reason.row().name, format_args!("{refusal}")),
        }
    }

    /// A call that is recorded when it has ended: about what, with what outcome.
    pub(crate) fn called(&mut self, time: i64, origin: &Origin, op: &'static Op, about: &str, result: Result<(), &Refusal>) {
        match result {
            Ok(()) => self.write(time, origin, op, "done", format_args!("{about}")),
            Err(refusal) => self.write(time, origin, op, refusal.reason.row().name, format_args!("{about}: {refusal}")),
        }
    }

    /// A call whose outcome somebody else tells.
    pub(crate) fn told(&mut self, time: i64, origin: &Origin, op: &'static Op, about: &str, reason: Option<Reason>) {
        self.write(time, origin, op, reason.map_or("done", |reason| reason.row().name), format_args!("{about}"));
    }

    fn write(&mut self, time: i64, origin: &Origin, op: &Op, result: &str, detail: fmt::Arguments<'_>) {
        let (time, detail) = (iso8601(time), one_line(detail, 1000));
        let trace = origin.trace.to_string();
        let fields = [&*time, self.name, &*self.pid, &*trace, origin.user.as_str(), op.name, result, &*detail];
        let line = fields.join("\t") + "\n";
        // An act is not undone because its record could not be written.
        if self.file.add(line.as_bytes()).is_err() {
            // Not eprintln, which panics where this cannot be written either.
            let _ = writeln!(io::stderr(), "skep-{}: the log of acts cannot be written", self.name);
        }
    }
}

impl ActLog {
    /// Its files.
    pub fn held(&self) -> [BorrowedFd<'_>; 2] {
        self.file.held()
    }
}
