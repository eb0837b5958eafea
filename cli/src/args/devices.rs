//! Devices in the settings of `skep vm`.

use super::Switched;
use crate::size;
use clap::{ArgAction, Args, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;

/// What the clock shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Clock {
    /// Universal time
    Utc,
    /// The host's local time
    Local,
}

/// What is at place 0 of the PCI bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum HostBridge {
    /// The hypervisor's usual one
    Standard,
    /// One that says it is AMD's
    Amd,
}

/// Whether a debugger may be joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Gdb {
    /// No
    Off,
    /// Yes
    On,
    /// Yes, and the guest stands still at first
    Wait,
}

/// Devices of a machine.
#[derive(Debug, Args)]
#[command(next_help_heading = "Devices (`skep host show` says what this host has)")]
pub struct DeviceArgs {
    /// How its CPUs are arranged, like sockets=1,cores=2,threads=2; what is not named is 1, and --cpus may be left out. none: one socket with as many cores,
    /// each of one thread [default of a new machine]
    #[arg(long, value_name = "sockets=N,cores=N,threads=N|none")]
    pub topology: Option<String>,
    /// Size of the screen in pixels, 640x480 to 3840x2160; before FreeBSD 15 to 1920x1200 [default of a new machine: 1024x768]
    #[arg(long, value_name = "WIDTHxHEIGHT", value_parser = size)]
    pub screen_size: Option<(u32, u32)>,
    /// bhyve: whether the guest is held until somebody looks at its screen [default of a new machine: off]
    #[arg(long, value_enum, value_name = "ON|OFF")]
    pub screen_wait: Option<Switched>,
    /// Keyboard layout of viewers, by the hypervisor's name (`skep host show` lists them); `none`: US
    #[arg(long, value_name = "LAYOUT")]
    pub keyboard: Option<String>,
    /// Whether the pointer is a USB tablet [default of a new machine: on]
    #[arg(long, value_enum, value_name = "ON|OFF")]
    pub tablet: Option<Switched>,
    /// What the clock shows; local: bhyve [default of a new machine: utc]
    #[arg(long, value_enum, value_name = "TIME")]
    pub clock: Option<Clock>,
    /// bhyve: whether there are ACPI tables: a guest without them hears no power button [default of a new machine: on]
    #[arg(long, value_enum, value_name = "ON|OFF")]
    pub acpi: Option<Switched>,
    /// bhyve: the host bridge
    #[arg(long, value_enum, value_name = "KIND")]
    pub host_bridge: Option<HostBridge>,
    /// bhyve: whether a CPU that the guest halts is given back [default of a new machine: on]
    #[arg(long, value_enum, value_name = "ON|OFF")]
    pub exit_on_halt: Option<Switched>,
    /// bhyve: whether a CPU that spins is given back [default of a new machine: on]
    #[arg(long, value_enum, value_name = "ON|OFF")]
    pub exit_on_pause: Option<Switched>,
    /// bhyve: whether unknown model-specific registers are a fault to the guest [default of a new machine: off]
    #[arg(long, value_enum, value_name = "ON|OFF")]
    pub strict_msr: Option<Switched>,
    /// bhyve: whether the local APIC begins in x2APIC mode [default of a new machine: off]
    #[arg(long, value_enum, value_name = "ON|OFF")]
    pub x2apic: Option<Switched>,
    /// An item that firmware and guest read by its name, which begins with opt/; up to 8 times (bhyve: from FreeBSD 14 on)
    #[arg(long, value_name = "NAME=TEXT", action = ArgAction::Append)]
    pub fw_cfg: Vec<String>,
    /// A controller for several disks, which say `,on=NAME`; up to 4 times. KIND: ahci (6 disks and CDs), scsi (virtio SCSI, 8 disks and CDs;
    /// not on FreeBSD), nvme (8 disks; on FreeBSD one) or virtio (one disk). `,slot=N`: its place on the PCI bus, 1 to 30, with a
    /// function as 20.1; otherwise the first that is free from 20 on, and there it stays
    #[arg(long, value_name = "NAME,KIND[,slot=N]", action = ArgAction::Append)]
    pub controller: Vec<String>,
    /// A serial port, 1 to 4; may be repeated. The first is there always. `,speed=N`: held to so many bits a second, 300 to 115200, with
    /// 10 bits for a byte; `,nolog`: what comes out of it is not logged
    #[arg(long, value_name = "PORT[,speed=N][,nolog]", action = ArgAction::Append)]
    pub serial: Vec<String>,
    /// QEMU: whether a debugger may be joined (`skep vm gdb`); wait: the guest stands still until one, or `skep vm resume`, lets it run
    /// [default of a new machine: off]
    #[arg(long, value_enum, value_name = "OFF|ON|WAIT")]
    pub gdb: Option<Gdb>,
    /// Put a device elsewhere on the PCI bus, 1 to 30: screen, rng, usb, ahci, scsi, sound, channels or share0 to share3; may be
    /// repeated. `DEVICE=20.1`: a function of what is at 20. Disks and NICs have a slot of their own
    #[arg(long, value_name = "DEVICE=N", action = ArgAction::Append)]
    pub place: Vec<String>,
}

fn size(text: &str) -> Result<(u32, u32), String> {
    let parts = text.split_once('x').and_then(|(width, height)| Some((width.parse().ok()?, height.parse().ok()?)));
    parts.ok_or_else(|| "two numbers with an x between them are expected: 1280x1024".to_owned())
}

/// `skep vm sound`.
#[derive(Debug, Args)]
pub struct SoundArgs {
    /// Name or id
    pub machine: String,
    /// Write to this file [default: standard output, for a player such as aplay]
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Leave when so much sound has come
    #[arg(long, value_name = "TIME", value_parser = size::duration)]
    pub duration: Option<Duration>,
    /// Give up after this time
    #[arg(long, value_name = "TIME", value_parser = size::duration)]
    pub timeout: Option<Duration>,
}
