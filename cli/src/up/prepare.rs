//! What must be there before the first service starts.

use super::{ids, programs};
use crate::args::UpArgs;
use crate::error::Failure;
use crate::places::Places;
use skep_proto::InstanceId;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::Path;

/// Makes STATE, RUN, the id that marks this suite, and the root of all cells. Gives warnings.
pub fn prepare(places: &Places, args: &UpArgs) -> Result<Vec<String>, Failure> {
    let root = nix::unistd::geteuid().is_root();
    // Services have uids of their own: they pass through STATE, and cannot list it. RUN holds the socket that all users may use.
    directory(&places.state, if root { 0o711 } else { 0o700 })?;
    directory(&places.state.join("logs"), if root { 0o751 } else { 0o700 })?;
    directory(&places.run, if root { 0o755 } else { 0o700 })?;
    instance(places)?;
    let written = places.state.join("ids");
    if root {
        write(&written, &ids::flag(args.uid_base))?;
    } else {
        // Left by a suite that root started here before.
        let _ = fs::remove_file(&written);
    }
    let config =
        skep_cellroot::Config { state: places.state.clone(), prefixes: vec![places.state.join("pkg")], programs: programs()? };
    let report = skep_cellroot::prepare(&config);
    let report = report.map_err(|e| Failure::new(skep_proto::Reason::Internal, "the cells' root", e).advice("see `skep doctor`"))?;
    let warning = |missing: &skep_cellroot::Missing| {
        format!("{} is missing ({}; package {}): see `skep doctor`", missing.what, missing.path.display(), missing.package)
    };
    Ok(report.missing.iter().map(warning).collect())
}

/// Makes a directory, or takes over one that belongs to who asks.
fn directory(path: &Path, mode: u32) -> Result<(), Failure> {
    let failed = |what: &'static str| move |e: io::Error| Failure::io(format_args!("directory {}", path.display()), what, &e);
    fs::DirBuilder::new().recursive(true).mode(mode).create(path).map_err(failed("make"))?;
    let meta = fs::symlink_metadata(path).map_err(failed("look at"))?;
    if !meta.is_dir() || meta.uid() != nix::unistd::geteuid().as_raw() {
        let note = format!("it belongs to uid {}", meta.uid());
        let failure = Failure::new(skep_proto::Reason::PermissionDenied, format_args!("directory {}", path.display()), note);
        return Err(failure.advice("give it to who starts the suite, or choose another"));
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(failed("chmod"))
}

/// The id that marks what this suite owns on the host; made once.
pub fn instance(places: &Places) -> Result<InstanceId, Failure> {
    let path = places.state.join("instance");
    match fs::read_to_string(&path) {
        Ok(text) => {
            let wrong = |e| Failure::new(skep_proto::Reason::Internal, format_args!("file {}", path.display()), e);
            return text.trim().parse().map_err(wrong);
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(Failure::io(format_args!("file {}", path.display()), "read", &e)),
    }
    let id = InstanceId::random();
    write(&path, &id.to_string())?;
    Ok(id)
}

/// Writes a small file whole or not at all.
fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let beside = path.with_extension("new");
    let written = fs::File::create(&beside).and_then(|mut file| {
        file.set_permissions(fs::Permissions::from_mode(0o644))?;
        writeln!(file, "{text}")?;
        file.sync_all()?;
        fs::rename(&beside, path)
    });
    written.map_err(|e| Failure::io(format_args!("file {}", path.display()), "write", &e))
}
