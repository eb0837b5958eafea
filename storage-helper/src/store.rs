//! What the helper holds: directory descriptors. Everything it names lies directly in one of them, by UUID.

use crate::platform;
use crate::zfs::Volumes;
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, renameat};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, fsync, unlinkat};
use skep_proto::{Reason, Refusal};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// The held directories.
#[derive(Debug)]
pub struct Store {
    /// `STATE/disks`.
    pub disks: OwnedFd,
    /// `STATE/firmware`: variable stores.
    pub firmware: OwnedFd,
    /// `STATE/logs/machines`: apart from the services' own logs, which nobody but their writer may change.
    pub logs: OwnedFd,
    /// `STATE/logs`: the services' logs are read from it.
    pub service_logs: OwnedFd,
    /// `STATE/cell`, where the prepared root of cells is: the template of variable stores is read from it.
    pub cell: OwnedFd,
    /// Whether copies of disks can share blocks here.
    pub reflink: bool,
    /// ZFS volumes, if the suite was given a dataset for them.
    pub volumes: Option<Volumes>,
}

/// Mode of a file: its owner's alone.
pub const MODE: Mode = Mode::S_IRUSR.union(Mode::S_IWUSR);

/// Ending of the name of a file that is not yet whole. Nobody opens one; they are swept at start.
pub const PART: &str = ".part";

/// The directories that are this helper's own, below STATE.
pub const DIRECTORIES: [&str; 3] = ["disks", "firmware", "logs/machines"];

impl Store {
    /// What each descriptor is, by its line in the table of rights.
    pub fn held(&self) -> Vec<(&'static str, BorrowedFd<'_>)> {
        let mut held =
            vec![("disks", self.disks.as_fd()), ("variable stores", self.firmware.as_fd()), ("logs", self.logs.as_fd())];
        held.push(("service logs", self.service_logs.as_fd()));
        held.push(("root of cells", self.cell.as_fd()));
        held.extend(self.volumes.iter().flat_map(Volumes::held));
        held
    }

    /// Opens the directories, sweeps what an earlier run left half-made, and finds out whether copies can share blocks.
    pub fn open(state: &Path) -> io::Result<Self> {
        let directory = |name: &str| nix::fcntl::open(&state.join(name), OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty());
        let [disks, firmware, logs] = DIRECTORIES.map(directory);
        let (disks, firmware, logs) = (disks?, firmware?, logs?);
        // The root is prepared in it by others, perhaps only later.
        std::fs::create_dir_all(state.join("cell"))?;
        let cell = directory("cell")?;
        let service_logs = directory("logs")?;
        for dir in [&disks, &firmware] {
            for name in names(dir.as_fd())?.iter().filter(|name| name.ends_with(PART)) {
                remove(dir.as_fd(), name)?;
            }
        }
        let reflink = can_reflink(disks.as_fd()).unwrap_or(false);
        Ok(Self { disks, firmware, logs, service_logs, cell, reflink, volumes: None })
    }
}

impl Store {
    /// The volumes; refused where there are none.
    pub fn volumes(&self, object: &str) -> Result<&Volumes, Refusal> {
        let none = || Refusal::new(Reason::Unsupported, object).field("kind").note(platform::NO_VOLUMES);
        self.volumes.as_ref().ok_or_else(none)
    }
}

fn can_reflink(disks: BorrowedFd<'_>) -> io::Result<bool> {
    use std::os::unix::fs::FileExt;
    let (from, to) = (nameless(disks, "probe-from")?, nameless(disks, "probe-to")?);
    from.write_all_at(&[1; 4096], 0)?;
    Ok(platform::reflink(to.as_fd(), from.as_fd()).is_ok())
}

/// Names adds the object and the step to an error of the kernel.
pub trait At<T> {
    /// `object` is what it was about (`disk <uuid>`), `step` what was being done.
    fn at(self, object: &str, step: &str) -> Result<T, Refusal>;
}

impl<T, E: Into<io::Error>> At<T> for Result<T, E> {
    fn at(self, object: &str, step: &str) -> Result<T, Refusal> {
        self.map_err(|e| {
            let e = e.into();
            if e.raw_os_error() == Some(Errno::EFBIG as i32) {
                return Refusal::new(Reason::TooLarge, object)
                    .note("the file system holds no file of this size")
                    .errno(Errno::EFBIG as i32);
            }
            Refusal::io(object, step, &e)
        })
    }
}

/// Opens a file of a held directory; never through a symbolic link.
pub fn open_in(dir: BorrowedFd<'_>, name: &str, flags: OFlag) -> nix::Result<File> {
    Ok(openat(dir, name, flags | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW, MODE)?.into())
}

/// The same; `None` if there is no such file.
pub fn open_if_there(dir: BorrowedFd<'_>, name: &str, flags: OFlag) -> nix::Result<Option<File>> {
    match open_in(dir, name, flags) {
        Err(Errno::ENOENT) => Ok(None),
        other => other.map(Some),
    }
}

/// Takes from a file that is to leave this process every right that the line `name` of the table does not give.
pub fn hand_out(name: &'static str, object: &str, file: File) -> Result<OwnedFd, Refusal> {
    let limited = skep_sandbox::limit_one(&skep_rights::storage::TABLE, name, file.as_fd());
    limited.map(|()| file.into()).map_err(|e| Refusal::new(Reason::Internal, object).note(e))
}

/// Deletes a file; one that is not there is fine.
pub fn remove(dir: BorrowedFd<'_>, name: &str) -> nix::Result<()> {
    match unlinkat(dir, name, UnlinkatFlags::NoRemoveDir) {
        Err(Errno::ENOENT) => Ok(()),
        other => other,
    }
}

/// Makes a file without a name: it is gone when its last descriptor is closed.
pub fn nameless(dir: BorrowedFd<'_>, name: &str) -> nix::Result<File> {
    let name = format!("{name}{PART}");
    remove(dir, &name)?;
    let file = open_in(dir, &name, OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL)?;
    unlinkat(dir, name.as_str(), UnlinkatFlags::NoRemoveDir)?;
    Ok(file)
}

/// All names in a held directory, sorted.
pub fn names(dir: BorrowedFd<'_>) -> nix::Result<Vec<String>> {
    let mut list = Vec::new();
    for entry in Dir::openat(dir, ".", OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?.iter() {
        if let Ok(name) = entry?.file_name().to_str() {
            list.push(name.to_owned());
        }
    }
    list.sort_unstable();
    Ok(list)
}

/// A file in the making: `NAME.part`, renamed to `NAME` when it is whole.
#[derive(Debug)]
pub struct Part {
    name: String,
}

impl Part {
    /// Makes an empty one, in place of what an earlier failure left.
    pub fn begin(dir: BorrowedFd<'_>, name: &str) -> nix::Result<(Self, File)> {
        Self::begin_as(dir, name, MODE)
    }

    /// The same with a mode of its own.
    pub fn begin_as(dir: BorrowedFd<'_>, name: &str, mode: Mode) -> nix::Result<(Self, File)> {
        let part = Self { name: name.to_owned() };
        remove(dir, &part.part_name())?;
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
        let file = openat(dir, part.part_name().as_str(), flags, mode)?;
        Ok((part, file.into()))
    }

    fn part_name(&self) -> String {
        format!("{}{PART}", self.name)
    }

    /// Opens it again, for reading.
    pub fn reopen(&self, dir: BorrowedFd<'_>) -> nix::Result<File> {
        open_in(dir, &self.part_name(), OFlag::O_RDONLY)
    }

    /// It is whole: gives it its name, durably. On failure nothing is left.
    pub fn commit(self, dir: BorrowedFd<'_>) -> nix::Result<()> {
        let whole =
            self.reopen(dir).and_then(fsync).and_then(|()| renameat(dir, self.part_name().as_str(), dir, self.name.as_str()));
        if let Err(e) = whole {
            self.discard(dir);
            return Err(e);
        }
        fsync(dir).inspect_err(|_| {
            // As above: nothing can be done about a failure here.
            let _ = remove(dir, &self.name);
        })
    }

    /// It is whole: puts it in the place of what had its name, durably. Whatever fails, one of the two has the name.
    pub fn replace(self, dir: BorrowedFd<'_>) -> nix::Result<()> {
        let whole =
            self.reopen(dir).and_then(fsync).and_then(|()| renameat(dir, self.part_name().as_str(), dir, self.name.as_str()));
        if let Err(e) = whole {
            self.discard(dir);
            return Err(e);
        }
        fsync(dir)
    }

    /// It failed.
    pub fn discard(self, dir: BorrowedFd<'_>) {
        // Nothing can be done about a failure here; the next start sweeps.
        let _ = remove(dir, &self.part_name());
    }
}

/// Makes the file `name` whole or not at all: `fill` writes it.
pub fn make(
    dir: BorrowedFd<'_>, name: &str, object: &str, fill: impl FnOnce(&File) -> Result<(), Refusal>,
) -> Result<File, Refusal> {
    make_as(dir, name, MODE, object, fill)
}

/// Makes the file `name` anew, in the place of what has that name: `fill` writes it. Whatever fails, one of the two has the name.
pub fn make_over(
    dir: BorrowedFd<'_>, name: &str, object: &str, fill: impl FnOnce(&File) -> Result<(), Refusal>,
) -> Result<File, Refusal> {
    let (part, file) = Part::begin_as(dir, name, MODE).at(object, "create")?;
    match fill(&file) {
        Ok(()) => part.replace(dir).at(object, "finish").map(|()| file),
        Err(refusal) => {
            part.discard(dir);
            Err(refusal)
        }
    }
}

/// The same with a mode of its own.
pub fn make_as(
    dir: BorrowedFd<'_>, name: &str, mode: Mode, object: &str, fill: impl FnOnce(&File) -> Result<(), Refusal>,
) -> Result<File, Refusal> {
    let (part, file) = Part::begin_as(dir, name, mode).at(object, "create")?;
    match fill(&file) {
        Ok(()) => part.commit(dir).at(object, "finish").map(|()| file),
        Err(refusal) => {
            part.discard(dir);
            Err(refusal)
        }
    }
}
