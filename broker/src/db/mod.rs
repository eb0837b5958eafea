//! The database: the only truth about intent. SQLite, used synchronously on the broker's one thread.
//!
//! It is opened, migrated and written to once before the sandbox is entered; with an exclusive lock it then opens no further file
//! (DESIGN: SQLite in capability mode), and a second broker on the same state is refused.

mod devices;
pub mod disks;
pub mod events;
mod fault;
pub mod groups;
pub mod guests;
pub mod iscsi;
pub mod layers;
pub mod machines;
pub mod nics;
pub mod operations;
pub mod requests;
pub mod snapshots;
mod sql;
pub mod stops;
pub mod switches;
pub mod tokens;
pub mod users;
pub mod whole;

pub use fault::{Fault, OpenError};
pub use sql::{Id, Number};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, Transaction, TransactionBehavior};
use skep_proto::{Text, TraceId};
use std::path::Path;

/// In whose name something is done, in which user action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Who {
    /// The trace of the request.
    pub trace: TraceId,
    /// The user, as the session found out.
    pub user: Text<64>,
    /// By what the request is known again, if its client said so.
    pub once: Option<requests::Once>,
}

impl Who {
    /// The broker itself, in an action of its own.
    pub fn broker() -> Self {
        Self { trace: TraceId::random(), user: Text::lossy("broker"), once: None }
    }
}

/// Applied in order; `PRAGMA user_version` counts them.
pub(crate) const MIGRATIONS: &[&str] = &[
    include_str!("../../migrations/0001_first.sql"),
    include_str!("../../migrations/0002_loader.sql"),
    include_str!("../../migrations/0003_nics_that_go_along.sql"),
    include_str!("../../migrations/0004_snapshots.sql"),
    include_str!("../../migrations/0005_limits.sql"),
    include_str!("../../migrations/0006_devices.sql"),
    include_str!("../../migrations/0007_upkeep.sql"),
    include_str!("../../migrations/0008_shares.sql"),
    include_str!("../../migrations/0009_users.sql"),
    include_str!("../../migrations/0010_hardware.sql"),
    include_str!("../../migrations/0011_descriptions.sql"),
    include_str!("../../migrations/0012_requests.sql"),
    include_str!("../../migrations/0013_subnets.sql"),
    include_str!("../../migrations/0014_guests.sql"),
    include_str!("../../migrations/0015_serial.sql"),
    include_str!("../../migrations/0016_images.sql"),
    include_str!("../../migrations/0017_sound.sql"),
    include_str!("../../migrations/0018_rates.sql"),
    include_str!("../../migrations/0019_layers.sql"),
    include_str!("../../migrations/0020_isolation.sql"),
    include_str!("../../migrations/0021_forwards.sql"),
    include_str!("../../migrations/0022_whole.sql"),
    include_str!("../../migrations/0023_disk_rates.sql"),
    include_str!("../../migrations/0024_tunnels.sql"),
    include_str!("../../migrations/0025_subnets6.sql"),
    include_str!("../../migrations/0026_iscsi.sql"),
    include_str!("../../migrations/0027_topology.sql"),
    include_str!("../../migrations/0028_places.sql"),
    include_str!("../../migrations/0029_stops.sql"),
    include_str!("../../migrations/0030_kept.sql"),
];

/// The open database.
pub struct Db {
    connection: Connection,
}

/// One change: rows and the events that tell of them, together or not at all.
pub struct Change<'a> {
    tx: Transaction<'a>,
    who: &'a Who,
}

impl Db {
    /// Opens and migrates it; makes it if it is not there.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        Self::prepare(Connection::open(path)?)
    }

    /// One in memory, for tests.
    #[cfg(test)]
    pub fn in_memory() -> Self {
        Self::prepare(Connection::open_in_memory().expect("memory")).expect("migrations")
    }

    /// Adds up the steps that SQLite takes for all statements from now on, and how often it plans one anew.
    #[cfg(test)]
    pub fn count_steps(&mut self) -> std::sync::Arc<[std::sync::atomic::AtomicU64; 2]> {
        use rusqlite::trace::{TraceEvent, TraceEventCodes};
        // Steps are counted for as long as a statement is kept.
        self.connection.flush_prepared_statement_cache();
        let counts = std::sync::Arc::<[std::sync::atomic::AtomicU64; 2]>::default();
        let sums = counts.clone();
        let count = move |event: TraceEvent<'_>| {
            if let TraceEvent::Profile(statement, _) = event {
                let kinds = [rusqlite::StatementStatus::VmStep, rusqlite::StatementStatus::RePrepare];
                for (sum, kind) in sums.iter().zip(kinds) {
                    let taken = u64::try_from(statement.get_status(kind)).expect("a number");
                    sum.fetch_add(taken, std::sync::atomic::Ordering::Relaxed);
                }
            }
        };
        self.connection.trace_v2(TraceEventCodes::SQLITE_TRACE_PROFILE, Some(count)).expect("a trace");
        counts
    }

    fn prepare(mut connection: Connection) -> Result<Self, OpenError> {
        // A predecessor that is just dying.
        connection.busy_timeout(std::time::Duration::from_secs(1))?;
        connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        // An intent that a power cut takes back took its act along: NORMAL keeps the file whole, and cells do not outlive the host.
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        connection.pragma_update(None, "temp_store", "MEMORY")?;
        connection.pragma_update(None, "foreign_keys", "ON")?;
        connection.pragma_update(None, "trusted_schema", "OFF")?;
        // No memory map: a file that was cut short would be a signal rather than an error.
        connection.pragma_update(None, "mmap_size", 0)?;
        // Else a statement whose LIMIT is a parameter is planned anew each time that it is run.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
        connection.set_prepared_statement_cache_capacity(128);
        let at: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
        let newest = u32::try_from(MIGRATIONS.len()).unwrap_or(u32::MAX);
        if at > newest {
            return Err(OpenError::Newer(at, newest));
        }
        for (number, sql) in (at + 1..).zip(MIGRATIONS.iter().skip(usize::try_from(at).unwrap_or(usize::MAX))) {
            let tx = connection.transaction_with_behavior(TransactionBehavior::Exclusive)?;
            tx.execute_batch(sql)?;
            tx.pragma_update(None, "user_version", number)?;
            tx.commit()?;
        }
        // One write, so that every file is there and open.
        connection.pragma_update(None, "user_version", newest)?;
        Ok(Self { connection })
    }

    /// For reading.
    pub fn read(&self) -> &Connection {
        &self.connection
    }

    /// Makes one change in the name of `who`. Nothing of it stays if `act` fails.
    pub fn change<T, E: From<Fault>>(&mut self, who: &Who, act: impl FnOnce(&Change<'_>) -> Result<T, E>) -> Result<T, E> {
        let tx = self.connection.transaction_with_behavior(TransactionBehavior::Immediate);
        let change = Change { tx: tx.map_err(Fault::from)?, who };
        let value = act(&change)?;
        change.tx.commit().map_err(Fault::from)?;
        Ok(value)
    }
}

impl std::ops::Deref for Change<'_> {
    type Target = Connection;
    fn deref(&self) -> &Connection {
        &self.tx
    }
}

impl Change<'_> {
    /// In whose name.
    pub fn who(&self) -> &Who {
        self.who
    }
}
