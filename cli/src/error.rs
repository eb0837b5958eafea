//! What a command fails with: one line for people, one object for programs, one exit code.

use serde_json::{Value, json};
use skep_api::v1;
use skep_proto::{Reason, Refusal};
use std::error::Error;
use std::fmt;
use std::io;
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// Exit code of a command that was interrupted by ^C, as shells have it.
pub const INTERRUPTED: u8 = 130;

/// Why a command failed.
#[derive(Debug, Clone, Default)]
pub struct Failure {
    /// Exit code.
    pub exit: u8,
    /// Stable name of the reason.
    pub reason: String,
    /// What it was about: `disk web1`.
    pub object: String,
    /// The field at fault.
    pub field: String,
    /// What exactly.
    pub note: String,
    /// `errno` of the system call that failed; 0: none did.
    pub errno: i32,
    /// All of it in one sentence.
    pub message: String,
    /// What to do.
    pub advice: String,
    /// The trace to look for in the logs.
    pub trace: String,
}

impl Failure {
    /// A failure of this command itself.
    pub fn new(reason: Reason, object: impl fmt::Display, note: impl fmt::Display) -> Self {
        Refusal::new(reason, object).note(note).into()
    }

    /// From a failed system call of this command itself; the suite has no part in it.
    pub fn io(object: impl fmt::Display, what: &str, error: &io::Error) -> Self {
        let reason = match error.kind() {
            io::ErrorKind::NotFound => Reason::NotFound,
            io::ErrorKind::PermissionDenied => Reason::PermissionDenied,
            io::ErrorKind::IsADirectory | io::ErrorKind::NotADirectory | io::ErrorKind::InvalidInput => Reason::InvalidValue,
            _ => Reason::Internal,
        };
        let refusal =
            Refusal::new(reason, &object).note(format_args!("{what}: {error}")).errno(error.raw_os_error().unwrap_or(0));
        Self { message: format!("{object}: {what}: {error}"), advice: String::new(), ..refusal.into() }
    }

    /// With other advice.
    #[must_use]
    pub fn advice(mut self, advice: impl fmt::Display) -> Self {
        self.advice = advice.to_string();
        self
    }

    /// Left by ^C.
    pub fn interrupted(advice: impl fmt::Display) -> Self {
        let row = Reason::Cancelled.row();
        let (reason, message) = (row.name.to_owned(), "interrupted".to_owned());
        Self { exit: INTERRUPTED, reason, message, advice: advice.to_string(), ..Self::default() }
    }

    /// The time that the command gives its calls is over, and no answer was there.
    pub fn late(object: impl fmt::Display) -> Self {
        let failure = Self::new(Reason::Timeout, object, "the time that --request-timeout gives is over");
        failure.advice("what was asked may be done all the same: look at it before you ask again")
    }

    /// Whether this is why.
    pub fn is(&self, reason: Reason) -> bool {
        self.reason == reason.row().name
    }

    /// Whether the time that a call had is over.
    pub fn is_late(&self) -> bool {
        self.is(Reason::Timeout)
    }

    /// Whether trying again soon may help.
    pub fn is_unavailable(&self) -> bool {
        self.is(Reason::Unavailable)
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let Failure { exit, reason, object, field, note, errno, message, advice, trace } = self;
        json!({"error": {
            "reason": reason, "object": object, "field": field, "note": note, "errno": errno, "message": message,
            "advice": advice, "trace": trace, "exit": exit,
        }})
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if !self.advice.is_empty() {
            write!(f, " — {}", self.advice)?;
        }
        if self.reason == Reason::Internal.row().name && !self.trace.is_empty() {
            write!(f, " (trace {})", self.trace)?;
        }
        Ok(())
    }
}

/// The line of the table of reasons with this name.
fn known(name: &str) -> Option<Reason> {
    Reason::ALL.iter().copied().find(|r| r.row().name == name)
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let row = refusal.reason.row();
        Self {
            exit: row.exit,
            reason: row.name.to_owned(),
            object: refusal.object.to_string(),
            field: refusal.field.to_string(),
            note: refusal.note.to_string(),
            errno: refusal.errno,
            message: refusal.to_string(),
            advice: row.advice.to_owned(),
            trace: String::new(),
        }
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        // tonic's own clock, which calls it cancelled, may be the first.
        let mut cause = status.source();
        while let Some(this) = cause {
            if this.is::<tonic::TimeoutExpired>() {
                return Self::late("api-frontend");
            }
            cause = this.source();
        }
        let details = status.get_error_details();
        let Some(info) = details.error_info() else { return without_details(&status) };
        let get = |name: &str| info.metadata.get(name).cloned().unwrap_or_default();
        Self {
            exit: known(&info.reason).map_or(1, |r| r.row().exit),
            reason: info.reason.clone(),
            object: get("object"),
            field: get("field"),
            note: get("note"),
            errno: get("errno").parse().unwrap_or(0),
            message: status.message().to_owned(),
            advice: get("advice"),
            trace: get("trace"),
        }
    }
}

/// A status that gRPC itself made.
fn without_details(status: &Status) -> Failure {
    let reason = match status.code() {
        Code::Unavailable | Code::Unknown | Code::Aborted => Reason::Unavailable,
        Code::Cancelled => Reason::Cancelled,
        Code::DeadlineExceeded => Reason::Timeout,
        Code::Unimplemented => Reason::Unsupported,
        Code::ResourceExhausted => Reason::LimitReached,
        Code::OutOfRange | Code::InvalidArgument => Reason::InvalidValue,
        _ => Reason::Internal,
    };
    Failure::new(reason, "api-frontend", status.message())
}

impl From<v1::Operation> for Failure {
    /// Of an operation that has failed.
    fn from(operation: v1::Operation) -> Self {
        let failure = operation.failure.unwrap_or_default();
        Self {
            exit: known(&failure.reason).map_or(1, |r| r.row().exit),
            reason: failure.reason,
            object: failure.object,
            field: failure.field,
            note: failure.note,
            errno: failure.errno,
            message: failure.message,
            advice: failure.advice,
            trace: operation.trace,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_reads_as_one_line() {
        let refusal = Refusal::new(Reason::TooLarge, "disk web1").field("size").note("at most 64 TiB");
        let failure = Failure::from(refusal);
        let expected = "disk web1: it is larger than allowed (size): at most 64 TiB — give a smaller size or raise the limit";
        assert_eq!(failure.to_string(), expected);
        assert_eq!(failure.exit, 8);
        assert_eq!(failure.json()["error"]["field"], "size");
    }
}
