//! `skep image`.

use super::{Kind, ReadArgs, WaitArgs};
use crate::size;
use clap::Subcommand;
use std::path::PathBuf;

/// What is known of an image.
#[derive(Debug, clap::Args)]
pub struct FactsArgs {
    /// The operating system in it
    #[arg(long, value_name = "TEXT")]
    pub os: Option<String>,
    /// The user that its guests let in by SSH key
    #[arg(long, value_name = "USER")]
    pub user: Option<String>,
    /// A disk that is made of it has at least so many bytes [default: as many as it has]
    #[arg(long, value_name = "SIZE", value_parser = size::bytes)]
    pub min_disk: Option<u64>,
    /// A machine that is made of it has at least so much memory [default: any]
    #[arg(long, value_name = "SIZE", value_parser = size::mib)]
    pub min_memory: Option<u64>,
}

/// How something is fetched from an address.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct FetchArgs {
    /// Of an address: that of a list of checksums (SHA256SUMS, SHA512SUMS, CHECKSUM.SHA256) in which the file's must be
    #[arg(long, value_name = "URL")]
    pub sums: Option<String>,
    /// Of an address: a file with public keys, OpenPGP's (RSA, Ed25519) or one of signify(1)'s. One of them must have signed the list of --sums
    /// or, without --sums, the file itself (OpenPGP alone), which is judged when all of it has come; if it is not, nothing of it stays
    #[arg(long, value_name = "FILE")]
    pub signed_by: Option<PathBuf>,
    /// The address of that signature: of the list (SHA256SUMS.gpg, SHA512SUMS.sign) [default: the list's file carries it], or of the file
    /// itself (IMAGE.asc)
    #[arg(long, value_name = "URL", requires = "signed_by")]
    pub signature: Option<String>,
    /// Of an address: a file with certificates of authorities (PEM) that are trusted in place of the host's
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
}

/// Images: disks that machines are made from, and that stay as they are.
#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    /// List them
    #[command(visible_alias = "ls")]
    List,
    /// Show one
    Show {
        /// Name or id
        image: String,
    },
    /// Make one of a file, or of what is at an address
    Import {
        /// Its name
        name: String,
        /// The file; `-`: standard input; https://…: the suite's host fetches it
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
        /// SHA-256 that the file must have
        #[arg(long, value_name = "HEX")]
        sha256: Option<String>,
        /// What is said of it, at most 256 bytes
        #[arg(long, value_name = "TEXT")]
        description: Option<String>,
        /// What is known of it.
        #[command(flatten)]
        facts: FactsArgs,
        /// Its group [default: default]
        #[arg(long, value_name = "GROUP", env = "SKEP_GROUP")]
        group: Option<String>,
    },
    /// Make one of a disk that no running machine writes to; the disk stays
    Create {
        /// Its name
        name: String,
        /// The disk, name or id
        disk: String,
        /// What is known of it.
        #[command(flatten)]
        facts: FactsArgs,
        /// How to wait
        #[command(flatten)]
        wait: WaitArgs,
    },
    /// Change what is known or said of one
    Set {
        /// Name or id
        image: String,
        /// What is said of it, at most 256 bytes
        #[arg(long, value_name = "TEXT")]
        description: Option<String>,
        /// What is known of it.
        #[command(flatten)]
        facts: FactsArgs,
    },
    /// Rename one
    Rename {
        /// Name or id
        image: String,
        /// Its new name
        name: String,
    },
    /// Read one into a file, as it is kept. What came of a transfer that broke off stays in FILE.part, and the same command goes on with it
    Export {
        /// Name or id
        image: String,
        /// The file to make
        file: PathBuf,
    },
    /// Delete one; machines that were made of it stay
    #[command(visible_alias = "rm")]
    Delete {
        /// Name or id
        image: String,
    },
}
