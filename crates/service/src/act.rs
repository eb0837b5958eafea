//! The record of privileged acts: written by the process that acts, before and after, appended to a file of its own.
//! One line a record, tab-separated: time, service, pid, trace, user, operation, `begin` or the result, the request.

use crate::kept::Kept;
use crate::time::{iso8601, now_ns};
use skep_proto::wire::Origin;
use skep_proto::{Op, Refusal};
use std::fmt;
use std::io::{self, Write};
use std::os::fd::BorrowedFd;

/// An open record.
#[derive(Debug)]
pub struct ActLog {
    name: &'static str,
    file: Kept,
}

impl ActLog {
    pub(crate) fn new(name: &'static str, file: Kept) -> Self {
        Self { name, file }
    }

    pub(crate) fn begin(&mut self, origin: &Origin, op: &'static Op, request: &dyn fmt::Debug) {
        self.write(origin, op, "begin", format_args!("{request:?}"));
    }

    pub(crate) fn end(&mut self, origin: &Origin, op: &'static Op, result: Result<(), &Refusal>) {
        match result {
            Ok(()) => self.write(origin, op, "done", format_args!("")),
            Err(refusal) => self.write(origin, op, refusal.reason.row().name, format_args!("{refusal}")),
        }
    }

    /// A call that is recorded when it has ended: about what, with what outcome.
    pub(crate) fn called(&mut self, origin: &Origin, op: &'static Op, about: &str, result: Result<(), &Refusal>) {
        match result {
            Ok(()) => self.write(origin, op, "done", format_args!("{about}")),
            Err(refusal) => self.write(origin, op, refusal.reason.row().name, format_args!("{about}: {refusal}")),
        }
    }

    fn write(&mut self, origin: &Origin, op: &Op, result: &str, detail: fmt::Arguments<'_>) {
        let detail: String = detail.to_string().chars().map(|c| if c.is_control() { ' ' } else { c }).take(1000).collect();
        let pid = std::process::id();
        let time = iso8601(now_ns());
        let Origin { trace, user, .. } = origin;
        let line = format!("{time}\t{}\t{pid}\t{trace}\t{user}\t{}\t{result}\t{detail}\n", self.name, op.name);
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
