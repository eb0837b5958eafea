//! `skep vm firmware`.

use clap::{Args, Subcommand};
use std::path::PathBuf;

/// Variables of a machine's UEFI firmware; changed while it does not run.
#[derive(Debug, Subcommand)]
pub enum FirmwareCommand {
    /// List the variables: boot order, boot entries, and what else firmware and system keep
    #[command(visible_alias = "ls")]
    List {
        /// Machine, name or id
        machine: String,
    },
    /// Show a variable
    Show {
        /// Machine, name or id
        machine: String,
        /// NAME or NAME-GUID; without a GUID one of the UEFI specification's
        variable: String,
        /// Write its data, as it is, to this file instead; `-`: standard output
        #[arg(long, value_name = "PATH")]
        file: Option<PathBuf>,
    },
    /// Give a variable data; makes it if it is not there
    Set {
        /// Machine, name or id
        machine: String,
        /// NAME or NAME-GUID; without a GUID one of the UEFI specification's
        variable: String,
        /// What to put in
        #[command(flatten)]
        data: DataArgs,
        /// Attributes, as a sum: 1 outlives a reset (needed), 2 seen by the firmware, 4 by the system, too [default: those that it
        /// has; of a new one 7]
        #[arg(long, value_name = "N", value_parser = attributes)]
        attributes: Option<u32>,
    },
    /// Delete a variable; without `BootOrder` the order of the machine's disks counts again
    #[command(visible_alias = "rm")]
    Delete {
        /// Machine, name or id
        machine: String,
        /// NAME or NAME-GUID; without a GUID one of the UEFI specification's
        variable: String,
    },
    /// Put boot entries first, in this order; the others keep their turns behind them
    BootOrder {
        /// Machine, name or id
        machine: String,
        /// Numbers of entries, or disk:NAME for the one that leads to a disk of the machine's
        #[arg(required = true, value_name = "ENTRY", value_delimiter = ',')]
        entries: Vec<String>,
    },
    /// Boot an entry once, at the next start
    BootNext {
        /// Machine, name or id
        machine: String,
        /// Number of an entry, or disk:NAME
        #[arg(required_unless_present = "none", conflicts_with = "none")]
        entry: Option<String>,
        /// Take it back
        #[arg(long)]
        none: bool,
    },
    /// Bring back the variables of a new machine, also where they cannot be read any more
    Reset {
        /// Machine, name or id
        machine: String,
    },
}

/// A variable's data.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct DataArgs {
    /// Bytes, two hexadecimal digits each
    #[arg(long, value_name = "DIGITS")]
    pub hex: Option<String>,
    /// The content of a file; `-`: standard input
    #[arg(long, value_name = "PATH")]
    pub file: Option<PathBuf>,
}

/// A number, in decimal or after `0x`.
fn attributes(text: &str) -> Result<u32, String> {
    let number = match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => text.parse(),
    };
    number.map_err(|e| e.to_string())
}
