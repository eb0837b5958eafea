//! The file format of `-readconfig` (util/qemu-config.c): `[group "id"]`, then `key = "value"`. It knows no escapes, and cuts lines at
//! 1,023 bytes without a word, after which the rest is read as another line. So a value is refused that cannot stand there whole.

use std::fmt::Write;

/// The longest value.
const LONGEST: usize = 940;

/// A value that the configuration file cannot carry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{group}.{key}: QEMU's configuration file cannot carry this value: {why}")]
pub struct Unwritable {
    /// Group of the file.
    pub group: &'static str,
    /// Key in the group.
    pub key: String,
    /// Why.
    pub why: &'static str,
}

/// The file, as far as written.
#[derive(Debug, Default)]
pub struct Config(String);

/// A group being written.
#[derive(Debug)]
pub struct Group<'c> {
    file: &'c mut Config,
    name: &'static str,
}

impl Config {
    /// Writes a line that QEMU passes over: what is meant for whoever starts it.
    pub fn comment(&mut self, word: &'static str, value: &str) -> Result<(), Unwritable> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
        if !value.bytes().all(plain) {
            return Err(Unwritable { group: word, key: value.to_owned(), why: "it is not a plain word" });
        }
        let _ = writeln!(self.0, "{word}{value}"); // a String takes everything
        Ok(())
    }
    /// Begins a group without an id.
    pub fn group(&mut self, name: &'static str) -> Group<'_> {
        self.begin(format_args!("[{name}]"), name)
    }
    /// Begins a group with an id, made of our own words and numbers.
    pub fn with_id(&mut self, name: &'static str, id: &str) -> Group<'_> {
        debug_assert!(id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'), "ids are ours: {id}");
        self.begin(format_args!("[{name} \"{id}\"]"), name)
    }
    fn begin(&mut self, header: std::fmt::Arguments<'_>, name: &'static str) -> Group<'_> {
        let gap = if self.0.is_empty() { "" } else { "\n" };
        let _ = writeln!(self.0, "{gap}{header}"); // a String takes everything
        Group { file: self, name }
    }
    /// The whole file.
    pub fn finish(self) -> String {
        self.0
    }
}

impl Group<'_> {
    /// Writes one line.
    pub fn set(self, key: &str, value: impl ToString) -> Result<Self, Unwritable> {
        let value = value.to_string();
        let why = match () {
            () if value.len() > LONGEST => "it is longer than 940 bytes",
            () if value.contains('"') => "it has a double quote",
            () if !value.bytes().all(|b| (b' '..=b'~').contains(&b)) => "it has a byte that is not printable ASCII",
            () => {
                let _ = writeln!(self.file.0, "  {key} = \"{value}\"");
                return Ok(self);
            }
        };
        Err(Unwritable { group: self.name, key: key.to_owned(), why })
    }
}
