//! The harness of the end-to-end tests: the installed programs, a real guest, and the host compared before and after.
//!
//! Each test is a process of its own, with a suite of its own. What a machine cannot do is probed and skipped by name.
#![forbid(unsafe_code)]

pub mod beyond;
pub mod escape;
pub mod frames;
pub mod guard;
pub mod held;
pub mod host;
pub mod https;
pub mod installer;
pub mod iscsi;
pub mod platform;
pub mod qcow2;
pub mod raw;
pub mod scene;
pub mod shares;
pub mod ssh;
pub mod suite;
pub mod viewer;
pub mod zone;

pub use host::Snapshot;
pub use suite::{Mode, Suite};

use std::path::PathBuf;

/// Seconds until a test gives up what should come. So long, since a guest in an emulated host takes its time; nothing waits for it to
/// pass.
pub const PATIENCE: &str = "600";

/// Skips the calling test: prints its name and the reason in the form that `./test` counts.
#[macro_export]
macro_rules! skip {
    ($($why:tt)*) => {{
        println!("SKIP {}: {}", std::thread::current().name().unwrap_or("?"), format_args!($($why)*));
        return Ok(());
    }};
}

/// Where the programs under test are.
pub fn programs() -> PathBuf {
    if let Some(dir) = std::env::var_os("SKEP_BIN_DIR") {
        return dir.into();
    }
    // Beside the test's own program: target/<profile>/deps/<test> → target/<profile>.
    let own = std::env::current_exe().expect("own path");
    own.ancestors().nth(2).expect("target directory").to_owned()
}

/// Where the guest is that `scripts/guest` made.
pub fn guest() -> anyhow::Result<PathBuf> {
    let dir = std::env::var_os("SKEP_GUEST_DIR").map_or_else(|| root().join("target/guest"), PathBuf::from);
    anyhow::ensure!(dir.join("disk.img").exists(), "no guest in {}: run scripts/guest", dir.display());
    Ok(dir)
}

/// The source tree, or what a bundle has of it.
pub fn root() -> PathBuf {
    std::env::var_os("SKEP_ROOT").map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/..")), PathBuf::from)
}

/// Whether this process is root.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}
