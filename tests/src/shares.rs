//! Directories of the host that machines share, and what is beside them, for the tests of both hosts.

use crate::{Mode, Suite};
use anyhow::{Result, ensure};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// What is shared, and what is not: `in` (read-only), `out`, and beside them a secret.
pub struct Shared {
    /// The suite that offers them.
    pub suite: Suite,
    /// Where they are.
    pub dir: PathBuf,
}

/// In a file of `in`.
pub const HELLO: &str = "hello-from-the-host";
/// In a file beside them.
pub const SECRET: &str = "the-hosts-secret";

/// Starts a suite that offers them.
pub fn suite(mode: Mode) -> Result<Shared> {
    let suite = Suite::prepare(mode)?;
    let dir = suite.dir().canonicalize()?.join("d");
    for name in ["in", "out", "in/sub"] {
        fs::create_dir_all(dir.join(name))?;
    }
    fs::write(dir.join("in/hello"), HELLO)?;
    fs::write(dir.join("secret"), SECRET)?;
    for (target, link) in [("../secret", "in/up"), ("/etc/hostname", "in/away"), ("hello", "in/near"), ("../secret", "out/up")] {
        symlink(target, dir.join(link))?;
    }
    symlink(dir.join("in"), dir.join("link"))?;
    fs::set_permissions(dir.join("out"), fs::Permissions::from_mode(0o777))?;
    fs::set_permissions(dir.join("secret"), fs::Permissions::from_mode(0o644))?;
    let at = |name: &str| format!("{name}={}", dir.join(name).display());
    let list = ["in", "out", "gone", "link"].map(at).join(",");
    suite.ok(&["up", "--shares", &list])?;
    Ok(Shared { suite, dir })
}

/// The machine starts with none of these, and says which and why.
pub fn refused(suite: &Suite, cases: &[(&str, i32, &str)]) -> Result<()> {
    for (share, exit, words) in cases {
        suite.ok(&["vm", "set", "m", "--share", share])?;
        let (code, message) = suite.fails(&["vm", "start", "m"])?;
        ensure!(code == *exit && message.contains(words) && message.contains("shares"), "{share}: {code} {message}");
        ensure!(!message.contains("/tmp"), "{share}: a path is told: {message}");
    }
    Ok(())
}

/// Nothing of the host is mounted for a cell any more, whoever looks.
pub fn gone(dir: &Path) -> Result<()> {
    let mounts = crate::platform::things(&dir.to_string_lossy(), "no instance");
    ensure!(mounts.iter().all(|line| !line.starts_with("mount")), "{mounts:?}");
    Ok(())
}
