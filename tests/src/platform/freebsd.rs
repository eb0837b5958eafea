//! FreeBSD: its own kernel in bhyve, booted by bhyveload.

use crate::{Suite, guest, root};
use anyhow::{Context, Result, ensure};
use nix::sys::event::{EvFlags, EventFilter, FilterFlag, KEvent, Kqueue};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// Typed into the guest: reboot at once.
pub const REBOOT: &str = "reboot -qn";
/// Prints the addresses of the guest's NICs.
pub const ADDRESSES: &str = "ifconfig -a ether";
/// Typed into the guest: the power button means nothing to it any more. The last word is `deaf-0`.
pub const DEAF: &str = "sysctl hw.acpi.power_button_state=NONE; echo deaf-$?";
/// Typed into the guest: power off at once. Its kernel, which boots muted, is to be heard then.
pub const POWER_OFF: &str = "sysctl kern.consmute=0; reboot -qnp";
/// What the guest says when it does.
pub const POWERED_OFF: &str = "acpi0: Powering system off";
/// Prints `mem-N-`, where N is the guest's memory in units of 16 MiB, as its loader gave it.
pub const MEMORY: &str = "echo mem-$(( $(sysctl -n hw.realmem) / 16777216 ))-";
/// Writes to the guest's first disk; the last word is `wrote-0`. None: the hypervisor does not count that.
pub const WRITE: Option<&str> = None;
/// The hypervisor's name below a cell's root.
pub const HYPERVISOR: &str = "usr/sbin/bhyve";
/// The firmware's name below a cell's root.
pub const FIRMWARE: &str = "usr/local/share/uefi-firmware/BHYVE_UEFI_CODE.fd";
/// What UEFI firmware boots of a guest.
const LOADER: &str = "/boot/loader.efi";
/// A file of the host that no service has open.
pub const FOREIGN: &str = "/etc/shells";

/// CPUs that vmm(4) gives a machine; none: it does not say (before 14), and gives 16.
pub fn most_cpus() -> Option<u32> {
    let asked = std::process::Command::new("sysctl").args(["-n", "hw.vmm.maxcpu"]).output().ok()?;
    String::from_utf8(asked.stdout).ok()?.trim().parse().ok()
}

/// Prints `N in M cores`: how many CPUs the guest has.
pub const COUNT_CPUS: &str = "echo $(sysctl -n kern.smp.cpus) in $(sysctl -n kern.smp.cores) cores";
/// Prints `at N M… here`: places on the guest's PCI bus, of those for disks and NICs, where something is.
pub const PLACES: &str =
    "echo at $(/usr/sbin/pciconf -l | while IFS=: read -r a b n c; do [ $n -lt 8 ] || [ $n -gt 19 ] || echo $n; done) here";
/// Why an ordinary user cannot have machines here; none: he can.
pub const ORDINARY_USER: Option<&str> = Some("only root makes jails");
/// Whether the hypervisor can be paused.
pub const PAUSES: bool = false;
/// Whether the host has user namespaces.
pub const NAMESPACES: bool = false;
/// A right of the whole process that a service may hold too much of.
pub const CAPABILITY: Option<&str> = None;

/// A tap of the host's own, for as long as this is kept.
pub struct HostTap {
    /// Its name.
    pub name: String,
    control: UnixDatagram,
}

impl HostTap {
    /// Makes one.
    pub fn make() -> Result<Self> {
        let control = UnixDatagram::unbound()?;
        let name = skep_sys::freebsd::net::create(control.as_fd(), "tap")?;
        Ok(Self { name, control })
    }
}

impl Drop for HostTap {
    fn drop(&mut self) {
        let _ = skep_sys::freebsd::net::destroy(self.control.as_fd(), &self.name);
    }
}

/// Gives the guest's only NIC an address.
pub fn set_address(address: &str) -> String {
    format!("ifconfig vtnet0 inet {address} up; echo set-$?")
}

/// Prints `has WHAT here`: the size in sectors of the disk at a place on the guest's PCI bus, or the address of the NIC. None: its shell cannot tell.
pub fn look_at(_place: u64) -> Option<String> {
    None
}

/// Pings an address from the guest; the last word is `ping-0` if it answered.
pub fn ping(address: &str) -> String {
    format!("ping -c 3 -t 30 {address}; echo ping-$?")
}

/// Looks for an address from the guest for a moment; the last word is `asked-42`.
pub fn ask_for(address: &str) -> String {
    format!("ping -c 1 -t 2 {address}; echo asked-$((6*7))")
}

/// A socket that sends frames over an interface.
pub fn packet_socket(interface: &str) -> Result<OwnedFd> {
    anyhow::bail!("{interface}: FreeBSD has no packet sockets")
}

/// Whether the host has an interface of this name.
pub fn has_link(name: &str) -> Result<bool> {
    Ok(lines("ifconfig", &["-l"])?.iter().any(|line| line.split_whitespace().any(|link| link == name)))
}

/// Why no machine can boot by UEFI here, if so.
pub fn no_uefi() -> Option<String> {
    let firmware = Path::new("/").join(FIRMWARE);
    if !firmware.exists() {
        return Some(format!("this host has no UEFI firmware (pkg install edk2-bhyve gives {})", firmware.display()));
    }
    // What the guest's EFI system partition is made of.
    (!Path::new(LOADER).exists()).then(|| format!("this host has no {LOADER}, so the guest's disk has none"))
}

/// Imports what machines of [`define`] boot.
pub fn import_guest(suite: &Suite) -> Result<()> {
    suite.ok(&["disk", "import", "guest", &guest()?.join("disk.img").to_string_lossy()]).map(drop)
}

/// Defines a machine that boots a copy of the guest's disk.
pub fn define(suite: &Suite, name: &str, more: &[&str]) -> Result<()> {
    let root = format!("{name}-root");
    suite.ok(&["disk", "clone", "guest", &root])?;
    let args = ["vm", "create", name, "--memory", "128M", "--loader", "--screen", "off", "--disk", &root];
    suite.ok(&[&args[..], more].concat()).map(drop)
}

/// Devices of a suite's disks that processes serve.
pub fn served_disks(suite: &Suite) -> usize {
    let all = std::fs::read_dir("/dev/skep").into_iter().flatten().filter_map(Result::ok);
    let instance = std::fs::read_to_string(suite.state.join("instance")).unwrap_or_default();
    all.filter(|entry| entry.file_name().to_string_lossy().starts_with(instance.trim())).count()
}

/// What `skep vm stats` says of one disk.
#[derive(Debug, Clone, Copy)]
pub struct DiskCounters {
    /// Bytes read by the guest.
    pub read_bytes: u64,
    /// Bytes written.
    pub write_bytes: u64,
    /// Reads.
    pub read_ops: u64,
    /// Writes.
    pub write_ops: u64,
}

/// Reads them, of the disk at this turn of the machine's list.
pub fn disk_counters(suite: &Suite, machine: &str, slot: u8) -> Result<DiskCounters> {
    let shown = suite.json(&["vm", "stats", machine])?;
    let disks = shown.first().and_then(|stats| stats["disks"].as_array()).context("no disks in vm stats")?;
    let disk = disks.iter().find(|disk| disk["slot"] == slot).with_context(|| format!("no disk {slot}: {disks:?}"))?;
    let number = |name: &str| disk[name].as_u64().with_context(|| format!("no {name}: {disk}"));
    Ok(DiskCounters {
        read_bytes: number("read_bytes")?,
        write_bytes: number("write_bytes")?,
        read_ops: number("read_ops")?,
        write_ops: number("write_ops")?,
    })
}

/// What a hypervisor has taken of the host's processors.
#[derive(Debug)]
pub struct Busy {
    /// As a part of one processor.
    pub of_one: f64,
    /// As a part of what it could have had of one: what it took, and what the host's processors had left over meanwhile. A host that is busy
    /// with others leaves nothing over, and then this is 1 whatever the guest does.
    pub of_possible: f64,
}

/// What the hypervisor of the suite's only machine takes while its guest sleeps for so many seconds.
pub fn busy(suite: &Suite, machine: &str, seconds: u32) -> Result<Busy> {
    let pid = suite.pids("hypervisor")?.into_iter().next().context("no hypervisor")?;
    let (begun, before, idle) = (Instant::now(), cpu_time(pid)?, idle_time()?);
    suite.guest_runs(machine, &format!("sleep {seconds}; echo slept-$((6*7))"), "slept-42")?;
    let (lasted, used) = (begun.elapsed().as_secs_f64(), cpu_time(pid)?.saturating_sub(before).as_secs_f64());
    let left = idle_time()?.saturating_sub(idle).as_secs_f64();
    Ok(Busy { of_one: used / lasted, of_possible: used / lasted.min(used + left) })
}

/// For how long processors of the host had nothing to do so far, all together.
fn idle_time() -> Result<Duration> {
    // User, nice, system, interrupt, idle, in ticks of the clock for statistics.
    let [ticks, clock] = ["kern.cp_time", "kern.clockrate"].map(|name| lines("sysctl", &["-n", name]));
    let (ticks, clock) = (ticks?.join(" "), clock?.join(" "));
    let idle: f64 = ticks.split_whitespace().next_back().with_context(|| ticks.clone())?.parse()?;
    let hz = clock.split_once("stathz = ").and_then(|(_, rest)| rest.split([' ', ',']).next()?.parse::<f64>().ok());
    Ok(Duration::from_secs_f64(idle / hz.filter(|hz| *hz > 0.0).with_context(|| clock.clone())?))
}

/// What a process has used of processors so far.
fn cpu_time(pid: i32) -> Result<Duration> {
    let shown = lines("ps", &["-o", "time=", "-p", &pid.to_string()])?;
    let text = shown.first().context("no such process")?.trim();
    let parts = text.split(':').map(|part| part.parse::<f64>().with_context(|| text.to_owned())).collect::<Result<Vec<_>>>()?;
    Ok(Duration::from_secs_f64(parts.into_iter().fold(0.0, |sum, part| sum * 60.0 + part)))
}

/// Kills a process and waits until it has ended.
pub fn end(pid: i32) -> Result<()> {
    let queue = Kqueue::new()?;
    let ident = usize::try_from(pid)?;
    let exit = KEvent::new(ident, EventFilter::EVFILT_PROC, EvFlags::EV_ADD, FilterFlag::NOTE_EXIT, 0, 0);
    queue.kevent(&[exit], &mut [], None)?;
    kill(Pid::from_raw(pid), Signal::SIGKILL)?;
    ensure!(queue.kevent(&[], &mut [exit], None)? == 1);
    Ok(())
}

/// Puts the program that tries to leave a cell at `to`: a bundle has it, else it is compiled.
pub fn probe(to: &Path) -> Result<()> {
    let made = root().join("probe");
    if made.is_file() {
        std::fs::copy(made, to)?;
        return Ok(());
    }
    let status = Command::new("cc").arg("-o").arg(to).arg(root().join("tests/probe/freebsd.c")).status().context("cc")?;
    ensure!(status.success(), "the probe does not compile");
    Ok(())
}

fn lines(program: &str, args: &[&str]) -> Result<Vec<String>> {
    let output = Command::new(program).args(args).output().context(program.to_owned())?;
    Ok(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
}

/// See [`crate::Snapshot`].
pub fn things(mark: &str, instance: &str) -> BTreeSet<String> {
    // What is asked, how, and by what a line of the answer is known as the suite's.
    let asked: [(&str, &str, &[&str], String); 8] = [
        ("link", "ifconfig", &["-l"], format!("sk{instance}")),
        ("mount", "mount", &["-p"], mark.to_owned()),
        ("jail", "jls", &["-d", "name"], format!("skep-{instance}")),
        ("vmm instance", "ls", &["/dev/vmm"], format!("sk{instance}")),
        ("served disk", "ls", &["/dev/skep"], instance.to_owned()),
        ("limit", "rctl", &[], format!("skep-{instance}")),
        ("socket", "sockstat", &["-u"], mark.to_owned()),
        ("process", "ps", &["-axww", "-o", "args="], mark.to_owned()),
    ];
    let mut things = BTreeSet::new();
    for (kind, program, args, known_by) in asked {
        let all = lines(program, args).unwrap_or_default();
        let parts: Vec<&str> = if kind == "link" {
            all.iter().flat_map(|l| l.split_whitespace()).collect()
        } else {
            all.iter().map(String::as_str).collect()
        };
        things.extend(parts.into_iter().filter(|line| line.contains(&known_by)).map(|line| format!("{kind} {line}")));
    }
    things
}
