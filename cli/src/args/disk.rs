//! `skep disk`.

use super::{FetchArgs, WaitArgs};
use crate::size;
use clap::{ArgGroup, Subcommand, ValueEnum};
use std::path::PathBuf;

/// How a disk is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// A sparse file
    Raw,
    /// A QCOW2 file
    Qcow2,
    /// A ZFS volume (FreeBSD)
    Zvol,
}

/// How an image is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// What it begins (a fixed VHD: ends) like, else raw
    Auto,
    /// The disk's bytes, whatever they look like
    Raw,
    /// QCOW2
    Qcow2,
    /// VMDK that is one file
    Vmdk,
    /// VHD
    Vhd,
    /// VHDX
    Vhdx,
}

/// What an image is packed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Packed {
    /// What it begins like; nothing, if it is to be read as raw
    Auto,
    /// Nothing, whatever it looks like
    No,
    /// gzip
    Gz,
    /// xz
    Xz,
    /// zstd
    Zst,
    /// bzip2
    Bz2,
}

/// How an image is read.
#[derive(Debug, clap::Args)]
pub struct ReadArgs {
    /// How to read it
    #[arg(long, value_enum, default_value = "auto")]
    pub format: Format,
    /// What it is packed with
    #[arg(long, value_enum, default_value = "auto")]
    pub packed: Packed,
}

/// A logical unit of an iSCSI target.
#[derive(Debug, clap::Args)]
pub struct IscsiArgs {
    /// Make it of this iSCSI target: its name, iqn.…, eui.… or naa.…. What is there stays as it is; its size is the target's to say
    #[arg(long, value_name = "TARGET", requires = "portal")]
    pub iscsi: Option<String>,
    /// Where the target is reached; an IPv6 address in brackets [default port: 3260]
    #[arg(long, value_name = "ADDRESS[:PORT]", requires = "iscsi")]
    pub portal: Option<String>,
    /// The number of the target's logical unit
    #[arg(long, value_name = "NUMBER", default_value = "0", requires = "iscsi")]
    pub lun: u16,
    /// The user of CHAP
    #[arg(long, value_name = "NAME", requires_all = ["iscsi", "chap_secret_file"])]
    pub chap_user: Option<String>,
    /// The file whose first line is the secret of CHAP; `-`: standard input
    #[arg(long, value_name = "FILE", requires = "chap_user")]
    pub chap_secret_file: Option<PathBuf>,
}

/// Disks.
#[derive(Debug, Subcommand)]
pub enum DiskCommand {
    /// Make an empty disk, or one of an iSCSI target's logical unit
    Create {
        /// Its name
        name: String,
        /// Its size: 10G
        #[arg(long, value_name = "SIZE", value_parser = size::bytes, required_unless_present = "iscsi", conflicts_with = "iscsi")]
        size: Option<u64>,
        /// How to keep it
        #[arg(long, value_enum, default_value = "raw", conflicts_with = "iscsi")]
        kind: Kind,
        /// Of an iSCSI target.
        #[command(flatten)]
        iscsi: IscsiArgs,
        /// Its group [default: default]
        #[arg(long, value_name = "GROUP", env = "SKEP_GROUP")]
        group: Option<String>,
    },
    /// Make a disk of an image
    Import {
        /// Its name
        name: String,
        /// The image; `-`: standard input; https://…: the suite's host fetches it
        file: PathBuf,
        /// What may be said of an address.
        #[command(flatten)]
        from: FetchArgs,
        /// How to keep it
        #[arg(long, value_enum, default_value = "raw")]
        kind: Kind,
        /// How to read it.
        #[command(flatten)]
        read: ReadArgs,
        /// SHA-256 that the image must have
        #[arg(long, value_name = "HEX")]
        sha256: Option<String>,
        /// Its group [default: default]
        #[arg(long, value_name = "GROUP", env = "SKEP_GROUP")]
        group: Option<String>,
    },
    /// Read a disk that no running machine writes to into a file, as it is kept. Its checksum is held against the suite's. What came of one that
    /// broke off stays in FILE.part, and the same command goes on with it
    Export {
        /// Name or id
        disk: String,
        /// The file to make
        file: PathBuf,
    },
    /// Copy a disk that no running machine writes to
    Clone {
        /// The original, name or id
        disk: String,
        /// Name of the copy
        name: String,
        /// Copy all of it: by default a copy of an image or snapshot stands on that, and is there at once
        #[arg(long)]
        full: bool,
        /// Copy it as it was when this snapshot was made, name or id
        #[arg(long, value_name = "SNAPSHOT")]
        snapshot: Option<String>,
        /// How to wait
        #[command(flatten)]
        wait: WaitArgs,
    },
    /// Make a disk larger, while its machine runs, too; or smaller, by force
    Resize {
        /// Name or id
        disk: String,
        /// The new size: 20G
        #[arg(long, value_name = "SIZE", value_parser = size::bytes)]
        size: u64,
        /// Make it smaller, if that is less than it has: its last bytes are lost
        #[arg(long)]
        force: bool,
    },
    /// Rename a disk
    Rename {
        /// Name or id
        disk: String,
        /// Its new name
        name: String,
    },
    /// Change what is said of a disk, and how much goes to and from it, also while a machine runs that has it
    #[command(group(ArgGroup::new("what").required(true).multiple(true)))]
    Set {
        /// Name or id
        disk: String,
        /// What is said of it, at most 256 bytes
        #[arg(long, value_name = "TEXT", group = "what")]
        description: Option<String>,
        /// Bytes that a machine reads from it in a second, at least 64K; 0: no limit (QEMU)
        #[arg(long, value_name = "SIZE", value_parser = size::bytes, group = "what")]
        read_bps: Option<u64>,
        /// Bytes that a machine writes to it in a second, at least 64K; 0: no limit (QEMU)
        #[arg(long, value_name = "SIZE", value_parser = size::bytes, group = "what")]
        write_bps: Option<u64>,
        /// Reads from it in a second, at least 10; 0: no limit (QEMU)
        #[arg(long, value_name = "N", group = "what")]
        read_iops: Option<u64>,
        /// Writes to it in a second, at least 10; 0: no limit (QEMU)
        #[arg(long, value_name = "N", group = "what")]
        write_iops: Option<u64>,
    },
    /// Empty a disk that no running machine has: all of it reads as zeros
    Wipe {
        /// Name or id
        disk: String,
    },
    /// List disks
    #[command(visible_alias = "ls")]
    List,
    /// Show one
    Show {
        /// Name or id
        disk: String,
    },
    /// Delete a disk that no machine has
    #[command(visible_alias = "rm")]
    Delete {
        /// Name or id
        disk: String,
    },
    /// Snapshots of a disk
    #[command(subcommand)]
    Snapshot(SnapshotCommand),
}

/// Snapshots.
#[derive(Debug, Subcommand)]
pub enum SnapshotCommand {
    /// Make a snapshot; of a running machine's disk it holds what a power failure would leave
    Create {
        /// Of which disk, name or id
        disk: String,
        /// Its name
        name: String,
    },
    /// List a disk's snapshots
    #[command(visible_alias = "ls")]
    List {
        /// Of which disk, name or id
        disk: String,
    },
    /// Rename a snapshot that is no part of a machine's
    Rename {
        /// Of which disk, name or id
        disk: String,
        /// Name or id
        snapshot: String,
        /// Its new name
        name: String,
    },
    /// Bring a disk that no running machine has back to a snapshot; of kind zvol, to its newest
    Rollback {
        /// Which disk, name or id
        disk: String,
        /// To which snapshot, name or id
        snapshot: String,
    },
    /// Delete a snapshot
    #[command(visible_alias = "rm")]
    Delete {
        /// Of which disk, name or id
        disk: String,
        /// Name or id
        snapshot: String,
    },
}
