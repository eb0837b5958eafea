//! `[install]` of a template: how its system is installed from the vendor's ISO image, by a file with the answers to what the installer asks.

use super::{Firmware, Image, bytes, mib};
use crate::commands::script;
use crate::size;
use serde::Deserialize;
use std::time::Duration;

/// Bytes of a script, at most: all of a template has no more.
const SCRIPT: usize = 32 << 10;

/// Bytes of a text by which an installer says that it failed, at most.
pub const FAILED: usize = 100;

/// How it is installed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Install {
    /// The vendor's ISO image.
    pub iso: Option<Image>,
    /// The installer's kernel: its path in the ISO image. Empty: what the ISO image boots by UEFI.
    #[serde(default)]
    pub kernel: String,
    /// The installer's initial RAM disk, likewise.
    #[serde(default)]
    pub initrd: String,
    /// That kernel's command line.
    #[serde(default)]
    pub cmdline: String,
    /// The name by which the installer knows the file with the answers.
    pub answers: String,
    /// The label of a FAT volume that the file is on, a disk of its own; empty: it is in the root of the initial RAM disk.
    #[serde(default)]
    pub volume: String,
    /// Whether the installer needs a network.
    #[serde(default)]
    pub network: bool,
    /// Bytes of the disk that it installs to; 0: `min_disk`, or 8 GiB.
    #[serde(default, deserialize_with = "bytes")]
    pub disk: u64,
    /// MiB of memory that it needs; 0: `min_memory`.
    #[serde(default, deserialize_with = "mib")]
    pub memory: u64,
    /// Virtual CPUs.
    pub cpus: Option<u32>,
    /// How long all of it may take, until the guest has powered itself off; absent: two hours.
    #[serde(default, deserialize_with = "time")]
    pub timeout: Option<Duration>,
    /// What boots the system that it makes; absent: what the template's machines boot by.
    pub firmware: Option<Firmware>,
    /// Whether its guest halts without powering off: it has done so when the script is at its end, and its machine is ended then.
    #[serde(default)]
    pub halts: bool,
    /// Texts by which the installer says that it failed, or asks what the answers do not say.
    #[serde(default)]
    pub failed: Vec<String>,
    /// What is typed into the first serial port: docs/scripts.md.
    #[serde(default)]
    pub script: String,
}

fn time<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    size::duration(&String::deserialize(from)?).map(Some).map_err(serde::de::Error::custom)
}

/// Whether it is a name that a file has on any file system, and no path.
pub fn is_file_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=64).contains(&name.len()) && name.bytes().all(plain) && !name.starts_with(['.', '-'])
}

impl Install {
    /// Says what is wrong with it.
    pub fn check(&self) -> Result<(), String> {
        let path = |what: &str, path: &str| {
            let good = path.len() <= 255 && path.split('/').all(|part| part.is_empty() || part == ".disk" || is_file_name(part));
            if good { Ok(()) } else { Err(format!("install.{what}: the path of a file in the ISO image is expected")) }
        };
        path("kernel", &self.kernel)?;
        path("initrd", &self.initrd)?;
        if self.cmdline.len() > 900 || self.cmdline.bytes().any(|byte| !matches!(byte, b' '..=b'~') || byte == b'"') {
            return Err("install.cmdline: at most 900 bytes of printable ASCII without quotation marks are expected".into());
        }
        if !is_file_name(&self.answers) {
            return Err("install.answers: the name of a file is expected: letters, digits, `.`, `_` and `-`".into());
        }
        let of_label = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-');
        if self.volume.len() > 11 || !self.volume.bytes().all(of_label) {
            return Err("install.volume: a label of at most 11 capital letters, digits, `_` and `-` is expected".into());
        }
        let of_text = |text: &String| (4..=FAILED).contains(&text.len()) && !text.contains(char::is_control);
        if self.failed.len() > 16 || !self.failed.iter().all(of_text) {
            return Err(format!(
                "install.failed: at most 16 texts of 4 to {FAILED} bytes without control characters are expected"
            ));
        }
        if self.script.len() > SCRIPT {
            return Err(format!("install.script: it has more than {SCRIPT} bytes"));
        }
        if !self.script.is_empty() {
            script::parse(&self.script).map_err(|(line, why)| format!("install.script, line {line}: {why}"))?;
        }
        if self.halts && self.script.is_empty() {
            return Err("install.halts: install.script is missing, whose end would say that it has halted".into());
        }
        match (self.kernel.is_empty(), self.initrd.is_empty(), self.volume.is_empty()) {
            (true, false, _) => Err("install.initrd: install.kernel is missing".into()),
            (true, true, _) if !self.cmdline.is_empty() => Err("install.cmdline: install.kernel is missing".into()),
            (_, true, true) => Err("install.volume: without install.initrd the answers must be on a volume".into()),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const GOOD: &str = "kernel = \"/install.amd/vmlinuz\"\ninitrd = \"install.amd/initrd.gz\"\ncmdline = \"auto=true console=ttyS0\"\n\
        answers = \"preseed.cfg\"\nvolume = \"\"\ndisk = \"8G\"\nmemory = \"1G\"\ntimeout = \"2h\"\nfailed = [\"went wrong\"]\nscript = \"expect \\\"a\\\"\"\n";

    fn parse(text: &str) -> Result<Install, String> {
        let install: Install = toml::from_str(text).map_err(|e| e.to_string())?;
        install.check().map(|()| install)
    }

    #[test]
    fn what_is_said_is_taken_or_refused() {
        let good = parse(GOOD).unwrap();
        assert_eq!((good.disk, good.memory, good.timeout), (8 << 30, 1024, Some(Duration::from_secs(7200))));
        for (from, to) in [
            ("/install.amd/vmlinuz", "/install.amd/../vmlinuz"),
            ("/install.amd/vmlinuz", "/install.amd/vm\\u0000linuz"),
            ("/install.amd/vmlinuz", ""),
            ("install.amd/initrd.gz", ""),
            ("auto=true", "auto=\\\"true\\\""),
            ("auto=true", "auto=\\u001b"),
            ("preseed.cfg", "../preseed.cfg"),
            ("preseed.cfg", ".preseed"),
            ("preseed.cfg", ""),
            ("volume = \"\"", "volume = \"cidata\""),
            ("volume = \"\"", "volume = \"ABCDEFGHIJKL\""),
            ("2h", "soon"),
            ("expect \\\"a\\\"", "expect a"),
            ("went wrong", "bad"),
            ("went wrong", "went\\nwrong"),
            ("answers", "answer"),
            ("script = ", "halts = true\n#"),
        ] {
            assert!(parse(&GOOD.replacen(from, to, 1)).is_err(), "{to}");
        }
    }
}
