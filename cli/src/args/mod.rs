//! The command line. What stands here is also the help, the completions and the man pages.

mod access;
mod devices;
mod disk;
mod firmware;
mod image;
mod install;
mod iso;
mod network;
mod steps;
mod suite;
mod template;
mod vm;
mod whole;

pub use access::*;
pub use devices::*;
pub use disk::*;
pub use firmware::*;
pub use image::*;
pub use install::*;
pub use iso::*;
pub use network::*;
pub use steps::*;
pub use suite::*;
pub use template::*;
pub use vm::*;
pub use whole::*;

use crate::remote::Address;
use clap::{ArgAction, Parser, Subcommand};
use skep_proto::Reason;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

/// Virtual machines, each in a cell of its own.
#[derive(Debug, Parser)]
#[command(name = "skep", version, propagate_version = true, max_term_width = 100, infer_subcommands = false)]
pub struct Args {
    /// What is common to all commands.
    #[command(flatten)]
    pub global: Global,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// What is common to all commands.
#[derive(Debug, clap::Args)]
pub struct Global {
    /// The API's socket [default: RUN/api.sock]
    #[arg(long, global = true, env = "SKEP_SOCKET", value_name = "PATH", help_heading = "Global options")]
    pub socket: Option<PathBuf>,
    /// The suite's state directory [default: /var/lib/skep for root (FreeBSD: /var/db/skep), ~/.local/state/skep for others]
    #[arg(long, global = true, env = "SKEP_STATE", value_name = "DIR", help_heading = "Global options")]
    pub state: Option<PathBuf>,
    /// The directory of its sockets [default: /var/run/skep for root's default state, otherwise STATE/run]
    #[arg(long, global = true, env = "SKEP_RUN", value_name = "DIR", help_heading = "Global options")]
    pub run: Option<PathBuf>,
    /// The suite that you logged in to with `skep login` [default: the one here; without one here, the only login]
    #[arg(
        long,
        global = true,
        env = "SKEP_REMOTE",
        value_name = "ADDRESS",
        conflicts_with = "socket",
        help_heading = "Global options"
    )]
    pub remote: Option<Address>,
    /// How long the API may take for each call that the command makes, one that waits or streams, too; exit code 10 after that. `up`,
    /// `ready` and `down` go by times of their own [default: as long as it takes]
    #[arg(
        long,
        global = true,
        env = "SKEP_REQUEST_TIMEOUT",
        value_name = "TIME",
        value_parser = crate::size::duration,
        help_heading = "Global options"
    )]
    pub request_timeout: Option<Duration>,
    /// Print one JSON object a line; errors, too, on standard error
    #[arg(long, global = true, action = ArgAction::SetTrue, help_heading = "Global options")]
    pub json: bool,
    /// Print no remarks and no progress
    #[arg(short, long, global = true, action = ArgAction::SetTrue, help_heading = "Global options")]
    pub quiet: bool,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start the suite here, in the background
    Up(UpArgs),
    /// Stop all machines and the suite
    Down(DownArgs),
    /// Make what the services need before they start: directories, the suite's mark, uids, the root of the cells
    Prepare,
    /// Become one of the services: for rc.d and systemd, after `skep prepare`
    Service(ServiceArgs),
    /// Wait until the suite answers
    Ready(ReadyArgs),
    /// Print where the suite lives, as lines that sh(1) can read
    Places,
    /// Say what is missing on this host, and the command that mends it
    Doctor(DoctorArgs),
    /// The host
    #[command(subcommand)]
    Host(HostCommand),
    /// Make a machine from an image and start it: with an address, a name, SSH keys and user data
    Launch(Box<LaunchArgs>),
    /// Install a system from its vendor's ISO image by a file with answers, and make an image and a template of it
    #[command(long_about = INSTALL)]
    Install(Box<InstallArgs>),
    /// Machines
    #[command(subcommand)]
    Vm(Box<VmCommand>),
    /// Disks
    #[command(subcommand)]
    Disk(DiskCommand),
    /// Images that machines are made from
    #[command(subcommand)]
    Image(ImageCommand),
    /// Templates of images
    #[command(subcommand)]
    Template(TemplateCommand),
    /// ISO images
    #[command(subcommand)]
    Iso(IsoCommand),
    /// Switches
    #[command(subcommand)]
    Switch(SwitchCommand),
    /// NICs
    #[command(subcommand)]
    Nic(NicCommand),
    /// Print events as they happen
    Events(EventsArgs),
    /// Operations
    #[command(subcommand)]
    Op(OpCommand),
    /// Log in to a suite elsewhere; the password is typed, or a line of standard input
    Login(LoginArgs),
    /// End a login
    Logout(LogoutArgs),
    /// Users of the API
    #[command(subcommand)]
    User(UserCommand),
    /// Tokens for the remote API
    #[command(subcommand)]
    Token(TokenCommand),
    /// Groups of machines, and what they may have
    #[command(subcommand)]
    Group(GroupCommand),
    /// Who may do what, on the host or in a group
    #[command(subcommand)]
    Role(RoleCommand),
    /// Ask the kernel what every process of the suite may do, and hold it against what is declared
    Audit(AuditArgs),
    /// Print the logs of the suite's processes
    Log(LogArgs),
    /// Print the version
    Version,
    /// Print a shell's completions
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Write the manual pages
    Man {
        /// Where to
        dir: PathBuf,
    },
    /// Print what exit codes mean
    #[command(long_about = exit_codes())]
    ExitCodes,
}

/// The table of exit codes, from the table of reasons.
pub fn exit_codes() -> String {
    let mut text = String::from("Exit codes:\n\n");
    let mut codes: Vec<u8> = Reason::ALL.iter().map(|r| r.row().exit).collect();
    codes.extend([0, 2, crate::error::INTERRUPTED]);
    codes.sort_unstable();
    codes.dedup();
    for code in codes {
        let meaning = match code {
            0 => "done".to_owned(),
            2 => "the command line is wrong".to_owned(),
            crate::error::INTERRUPTED => "interrupted by ^C; what was begun goes on".to_owned(),
            code => {
                let reasons: Vec<_> = Reason::ALL.iter().filter(|r| r.row().exit == code).map(|r| r.row().text).collect();
                reasons.join("; ")
            }
        };
        let _ = writeln!(text, "{code:>4}  {meaning}");
    }
    text
}
