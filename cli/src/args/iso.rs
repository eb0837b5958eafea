//! `skep iso`.

use super::FetchArgs;
use clap::Subcommand;
use std::path::PathBuf;

/// ISO images: disks that machines only read.
#[derive(Debug, Subcommand)]
pub enum IsoCommand {
    /// List them
    #[command(visible_alias = "ls")]
    List,
    /// Show one, and the machines that have it
    Show {
        /// Name or id
        iso: String,
    },
    /// Upload one, or take one in from an address
    Import {
        /// Its name
        name: String,
        /// The image; `-`: standard input; https://…: the suite's host fetches it
        file: PathBuf,
        /// What may be said of an address.
        #[command(flatten)]
        from: FetchArgs,
        /// SHA-256 that the image must have
        #[arg(long, value_name = "HEX")]
        sha256: Option<String>,
        /// Its group [default: default]
        #[arg(long, value_name = "GROUP", env = "SKEP_GROUP")]
        group: Option<String>,
    },
    /// Rename one
    Rename {
        /// Name or id
        iso: String,
        /// Its new name
        name: String,
    },
    /// Delete one that no machine has
    #[command(visible_alias = "rm")]
    Delete {
        /// Name or id
        iso: String,
    },
    /// Put one into a machine's drive, at its next start: the drive that it was in, or a new one after all disks
    Attach {
        /// The machine, name or id
        machine: String,
        /// Name or id
        iso: String,
        /// The machine's controller that the drive is to be on [default: the AHCI controller that all share]
        #[arg(long, value_name = "CONTROLLER")]
        on: Option<String>,
        /// Out of the drive from the machine's second boot on
        #[arg(long)]
        eject_once: bool,
    },
    /// Take one out of a machine's drive, of a running machine's at once (QEMU); the drive stays
    Eject {
        /// The machine, name or id
        machine: String,
        /// Name or id
        iso: String,
    },
}
