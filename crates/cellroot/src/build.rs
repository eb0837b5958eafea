//! Builds the root beside the old one and puts it in place.

use crate::closure::{Files, Search, trusted};
use crate::manifest::{self, Entry, Manifest};
use crate::platform::{self, Item};
use crate::{CONSOLE_ROOT, Config, Error, Missing, PROGRAMS, ROOT, Report, failed};
use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Makes a directory that all may pass and read and only we may change.
pub fn directory(path: &Path) -> Result<(), Error> {
    fs::create_dir_all(path).map_err(failed("make", path))?;
    fs::set_permissions(path, Permissions::from_mode(0o755)).map_err(failed("chmod", path))
}

/// Collects, copies, describes, renames.
pub fn build(config: &Config, cell: &Path) -> Result<Report, Error> {
    let mut prefixes: Vec<&Path> = config.prefixes.iter().map(PathBuf::as_path).collect();
    prefixes.push(Path::new("/"));
    let search = Search { prefixes };
    let (machine, missing) = machine_files(config, &search)?;
    let mut console = Files::new();
    for program in [CONSOLE_PROXY, GUEST_SERVICES, IMAGE_FETCHER, ISCSI_INITIATOR].iter().chain(platform::SERVERS) {
        our_program(config, &search, &mut console, program)?;
    }
    let mut entries = Vec::new();
    let mut copied: BTreeMap<&Path, PathBuf> = BTreeMap::new();
    for (name, files) in [(ROOT, &machine), (CONSOLE_ROOT, &console)] {
        let fresh = cell.join(format!("{name}.new"));
        remove(&fresh)?;
        directory(&fresh)?;
        for dir in platform::EMPTY_DIRS {
            directory(&fresh.join(dir))?;
        }
        for (target, source) in files {
            let meta = trusted(source)?;
            let place = place_of(&fresh, target)?;
            match copied.get(source.as_path()) {
                // One file, so that its pages are in memory once.
                Some(first) => fs::hard_link(first, &place).map_err(failed("link", &place))?,
                None => copy(&place, source, &meta)?,
            }
            copied.insert(source, place);
            entries.push(Entry::new(&Path::new("/").join(name).join(target.strip_prefix("/").unwrap_or(target)), source, &meta));
        }
    }
    let root = cell.join(format!("{ROOT}.new"));
    platform::users(&root).map_err(failed("make the list of users in", &root))?;
    let bytes = machine.get(Path::new(platform::HYPERVISOR)).and_then(|path| fs::read(path).ok()).unwrap_or_default();
    let says = |what: &[u8]| memchr::memmem::find(&bytes, what).is_some();
    let required_is_there = !missing.iter().any(|m| m.required);
    let report = Report {
        hypervisor: machine
            .get(Path::new(platform::HYPERVISOR))
            .filter(|_| required_is_there)
            .map(|path| platform::version(path)),
        uefi: machine.contains_key(Path::new(platform::UEFI)),
        shares: says(platform::SHARES),
        fw_cfg: says(platform::FW_CFG),
        files: entries.len(),
        bytes: entries.iter().map(|e| e.size).sum(),
        missing,
        rebuilt: true,
    };
    // Without a manifest a root counts as unfinished, so it goes first and comes last.
    let list = cell.join(crate::MANIFEST);
    remove(&list)?;
    for name in [ROOT, CONSOLE_ROOT] {
        swap(&cell.join(format!("{name}.new")), &cell.join(name))?;
    }
    manifest::write(&list, &Manifest { inputs: manifest::inputs(config), entries, report: report.clone() })?;
    Ok(report)
}

const RUNNER: &str = "skep-vm-runner";
const CONSOLE_PROXY: &str = "skep-console-proxy";
const GUEST_SERVICES: &str = "skep-guest-services";
const IMAGE_FETCHER: &str = "skep-image-fetcher";
const ISCSI_INITIATOR: &str = "skep-iscsi-initiator";

fn our_program(config: &Config, search: &Search<'_>, files: &mut Files, name: &str) -> Result<(), Error> {
    let source = config.programs.join(name);
    if !source.is_file() {
        return Err(Error::OurProgram(source));
    }
    search.add(files, &Path::new(PROGRAMS).join(name), source)
}

fn machine_files(config: &Config, search: &Search<'_>) -> Result<(Files, Vec<Missing>), Error> {
    let (mut files, mut missing) = (Files::new(), Vec::new());
    our_program(config, search, &mut files, RUNNER)?;
    for Item { path, what, package, program, required } in platform::ITEMS {
        let path = Path::new(path);
        match search.find(path) {
            Some(source) if *program => search.add(&mut files, path, source)?,
            Some(source) => {
                files.insert(path.to_owned(), source);
            }
            // Parts that some distributions build in are nobody's loss.
            None if package.is_empty() => {}
            None => missing.push(Missing { what: (*what).to_owned(), path: path.to_owned(), package, required: *required }),
        }
    }
    for path in platform::keyboards() {
        if let Some(source) = search.find(&path) {
            files.insert(path, source);
        }
    }
    Ok((files, missing))
}

/// A file's place below `root`, whose directory is there.
fn place_of(root: &Path, target: &Path) -> Result<PathBuf, Error> {
    let target = root.join(target.strip_prefix("/").unwrap_or(target));
    let mut above = root.to_owned();
    for part in target.parent().and_then(|p| p.strip_prefix(root).ok()).into_iter().flatten() {
        above.push(part);
        if !above.is_dir() {
            directory(&above)?;
        }
    }
    Ok(target)
}

fn copy(target: &Path, source: &Path, meta: &fs::Metadata) -> Result<(), Error> {
    let mut from = File::open(source).map_err(failed("open", source))?;
    let mut to = File::create_new(target).map_err(failed("make", target))?;
    if platform::reflink(to.as_fd(), from.as_fd()).is_err() {
        io::copy(&mut from, &mut to).map_err(failed("copy to", target))?;
    }
    let mode = if meta.permissions().mode() & 0o111 == 0 { 0o444 } else { 0o555 };
    to.set_permissions(Permissions::from_mode(mode)).map_err(failed("chmod", target))
}

/// A running cell keeps the root that it was made with, since it starts its hypervisor from it at each reboot: the old one is renamed,
/// which cells do not notice, and goes when nobody is in it any more ([`sweep`]).
fn swap(fresh: &Path, place: &Path) -> Result<(), Error> {
    match fs::symlink_metadata(place) {
        Ok(meta) => {
            let kept = place.with_extension(format!("{KEPT}{}", meta.ino()));
            fs::rename(place, &kept).map_err(failed("rename", place))?;
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(failed("look at", place)(e)),
    }
    fs::rename(fresh, place).map_err(failed("rename", fresh))
}

/// Between the name of a root and the number of one that was kept.
const KEPT: &str = "kept-";

/// Removes the old roots that no cell is in.
pub fn sweep(cell: &Path) -> Result<(), Error> {
    let is_kept = |name: &str| [ROOT, CONSOLE_ROOT].iter().any(|root| name.starts_with(&format!("{root}.{KEPT}")));
    let entries = fs::read_dir(cell).map_err(failed("list", cell))?.filter_map(Result::ok);
    let kept: Vec<PathBuf> =
        entries.filter(|entry| entry.file_name().to_str().is_some_and(is_kept)).map(|entry| entry.path()).collect();
    if kept.is_empty() {
        return Ok(());
    }
    // Where that cannot be known, all stay.
    let Some(used) = platform::roots_in_use() else { return Ok(()) };
    for root in kept {
        let meta = fs::symlink_metadata(&root).map_err(failed("look at", &root))?;
        if !used.contains(&(meta.dev(), meta.ino())) {
            remove(&root)?;
        }
    }
    Ok(())
}

fn remove(path: &Path) -> Result<(), Error> {
    let result = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(e) => Err(e),
    };
    match result {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(failed("remove", path)(e)),
        _ => Ok(()),
    }
}
