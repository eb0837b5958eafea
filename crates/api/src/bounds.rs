//! The lengths that `proto/skep/v1` declares for the fields of requests ([`crate::v1::Bounds`]), as a check that its build wrote.

use std::fmt;

/// A message that can be held to its bounds.
pub trait Bounded {
    /// Finds the first field that breaks one.
    fn bounds(&self) -> Result<(), Exceeded>;
}

/// Its messages come later, and are checked one by one.
impl<T> Bounded for tonic::Streaming<T> {
    fn bounds(&self) -> Result<(), Exceeded> {
        Ok(())
    }
}

/// No message of ours (Empty).
impl Bounded for () {
    fn bounds(&self) -> Result<(), Exceeded> {
        Ok(())
    }
}

/// A broken bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exceeded {
    /// Path of the field: `settings.disks.disk`.
    pub field: String,
    /// What it has, and what it may have.
    pub note: String,
}

impl fmt::Display for Exceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.note)
    }
}

impl Exceeded {
    /// The same, seen from the message that holds this one in `field`.
    fn within(mut self, field: &str) -> Self {
        self.field = format!("{field}.{}", self.field);
        self
    }
}

/// Holds a text or data to its bounds; 0: as long as a message may be.
fn bytes(field: &str, has: usize, most: usize, required: bool) -> Result<(), Exceeded> {
    let refused = |note: String| Err(Exceeded { field: field.to_owned(), note });
    match has {
        0 if required && most > 0 => refused(format!("it is empty; 1 to {most} bytes are expected")),
        0 if required => refused("it is empty".to_owned()),
        _ if most > 0 && has > most => refused(format!("{has} bytes; at most {most} are permitted")),
        _ => Ok(()),
    }
}

/// Holds a repeated field to its bounds.
fn items(field: &str, has: usize, most: usize, required: bool) -> Result<(), Exceeded> {
    let refused = |note: String| Err(Exceeded { field: field.to_owned(), note });
    match has {
        0 if required => refused(format!("there is none; 1 to {most} are expected")),
        _ if has > most => refused(format!("{has} of them; at most {most} are permitted")),
        _ => Ok(()),
    }
}

include!(concat!(env!("OUT_DIR"), "/bounds.rs"));

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1;

    #[test]
    fn a_field_is_named_by_its_path_with_what_it_has_and_may_have() {
        let named = |name: &str| v1::GetMachineRequest { machine: name.into() };
        assert_eq!(named("web1").bounds(), Ok(()));
        assert_eq!(named("").bounds().expect_err("empty").to_string(), "machine: it is empty; 1 to 63 bytes are expected");
        let long = named(&"é".repeat(32)).bounds().expect_err("long").to_string();
        assert_eq!(long, "machine: 64 bytes; at most 63 are permitted");
        let create = |settings| v1::CreateMachineRequest { name: "m".into(), settings: Some(settings), ..Default::default() };
        let disk = |name: &str| v1::DiskAttachment { disk: name.into(), ..Default::default() };
        let of = |settings| create(settings).bounds().expect_err("refused").to_string();
        let nine = v1::MachineSettings { disks: vec![disk("a"); 9], ..Default::default() };
        assert_eq!(of(nine), "settings.disks: 9 of them; at most 8 are permitted");
        let long = v1::MachineSettings { disks: vec![disk("a"), disk(&"a".repeat(64))], ..Default::default() };
        assert_eq!(of(long), "settings.disks.disk: 64 bytes; at most 63 are permitted");
        let channels = v1::MachineSettings { channels: vec!["a".repeat(64)], ..Default::default() };
        assert_eq!(of(channels), "settings.channels: 64 bytes; at most 63 are permitted");
        let boot = v1::boot::Kind::Direct(v1::DirectBoot { kernel: String::new(), ..Default::default() });
        let boot = v1::MachineSettings { boot: Some(v1::Boot { kind: Some(boot) }), ..Default::default() };
        assert_eq!(of(boot), "settings.boot.direct.kernel: it is empty; 1 to 63 bytes are expected");
        let data = v1::ConsoleInput { kind: Some(v1::console_input::Kind::Data(vec![0; (64 << 10) + 1].into())) };
        assert_eq!(data.bounds().expect_err("refused").to_string(), "data: 65537 bytes; at most 65536 are permitted");
    }
}
