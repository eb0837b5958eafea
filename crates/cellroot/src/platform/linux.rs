//! Linux: QEMU. The list was found by tracing it: it opens nothing else.

use super::Item;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Where the hypervisor is, outside and inside.
pub const HYPERVISOR: &str = "/usr/bin/qemu-system-x86_64";
/// The UEFI firmware's code.
pub const UEFI: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";
/// Empty directories of the root: mount points.
pub const EMPTY_DIRS: &[&str] = &["run", "dev", "share", "share/0", "share/1", "share/2", "share/3"];

const PACKAGE: &str = "qemu-system-x86";

const fn rom(path: &'static str) -> Item {
    Item { path, what: "hypervisor's firmware", package: "qemu-system-data seabios", program: false, required: true }
}

/// Whose keyboard layouts there are, and where.
pub const LAYOUTS: (skep_machine::Hypervisor, &str) = (skep_machine::Hypervisor::Qemu, "/usr/share/qemu/keymaps");

/// Programs of ours beside machines that only this host has.
pub const SERVERS: &[&str] = &[];

/// Everything but our own programs.
pub const ITEMS: &[Item] = &[
    Item { path: HYPERVISOR, what: "hypervisor", package: PACKAGE, program: true, required: true },
    // Built into the hypervisor elsewhere than on Debian.
    Item { path: "/usr/lib/x86_64-linux-gnu/qemu/accel-tcg-x86_64.so", what: "", package: "", program: true, required: false },
    Item { path: "/usr/lib64/qemu-kvm/accel-tcg-x86_64.so", what: "", package: "", program: true, required: false },
    rom("/usr/share/seabios/bios-256k.bin"),
    rom("/usr/share/seabios/vgabios-stdvga.bin"),
    rom("/usr/share/qemu/kvmvapic.bin"),
    rom("/usr/share/qemu/linuxboot_dma.bin"),
    // Read by the VNC server whether or not anybody connects.
    rom("/usr/share/qemu/keymaps/en-us"),
    // The zone of a machine's clock that is to have local time. A host without it has none but UTC.
    Item { path: "/etc/localtime", what: "", package: "", program: false, required: false },
    Item { path: UEFI, what: "UEFI firmware", package: "ovmf", program: false, required: false },
    // The template of variable stores: storage-helper reads it, cells do not.
    Item { path: "/usr/share/OVMF/OVMF_VARS_4M.fd", what: "", package: "", program: false, required: false },
];

/// Where ld.so(8) looks without being told.
pub fn library_dirs() -> impl Iterator<Item = String> {
    let multiarch = format!("{}-linux-gnu", std::env::consts::ARCH);
    let debian = [format!("/usr/lib/{multiarch}"), format!("/lib/{multiarch}")];
    debian.into_iter().chain(["/usr/lib64", "/lib64", "/usr/lib", "/lib"].map(String::from))
}

/// Makes a copy that shares its blocks, where the file system can.
pub fn reflink(to: BorrowedFd<'_>, from: BorrowedFd<'_>) -> io::Result<()> {
    skep_sys::linux::reflink(to, from)
}

/// The version that the file itself states.
pub fn version(path: &Path) -> String {
    const MARK: &[u8] = b"QEMU emulator version ";
    let found = std::fs::read(path).ok().and_then(|bytes| {
        let at = memchr::memmem::find(&bytes, MARK)? + MARK.len();
        let text: Vec<u8> = bytes.get(at..)?.iter().copied().take(64).take_while(|c| (b' '..=b'~').contains(c)).collect();
        String::from_utf8(text).ok()
    });
    found.filter(|v| v.starts_with(|c: char| c.is_ascii_digit())).unwrap_or_else(|| "unknown".to_owned())
}

/// What a hypervisor's file holds that can share directories.
pub const SHARES: &[u8] = b"virtio-9p-pci";

/// What one holds that takes items of fw_cfg.
pub const FW_CFG: &[u8] = b"fw_cfg";

/// QEMU asks for no user's name.
pub fn users(_root: &Path) -> io::Result<()> {
    Ok(())
}

/// Device and inode of the root of every process that this one may look at, and no other is in a cell of its own.
pub fn roots_in_use() -> Option<Vec<(u64, u64)>> {
    let processes = std::fs::read_dir("/proc").ok()?.filter_map(Result::ok);
    let roots = processes.filter_map(|process| std::fs::metadata(process.path().join("root/.")).ok());
    Some(roots.map(|root| (root.dev(), root.ino())).collect())
}

/// Removes the instance's control groups, as far as they are empty.
pub fn forget(instance: &str) -> io::Result<()> {
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    let groups = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let dir = fields.next()?;
        fields.next().filter(|kind| kind.starts_with("cgroup"))?;
        Some(Path::new(dir).join(format!("skep-{instance}")))
    });
    for group in groups {
        let below = std::fs::read_dir(&group).into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path());
        // Files of the group cannot be removed, and need not be.
        for dir in below.filter(|path| path.is_dir()).collect::<Vec<_>>().into_iter().chain([group]) {
            match std::fs::remove_dir(dir) {
                Err(e) if e.kind() != io::ErrorKind::NotFound && e.kind() != io::ErrorKind::ResourceBusy => return Err(e),
                _ => {}
            }
        }
    }
    Ok(())
}
