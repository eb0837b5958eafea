//! `skep install`.

use crate::size;
use clap::ValueEnum;
use std::path::PathBuf;
use std::time::Duration;

/// By what guests of a template learn what they are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SeedArg {
    /// cloud-init, or what reads the same
    Nocloud,
    /// Nothing: they are not waited for
    None,
}

/// What to install.
#[derive(Debug, clap::Args)]
pub struct InstallArgs {
    /// The template that says how (`skep template list`)
    pub template: String,
    /// Name of the image and of the template that come of it
    pub name: String,
    /// The file with the answers: what the installer reads in place of asking
    #[arg(long, value_name = "FILE")]
    pub answers: PathBuf,
    /// The installer's ISO image: one of `skep iso list`, a file, or https://… [default: the template's, which is fetched, and stays]
    #[arg(long, value_name = "ISO")]
    pub iso: Option<String>,
    /// The installer's kernel, a file [default: the template's, from the ISO image]
    #[arg(long, value_name = "FILE", requires = "initrd")]
    pub kernel: Option<PathBuf>,
    /// The installer's initial RAM disk, a file; likewise
    #[arg(long, value_name = "FILE", requires = "kernel")]
    pub initrd: Option<PathBuf>,
    /// That kernel's command line [default: the template's]
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub cmdline: Option<String>,
    /// What is typed into the serial port, a script as `skep vm play` has it [default: the template's]
    #[arg(long, value_name = "FILE")]
    pub script: Option<PathBuf>,
    /// How long all of it may take, until the guest has powered itself off [default: the template's, or 2h]
    #[arg(long, value_name = "TIME", value_parser = size::duration)]
    pub timeout: Option<Duration>,
    /// Size of the disk that it is installed to [default: the template's, or 8G]
    #[arg(long, value_name = "SIZE", value_parser = size::bytes)]
    pub size: Option<u64>,
    /// Virtual CPUs of the machine that installs [default: the template's, or 1]
    #[arg(long, value_name = "N")]
    pub cpus: Option<u32>,
    /// Its memory [default: the template's, or 512M]
    #[arg(long, value_name = "SIZE", value_parser = size::mib)]
    pub memory: Option<u64>,
    /// The switch that it is connected to [default: default, if the template says that it needs a network]
    #[arg(long, value_name = "SWITCH")]
    pub switch: Option<String>,
    /// The user that guests of the new template let in by SSH key [default: the template's]
    #[arg(long, value_name = "USER")]
    pub user: Option<String>,
    /// By what guests of the new template learn what they are told; nocloud, if the answers install cloud-init
    #[arg(long, value_enum, default_value = "none")]
    pub seed: SeedArg,
    /// To fetch the ISO image: a file with certificates of authorities (PEM) that are trusted in place of the host's
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Group of the image [default: default]
    #[arg(long, value_name = "GROUP", env = "SKEP_GROUP")]
    pub group: Option<String>,
    /// Leave the machine as it is when the installation fails, to be looked at
    #[arg(long)]
    pub keep: bool,
    /// Throw away what a `skep install` that was killed has left, and begin anew
    #[arg(long)]
    pub anew: bool,
}

/// What `skep install --help` says.
pub const INSTALL: &str = "Install a system from its vendor's ISO image by a file with answers, and make an image and a template of it.

A machine `install-NAME` boots the installer, which finds the answers where it looks for them: in its initial RAM disk (Debian's preseed), or on a
volume of their own (Ubuntu's autoinstall, FreeBSD's bsdinstall). What it says on its serial port is printed; what it asks there, the template's
script answers. When the guest has powered itself off, an image of its disk is made, and a template that stands on it, in the first directory of
templates: `skep launch NAME web1` makes machines of it. The machine goes.

On ^C or a failure nothing stays but the ISO image. Of a command that was killed the machine stays: the same command goes on with it once the
script is at its end, and begins anew with --anew before.";
