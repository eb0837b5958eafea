//! skep-storage-helper: acquire → limit → enter → serve.
#![forbid(unsafe_code)]

use skep_ipc::Server;
use skep_proto::storage::Storage;
use skep_rights::storage::TABLE;
use skep_sandbox::{Held, Sandboxed};
use skep_service::{Journal, Role, SharedJournal, Start, StartError, run};
use skep_storage_helper::{serve::StorageHelper, store::Store};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::ExitCode;

/// The flag that names the dataset of ZFS volumes.
const DATASET: &str = "zfs-dataset";

/// All that the process holds.
struct Acquired {
    listener: OwnedFd,
    allowed: Option<Vec<u32>>,
    store: Store,
    journal: Journal,
}

impl Held for Acquired {
    fn held(&self) -> Vec<(&'static str, BorrowedFd<'_>)> {
        let mut held = self.store.held();
        held.push(("listener", self.listener.as_fd()));
        held.extend(self.journal.held());
        held
    }
}

fn acquire(start: &Start) -> Result<Acquired, StartError> {
    for name in skep_storage_helper::store::DIRECTORIES {
        start.own_dir(&start.state.join(name), Role::Storage, 0o700)?;
    }
    let mut journal = start.journal(TABLE.name)?;
    let mut store = Store::open(&start.state).map_err(StartError::step(format!("open {}", start.state.display())))?;
    if let Some(dataset) = start.extra.get(DATASET) {
        let volumes = skep_storage_helper::platform::volumes(start, dataset)?;
        for left in volumes.sweep().map_err(|e| StartError::step(format!("sweep {dataset}"))(std::io::Error::other(e)))? {
            journal.warn(None, format_args!("{left}"));
        }
        store.volumes = Some(volumes);
    }
    Ok(Acquired { journal, store, allowed: start.allowed(Role::Broker), listener: start.bind(Role::Storage, Role::Broker)? })
}

fn serve(inside: Sandboxed<Acquired>) -> std::io::Result<()> {
    let Acquired { listener, allowed, store, journal } = inside.into_inner();
    let mut journal = SharedJournal::new(journal);
    journal.serves();
    let mut helper = StorageHelper::new(store, journal.clone());
    let mut server = Server::<Storage>::new(listener, allowed).limiting(|fd| skep_sandbox::limit_connection(&TABLE, fd));
    server.run(&mut helper, &mut journal)
}

fn main() -> ExitCode {
    run(TABLE.name, || {
        let start = Start::from_args(&[DATASET])?;
        let limited = skep_sandbox::limit(acquire(&start)?, &TABLE)?;
        serve(skep_sandbox::enter(limited, &start.scene(Role::Storage))?)?;
        Ok::<(), Box<dyn std::error::Error>>(())
    })
}
