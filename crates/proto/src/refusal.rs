//! Why an operation was refused: the one table that gives the gRPC code, the command's exit code and the advice.

use crate::Text;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// How the note of a refusal begins that says when to try again.
const AGAIN: &str = "again in ";

/// A refused operation. Travels in every reply; names the object and, where it helps, the field and the kernel's reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The stable reason.
    pub reason: Reason,
    /// What it was about: `disk web1-root`, `switch lan`, `uplink eth7`.
    pub object: Text<128>,
    /// The field of the request at fault, if one was.
    pub field: Text<48>,
    /// What exactly: the limit, the format that was found, the state it is in.
    pub note: Text<512>,
    /// `errno` of the system call that failed; 0 if none did.
    pub errno: i32,
}

impl Refusal {
    /// A refusal about `object`.
    pub fn new(reason: Reason, object: impl fmt::Display) -> Self {
        Self { reason, object: Text::lossy(&object.to_string()), field: Text::default(), note: Text::default(), errno: 0 }
    }
    /// Adds what exactly was wrong.
    #[must_use]
    pub fn note(mut self, note: impl fmt::Display) -> Self {
        self.note = Text::lossy(&note.to_string());
        self
    }
    /// Adds the field at fault.
    #[must_use]
    pub fn field(mut self, field: &str) -> Self {
        self.field = Text::lossy(field);
        self
    }
    /// Adds the kernel's reason; "no space" and "too many files" become reasons of their own.
    #[must_use]
    pub fn errno(mut self, errno: i32) -> Self {
        // Same numbers on Linux and FreeBSD but for EDQUOT.
        const ENFILE: i32 = 23;
        const EMFILE: i32 = 24;
        const ENOSPC: i32 = 28;
        const EDQUOT: [i32; 2] = [122, 69];
        if errno == ENOSPC || EDQUOT.contains(&errno) && self.reason == Reason::Internal {
            self.reason = Reason::NoSpace;
        } else if errno == ENFILE || errno == EMFILE {
            self.reason = Reason::LimitReached;
        }
        self.errno = errno;
        self
    }
    /// Something that may be tried again when so much time has passed.
    pub fn later(object: impl fmt::Display, wait: Duration) -> Self {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        Self::new(Reason::TooManyTries, object).note(format_args!("{AGAIN}{} s", seconds.max(1)))
    }
    /// When it may be tried again: of what [`Refusal::later`] made.
    pub fn wait(&self) -> Option<Duration> {
        let seconds = self.note.as_str().strip_prefix(AGAIN)?.strip_suffix(" s")?;
        (self.reason == Reason::TooManyTries).then(|| seconds.parse().ok().map(Duration::from_secs)).flatten()
    }
    /// From a failed system call.
    pub fn io(object: impl fmt::Display, what: &str, error: &std::io::Error) -> Self {
        let refusal = Self::new(Reason::Internal, object).note(format_args!("{what}: {error}"));
        refusal.errno(error.raw_os_error().unwrap_or(0))
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.object, self.reason.row().text)?;
        if !self.field.as_str().is_empty() {
            write!(f, " ({})", self.field)?;
        }
        if !self.note.as_str().is_empty() {
            write!(f, ": {}", self.note)?;
        }
        Ok(())
    }
}
impl std::error::Error for Refusal {}

/// A line of the table of reasons.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// Name in the API (`google.rpc.ErrorInfo.reason`).
    pub name: &'static str,
    /// Number of the gRPC status code.
    pub grpc: u8,
    /// Exit code of the `skep` command.
    pub exit: u8,
    /// What is wrong, in words.
    pub text: &'static str,
    /// What to do about it.
    pub advice: &'static str,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $reason:ident = $name:literal, $grpc:literal, $exit:literal, $text:literal, $advice:literal;)*) => {
        /// Stable reasons. They only grow, at the end.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum Reason { $($(#[$doc])* #[doc = $text] $reason,)* }

        impl Reason {
            /// All of them, in order.
            pub const ALL: &'static [Reason] = &[$(Reason::$reason,)*];
            /// The reason's line.
            pub const fn row(self) -> Row {
                match self { $(Reason::$reason => Row { name: $name, grpc: $grpc, exit: $exit, text: $text, advice: $advice },)* }
            }
        }
    };
}

reasons! {
    Internal = "INTERNAL", 13, 1, "the operation failed", "see `skep log` with the trace id; the state is as before";
    InvalidValue = "INVALID_VALUE", 3, 8, "the value is not acceptable", "give a value within the stated limits";
    NotFound = "NOT_FOUND", 5, 3, "there is no such object", "see the `list` command for what there is";
    AlreadyExists = "ALREADY_EXISTS", 6, 4, "the name is already taken", "choose another name, or delete the other one first";
    InUse = "IN_USE", 9, 5, "the object is in use", "stop or detach what uses it first";
    WrongState = "WRONG_STATE", 9, 5, "that is not possible in the present state", "see `skep vm show` for the state";
    NoSpace = "NO_SPACE", 8, 9, "there is no space left", "free some space where the state directory lies";
    TooLarge = "TOO_LARGE", 3, 8, "it is larger than allowed", "give a smaller size or raise the limit";
    BadImage = "BAD_IMAGE", 3, 8, "the image cannot be used", "check that the file is a whole, valid image of the stated format";
    NamesOtherFile = "NAMES_OTHER_FILE", 3, 8, "the image names another file", "flatten it first: `qemu-img convert -O qcow2 IN OUT`";
    ChecksumMismatch = "CHECKSUM_MISMATCH", 10, 8, "the checksum differs", "fetch the file again, or correct the checksum";
    HypervisorMissing = "HYPERVISOR_MISSING", 9, 11, "the hypervisor is not installed", "run `skep doctor`";
    FirmwareMissing = "FIRMWARE_MISSING", 9, 11, "the firmware is not installed", "run `skep doctor`";
    Unsupported = "UNSUPPORTED", 12, 11, "this host cannot do that", "see `skep host show` for what it can";
    NeedsRoot = "NEEDS_ROOT", 9, 11, "the suite was not started by root", "start the suite as root";
    PermissionDenied = "PERMISSION_DENIED", 7, 6, "you may not do that", "ask an administrator";
    Unauthenticated = "UNAUTHENTICATED", 16, 6, "the credential is not valid", "log in again";
    LimitReached = "LIMIT_REACHED", 8, 9, "a limit is reached", "delete or stop something first";
    Cancelled = "CANCELLED", 1, 10, "it was cancelled", "nothing was left behind";
    Timeout = "TIMEOUT", 4, 10, "it took too long", "try again; see `skep log` if it stays so";
    Unavailable = "UNAVAILABLE", 14, 7, "a process of the suite does not answer", "try again; it is being restarted";
    Conflict = "CONFLICT", 10, 4, "it was changed by somebody else meanwhile", "look at it again and repeat the change";
    Gap = "GAP", 11, 8, "events before this token are no longer kept", "read the present state, then watch without a token";
    HypervisorFailed = "HYPERVISOR_FAILED", 13, 1, "the hypervisor failed", "see `skep vm log` for its last words";
    BadVariables = "BAD_VARIABLES", 9, 5, "the firmware's variables cannot be read", "`skep vm firmware reset` brings back those of a new machine";
    QuotaReached = "QUOTA_REACHED", 8, 9, "the quota of its group is reached", "delete something of the group, or ask an administrator for more";
    TooManyTries = "TOO_MANY_TRIES", 8, 9, "it was tried too often", "wait as long as it says, then try again";
    BadSignature = "BAD_SIGNATURE", 10, 8, "it is not signed by a key that was given", "get the vendor's present key by a way that you trust, and look at what is wrong";
}
