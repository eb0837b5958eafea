//! `skep vm snapshot`, `skep vm clone`.

use super::WaitArgs;
use clap::{Args, Subcommand};

/// Snapshots of machines.
#[derive(Debug, Subcommand)]
pub enum WholeCommand {
    /// Make a snapshot of all disks that it writes to; of a running machine it holds what a power failure would leave
    Create {
        /// Of which machine, name or id
        machine: String,
        /// Its name
        name: String,
    },
    /// List a machine's snapshots
    #[command(visible_alias = "ls")]
    List {
        /// Of which machine, name or id
        machine: String,
    },
    /// Rename a snapshot, and its disks' with it
    Rename {
        /// Of which machine, name or id
        machine: String,
        /// Name or id
        snapshot: String,
        /// Its new name
        name: String,
    },
    /// Bring a stopped machine back to a snapshot; its NICs stay
    Rollback {
        /// Which machine, name or id
        machine: String,
        /// To which snapshot, name or id
        snapshot: String,
    },
    /// Delete a snapshot, with its disks'
    #[command(visible_alias = "rm")]
    Delete {
        /// Of which machine, name or id
        machine: String,
        /// Name or id
        snapshot: String,
    },
}

/// What to copy, and to what.
#[derive(Debug, Args)]
pub struct CloneArgs {
    /// The original, name or id
    pub machine: String,
    /// Name of the copy
    pub name: String,
    /// Copy it as it was when this snapshot was made, name or id
    #[arg(long, value_name = "SNAPSHOT")]
    pub snapshot: Option<String>,
    /// Copy all of its disks: by default those of a snapshot stand on that, and are there at once
    #[arg(long)]
    pub full: bool,
    /// How to wait
    #[command(flatten)]
    pub wait: WaitArgs,
}
