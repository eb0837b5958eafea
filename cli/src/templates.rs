//! Templates: how to get an image and what its machines need, as TOML files. Whoever runs the command reads them, with his own rights; the
//! suite never sees one.

pub mod install;

use crate::size;
use install::Install;
use serde::Deserialize;
use skep_proto::{Reason, Refusal};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Bytes of a file, at most.
const MOST: u64 = 64 << 10;
/// Files of a directory that are looked at, at most.
const FILES: usize = 500;

/// One, as its file says.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Template {
    /// What it is.
    pub description: String,
    /// The operating system.
    pub os: String,
    /// The user that its guests let in by SSH key.
    #[serde(default)]
    pub user: String,
    /// By what its guests learn what they are told.
    #[serde(default)]
    pub seed: Seed,
    /// Bytes that a disk has at least.
    #[serde(default, deserialize_with = "bytes")]
    pub min_disk: u64,
    /// MiB of memory that a machine has at least.
    #[serde(default, deserialize_with = "mib")]
    pub min_memory: u64,
    /// Where its image comes from.
    pub image: Option<Image>,
    /// What its machines have.
    #[serde(default)]
    pub machine: Machine,
    /// What there is to know, or to do first.
    #[serde(default)]
    pub note: String,
    /// How it is installed from an ISO image.
    pub install: Option<Install>,
}

/// By what guests learn what they are told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Seed {
    /// cloud-init, or what reads the same (NoCloud, metadata).
    #[default]
    NoCloud,
    /// Nothing: they phone home never.
    None,
}

/// Where an image comes from.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// Its address.
    pub url: String,
    /// That of a list of its checksums.
    #[serde(default)]
    pub sums: String,
    /// The file with the key that has signed this list or, without one, the image: beside the template, or in `keys` there.
    #[serde(default)]
    pub key: String,
    /// The address of that signature; empty: the list's file carries it. The image's own, where there is no list.
    #[serde(default)]
    pub signature: String,
}

/// What machines have.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// Virtual CPUs.
    pub cpus: Option<u32>,
    /// What they boot by.
    pub firmware: Option<Firmware>,
    /// Whether they have a screen.
    pub screen: Option<bool>,
}

/// What machines boot by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Firmware {
    /// UEFI.
    Uefi,
    /// BIOS (QEMU).
    Bios,
}

fn bytes<'de, D: serde::Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    size::bytes(&String::deserialize(from)?).map_err(serde::de::Error::custom)
}

fn mib<'de, D: serde::Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    size::mib(&String::deserialize(from)?).map_err(serde::de::Error::custom)
}

/// One that was found, or what is wrong with its file.
#[derive(Debug)]
pub struct Found {
    /// Its name: the file's without `.toml`.
    pub name: String,
    /// The file.
    pub path: PathBuf,
    /// What it says.
    pub template: Result<Template, String>,
}

impl Found {
    /// The file with the key that one of its images, or the list of its checksums, is to be signed by, if that names one; or why it is not there.
    pub fn key(&self, image: &Image) -> Option<Result<PathBuf, String>> {
        let name = Some(&image.key).filter(|key| !key.is_empty())?;
        let beside = self.path.parent().unwrap_or(Path::new("."));
        let mut places = [beside.join(name), beside.join("keys").join(name)].into_iter();
        Some(
            places
                .find(|path| path.is_file())
                .ok_or_else(|| format!("{name} is neither in {0} nor in {0}/keys", beside.display())),
        )
    }
}

/// The directories, the most special first: what `SKEP_TEMPLATES` names (between colons) and no other; else one's own, the administrator's
/// and those that were installed.
pub fn directories() -> Vec<PathBuf> {
    if let Some(given) = std::env::var_os("SKEP_TEMPLATES").filter(|given| !given.is_empty()) {
        return std::env::split_paths(&given).collect();
    }
    let home = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".config")));
    let of_host = Path::new(crate::platform::CONF).parent().map(|dir| dir.join("templates"));
    let program = std::env::current_exe().ok();
    let installed = program.as_deref().and_then(|path| Some(path.parent()?.parent()?.join("share/skep/templates")));
    home.map(|dir| dir.join("skep/templates")).into_iter().chain(of_host).chain(installed).collect()
}

/// That there is none of this name, and where it was looked for.
pub fn missing(directories: &[PathBuf], name: &str) -> Refusal {
    let places: Vec<_> = directories.iter().map(|directory| directory.display().to_string()).collect();
    Refusal::new(Reason::NotFound, format_args!("template {name}"))
        .note(format_args!("{name}.toml is not in {}", places.join(", ")))
}

/// A name that an image may have, too.
fn is_name(name: &str) -> bool {
    name.parse::<skep_proto::DiskName>().is_ok()
}

/// All of these directories by name; of two with a name the one of the earlier directory.
pub fn list(directories: &[PathBuf]) -> Vec<Found> {
    let mut all: Vec<Found> = Vec::new();
    for directory in directories {
        let entries = std::fs::read_dir(directory).into_iter().flatten().flatten().take(FILES);
        let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        files.sort();
        for path in files.into_iter().filter(|path| path.extension().is_some_and(|end| end == "toml")) {
            let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
            if is_name(&name) && !all.iter().any(|other| other.name == name) {
                all.push(Found { template: read(&path), name, path });
            }
        }
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}

/// The one of this name, if there is one.
pub fn find(directories: &[PathBuf], name: &str) -> Option<Found> {
    let paths = directories.iter().map(|directory| directory.join(format!("{name}.toml")));
    let path = paths.filter(|_| is_name(name)).find(|path| path.is_file())?;
    Some(Found { name: name.to_owned(), template: read(&path), path })
}

fn read(path: &Path) -> Result<Template, String> {
    let file = std::fs::File::open(path).map_err(|e| e.to_string())?;
    if !file.metadata().map_err(|e| e.to_string())?.is_file() {
        return Err("it is no file".into());
    }
    let mut text = String::new();
    file.take(MOST + 1).read_to_string(&mut text).map_err(|e| e.to_string())?;
    if text.len() as u64 > MOST {
        return Err(format!("it has more than {MOST} bytes"));
    }
    parse(&text)
}

fn parse(text: &str) -> Result<Template, String> {
    let template: Template = toml::from_str(text).map_err(|e| e.to_string().trim_end().replace('\n', " "))?;
    let long = |what: &str, text: &str, most: usize| {
        let bad = text.len() > most || text.chars().any(char::is_control);
        if bad { Err(format!("{what}: at most {most} bytes without control characters are expected")) } else { Ok(()) }
    };
    long("description", &template.description, 256)?;
    long("os", &template.os, 63)?;
    long("user", &template.user, 32)?;
    long("note", &template.note, 1024)?;
    let of_install = template.install.as_ref().and_then(|install| install.iso.as_ref());
    for (what, image) in [("image", template.image.as_ref()), ("install.iso", of_install)] {
        image.map_or(Ok(()), |image| image.check().map_err(|(field, why)| format!("{what}.{field}: {why}")))?;
    }
    template.install.as_ref().map_or(Ok(()), Install::check)?;
    Ok(template)
}

impl Image {
    /// Says which field is wrong, and what with it.
    fn check(&self) -> Result<(), (&'static str, String)> {
        for (what, url) in [("url", &self.url), ("sums", &self.sums), ("signature", &self.signature)] {
            let text = url.len() > 2048 || url.chars().any(char::is_control);
            if text || !(url.starts_with("https://") || what != "url" && url.is_empty()) {
                return Err((what, "https:// and at most 2048 bytes without control characters are expected".into()));
            }
        }
        // What is signed must not be taken unsigned because something was forgotten.
        match (self.sums.is_empty(), self.key.is_empty(), self.signature.is_empty()) {
            (_, true, false) => Err(("signature", "`key` is missing, whose signature it is".into())),
            (true, false, true) => {
                Err(("key", "`sums`, the list that is signed, or `signature`, that of the image itself, is missing".into()))
            }
            _ if self.key.contains('/')
                || self.key.starts_with('.')
                || self.key.len() > 255
                || self.key.chars().any(char::is_control) =>
            {
                Err(("key", "the name of a file is expected".into()))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const GOOD: &str = "description = \"d\"\nos = \"O 1\"\nmin_disk = \"2G\"\nmin_memory = \"512M\"\n[image]\nurl = \"https://a/b\"\n[machine]\nfirmware = \"bios\"\n";

    #[test]
    fn what_a_file_says_is_read_or_refused() {
        let good = parse(GOOD).unwrap();
        assert_eq!(
            (good.min_disk, good.min_memory, good.seed, good.machine.firmware),
            (2 << 30, 512, Seed::NoCloud, Some(Firmware::Bios))
        );
        for (from, to) in [
            ("\"2G\"", "\"2X\""),
            ("\"2G\"", "2"),
            ("https://a/b", "http://a/b"),
            ("https://a/b", "file:///etc/passwd"),
            ("\"bios\"", "\"other\""),
            ("os = \"O 1\"", "os = \"O\\u001b[31m\""),
            ("os = \"O 1\"", "oz = \"O 1\""),
            ("url", "urls"),
            ("[machine]", "signature = \"https://a/s\"\n[machine]"),
            ("[machine]", "key = \"a.key\"\n[machine]"),
            ("[machine]", "key = \"../a.key\"\nsignature = \"https://a/s\"\n[machine]"),
            ("[machine]", "sums = \"https://a/l\"\nkey = \"../a.key\"\n[machine]"),
            ("[machine]", "sums = \"https://a/l\"\nkey = \".\"\n[machine]"),
            ("[machine]", "sums = \"https://a/l\"\nkey = \"a.key\"\nsignature = \"http://a/s\"\n[machine]"),
            ("[machine]", "[install]\nanswers = \"a\"\nvolume = \"A\"\n[install.iso]\nurl = \"http://a/i\"\n[machine]"),
            ("[machine]", "[install]\nanswers = \"a\"\n[machine]"),
        ] {
            assert!(parse(&GOOD.replacen(from, to, 1)).is_err(), "{to}");
        }
    }

    #[test]
    fn a_list_is_signed_or_the_image_itself() {
        for (signed, sums, signature) in [
            ("sums = \"https://a/l\"\nkey = \"a.key\"", "https://a/l", ""),
            ("sums = \"https://a/l\"\nkey = \"a.key\"\nsignature = \"https://a/l.gpg\"", "https://a/l", "https://a/l.gpg"),
            ("key = \"a.key\"\nsignature = \"https://a/b.asc\"", "", "https://a/b.asc"),
        ] {
            let image = parse(&GOOD.replacen("[machine]", &format!("{signed}\n[machine]"), 1)).unwrap().image.unwrap();
            assert_eq!((image.key.as_str(), image.sums.as_str(), image.signature.as_str()), ("a.key", sums, signature));
        }
    }

    #[test]
    fn those_that_are_installed_are_good() {
        // A bundle brings them along.
        let root = std::env::var_os("SKEP_ROOT").map_or_else(|| concat!(env!("CARGO_MANIFEST_DIR"), "/..").into(), PathBuf::from);
        let all = list(&[root.join("packaging/templates")]);
        let mut keys = 0;
        for found in &all {
            assert!(found.template.is_ok(), "{}: {:?}", found.path.display(), found.template);
            let template = found.template.as_ref().unwrap();
            let isos = template.install.as_ref().and_then(|install| install.iso.as_ref());
            for image in template.image.iter().chain(isos) {
                assert!(found.key(image).is_none_or(|key| key.is_ok()), "{}", found.path.display());
                keys += usize::from(!image.key.is_empty());
            }
        }
        assert!(all.len() >= 7, "{}", all.len());
        assert!(keys >= 1);
        assert!(all.iter().filter(|found| found.template.as_ref().is_ok_and(|t| t.install.is_some())).count() >= 4);
    }

    #[test]
    fn a_key_is_beside_its_template_or_in_keys_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.toml");
        std::fs::write(&path, GOOD.replacen("[machine]", "sums = \"https://a/l\"\nkey = \"a.key\"\n[machine]", 1)).unwrap();
        let key = || {
            let found = find(&[dir.path().to_owned()], "a").unwrap();
            found.key(found.template.as_ref().unwrap().image.as_ref().unwrap()).unwrap()
        };
        assert!(key().unwrap_err().contains("a.key is neither in"));
        let in_keys = dir.path().join("keys").join("a.key");
        std::fs::create_dir(dir.path().join("keys")).unwrap();
        std::fs::write(&in_keys, "x").unwrap();
        assert_eq!(key(), Ok(in_keys));
        std::fs::write(dir.path().join("a.key"), "x").unwrap();
        assert_eq!(key(), Ok(dir.path().join("a.key")));
    }

    #[test]
    fn the_earlier_directory_counts_and_bad_files_are_shown() {
        let dir = tempfile::tempdir().unwrap();
        let (own, theirs) = (dir.path().join("own"), dir.path().join("theirs"));
        for (directory, name, text) in [
            (&own, "a.toml", GOOD),
            (&theirs, "a.toml", "os = 1"),
            (&theirs, "b.toml", "os = 1"),
            (&theirs, "-c.toml", GOOD),
            (&theirs, "d.txt", GOOD),
        ] {
            std::fs::create_dir_all(directory).unwrap();
            std::fs::write(directory.join(name), text).unwrap();
        }
        std::fs::write(theirs.join("e.toml"), "#".repeat(70_000)).unwrap();
        let all = list(&[own.clone(), theirs.clone(), dir.path().join("none")]);
        let seen: Vec<_> = all.iter().map(|found| (found.name.as_str(), found.template.is_ok())).collect();
        assert_eq!(seen, [("a", true), ("b", false), ("e", false)]);
        assert!(find(&[theirs, own], "a").is_some_and(|found| found.template.is_err()));
        assert!(find(&[dir.path().to_owned()], "../theirs/b").is_none());
    }
}
