//! FreeBSD: bhyve from the base system, firmware from packages (FREEBSD.md 35, 36: 13.2 runs sh and iasl for `-A`).

use super::Item;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;

/// Where the hypervisor is, outside and inside.
pub const HYPERVISOR: &str = "/usr/sbin/bhyve";
/// The UEFI firmware's code, without a variable store of its own.
pub const UEFI: &str = "/usr/local/share/uefi-firmware/BHYVE_UEFI_CODE.fd";
/// Empty directories of the root: mount points.
pub const EMPTY_DIRS: &[&str] = &["run", "dev", "tmp", "share", "share/0", "share/1", "share/2", "share/3"];

const fn base(path: &'static str, what: &'static str, program: bool) -> Item {
    Item { path, what, package: "the base system", program, required: true }
}

/// Whose keyboard layouts there are, and where.
pub const LAYOUTS: (skep_machine::Hypervisor, &str) = (skep_machine::Hypervisor::Bhyve, "/usr/share/bhyve/kbdlayout");

/// Programs of ours beside machines that only this host has: bhyve reads no QCOW2.
pub const SERVERS: &[&str] = &["skep-disk-server"];

/// Everything but our own programs.
pub const ITEMS: &[Item] = &[
    base(HYPERVISOR, "hypervisor", true),
    base("/usr/sbin/bhyveload", "loader", true),
    base("/boot/userboot.so", "loader", true),
    Item { path: "/boot/userboot_4th.so", what: "", package: "", program: true, required: false },
    Item { path: "/boot/userboot_lua.so", what: "", package: "", program: true, required: false },
    base("/usr/sbin/iasl", "compiler of ACPI tables", true),
    // bhyve's clock, where a machine's is to have local time. A host without it has none but UTC.
    Item { path: "/etc/localtime", what: "", package: "", program: false, required: false },
    base("/bin/sh", "shell that bhyve starts it with", true),
    Item { path: UEFI, what: "UEFI firmware", package: "edk2-bhyve", program: false, required: false },
    // The template of variable stores: storage-helper reads it, cells do not.
    Item { path: "/usr/local/share/uefi-firmware/BHYVE_UEFI_VARS.fd", what: "", package: "", program: false, required: false },
];

/// Where ld-elf.so.1 looks without being told (rtld(1); libexec/rtld-elf/rtld_paths.h).
pub fn library_dirs() -> impl Iterator<Item = String> {
    // 15's linker does not know the second any more, nor does 15 keep anything there.
    ["/lib", "/lib/casper", "/usr/lib", "/usr/local/lib"].map(String::from).into_iter()
}

/// FreeBSD 13 has no call for it; copy_file_range(2) shares blocks by itself where ZFS can.
pub fn reflink(_to: BorrowedFd<'_>, _from: BorrowedFd<'_>) -> io::Result<()> {
    Err(io::Error::from(io::ErrorKind::Unsupported))
}

/// bhyve is a part of the base system and has its version.
pub fn version(_path: &Path) -> String {
    nix::sys::utsname::uname().map_or_else(|_| "unknown".to_owned(), |u| u.release().to_string_lossy().into_owned())
}

/// What a hypervisor's file holds that can share directories.
pub const SHARES: &[u8] = b"virtio-9p";

/// What one holds that takes items of fw_cfg (`-f`, from 14 on).
pub const FW_CFG: &[u8] = b"[name=]<name>,(string|file)=<value>";

/// FreeBSD's guests mount a share as `nobody`, whom bhyve looks up in the cell (sys/fs/p9fs, contrib/lib9p): a list with nobody else in it.
/// Only pwd_mkdb(8) writes that format. Without it those guests cannot mount; others can.
pub fn users(root: &Path) -> io::Result<()> {
    const PROGRAM: &str = "/usr/sbin/pwd_mkdb";
    if !Path::new(PROGRAM).exists() {
        return Ok(());
    }
    let etc = root.join("etc");
    std::fs::create_dir_all(&etc)?;
    let (list, gone) = (etc.join("users"), [etc.join("master.passwd"), etc.join("spwd.db")]);
    std::fs::write(&list, "nobody:*:65534:65534::0:0::/nonexistent:/usr/sbin/nologin\n")?;
    let output = std::process::Command::new(PROGRAM).arg("-d").arg(&etc).arg(&list).env_clear().output()?;
    if !output.status.success() {
        return Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    // It has moved the list, and made a second one with the passwords that nobody has.
    gone.iter().try_for_each(std::fs::remove_file)
}

/// Which directories are mounted in cells is not asked yet, so none is removed.
pub fn roots_in_use() -> Option<Vec<(u64, u64)>> {
    None
}

/// The spawner leaves nothing here: jails and mounts go with their cells.
pub fn forget(_instance: &str) -> io::Result<()> {
    Ok(())
}
