//! Commands about the suite itself.

use crate::size;
use clap::{Args, Subcommand};
use std::net::SocketAddr;
use std::time::Duration;

/// `skep up`.
#[derive(Debug, Args)]
pub struct UpArgs {
    /// Stay in the foreground
    #[arg(long)]
    pub foreground: bool,
    /// If it is up already, wait until it answers (as without this flag)
    #[arg(long)]
    pub wait: bool,
    /// Interfaces of this host that switches may have as uplinks, between commas; `none` takes them back [default: as at the last
    /// start; at first none]
    #[arg(long, value_name = "NAMES")]
    pub uplinks: Option<String>,
    /// Directories of this host that machines may share, each with a name by which they ask for it, between commas; `none` takes them back
    /// [default: as at the last start; at first none]
    #[arg(long, value_name = "NAME=DIR,...")]
    pub shares: Option<String>,
    /// Addresses and networks inside (192.168.1.0/24), between commas, that images may be fetched from besides all public ones; `none` takes
    /// them back [default: as at the last start; at first none]
    #[arg(long, value_name = "NETWORKS")]
    pub fetch_from: Option<String>,
    /// Addresses and networks (192.168.9.0/24), between commas, that portals of iSCSI targets may be in; `none` takes them back [default: as at
    /// the last start; at first none]
    #[arg(long, value_name = "NETWORKS")]
    pub iscsi_portals: Option<String>,
    /// Serve the API on TCP with TLS, too
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<SocketAddr>,
    /// Serve metrics of all machines to Prometheus: HTTP without TLS or login, so choose an address that only it reaches
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub metrics: Option<SocketAddr>,
    /// Keep disks of kind zvol below this dataset (FreeBSD, as root); remembered for the next time
    #[arg(long, value_name = "POOL/NAME")]
    pub zfs_dataset: Option<String>,
}

/// `skep down`.
#[derive(Debug, Args)]
pub struct DownArgs {
    /// Let the machines run on; `skep up` finds them again
    #[arg(long)]
    pub keep_machines: bool,
    /// How long all machines together may take to power off before they are ended [default: what their settings say of each]
    #[arg(long, value_name = "TIME", value_parser = size::duration)]
    pub timeout: Option<Duration>,
}

/// `skep service`.
#[derive(Debug, Args)]
pub struct ServiceArgs {
    /// Which
    #[arg(value_parser = crate::up::SERVICES)]
    pub name: String,
    /// In this jail, which is there already (FreeBSD)
    #[arg(long, value_name = "NAME")]
    pub jail: Option<String>,
}

/// `skep ready`.
#[derive(Debug, Args)]
pub struct ReadyArgs {
    /// How long to wait
    #[arg(long, value_name = "TIME", value_parser = size::duration, default_value = "30s")]
    pub timeout: Duration,
}

/// `skep doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {}

/// The host.
#[derive(Debug, Subcommand)]
pub enum HostCommand {
    /// Show what it is and can do
    Show,
}

/// `skep events`.
#[derive(Debug, Args)]
pub struct EventsArgs {
    /// Begin after this token [default: with what happens from now on]; 0: with the oldest that is kept
    #[arg(long, value_name = "TOKEN")]
    pub after: Option<u64>,
    /// Only about this kind of object: machine, disk, switch, nic, operation, user, group
    #[arg(long, value_name = "KIND")]
    pub object: Option<String>,
    /// End when an event whose details hold TEXT was printed
    #[arg(long, value_name = "TEXT")]
    pub until: Option<String>,
    /// End after this time; with --until, give up
    #[arg(long, value_name = "TIME", value_parser = size::duration)]
    pub timeout: Option<Duration>,
}

/// Operations.
#[derive(Debug, Subcommand)]
pub enum OpCommand {
    /// List operations, newest first
    #[command(visible_alias = "ls")]
    List {
        /// At most so many
        #[arg(short = 'n', long, value_name = "N", default_value_t = 50)]
        lines: u32,
    },
    /// Show one
    Show {
        /// Its id
        operation: String,
        /// Wait until it has ended
        #[arg(long)]
        wait: bool,
    },
    /// Ask one to end early
    Cancel {
        /// Its id
        operation: String,
    },
}

/// `skep audit`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct AuditArgs {
    /// Only this process (`broker`), or those of the machine with this id
    pub only: Option<String>,
    /// More.
    #[command(subcommand)]
    pub command: Option<AuditCommand>,
}

/// More about audits.
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Print the record of privileged acts: who asked, when, with what result
    Log {
        /// Only acts with this trace
        #[arg(long, value_name = "TRACE")]
        trace: Option<String>,
        /// Only the last lines
        #[arg(short = 'n', long, value_name = "N")]
        lines: Option<usize>,
    },
}

/// `skep log`.
#[derive(Debug, Args)]
pub struct LogArgs {
    /// Which process: broker, api-frontend, storage-helper, net-helper, vm-runner; or of which kind: console-proxy, guest-services,
    /// image-fetcher, iscsi-initiator, disk-server [default: all]
    pub service: Option<String>,
    /// Only the last lines
    #[arg(short = 'n', long, alias = "lines", value_name = "N", default_value_t = 200)]
    pub tail: u32,
    /// Only lines of this time: `10m`
    #[arg(long, value_name = "TIME", value_parser = size::duration)]
    pub since: Option<Duration>,
    /// Go on with what is written later, until ^C
    #[arg(short, long)]
    pub follow: bool,
    /// Only lines with this trace
    #[arg(long, value_name = "TRACE")]
    pub trace: Option<String>,
}
