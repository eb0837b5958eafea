//! broker: decides. Users, rights, the life of machines, the place of every name and number; the only client of the helpers.
//! One thread, no right of its own but its database.
#![forbid(unsafe_code)]

mod abilities;
mod actor;
mod broker;
mod cell;
mod consoles;
mod db;
mod disk_servers;
mod helpers;
mod jobs;
mod layers;
mod life;
mod login;
mod operations;
mod page;
mod parts;
mod places;
mod platform;
mod policy;
mod probe;
mod quota;
mod rates;
mod reconcile;
mod remote;
mod requests;
mod route;
mod seats;
mod served;
mod session;
mod spec;
mod strangers;
mod taps;
mod upkeep;

use broker::{Broker, Setup};
use db::{Db, Fault, OpenError};
use nix::unistd::getuid;
use platform::{Facts, RunDir};
use skep_rights::broker::TABLE;
use skep_sandbox::{EnterError, Held, enter, limit};
use skep_service::{Journal, Role, Start, StartError};
use skep_sys::fd::Opened;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::ExitCode;
use tokio::runtime;
use tokio::task::LocalSet;

/// Why the broker cannot serve.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("{0}: {1}")]
    Database(std::path::PathBuf, OpenError),
    #[error(transparent)]
    Enter(#[from] EnterError),
    #[error("database: {0}")]
    Settle(#[from] Fault),
    #[error("serve: {0}")]
    Serve(#[from] std::io::Error),
}

/// What it holds from the start.
struct Acquired {
    listener: OwnedFd,
    run: RunDir,
    db: Opened<Db>,
    journal: Journal,
    facts: Facts,
    owner: u32,
    metrics: bool,
}

impl Held for Acquired {
    fn held(&self) -> Vec<(&'static str, BorrowedFd<'_>)> {
        let mut held = vec![("listener", self.listener.as_fd())];
        held.extend(self.run.held().map(|dir| ("run", dir)));
        held.extend(self.db.fds().into_iter().map(|fd| ("database", fd)));
        held.extend(self.journal.held());
        held
    }
}

/// Opens the database with the broker's own rights.
fn database(start: &Start) -> Result<Opened<Db>, Error> {
    let dir = start.state.join("db");
    start.own_dir(&dir, Role::Broker, 0o700)?;
    let path = dir.join("skep.db");
    start.as_role(Role::Broker, || Opened::by(|| Db::open(&path)).map_err(|error| Error::Database(path.clone(), error)))
}

fn acquire(start: &Start) -> Result<Acquired, Error> {
    let db = database(start)?;
    let own = getuid().as_raw();
    let owner = match start.extra.get("owner") {
        None => own,
        Some(text) => text.parse().map_err(|_| StartError::Flags(format!("--owner {text}: a uid is expected")))?,
    };
    Ok(Acquired {
        listener: start.bind(Role::Broker, Role::Frontend)?,
        run: RunDir::open(&start.run)?,
        db,
        journal: start.journal("broker")?,
        facts: Facts::ask(),
        owner,
        metrics: start.extra.contains_key("metrics"),
    })
}

/// acquire → limit → enter → serve.
fn serve() -> Result<(), Error> {
    let start = Start::from_args(&["owner", "metrics"])?;
    let limited = limit(acquire(&start)?, &TABLE)?;
    let Acquired { listener, run, db, journal, facts, owner, metrics } = enter(limited, &start.scene(Role::Broker))?.into_inner();
    let allowed = start.allowed(Role::Frontend);
    let door = start.run.join("api.sock");
    let setup = Setup { instance: start.instance, run, owner, door, facts, metrics, db: db.into_inner(), journal };
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async move {
        let broker = Broker::start(setup)?;
        broker.settle()?;
        broker.reconcile()?;
        broker.serves();
        session::serve(broker, listener, allowed).await.map_err(Error::Serve)
    })
}

fn main() -> ExitCode {
    skep_service::run("broker", serve)
}

#[cfg(test)]
mod tests;
