//! One line per operation.

use crate::job::{Ended, Jobs};
use crate::ops::{clone, disk, import, layer, log, snapshot, space, variables, vars};
use crate::store::Store;
use nix::poll::PollFlags;
use skep_ipc::{Answered, Ask, ProtocolError, Service, Watch};
use skep_proto::storage::{Storage, StorageRequest};
use skep_service::SharedJournal;
use skep_sys::sock::Peer;

/// The helper.
pub struct StorageHelper {
    store: Store,
    jobs: Jobs,
    journal: SharedJournal,
}

impl StorageHelper {
    /// Serves what `store` holds.
    pub fn new(store: Store, journal: SharedJournal) -> Self {
        Self { store, jobs: Jobs::default(), journal }
    }
}

impl Service<Storage> for StorageHelper {
    fn serve(&mut self, ask: Ask<'_>, request: StorageRequest) -> Result<Answered, ProtocolError> {
        use StorageRequest as R;
        let Self { store, jobs, .. } = self;
        match request {
            R::CreateDisk(c) => ask.answer(c, |_, c, []| Ok((disk::create(store, jobs, &c)?, []))),
            R::ImportDisk(c) => ask.answer(c, |from, c, fds| Ok((import::start(store, jobs, from.trace, c, fds)?, []))),
            R::CloneDisk(c) => ask.answer(c, |from, c, fds| Ok((clone::start(store, jobs, from.trace, &c, fds)?, []))),
            R::MergeLayers(c) => ask.answer(c, |from, c, fds| Ok((layer::merge(store, jobs, from.trace, &c, fds)?, []))),
            R::OpenLayer(c) => ask.answer(c, |_, c, []| layer::open(store, &c)),
            R::OpenDisk(c) => ask.answer(c, |_, c, []| disk::open(store, &c)),
            R::MayGrow(c) => ask.answer(c, |_, c, []| Ok((disk::may_grow(store, &c)?, []))),
            R::ResizeDisk(c) => ask.answer(c, |_, c, []| Ok((disk::resize(store, &c)?, []))),
            R::WipeDisk(c) => ask.answer(c, |_, c, []| Ok((disk::wipe(store, jobs, &c)?, []))),
            R::DeleteDisk(c) => ask.answer(c, |_, c, []| Ok((disk::delete(store, jobs, &c)?, []))),
            R::ListDisks(c) => ask.answer(c, |_, c, []| Ok((disk::list(store, &c)?, []))),
            R::OpenVars(c) => ask.answer(c, |_, c, []| vars::open(store, &c)),
            R::CloneVars(c) => ask.answer(c, |_, c, []| Ok((vars::clone(store, &c)?, []))),
            R::OpenLogWriter(c) => ask.answer(c, |_, c, []| log::open_writer(store, &c)),
            R::OpenLogReader(c) => ask.answer(c, |_, c, []| log::open_reader(store, &c)),
            R::OpenServiceLog(c) => ask.answer(c, |_, c, []| log::open_service(store, &c)),
            R::DeleteMachineFiles(c) => ask.answer(c, |_, c, []| Ok((vars::delete(store, &c)?, []))),
            R::Space(c) => ask.answer(c, |_, _, []| Ok((space::space(store)?, []))),
            R::VolumeSpace(c) => ask.answer(c, |_, _, []| Ok((space::volumes(store)?, []))),
            R::CreateSnapshot(c) => ask.answer(c, |_, c, []| Ok((snapshot::create(store, jobs, &c)?, []))),
            R::ListSnapshots(c) => ask.answer(c, |_, c, []| Ok((snapshot::list(store, &c)?, []))),
            R::RollBackDisk(c) => ask.answer(c, |_, c, []| Ok((snapshot::roll_back(store, &c)?, []))),
            R::DeleteSnapshot(c) => ask.answer(c, |_, c, []| Ok((snapshot::delete(store, &c)?, []))),
            R::ListVars(c) => ask.answer(c, |_, c, []| Ok((variables::list(store, c)?, []))),
            R::ReadVar(c) => ask.answer(c, |_, c, []| Ok((variables::read(store, c)?, []))),
            R::EditVars(c) => ask.answer(c, |_, c, []| Ok((variables::edit(store, c)?, []))),
            R::WhoseOrder(c) => ask.answer(c, |_, c, []| Ok((vars::whose_order(store, &c)?, []))),
        }
    }

    fn watched(&self) -> Vec<Watch<'_>> {
        self.jobs.watched()
    }

    fn ready(&mut self, token: u64, _: PollFlags) {
        let Some(Ended { trace, disk, result }) = self.jobs.ready(&self.store, token) else {
            return;
        };
        match result {
            Ok(()) => self.journal.info(Some(trace), format_args!("job for disk {disk}: done")),
            Err(refusal) => self.journal.warn(Some(trace), format_args!("job for disk {disk}: {refusal}")),
        }
    }

    fn closed(&mut self, peer: Peer, error: &ProtocolError) {
        if error.is_goodbye() {
            self.journal.info(None, format_args!("pid {} closed its connection", peer.pid));
        } else {
            self.journal.warn(None, format_args!("connection of pid {} closed: {error}", peer.pid));
        }
    }

    fn stranger(&mut self, peer: Peer) {
        self.journal.warn(None, format_args!("uid {} (pid {}) may not connect", peer.uid, peer.pid));
    }
}
