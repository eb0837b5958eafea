//! What a cell sees of the file system.

use super::{line, plural};
use crate::facts::Mount;
use crate::report::{Line, Verdict};

/// Its root is read-only; what can be written in it is what is `harmless`, or a directory of the host that the machine shares.
/// `differences`: what else was found.
pub fn root(mounts: &[Mount], harmless: impl Fn(&Mount) -> bool, mut differences: Vec<String>) -> Line {
    match mounts.iter().rfind(|mount| mount.point == "/") {
        None => differences.push("it has no root".to_owned()),
        Some(root) if !root.read_only => differences.push("its root can be written".to_owned()),
        Some(_) => {}
    }
    for mount in mounts.iter().filter(|mount| mount.is_share() && !mount.plain) {
        differences.push(format!("{}: programs, devices or set-user-id files of it can be used", mount.point));
    }
    let writable = mounts.iter().filter(|mount| !mount.read_only && mount.point != "/");
    for mount in writable.clone().filter(|mount| !mount.is_share() && !harmless(mount)) {
        differences.push(format!("{} can be written ({} of {})", mount.point, mount.root, mount.filesystem));
    }
    let list: Vec<String> = writable.map(|mount| format!("{} ({})", mount.point, mount.filesystem)).collect();
    let list = if list.is_empty() { "nothing".into() } else { list.join(" ") };
    let read: Vec<&str> =
        mounts.iter().filter(|mount| mount.read_only && mount.is_share()).map(|mount| mount.point.as_str()).collect();
    let read = if read.is_empty() { String::new() } else { format!("; shared read-only: {}", read.join(" ")) };
    let found = format!("{}; can be written: {list}{read}", plural(mounts.len(), "mount"));
    line("root", "read-only, nothing of the host but the machine's shares", found, Verdict::of(differences))
}
