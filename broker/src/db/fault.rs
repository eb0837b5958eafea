//! What can go wrong with the database.

use rusqlite::ErrorCode;
use skep_proto::{Reason, Refusal};

/// The database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// SQLite says no.
    #[error("{0}")]
    Sql(#[from] rusqlite::Error),
    /// A newer broker wrote it.
    #[error("its format is {0}, this broker knows formats up to {1}: start the newer skep, or restore a backup")]
    Newer(u32, u32),
}

/// A statement failed, or a row holds what no broker wrote.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// SQLite says no.
    #[error("{0}")]
    Sql(#[from] rusqlite::Error),
    /// A value in it is not valid.
    #[error("a row of {0} cannot be read")]
    Row(&'static str),
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        let full = matches!(&fault, Fault::Sql(rusqlite::Error::SqliteFailure(e, _)) if e.code == ErrorCode::DiskFull);
        Refusal::new(if full { Reason::NoSpace } else { Reason::Internal }, "database").note(fault)
    }
}
