//! The template that an installation ends in.

use crate::error::Failure;
use crate::templates::{Firmware, Template};
use skep_proto::{Reason, Refusal};
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// What is said of what was made.
pub struct Facts<'a> {
    /// The template by which it was installed, and its name.
    pub from: (&'a str, &'a Template),
    /// The user that is let in by SSH key; empty: not known.
    pub user: &'a str,
    /// Whether its guests learn what they are told.
    pub seeded: bool,
    /// Bytes of its disk.
    pub size: u64,
    /// The day, as RFC 3339 has it.
    pub day: &'a str,
}

/// The template as a file's text.
pub fn text(facts: &Facts<'_>) -> String {
    let Facts { from: (name, template), user, seeded, size, day } = facts;
    let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
    let firmware = template.install.as_ref().and_then(|install| install.firmware).or(template.machine.firmware);
    let firmware = if firmware == Some(Firmware::Bios) { "bios" } else { "uefi" };
    let mut text = format!(
        "# Made by `skep install {name}` on {day}. Its image is in the library: skep image show.\ndescription = {}\nos = {}\nuser = {}\nseed = \"{}\"\nmin_disk = \"{}M\"\n",
        quoted(&format!("{}, installed on {day}", template.os)),
        quoted(&template.os),
        quoted(user),
        if *seeded { "nocloud" } else { "none" },
        size.div_ceil(1 << 20),
    );
    if template.min_memory > 0 {
        text += &format!("min_memory = \"{}M\"\n", template.min_memory);
    }
    text += &format!("\n[machine]\nfirmware = \"{firmware}\"\n");
    if let Some(cpus) = template.machine.cpus {
        text += &format!("cpus = {cpus}\n");
    }
    if let Some(screen) = template.machine.screen {
        text += &format!("screen = {screen}\n");
    }
    text
}

/// The file of a template that is to be: in the first directory, where there is none of that name yet.
pub fn place(directories: &[PathBuf], name: &str) -> Result<PathBuf, Failure> {
    let none =
        || Failure::new(Reason::NotFound, "templates", "there is no directory for them: SKEP_TEMPLATES and HOME are not set");
    let path = directories.first().ok_or_else(none)?.join(format!("{name}.toml"));
    if path.exists() {
        return Err(Refusal::new(Reason::AlreadyExists, format_args!("template {name}")).note(path.display()).into());
    }
    Ok(path)
}

/// Writes it, whole or not at all; one that came meanwhile stays.
pub fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let failed = |what: &'static str| move |e: std::io::Error| Failure::io(format_args!("file {}", path.display()), what, &e);
    let directory = path.parent().unwrap_or(Path::new("."));
    std::fs::DirBuilder::new().recursive(true).mode(0o755).create(directory).map_err(failed("make its directory"))?;
    let draft = directory.join(format!(".{}.{}", path.file_name().unwrap_or_default().to_string_lossy(), std::process::id()));
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&draft)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::hard_link(&draft, path)
    })();
    let _ = std::fs::remove_file(&draft);
    written.map_err(failed("write"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::templates::find;

    #[test]
    fn what_is_made_is_a_template() {
        let dir = tempfile::tempdir().unwrap();
        let given = "description = \"d\"\nos = \"A \\\"b\\\" \\\\\"\nmin_memory = \"1G\"\n[machine]\ncpus = 2\n[install]\nanswers = \"a\"\nvolume = \"A\"\nfirmware = \"bios\"\n";
        std::fs::write(dir.path().join("from.toml"), given).unwrap();
        let found = find(&[dir.path().to_owned()], "from").unwrap();
        let from = found.template.as_ref().unwrap();
        let facts = Facts { from: ("from", from), user: "me", seeded: false, size: 3 << 30, day: "2026-11-28" };
        let path = place(&[dir.path().join("own")], "ours").unwrap();
        write(&path, &text(&facts)).unwrap();
        let made = find(&[dir.path().join("own")], "ours").unwrap();
        let made = made.template.unwrap();
        assert_eq!((made.os.as_str(), made.user.as_str(), made.min_disk, made.min_memory), ("A \"b\" \\", "me", 3 << 30, 1024));
        assert_eq!(
            (made.machine.firmware, made.machine.cpus, made.image, made.install),
            (Some(Firmware::Bios), Some(2), None, None)
        );
        assert!(place(&[dir.path().join("own")], "ours").is_err() && write(&path, "other").is_err());
        assert_eq!(std::fs::read_dir(dir.path().join("own")).unwrap().count(), 1);
    }
}
