//! Which files a program needs: libraries as the run-time linker would find them, below each prefix.

use crate::elf::{self, Needs};
use crate::{Error, failed};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

/// Where files are looked for: `/` is one of the prefixes.
pub struct Search<'a> {
    /// Directories that stand for `/`, best first.
    pub prefixes: Vec<&'a Path>,
}

/// Files of the root: where they will be, and where they come from.
pub type Files = BTreeMap<PathBuf, PathBuf>;

/// A path without `.` and `..`, as text: `/usr/bin/../lib/x` is `/usr/lib/x`.
pub fn plain(path: &Path) -> PathBuf {
    let mut out = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::ParentDir => {
                out.pop();
            }
            Component::Normal(name) => out.push(name),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    out
}

impl Search<'_> {
    /// The file that stands for `path`, links followed: one that leads elsewhere is another file (`/etc/localtime`).
    pub fn find(&self, path: &Path) -> Option<PathBuf> {
        let below = path.strip_prefix("/").unwrap_or(path);
        self.prefixes.iter().map(|prefix| prefix.join(below)).find(|found| found.is_file())?.canonicalize().ok()
    }

    /// Adds `source`, to be at `target`, with everything that it needs.
    pub fn add(&self, files: &mut Files, target: &Path, source: PathBuf) -> Result<(), Error> {
        let mut todo = vec![(plain(target), source)];
        while let Some((target, source)) = todo.pop() {
            if files.contains_key(&target) {
                continue;
            }
            let needs = read(&source)?;
            // The linker itself is named as a library by the C library; it is there already, under the path that programs name.
            for library in needs.libraries.iter().filter(|name| !name.starts_with("ld-")) {
                todo.push(
                    self.library(library, &needs, &target)
                        .ok_or_else(|| Error::Library { program: source.clone(), library: library.clone() })?,
                );
            }
            if let Some(linker) = needs.interpreter {
                let found = self.find(&linker);
                let found =
                    found.ok_or_else(|| Error::Library { program: source.clone(), library: linker.display().to_string() })?;
                todo.push((plain(&linker), found));
            }
            files.insert(target, source);
        }
        Ok(())
    }

    /// Where a library is, in the order of ld.so(8) but for its cache, which cells do not have.
    fn library(&self, name: &str, needs: &Needs, user: &Path) -> Option<(PathBuf, PathBuf)> {
        if name.contains('/') {
            return self.find(Path::new(name)).map(|source| (plain(Path::new(name)), source));
        }
        let origin = user.parent().unwrap_or(Path::new("/")).display().to_string();
        let own = needs.run_path.iter().map(|p| p.replace("${ORIGIN}", &origin).replace("$ORIGIN", &origin));
        let standard = crate::platform::library_dirs();
        own.chain(standard).find_map(|dir| {
            let target = plain(&Path::new(&dir).join(name));
            self.find(&target).map(|source| (target, source))
        })
    }
}

fn read(source: &Path) -> Result<Needs, Error> {
    let bytes = fs::read(source).map_err(failed("read", source))?;
    elf::needs(&bytes).ok_or_else(|| Error::Program { path: source.to_owned(), why: "not a program or library for this machine" })
}

/// Refuses a source that somebody else than root or ourselves could have changed.
pub fn trusted(source: &Path) -> Result<fs::Metadata, Error> {
    let meta = fs::metadata(source).map_err(failed("look at", source))?;
    let (owner, mode) = (meta.uid(), meta.mode() & 0o7777);
    let ours = owner == 0 || owner == nix::unistd::geteuid().as_raw();
    if meta.is_file() && ours && mode & 0o002 == 0 {
        Ok(meta)
    } else {
        Err(Error::Untrusted { path: source.to_owned(), owner, mode })
    }
}
