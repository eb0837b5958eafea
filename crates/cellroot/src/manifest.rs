//! What a root was made of: if nothing of that has changed, neither would the root. Lines of tab-separated fields.

use crate::closure::Search;
use crate::platform::{ITEMS, keyboards};
use crate::{Config, Error, Missing, ROOT, Report, failed};
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A file of the root.
pub struct Entry {
    target: PathBuf,
    source: PathBuf,
    /// Bytes.
    pub size: u64,
    modified: i128,
}

/// See the module.
pub struct Manifest {
    /// The configuration, as one line.
    pub inputs: String,
    /// The files.
    pub entries: Vec<Entry>,
    /// What was reported.
    pub report: Report,
}

fn modified(meta: &Metadata) -> i128 {
    i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec())
}

impl Entry {
    /// A file as it was copied.
    pub fn new(target: &Path, source: &Path, meta: &Metadata) -> Self {
        Self { target: target.to_owned(), source: source.to_owned(), size: meta.len(), modified: modified(meta) }
    }

    /// Whether it is this path of a machine's root.
    fn is(&self, path: &Path) -> bool {
        self.target.strip_prefix("/").and_then(|t| t.strip_prefix(ROOT)).ok() == path.strip_prefix("/").ok()
    }

    fn still_true(&self, cell: &Path) -> bool {
        let copy = cell.join(self.target.strip_prefix("/").unwrap_or(&self.target));
        let source = fs::metadata(&self.source).is_ok_and(|m| m.len() == self.size && modified(&m) == self.modified);
        source && fs::symlink_metadata(copy).is_ok_and(|m| m.is_file() && m.len() == self.size)
    }
}

/// The configuration as one line. A tab or newline in a path makes it one that is never found again: the root is then always built.
pub fn inputs(config: &Config) -> String {
    format!("skep {} {:?} {:?}", env!("CARGO_PKG_VERSION"), config.prefixes, config.programs)
}

/// The old report, if the same call would build the same root.
pub fn still_true(config: &Config, cell: &Path) -> Option<Report> {
    let manifest = read(cell)?;
    let mut prefixes: Vec<&Path> = config.prefixes.iter().map(PathBuf::as_path).collect();
    prefixes.push(Path::new("/"));
    let search = Search { prefixes };
    // What was missing may have been installed since; whatever is there may have changed its place.
    let same_place = |path: &Path| {
        let now = search.find(path);
        now.as_deref() == manifest.entries.iter().find(|e| e.is(path)).map(|e| e.source.as_path())
    };
    let same = manifest.inputs == inputs(config)
        && ITEMS.iter().all(|item| same_place(Path::new(item.path)))
        && keyboards().all(|path| same_place(&path))
        && manifest.entries.iter().all(|entry| entry.still_true(cell));
    same.then_some(manifest.report)
}

/// Writes it, by one rename.
pub fn write(path: &Path, manifest: &Manifest) -> Result<(), Error> {
    let Report { hypervisor, uefi, shares, fw_cfg, .. } = &manifest.report;
    let version = hypervisor.as_deref().unwrap_or_default();
    let mut text = format!("{}\n{version}\t{uefi}\t{shares}\t{fw_cfg}\n", manifest.inputs);
    for Entry { target, source, size, modified } in &manifest.entries {
        text += &format!("{size}\t{modified}\t{}\t{}\n", target.display(), source.display());
    }
    let fresh = path.with_extension("new");
    fs::write(&fresh, text).map_err(failed("write", &fresh))?;
    fs::rename(&fresh, path).map_err(failed("rename", &fresh))
}

/// Reads it; anything that is not a whole manifest is none.
pub fn read(cell: &Path) -> Option<Manifest> {
    let text = fs::read_to_string(cell.join(crate::MANIFEST)).ok()?;
    let mut lines = text.lines();
    let inputs = lines.next()?.to_owned();
    let mut fields = lines.next()?.split('\t');
    let version = fields.next()?;
    let [uefi, shares, fw_cfg] = [fields.next()?, fields.next()?, fields.next()?].map(|field| field == "true");
    let entry = |line: &str| {
        let mut fields = line.splitn(4, '\t');
        let (size, modified) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        Some(Entry { target: fields.next()?.into(), source: fields.next()?.into(), size, modified })
    };
    let entries = lines.map(entry).collect::<Option<Vec<_>>>()?;
    let there = |path: &str| entries.iter().any(|e| e.is(Path::new(path)));
    let absent = ITEMS.iter().filter(|i| !i.package.is_empty() && !there(i.path));
    let missing =
        absent.map(|i| Missing { what: i.what.into(), path: i.path.into(), package: i.package, required: i.required }).collect();
    let report = Report {
        hypervisor: (!version.is_empty()).then(|| version.to_owned()),
        uefi,
        shares,
        fw_cfg,
        missing,
        files: entries.len(),
        bytes: entries.iter().map(|e| e.size).sum(),
        rebuilt: false,
    };
    Some(Manifest { inputs, entries, report })
}
