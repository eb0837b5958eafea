//! `skep login`, `skep user`, `skep token`, `skep group`, `skep role`.

use crate::remote::Address;
use crate::size;
use clap::{Args, Subcommand, ValueEnum};
use std::time::Duration;

/// `skep login`.
#[derive(Debug, Args)]
pub struct LoginArgs {
    /// Where the suite's API is: HOST or HOST:PORT
    pub address: Address,
    /// As whom [default: $USER]
    #[arg(short, long, value_name = "NAME", env = "USER", hide_env_values = true)]
    pub user: String,
    /// SHA-256 of the certificate there, as `skep host show` there prints it [default: the one of the last login; at first it is shown,
    /// and you are asked]
    #[arg(long, value_name = "HEX", value_parser = fingerprint)]
    pub fingerprint: Option<String>,
    /// How long you stay logged in
    #[arg(long, value_name = "TIME", value_parser = size::duration, default_value = "12h")]
    pub lifetime: Duration,
}

/// Pairs of digits, with colons or without.
fn fingerprint(text: &str) -> Result<String, String> {
    let digits = text.replace(':', "").to_ascii_lowercase();
    if digits.len() != 64 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err("32 pairs of hexadecimal digits are expected".into());
    }
    let pairs: Vec<&str> = (0..32).filter_map(|n| digits.get(2 * n..2 * n + 2)).collect();
    Ok(pairs.join(":"))
}

/// `skep logout`.
#[derive(Debug, Args)]
pub struct LogoutArgs {
    /// Where [default: the only login there is]
    pub address: Option<Address>,
}

/// Users.
#[derive(Debug, Subcommand)]
pub enum UserCommand {
    /// Make a user; the password is typed, or a line of standard input
    Create {
        /// Its name
        name: String,
        /// It cannot log in with a password
        #[arg(long)]
        no_password: bool,
        /// It is this user of the host, over the API's socket: a uid or a name
        #[arg(long, value_name = "UID")]
        local_uid: Option<String>,
    },
    /// List users
    #[command(visible_alias = "ls")]
    List,
    /// Show one with its roles
    Show {
        /// Its name [default: your own]
        user: Option<String>,
    },
    /// Change a password; both are typed, or lines of standard input (the present one first, if it is yours)
    Passwd {
        /// Whose [default: your own]
        user: Option<String>,
    },
    /// Rename a user; its sessions, tokens and roles go on
    Rename {
        /// Name or id
        user: String,
        /// Its new name
        name: String,
    },
    /// Lock a user out
    Disable {
        /// Its name
        user: String,
    },
    /// Let a user in again
    Enable {
        /// Its name
        user: String,
    },
    /// Delete a user with its tokens and roles
    #[command(visible_alias = "rm")]
    Delete {
        /// Its name
        user: String,
    },
}

/// Tokens.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a token; it is shown once
    Create {
        /// What to call it
        name: String,
        /// Whose it is [default: your own; of somebody on the host who is no user: an administrator's]
        #[arg(long, value_name = "NAME")]
        user: Option<String>,
        /// How long it is good for; `never`: it does not end
        #[arg(long, value_name = "TIME", value_parser = lifetime, default_value = "90d")]
        lifetime: Lifetime,
    },
    /// List your own; for an administrator of the host all
    #[command(visible_alias = "ls")]
    List {
        /// Only those of this user
        #[arg(long, value_name = "NAME")]
        user: Option<String>,
    },
    /// Delete a token: calls with it end
    #[command(visible_alias = "rm")]
    Delete {
        /// Its name
        name: String,
        /// Whose it is [default: your own]
        #[arg(long, value_name = "NAME")]
        user: Option<String>,
    },
}

/// How long something is good for; none: for ever.
#[derive(Debug, Clone, Copy)]
pub struct Lifetime(pub Option<Duration>);

fn lifetime(text: &str) -> Result<Lifetime, String> {
    if text == "never" { Ok(Lifetime(None)) } else { size::duration(text).map(|time| Lifetime(Some(time))) }
}

/// What a group may have; 0: any number.
#[derive(Debug, Args)]
pub struct QuotaArgs {
    /// Machines, running or not
    #[arg(long, value_name = "N")]
    pub machines: Option<u32>,
    /// Virtual CPUs of all of them
    #[arg(long, value_name = "N")]
    pub cpus: Option<u32>,
    /// Memory of all of them: 64G
    #[arg(long, value_name = "SIZE", value_parser = size::mib)]
    pub memory: Option<u64>,
    /// What its disks show to guests: 1T
    #[arg(long, value_name = "SIZE", value_parser = size::bytes)]
    pub disk: Option<u64>,
}

/// Groups.
#[derive(Debug, Subcommand)]
pub enum GroupCommand {
    /// Make a group
    Create {
        /// Its name
        name: String,
        /// What it may have
        #[command(flatten)]
        quota: QuotaArgs,
    },
    /// List groups with what they have and may have
    #[command(visible_alias = "ls")]
    List,
    /// Move a machine into a group, with its NICs and the disks that no other has
    Add {
        /// Which group
        group: String,
        /// Name or id of the machine
        machine: String,
        /// It is a disk that no machine has
        #[arg(long)]
        disk: bool,
    },
    /// Move a machine out of its group, into the one that was there from the start
    Remove {
        /// Name or id of the machine
        machine: String,
        /// It is a disk that no machine has
        #[arg(long)]
        disk: bool,
    },
    /// Rename a group; what is in it stays, and so do the roles there
    Rename {
        /// Name or id
        group: String,
        /// Its new name
        name: String,
    },
    /// Change what a group may have; what is not named stays, 0 is any number
    Quota {
        /// Which group
        group: String,
        /// What it may have
        #[command(flatten)]
        quota: QuotaArgs,
    },
    /// Delete an empty group, with the roles in it
    #[command(visible_alias = "rm")]
    Delete {
        /// Which group
        group: String,
    },
}

/// What somebody may do; each may what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RoleName {
    /// Sees
    Viewer,
    /// Makes, changes, runs and deletes
    Operator,
    /// Says who has which role; on the host: everything
    Admin,
}

/// Roles.
#[derive(Debug, Subcommand)]
pub enum RoleCommand {
    /// Give a user a role, in place of the one it has there
    Grant {
        /// Whom
        user: String,
        /// Which
        #[arg(value_enum)]
        role: RoleName,
        /// In which group [default: on the host, and so in every group]
        #[arg(long, value_name = "GROUP")]
        group: Option<String>,
    },
    /// Take a user's role away
    Revoke {
        /// From whom
        user: String,
        /// In which group [default: on the host]
        #[arg(long, value_name = "GROUP")]
        group: Option<String>,
    },
    /// List roles: your own, and those where you are an administrator
    #[command(visible_alias = "ls")]
    List,
}
