//! QEMU's side of a machine, as pure code: model to configuration, QMP lines to typed answers, events and exit to a verdict.
//!
//! QEMU is started with one fixed command line ([`ARGV`]); only the machine's identity, its processor and its keyboard layout follow
//! ([`argv`]), since QEMU takes them from nowhere else. Everything that varies is in the file that [`configure`] makes, which the runner puts
//! at [`CONFIG`] before each start. Disks, taps, serial lines and QMP are descriptors, under the numbers in [`Fds`]. Facts: QEMU 7.2 (qemu-options.hx,
//! util/qemu-config.c, qapi/), each one run.
#![forbid(unsafe_code)]

mod config;
mod ended;
mod fds;
mod machine;
mod probe;
pub mod qmp;

pub use config::Unwritable;
pub use ended::History;
pub use fds::Fds;
pub use machine::{Error, Launch, boot_path, configure};
pub use probe::probe;

pub use skep_machine::{Ended, Exit};

use skep_machine::Uuid;
use std::collections::BTreeMap;

/// The program. It must be started under exactly this name: without /proc it finds its modules and firmware by it.
pub const BINARY: &str = "/usr/bin/qemu-system-x86_64";
/// Where it reads its configuration in the cell; read once, at start.
pub const CONFIG: &str = "/run/machine.conf";
/// Where it reads the kernel of a direct boot in the cell.
pub const KERNEL: &str = "/run/kernel";
/// Where it reads the initial RAM disk of a direct boot in the cell.
pub const INITRD: &str = "/run/initrd";
/// Where it connects to in the cell for a disk that is reached over a socket, by its slot.
pub fn remote(slot: u8) -> String {
    format!("/run/disk{slot}.sock")
}
/// Where it finds the directories that are shared in the cell; their number follows.
pub const SHARE: &str = "/share/";
/// UEFI firmware in the cell's root.
pub const UEFI_CODE: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";
/// What a new variable store is copied from, on the host; the copy must keep the size.
pub const UEFI_VARS: &str = "/usr/share/OVMF/OVMF_VARS_4M.fd";
/// What the cell's root must hold beside [`BINARY`], [`MODULES`] and the libraries that these need.
pub const FIRMWARE: &[&str] = &[
    "/usr/share/seabios/bios-256k.bin",
    "/usr/share/seabios/vgabios-stdvga.bin",
    "/usr/share/qemu/kvmvapic.bin",
    "/usr/share/qemu/linuxboot_dma.bin",
    "/usr/share/qemu/keymaps",
    UEFI_CODE,
];
/// What QEMU loads while it starts.
pub const MODULES: &[&str] = &["/usr/lib/x86_64-linux-gnu/qemu/accel-tcg-x86_64.so"];

/// The fixed command line, the program's name left out. `-S`: the guest runs only when QMP says `cont`. `-no-reboot`: its reboot ends
/// QEMU, so that pending edits apply. `-vnc none`: a screen that listens nowhere, and takes connections as descriptors.
/// `-audiodev`: where a sound card plays to, which the configuration file cannot say: to no device of the host. Clients of the screen hear it
/// (ui/vnc.c); silence is recorded.
pub const ARGV: &[&str] = &[
    "-nodefaults",
    "-no-user-config",
    "-display",
    "none",
    "-vnc",
    "none,audiodev=sound",
    "-no-reboot",
    "-S",
    "-audiodev",
    "none,id=sound",
    "-sandbox",
    "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
    "-readconfig",
    CONFIG,
];

/// How a line at the beginning of a configuration begins that names a keyboard layout.
pub(crate) const KEYBOARD: &str = "# keyboard ";
/// The line at the beginning of a configuration whose guest is not to run at first.
pub(crate) const WAIT: &str = "# wait";
/// Likewise, of one whose memory stays in RAM, QEMU's own with it (mlockall(2)).
pub(crate) const WIRED: &str = "# wired";
/// The line at the beginning of a configuration whose processor is emulated.
pub(crate) const EMULATED: &str = "# emulated";
/// Likewise, of one whose cores have threads.
pub(crate) const THREADS: &str = "# threads";

/// How a line at the beginning of a configuration begins that keeps a virtual CPU to one of the host's: `# pin VCPU-CPU`.
pub(crate) const PIN: &str = "# pin ";

/// What stands before the first group: what is meant for whoever starts QEMU, which passes over it.
fn notes(config: &str) -> impl Iterator<Item = &str> {
    config.lines().take_while(|line| line.starts_with('#'))
}

/// Whether the guest stands still until a debugger, or whoever resumes it, lets it run.
pub fn waits(config: &str) -> bool {
    notes(config).any(|line| line == WAIT)
}

/// Virtual CPUs that are kept to one of the host's each: whoever starts QEMU does that, for QEMU does not.
pub fn pins(config: &str) -> BTreeMap<u16, u16> {
    let pin = |line: &str| {
        let (vcpu, cpu) = line.strip_prefix(PIN)?.split_once('-')?;
        Some((vcpu.parse().ok()?, cpu.parse().ok()?))
    };
    notes(config).filter_map(pin).collect()
}

/// The processor, as QEMU names it. A guest that is told of fast string instructions copies all its memory by them; emulated, each takes a
/// byte at a time, and a copy two to three times as long as by others.
/// The processor that it emulates is one of AMD's, of a family that had no threads, so that guests find none; one of Intel's has them.
pub const fn cpu(emulated: bool, threads: bool) -> &'static str {
    match (emulated, threads) {
        (true, false) => "max,erms=off,fsrm=off",
        (true, true) => "max,erms=off,fsrm=off,vendor=GenuineIntel",
        (false, _) => "max",
    }
}

/// [`ARGV`], then the machine's identity, its processor, and the keyboard layout that the configuration names, if it does.
pub fn argv(uuid: Uuid, config: &str) -> Vec<String> {
    let noted = |word| notes(config).any(|line| line == word);
    let cpu = cpu(noted(EMULATED), noted(THREADS));
    let own = ["-uuid".to_owned(), uuid.to_string(), "-cpu".to_owned(), cpu.to_owned()];
    let layout = notes(config).find_map(|line| line.strip_prefix(KEYBOARD));
    // With a path in it QEMU would read another file.
    let plain = |name: &&str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
    let keyboard = layout.filter(plain).map(|name| ["-k".to_owned(), name.to_owned()]);
    let wired = noted(WIRED).then(|| ["-overcommit".to_owned(), "mem-lock=on".to_owned()]);
    let more = keyboard.into_iter().flatten().chain(wired.into_iter().flatten());
    ARGV.iter().map(|&arg| arg.to_owned()).chain(own).chain(more).collect()
}
