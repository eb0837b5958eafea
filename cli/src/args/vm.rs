//! `skep vm`.

use super::{CloneArgs, DeviceArgs, FirmwareCommand, SoundArgs, Steps, WholeCommand};
use crate::size;
use clap::{ArgAction, Args, Subcommand, ValueEnum};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Machines.
#[derive(Debug, Subcommand)]
pub enum VmCommand {
    /// Define a machine
    Create {
        /// Its name
        name: String,
        /// Its group [default: default]
        #[arg(long, value_name = "GROUP", env = "SKEP_GROUP")]
        group: Option<String>,
        /// Its settings
        #[command(flatten)]
        settings: SettingsArgs,
    },
    /// List machines
    #[command(visible_alias = "ls")]
    List,
    /// Show one
    Show(Which),
    /// Change settings; says what applies now and what at the next start
    Set {
        /// Name or id
        machine: String,
        /// What to change
        #[command(flatten)]
        settings: SettingsArgs,
        /// Take all disks away
        #[arg(long, conflicts_with = "disk")]
        no_disks: bool,
        /// Take all channels away
        #[arg(long, conflicts_with = "channel")]
        no_channels: bool,
        /// Share no directory any more
        #[arg(long, conflicts_with = "share")]
        no_shares: bool,
        /// Take all items of fw_cfg away
        #[arg(long, conflicts_with = "fw_cfg")]
        no_fw_cfg: bool,
        /// Take all controllers away
        #[arg(long, conflicts_with = "controller")]
        no_controllers: bool,
        /// Take all serial ports but the first away, and leave that as fast as it goes and logged
        #[arg(long, conflicts_with = "serial")]
        no_serial: bool,
        /// Put all devices but disks and NICs where they usually are
        #[arg(long, conflicts_with = "place")]
        no_places: bool,
        /// Refuse if the machine's revision is another
        #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
        revision: u64,
    },
    /// Give it another name
    Rename {
        /// Name or id
        machine: String,
        /// The new name
        name: String,
    },
    /// Start it, or all that start with the host
    Start(StartArgs),
    /// Press its power button, once for each run of its guest, and wait until it is off; --force ends one that does not listen in its time
    Stop(StopArgs),
    /// End it at once
    Kill(ActArgs),
    /// Press its power button, wait until it is off, and start it
    Reboot(ActArgs),
    /// Press its reset button
    Reset(ActArgs),
    /// Stop its virtual CPUs
    Pause(ActArgs),
    /// Let its virtual CPUs run again
    Resume(ActArgs),
    /// Join one of its serial ports; `~.` leaves, `~?` helps
    Console(ConsoleArgs),
    /// Play a script into one of its serial ports: texts to expect, in their time, and texts to type
    #[command(long_about = PLAY)]
    Play(PlayArgs),
    /// Offer it to gdb until ^C: `target remote PATH`. The guest stands still while gdb does not let it run (QEMU)
    Gdb {
        /// Name or id
        machine: String,
        /// Listen on this UNIX socket [default: NAME.gdb, here]
        #[arg(long = "unix", value_name = "PATH")]
        path: Option<PathBuf>,
    },
    /// Talk with a program in its guest over a channel: standard input and output, until the channel's end or ^C
    Channel {
        /// Name or id
        machine: String,
        /// The channel's name
        channel: String,
        /// Leave when so many lines have come
        #[arg(long, value_name = "N")]
        lines: Option<u64>,
        /// Give up after this time
        #[arg(long, value_name = "TIME", value_parser = size::duration)]
        timeout: Option<Duration>,
    },
    /// Offer its screen to a VNC viewer until ^C
    Vnc {
        /// Name or id
        machine: String,
        /// Listen on this address of the loopback; port 0: any. Everybody on this host can connect
        #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:0", conflicts_with = "path")]
        listen: SocketAddr,
        /// Listen on a UNIX socket of your own instead
        #[arg(long = "unix", value_name = "PATH")]
        path: Option<PathBuf>,
    },
    /// Listen to it: what it plays, as a WAV file, until ^C or its end (QEMU)
    Sound(SoundArgs),
    /// Variables of its UEFI firmware: what it boots
    #[command(subcommand)]
    Firmware(FirmwareCommand),
    /// Print what came out of one of its serial ports, or its hypervisor's last words
    Log {
        /// Name or id
        machine: String,
        /// Number of the serial port, 1 to 4
        #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=4))]
        port: u32,
        /// The hypervisor's log
        #[arg(long, conflicts_with = "port")]
        hypervisor: bool,
        /// Only the last lines
        #[arg(short = 'n', long, alias = "lines", value_name = "N")]
        tail: Option<u32>,
        /// Only what came since: `10m`
        #[arg(long, value_name = "TIME", value_parser = size::duration)]
        since: Option<Duration>,
        /// Go on with what is written later, until the machine is deleted or ^C
        #[arg(short, long)]
        follow: bool,
    },
    /// Show its counters
    Stats {
        /// Name or id
        machine: String,
        /// Go on: what it uses, a line for each interval, until it ends or ^C
        #[arg(short, long)]
        watch: bool,
        /// Time between two readings, 1s to 1h
        #[arg(long, value_name = "TIME", value_parser = size::duration, default_value = "2s", requires = "watch")]
        interval: Duration,
    },
    /// Copy a stopped machine, with its writable disks; its NICs get other addresses
    Clone(CloneArgs),
    /// Snapshots of a machine: its disks, its firmware's variables and its settings
    #[command(subcommand)]
    Snapshot(WholeCommand),
    /// Take a CD out of its drive, of a running machine's at once (QEMU); the drive stays
    Eject {
        /// Name or id
        machine: String,
        /// The disk that is its CD
        disk: String,
    },
    /// Delete a stopped machine; NICs that `clone` made for it go along, others are detached
    #[command(visible_alias = "rm")]
    Delete {
        /// Name or id
        machine: String,
        /// Its disks, too, as far as no other machine has them
        #[arg(long)]
        disks: bool,
        /// How to wait
        #[command(flatten)]
        wait: WaitArgs,
    },
}

/// One machine.
#[derive(Debug, Args)]
pub struct Which {
    /// Name or id
    pub machine: String,
}

/// How to wait for an operation.
#[derive(Debug, Clone, Copy, Args)]
pub struct WaitArgs {
    /// Return at once; see `skep op`
    #[arg(long)]
    pub no_wait: bool,
}

/// Something to do with a machine.
#[derive(Debug, Args)]
pub struct ActArgs {
    /// Name or id
    pub machine: String,
    /// How to wait
    #[command(flatten)]
    pub wait: WaitArgs,
}

/// Machines to start.
#[derive(Debug, Args)]
pub struct StartArgs {
    /// Name or id
    #[arg(required_unless_present = "autostart", conflicts_with = "autostart")]
    pub machine: Option<String>,
    /// All that are to start with the host and do not run, in their order, with their delays
    #[arg(long)]
    pub autostart: bool,
    /// How to wait
    #[command(flatten)]
    pub wait: WaitArgs,
}

/// Machines to stop.
#[derive(Debug, Args)]
pub struct StopArgs {
    /// Name or id
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    pub machine: Option<String>,
    /// All that run: the highest order first, those of the same order at the same time
    #[arg(long)]
    pub all: bool,
    /// How long it may take to power off, up to 24 hours; with --all, all of them together [default: what `--stop-timeout` of its settings says]
    #[arg(long, value_name = "TIME", value_parser = size::duration)]
    pub timeout: Option<Duration>,
    /// End it when that time is over, or at once if it cannot hear its button. Without, it runs on and the command fails
    #[arg(long)]
    pub force: bool,
    /// How to wait
    #[command(flatten)]
    pub wait: WaitArgs,
}

/// When a machine is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Restart {
    /// Never
    Never,
    /// When it failed
    OnFailure,
    /// When it powered itself off, too
    Always,
}

/// On or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Switched {
    /// Yes.
    On,
    /// No.
    Off,
}

/// Hardware acceleration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Acceleration {
    /// Whatever works here
    Auto,
    /// Emulation in software
    Tcg,
    /// The kernel's virtualisation
    Kvm,
}

/// Settings of a machine.
#[derive(Debug, Args)]
pub struct SettingsArgs {
    /// Virtual CPUs: 1 to 64 [default of a new machine: 1]
    #[arg(long, value_name = "N")]
    pub cpus: Option<u32>,
    /// Memory: 16M to 1T [default of a new machine: 512M]
    #[arg(long, value_name = "SIZE", value_parser = size::mib)]
    pub memory: Option<u64>,
    /// Boot by UEFI [default of a new machine]
    #[arg(long, conflicts_with = "kernel")]
    pub uefi: bool,
    /// Boot by the host's loader, from the first disk: FreeBSD in bhyve
    #[arg(long, conflicts_with_all = ["uefi", "kernel"])]
    pub loader: bool,
    /// Boot by a BIOS, from the first disk (QEMU)
    #[arg(long, conflicts_with_all = ["uefi", "kernel", "loader"])]
    pub bios: bool,
    /// Boot this kernel directly: a disk that was imported
    #[arg(long, value_name = "DISK")]
    pub kernel: Option<String>,
    /// With this initial RAM disk
    #[arg(long, value_name = "DISK", requires = "kernel")]
    pub initrd: Option<String>,
    /// With this command line
    #[arg(long, value_name = "TEXT", requires = "kernel", allow_hyphen_values = true)]
    pub cmdline: Option<String>,
    /// A disk, in boot order; may be repeated. Attached as virtio, or as `,nvme`, `,ahci`, `,cd` (AHCI, read-only) or `,scsi`
    /// (virtio SCSI; not on FreeBSD). `,ro`: read-only; `,nocache`: past the host's cache; `,sync`: each write is on the medium
    /// before it is done; `,slot=N`: its place on the PCI bus, with a function as 20.1, otherwise a free one, where it stays; a CD `,eject-once`: out of the drive from its second boot on;
    /// `,ejected`: not in it
    /// `,on=CONTROLLER`: on one of the machine's controllers, at its first free port, or at `,port=N`
    #[arg(long, value_name = "DISK[,KIND][,FLAG…]", action = ArgAction::Append)]
    pub disk: Vec<String>,
    /// Whether it has a screen
    #[arg(long, value_enum, value_name = "ON|OFF")]
    pub screen: Option<Switched>,
    /// Acceleration
    #[arg(long, value_enum, value_name = "KIND")]
    pub acceleration: Option<Acceleration>,
    /// Percent of one CPU that it may use; 0: no limit
    #[arg(long, value_name = "PERCENT")]
    pub cpu_percent: Option<u32>,
    /// Free text
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub description: Option<String>,
    /// Whether it has a sound card; QEMU's is heard by `skep vm sound` and viewers [default of a new machine: off]
    #[arg(long, value_enum, value_name = "ON|OFF")]
    pub sound: Option<Switched>,
    /// FreeBSD: the host's sound device that it plays to (`skep host show` lists them); none: to none
    #[arg(long, value_name = "dspN|none")]
    pub sound_out: Option<String>,
    /// FreeBSD: the host's sound device that it records from
    #[arg(long, value_name = "dspN|none")]
    pub sound_in: Option<String>,
    /// Whether it has a TPM; no host has one for machines yet [default of a new machine: off]
    #[arg(long, value_enum, value_name = "ON|OFF")]
    pub tpm: Option<Switched>,
    /// A channel to a program in the guest, like org.qemu.guest_agent.0; up to 4 times. See `skep vm channel`
    #[arg(long, value_name = "NAME", action = ArgAction::Append)]
    pub channel: Vec<String>,
    /// Whether it starts with the host [default of a new machine: off]
    #[arg(long, value_enum, value_name = "ON|OFF")]
    pub autostart: Option<Switched>,
    /// Its turn then, 0 to 9999: the lowest first, and the last when the host goes down [default of a new machine: 0]
    #[arg(long, value_name = "N")]
    pub start_order: Option<u32>,
    /// How long the next one waits after it, up to 1h [default of a new machine: 0s]
    #[arg(long, value_name = "TIME", value_parser = size::duration)]
    pub start_delay: Option<Duration>,
    /// How long its guest has to power itself off when it is to stop or to reboot, 1s to 24h [default of a new machine: 120s]
    #[arg(long, value_name = "TIME", value_parser = size::duration)]
    pub stop_timeout: Option<Duration>,
    /// When it is started again though nobody asked, after a pause that grows from 1 s to 5 min [default of a new machine: never]
    #[arg(long, value_enum, value_name = "WHEN")]
    pub restart: Option<Restart>,
    /// A directory of the host, by the name that its administrator gave it (`skep host show` lists them), which the guest mounts as 9p by the
    /// same name; up to 4 times. `,ro`: the guest can only read it, which FreeBSD's hosts insist on
    #[arg(long, value_name = "NAME[,ro]", action = ArgAction::Append)]
    pub share: Vec<String>,
    /// Its other devices
    #[command(flatten)]
    pub devices: DeviceArgs,
    /// What its cell may use besides
    #[command(flatten)]
    pub limits: LimitsArgs,
}

/// Limits of a machine's cell.
#[derive(Debug, Args)]
#[command(next_help_heading = "Limits of the whole cell")]
pub struct LimitsArgs {
    /// Memory, at least 128M more than the guest's; 0: no limit
    #[arg(long, value_name = "SIZE", value_parser = size::mib)]
    pub memory_limit: Option<u64>,
    /// Processes and threads; 0: as many as the hypervisor can need
    #[arg(long, value_name = "N")]
    pub tasks: Option<u32>,
    /// FreeBSD, percent of one CPU: rctl's pcpu: stops the whole machine for seconds; a mean, not a share. 0: no limit
    #[arg(long, value_name = "PERCENT")]
    pub pcpu: Option<u32>,
    /// Bytes read from disks in a second; 0: no limit
    #[arg(long, value_name = "SIZE", value_parser = size::bytes)]
    pub read_bps: Option<u64>,
    /// Bytes written to disks in a second; 0: no limit
    #[arg(long, value_name = "SIZE", value_parser = size::bytes)]
    pub write_bps: Option<u64>,
    /// Reads from disks in a second; 0: no limit
    #[arg(long, value_name = "N")]
    pub read_iops: Option<u64>,
    /// Writes to disks in a second; 0: no limit
    #[arg(long, value_name = "N")]
    pub write_iops: Option<u64>,
    /// CPUs of the host that it may run on, as 0-1,3; `all`: any
    #[arg(long, value_name = "LIST")]
    pub cpus_allowed: Option<String>,
    /// bhyve: bind virtual CPUs to one of the host's each, as 0:2,1:3; `none`: bind none
    #[arg(long, value_name = "VCPU:CPU,…")]
    pub pin: Option<String>,
    /// Nice value: 19 goes after all others; below 0, down to -20, before them (FreeBSD)
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub priority: Option<i32>,
    /// FreeBSD: whether the kernel spares it when memory runs out
    #[arg(long, value_enum, value_name = "ON|OFF")]
    pub protect: Option<Switched>,
    /// bhyve: whether the guest's memory stays in RAM
    #[arg(long, value_enum, value_name = "ON|OFF")]
    pub wired: Option<Switched>,
}

/// What `skep vm play --help` says.
const PLAY: &str = "Play a script into one of its serial ports.

A script has a step a line; empty lines and those that begin with `#` are none. Texts stand in double quotes, with \\n \\r \\t \\e \\\" \\\\ \\xNN.

    timeout 60s          how long each step from here on may take
    expect \"login: \"    wait until this comes
    expect 5s \"# \"      the same, with a time of its own
    send \"root\"          type this and Enter
    type \"y\"             type this

What comes before a text is typed is no answer to it. The first step that is late, or the first wrong line, is named with its number.";

/// `skep vm play`.
#[derive(Debug, Args)]
pub struct PlayArgs {
    /// Name or id
    pub machine: String,
    /// The script; `-`: standard input
    pub script: PathBuf,
    /// Number of the serial port, 1 to 4
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=4))]
    pub port: u32,
    /// Give up after this time, whatever the script says
    #[arg(long, value_name = "TIME", value_parser = size::duration)]
    pub timeout: Option<Duration>,
    /// Expect only what comes from now on, not what the scroll-back shows
    #[arg(long)]
    pub from_now: bool,
    /// Take the keyboard over from whoever has it
    #[arg(long)]
    pub take: bool,
}

/// `skep vm console`.
#[derive(Debug, Args)]
pub struct ConsoleArgs {
    /// Name or id
    pub machine: String,
    /// Number of the serial port, 1 to 4
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=4))]
    pub port: u32,
    /// The conversation, for scripts
    #[command(flatten)]
    pub steps: Steps,
    /// Give up after this time
    #[arg(long, value_name = "TIME", value_parser = size::duration)]
    pub timeout: Option<Duration>,
    /// Expect only what comes from now on, not what the scroll-back shows
    #[arg(long)]
    pub from_now: bool,
    /// Only watch
    #[arg(long, conflicts_with = "take")]
    pub read_only: bool,
    /// Take the keyboard over from whoever has it
    #[arg(long)]
    pub take: bool,
}

/// What to launch.
#[derive(Debug, Args)]
pub struct LaunchArgs {
    /// The image (`skep image list`), or any disk that no running machine writes to; name or id. If there is none of that name but a template
    /// (`skep template list`), the image is fetched first
    pub image: String,
    /// To fetch it: a file with certificates of authorities (PEM) that are trusted in place of the host's
    #[arg(long, value_name = "FILE")]
    pub ca: Option<std::path::PathBuf>,
    /// Name of the machine
    pub name: String,
    /// A file with public SSH keys, such as ~/.ssh/id_ed25519.pub; may be repeated
    #[arg(long = "ssh-key", value_name = "FILE")]
    pub ssh_keys: Vec<std::path::PathBuf>,
    /// A file that says what cloud-init does at the first boot
    #[arg(long, value_name = "FILE")]
    pub user_data: Option<std::path::PathBuf>,
    /// Virtual CPUs: 1 to 64 [default: 1]
    #[arg(long, value_name = "N")]
    pub cpus: Option<u32>,
    /// Memory: 16M to 1T [default: 512M]
    #[arg(long, value_name = "SIZE", value_parser = size::mib)]
    pub memory: Option<u64>,
    /// Size of its disk [default: the image's]
    #[arg(long, value_name = "SIZE", value_parser = size::bytes)]
    pub size: Option<u64>,
    /// The switch that it is connected to [default: default, a NAT switch that is made when it is first needed]
    #[arg(long, value_name = "SWITCH")]
    pub switch: Option<String>,
    /// Its group [default: default]
    #[arg(long, value_name = "GROUP", env = "SKEP_GROUP")]
    pub group: Option<String>,
    /// Do not wait until the guest has phoned home, only until it is started
    #[arg(long)]
    pub no_wait_for_guest: bool,
    /// How to wait
    #[command(flatten)]
    pub wait: WaitArgs,
}
