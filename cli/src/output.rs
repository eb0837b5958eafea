//! What a command prints: tables for people, one object a line for programs.

use crate::error::Failure;
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde_json::Value;
use std::fmt;
use std::io::{IsTerminal, Write};

/// How to print.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    /// One object a line.
    pub json: bool,
    /// No remarks, no progress.
    pub quiet: bool,
}

/// A column of a table.
#[derive(Debug, Clone, Copy)]
pub enum Column {
    /// Text.
    Left(&'static str),
    /// Numbers.
    Right(&'static str),
}

impl Output {
    /// A line of the answer. A reader that has gone away ends the command, quietly.
    pub fn line(self, text: impl fmt::Display) {
        if writeln!(std::io::stdout(), "{text}").is_err() {
            std::process::exit(0);
        }
    }

    /// A remark: for people, unless they asked for quiet.
    pub fn remark(self, text: impl fmt::Display) {
        if !self.json && !self.quiet {
            self.line(text);
        }
    }

    /// One object: as JSON, or as lines of `name: value`.
    pub fn object(self, value: &Value) {
        if self.json {
            return self.line(value);
        }
        let Value::Object(fields) = value else { return self.line(plain(value)) };
        let width = fields.keys().map(|name| label(name).len()).max().unwrap_or(0) + 2;
        for (name, value) in fields {
            // One of a list a line.
            let lines = match value {
                Value::Array(values)
                    if matches!(name.as_str(), "weaker" | "inabilities") || values.iter().any(Value::is_object) =>
                {
                    values.iter().map(plain).collect()
                }
                value => vec![quantity(name, value)],
            };
            for (number, text) in lines.iter().enumerate().filter(|(_, text)| !text.is_empty()) {
                let label = if number == 0 { format!("{}:", label(name)) } else { String::new() };
                self.line(format_args!("{label:width$}{text}"));
            }
        }
    }

    /// A list: one object a line, or a table.
    pub fn list(self, columns: &[Column], rows: impl IntoIterator<Item = (Value, Vec<String>)>) {
        let mut table = Table::new();
        table.load_preset(presets::NOTHING);
        table.set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(columns.iter().map(|c| match c {
            Column::Left(name) | Column::Right(name) => *name,
        }));
        let mut any = false;
        for (value, row) in rows {
            if self.json {
                self.line(&value);
            } else {
                table.add_row(row);
                any = true;
            }
        }
        for (index, column) in columns.iter().enumerate() {
            let Some(found) = table.column_mut(index) else { continue };
            found.set_padding((0, 2));
            if let Column::Right(_) = column {
                found.set_cell_alignment(CellAlignment::Right);
            }
        }
        if any {
            for line in table.to_string().lines() {
                self.line(line.trim_end());
            }
        }
    }

    /// Why the command failed, on standard error.
    pub fn failure(self, failure: &Failure) {
        let mut error = std::io::stderr();
        let _ = if self.json { writeln!(error, "{}", failure.json()) } else { writeln!(error, "skep: {failure}") };
    }

    /// A warning, on standard error.
    pub fn warning(self, text: impl fmt::Display) {
        if !self.quiet {
            let _ = writeln!(std::io::stderr(), "skep: {text}");
        }
    }

    /// Whether progress can be drawn.
    pub fn draws(self) -> bool {
        !self.json && !self.quiet && std::io::stderr().is_terminal()
    }
}

/// What people call a field.
fn label(field: &str) -> String {
    match field {
        "id" => "ID".into(),
        "cpus" => "CPUs".into(),
        "machine_cpus" => "CPUs of one machine".into(),
        "machine_screen" => "Largest screen".into(),
        "cpu_percent" => "CPU limit".into(),
        "cpu_ns" => "CPU time".into(),
        "memory_mib" => "Memory".into(),
        "disk_bytes" => "Disks".into(),
        "quota_memory_mib" => "Quota memory".into(),
        "quota_disk_bytes" => "Quota disks".into(),
        "local_uid" => "Local uid".into(),
        "nics" => "NICs".into(),
        "mac" => "MAC address".into(),
        "sha256" => "SHA-256".into(),
        "uefi" => "UEFI firmware".into(),
        "tpm" => "TPM".into(),
        "pci" => "PCI".into(),
        "gdb" => "GDB".into(),
        "space_free" => "Free space".into(),
        "pending" => "At next start".into(),
        "done" => "Bytes done".into(),
        "total" => "Bytes in total".into(),
        _ => {
            let text = field.replace('_', " ");
            let mut letters = text.chars();
            letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
        }
    }
}

/// A field's value with its unit.
fn quantity(field: &str, value: &Value) -> String {
    match (field, value.as_u64()) {
        ("memory_mib" | "quota_memory_mib", Some(mib)) => bytes(mib.saturating_mul(1 << 20)),
        ("size" | "allocated" | "memory" | "space" | "space_free" | "disk_bytes" | "quota_disk_bytes", Some(number)) => {
            bytes(number)
        }
        ("cpu_percent", Some(0)) => "none".into(),
        ("cpu_percent", Some(percent)) => format!("{percent} % of one CPU"),
        ("cpu_ns", Some(ns)) => format!("{}.{:03} s", ns / 1_000_000_000, ns / 1_000_000 % 1000),
        _ => plain(value),
    }
}

/// A value as people read it.
fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Bool(true) => "yes".into(),
        Value::Bool(false) => "no".into(),
        Value::Array(values) => values.iter().map(plain).collect::<Vec<_>>().join(", "),
        Value::Object(fields) => {
            let pairs = fields.iter().map(|(k, v)| (k.replace('_', " "), plain(v))).filter(|(_, text)| !text.is_empty());
            pairs.map(|(k, text)| format!("{k} {text}")).collect::<Vec<_>>().join(", ")
        }
        Value::Number(number) => number.to_string(),
    }
}

/// Bytes with a unit.
pub fn bytes(number: u64) -> String {
    let mut unit = 0;
    let mut rest = number;
    while rest >= 10_240 && unit < 4 || rest >= 1024 && rest.is_multiple_of(1024) && unit < 4 {
        rest /= 1024;
        unit += 1;
    }
    format!("{rest}{}", ["", "K", "M", "G", "T"].get(unit).unwrap_or(&""))
}

/// Text from a guest or a file, harmless on a terminal: control characters but the end of a line and tabs become `?`.
pub fn harmless(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' && c != '\t' { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn fields_are_called_and_counted_as_people_do() {
        use serde_json::json;
        assert_eq!((super::label("memory_mib"), super::label("started")), ("Memory".into(), "Started".into()));
        assert_eq!(super::quantity("memory_mib", &json!(512)), "512M");
        assert_eq!(super::quantity("cpu_percent", &json!(0)), "none");
        assert_eq!(super::quantity("cpu_ns", &json!(1_234_567_890u64)), "1.234 s");
        assert_eq!(super::plain(&json!({"disk": "root", "id": "", "read_only": false})), "disk root, read only no");
    }

    #[test]
    fn bytes_are_short() {
        let all = [
            (0, "0"),
            (1000, "1000"),
            (1024, "1K"),
            (512 << 20, "512M"),
            (10 << 30, "10G"),
            (11_000, "10K"),
            (u64::MAX, "16777215T"),
        ];
        for (number, text) in all {
            assert_eq!(super::bytes(number), text);
        }
    }
}
