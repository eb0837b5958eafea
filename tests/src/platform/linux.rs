//! Linux: Debian's kernel in QEMU, booted directly.

use crate::{Suite, guest};
use anyhow::Result;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// Typed into the guest: reboot at once.
pub const REBOOT: &str = "reboot -f";
/// Prints the addresses of the guest's NICs.
pub const ADDRESSES: &str = "cat /sys/class/net/eth*/address";
/// Typed into the guest: the power button means nothing to it any more. The last word is `deaf-0`.
pub const DEAF: &str = "killall dd; echo deaf-$?";
/// Typed into the guest: power off at once.
pub const POWER_OFF: &str = "poweroff -f";
/// What the guest says when it does.
pub const POWERED_OFF: &str = "reboot: Power down";
/// Prints `mem-N-`, where N is the guest's memory in units of 16 MiB: its kernel keeps some for itself.
pub const MEMORY: &str = "echo mem-$(( ($(grep MemTotal /proc/meminfo | tr -dc 0-9) + 46000) / 16384 ))-";
/// CPUs that the hypervisor gives a machine; none: more than any test asks for.
pub fn most_cpus() -> Option<u32> {
    None
}

/// Prints `N in M cores`: how many CPUs the guest has.
pub const COUNT_CPUS: &str = "echo $(grep -c ^processor /proc/cpuinfo) in $(cat /sys/devices/system/cpu/cpu*/topology/core_cpus_list | sort -u | grep -c .) cores";
/// Prints `at N M… here`: places on the guest's PCI bus, of those for disks and NICs, where something is.
pub const PLACES: &str = "echo at $(for d in /sys/bus/pci/devices/0000:00:*; do n=${d##*:}; n=$((0x${n%.*})); [ $n -lt 8 ] || [ $n -gt 19 ] || echo $n; done) here";
/// Writes 1 MiB to the guest's first disk; the last word is `wrote-0`. None: the hypervisor does not count that.
pub const WRITE: Option<&str> = Some("dd if=/dev/zero of=/dev/vda bs=64k count=16 conv=fsync 2>/dev/null; echo wrote-$?");
/// The hypervisor's name below a cell's root.
pub const HYPERVISOR: &str = "usr/bin/qemu-system-x86_64";
/// The firmware's name below a cell's root.
pub const FIRMWARE: &str = "usr/share/OVMF/OVMF_CODE_4M.fd";
/// A file of the host that no service has open.
pub const FOREIGN: &str = "/etc/hostname";

/// Why an ordinary user cannot have machines here; none: he can.
pub const ORDINARY_USER: Option<&str> = None;
/// Whether the hypervisor can be paused.
pub const PAUSES: bool = true;
/// Whether the host has user namespaces.
pub const NAMESPACES: bool = true;
/// A right of the whole process that a service may hold too much of.
pub const CAPABILITY: Option<&str> = Some("CAP_NET_ADMIN");

/// A tap of the host's own, for as long as this is kept.
pub struct HostTap {
    /// Its name.
    pub name: String,
    _tun: fs::File,
}

impl HostTap {
    /// Makes one.
    pub fn make() -> Result<Self> {
        let tun = fs::File::options().read(true).write(true).open("/dev/net/tun")?;
        let name = format!("skt{}", std::process::id());
        skep_sys::linux::tun::set_tap(tun.as_fd(), &name)?;
        Ok(Self { name, _tun: tun })
    }
}

/// Gives the guest's only NIC an address.
pub fn set_address(address: &str) -> String {
    format!("ip link set eth0 up; ip addr add {address} dev eth0; echo set-$?")
}

/// Prints `has WHAT here`: the size in sectors of the disk at a place on the guest's PCI bus, or the address of the NIC. None: its shell cannot tell.
pub fn look_at(place: u64) -> Option<String> {
    let device = format!("/sys/bus/pci/devices/0000:00:{place:02x}.0/virtio*");
    Some(format!("echo has $(cat {device}/block/*/size {device}/net/*/address 2>/dev/null) here"))
}

/// Pings an address from the guest; the last word is `ping-0` if it answered.
pub fn ping(address: &str) -> String {
    format!("ping -c 3 -w 20 {address}; echo ping-$?")
}

/// Looks for an address from the guest for a moment; the last word is `asked-42`.
pub fn ask_for(address: &str) -> String {
    format!("ping -c 1 -w 2 {address}; echo asked-$((6*7))")
}

/// A socket that sends frames over an interface.
pub fn packet_socket(interface: &str) -> Result<OwnedFd> {
    Ok(skep_sys::linux::packet::port(nix::net::if_::if_nametoindex(interface)?, false)?)
}

/// Whether the host has an interface of this name.
pub fn has_link(name: &str) -> Result<bool> {
    Ok(Path::new("/sys/class/net").join(name).exists())
}

/// Why no machine can boot by UEFI here, if so.
pub fn no_uefi() -> Option<String> {
    None
}

/// Imports what machines of [`define`] boot.
pub fn import_guest(suite: &Suite) -> Result<()> {
    let guest = guest()?;
    for name in ["kernel", "initrd"] {
        suite.ok(&["disk", "import", name, &guest.join(name).to_string_lossy()])?;
    }
    Ok(())
}

/// Defines a machine that boots the guest's kernel directly.
pub fn define(suite: &Suite, name: &str, more: &[&str]) -> Result<()> {
    let args = ["vm", "create", name, "--memory", "128M", "--kernel", "kernel", "--initrd", "initrd"];
    let args = [&args[..], &["--cmdline", "console=ttyS0 quiet"], more].concat();
    suite.ok(&args).map(drop)
}

/// Kills a process and waits until it has ended.
pub fn end(pid: i32) -> Result<()> {
    let process = skep_sys::linux::pidfd(pid)?;
    kill(Pid::from_raw(pid), Signal::SIGKILL)?;
    nix::poll::poll(&mut [PollFd::new(process.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE)?;
    Ok(())
}

/// See [`crate::Snapshot`].
pub fn things(mark: &str, instance: &str) -> BTreeSet<String> {
    let mut things = BTreeSet::new();
    if let Ok(links) = fs::read_dir("/sys/class/net") {
        for link in links.flatten() {
            let name = link.file_name().to_string_lossy().into_owned();
            if name.starts_with(&format!("sk{instance}")) {
                things.insert(format!("link {name}"));
            }
        }
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    things.extend(mounts.lines().filter(|l| l.contains(mark)).map(|l| format!("mount {l}")));
    let sockets = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    let bound = sockets.lines().filter_map(|l| l.split_whitespace().nth(7)).filter(|p| p.contains(mark));
    things.extend(bound.map(|p| format!("socket {p}")));
    cgroups(Path::new("/sys/fs/cgroup"), &format!("skep-{instance}"), 3, &mut things);
    if let Ok(processes) = fs::read_dir("/proc") {
        for entry in processes.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if !name.bytes().all(|c| c.is_ascii_digit()) {
                continue;
            }
            let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let command = String::from_utf8_lossy(&command).replace('\0', " ");
            let program = fs::read_link(entry.path().join("exe")).unwrap_or_default();
            let ours = command.contains(mark) || program.to_string_lossy().contains(mark);
            // The command that the test itself runs is not the suite's.
            if ours && name != std::process::id().to_string() {
                things.insert(format!("process {}", command.trim()));
            }
        }
    }
    things
}

fn cgroups(dir: &Path, mark: &str, depth: u32, things: &mut BTreeSet<String>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir())) {
        let path = entry.path();
        if path.to_string_lossy().contains(mark) {
            things.insert(format!("cgroup {}", path.display()));
        }
        if depth > 0 {
            cgroups(&path, mark, depth - 1, things);
        }
    }
}
