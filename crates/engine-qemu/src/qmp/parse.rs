//! Lines that QEMU sends.

use serde_json::Value;

/// The longest line that is read. The longest answer to any of our commands is about 5 KiB.
pub const LONGEST_LINE: usize = 64 << 10;
/// The longest text that is kept of an error.
const LONGEST_TEXT: usize = 300;

/// A line.
#[derive(Debug, Clone, PartialEq)]
pub enum Line {
    /// The first line, with QEMU's version.
    Greeting(u8, u8, u8),
    /// Something happened.
    Event(Event),
    /// The answer to the command with this id.
    Reply(u64, Reply),
}

/// The answer to a command.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// Done, with what it returned.
    Done(Value),
    /// Refused, with QEMU's reason: printable, at most 300 characters.
    Refused(String),
}

/// Something that happened. Those that skep acts on; the rest is [`Event::Other`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The machine stops for good; QEMU ends next.
    Shutdown(Reason),
    /// The power button was pressed; the guest may or may not obey.
    PowerButton,
    /// The virtual CPUs stopped.
    Stopped,
    /// The virtual CPUs run.
    Running,
    /// The guest's kernel said that it panicked.
    Panicked,
    /// A disk's backend failed, by slot where it is one of ours.
    DiskError(Option<u8>),
    /// Another one.
    Other,
}

/// Why a machine stops for good (qapi/run-state.json, ShutdownCause).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// `guest-shutdown`.
    GuestPowerOff,
    /// `guest-reset`.
    GuestReboot,
    /// `guest-panic`.
    GuestPanic,
    /// `host-qmp-quit`.
    Quit,
    /// `host-qmp-system-reset`.
    Reset,
    /// `host-signal`: SIGTERM, SIGINT, SIGHUP.
    Signal,
    /// Another one.
    Other,
}

/// A line that is no QMP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Bad {
    /// It has no end.
    #[error("QMP: line longer than {LONGEST_LINE} bytes")]
    TooLong,
    /// It is no JSON object.
    #[error("QMP: line is not a JSON object")]
    NotJson,
    /// It is neither a greeting nor an event nor a reply.
    #[error("QMP: line is neither greeting, event nor reply with an id of ours")]
    Unknown,
}

/// Parses one line, its end left out.
pub fn parse(line: &[u8]) -> Result<Line, Bad> {
    if line.len() > LONGEST_LINE {
        return Err(Bad::TooLong);
    }
    let Ok(Value::Object(mut object)) = serde_json::from_slice(line) else {
        return Err(Bad::NotJson);
    };
    if let Some(name) = object.get("event").and_then(Value::as_str) {
        return Ok(Line::Event(event(name, object.get("data"))));
    }
    if let Some(version) = object.get("QMP").and_then(|q| q.pointer("/version/qemu")) {
        let part = |key| version.get(key).and_then(Value::as_u64).and_then(|n| u8::try_from(n).ok()).ok_or(Bad::Unknown);
        return Ok(Line::Greeting(part("major")?, part("minor")?, part("micro")?));
    }
    let id = object.get("id").and_then(Value::as_u64).ok_or(Bad::Unknown)?;
    if let Some(value) = object.remove("return") {
        return Ok(Line::Reply(id, Reply::Done(value)));
    }
    let reason = object.get("error").and_then(|e| e.get("desc")).and_then(Value::as_str).ok_or(Bad::Unknown)?;
    let printable = reason.chars().map(|c| if c.is_control() { ' ' } else { c });
    Ok(Line::Reply(id, Reply::Refused(printable.take(LONGEST_TEXT).collect())))
}

fn event(name: &str, data: Option<&Value>) -> Event {
    let text = |key| data.and_then(|d| d.get(key)).and_then(Value::as_str);
    match name {
        "SHUTDOWN" => Event::Shutdown(match text("reason") {
            Some("guest-shutdown") => Reason::GuestPowerOff,
            Some("guest-reset") => Reason::GuestReboot,
            Some("guest-panic") => Reason::GuestPanic,
            Some("host-qmp-quit") => Reason::Quit,
            Some("host-qmp-system-reset") => Reason::Reset,
            Some("host-signal") => Reason::Signal,
            _ => Reason::Other,
        }),
        "POWERDOWN" => Event::PowerButton,
        "STOP" => Event::Stopped,
        "RESUME" => Event::Running,
        "GUEST_PANICKED" => Event::Panicked,
        "BLOCK_IO_ERROR" => Event::DiskError(text("device").and_then(super::commands::disk_slot)),
        _ => Event::Other,
    }
}

/// Cuts a stream into lines.
#[derive(Debug, Default)]
pub struct Reader {
    kept: Vec<u8>,
}

impl Reader {
    /// Takes bytes as they came and hands each whole line's meaning to `each`. After an error the stream has no meaning any more.
    pub fn feed(&mut self, mut bytes: &[u8], mut each: impl FnMut(Line)) -> Result<(), Bad> {
        while let Some(end) = bytes.iter().position(|&b| b == b'\n') {
            let (line, rest) = bytes.split_at(end);
            bytes = rest.get(1..).unwrap_or_default();
            if self.kept.len() + line.len() > LONGEST_LINE {
                return Err(Bad::TooLong);
            }
            self.kept.extend_from_slice(line);
            let line = std::mem::take(&mut self.kept);
            if !line.trim_ascii().is_empty() {
                each(parse(line.trim_ascii())?);
            }
        }
        if self.kept.len() + bytes.len() > LONGEST_LINE {
            return Err(Bad::TooLong);
        }
        self.kept.extend_from_slice(bytes);
        Ok(())
    }
}
