//! A broker with the helpers of the tests, and a frontend to ask it through.

use super::services::{FakeNet, FakeSpawner, FakeStorage, start};
use super::world::World;
use crate::broker::{Broker, Setup};
use crate::db::Db;
use crate::db::disks::{Disks, Stage};
use crate::db::layers::Layers;
use crate::db::machines::{Machines, Which};
use crate::db::snapshots::Snapshots;
use crate::db::switches::Switches;
use crate::db::whole::{Whole, Wholes};
use crate::platform::{Facts, RunDir};
use crate::session::session;
use nix::unistd::{Uid, seteuid};
use skep_ipc::CallError;
use skep_ipc::aio::Client;
use skep_proto::broker::{self as proto, *};
use skep_proto::{Call, DiskId, InstanceId, Refusal, Text, TraceId, UpTo};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::rc::Rc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::task::LocalSet;

const PATIENCE: Duration = Duration::from_secs(60);

pub struct Suite {
    pub world: World,
    pub dir: TempDir,
    instance: InstanceId,
    /// Whether metrics are served.
    pub metrics: bool,
}

/// One life of the broker.
pub struct Life {
    pub broker: Rc<Broker>,
    clients: RefCell<Vec<OwnedFd>>,
}

/// One session.
pub struct Session(pub Client<proto::Broker>);

impl Suite {
    pub fn new() -> Self {
        let dir = TempDir::new().expect("a directory");
        for name in ["vm", "console"] {
            std::fs::create_dir(dir.path().join(name)).expect("a directory");
        }
        let (world, instance): (World, InstanceId) = (World::default(), "test".parse().expect("an id"));
        start(dir.path(), FakeStorage(world.clone()));
        start(dir.path(), FakeNet(world.clone(), instance));
        start(dir.path(), FakeSpawner(world.clone(), dir.path().to_owned()));
        Self { world, dir, instance, metrics: true }
    }

    /// Runs `act` in one life of the broker, which dies with it.
    pub fn live<T>(&self, act: impl AsyncFnOnce(Life) -> T) -> T {
        self.live_with(skep_service::Journal::new("broker", None), act)
    }

    /// The same with a log of the test's.
    pub fn live_with<T>(&self, journal: skep_service::Journal, act: impl AsyncFnOnce(Life) -> T) -> T {
        let db = Db::open(&self.dir.path().join("skep.db")).expect("a database");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let local = LocalSet::new();
        local.block_on(&runtime, async {
            let setup = Setup {
                instance: self.instance,
                run: RunDir::open(self.dir.path()).expect("RUN"),
                owner: nix::unistd::getuid().as_raw(),
                door: self.dir.path().join("api.sock"),
                facts: Facts { system: "FreeBSD 13.2 of the tests".into(), cpus: 8, memory: 1 << 36, ..Facts::default() },
                metrics: self.metrics,
                db,
                journal,
            };
            let broker = Broker::start(setup).expect("start");
            broker.settle().expect("settle");
            broker.reconcile().expect("reconcile");
            act(Life { broker, clients: RefCell::default() }).await
        })
    }

    /// Waits until host and database agree and nothing is under way.
    pub async fn settled(&self, broker: &Rc<Broker>) {
        let mut news = broker.news();
        loop {
            let problem = self.disagreement(broker);
            let Some(problem) = problem else { return };
            let change = async {
                tokio::select! {
                    _ = news.changed() => {}
                    () = self.world.news.notified() => {}
                }
            };
            // Not a clock that the test runs by: the answer to a test that would never end.
            tokio::time::timeout(Duration::from_secs(20), change).await.unwrap_or_else(|_| panic!("it stays so: {problem}"));
        }
    }

    fn disagreement(&self, broker: &Rc<Broker>) -> Option<String> {
        let host = self.world.lock();
        let disks = broker.read(|db| db.disks_after("", u32::MAX, None, (None, None))).expect("disks");
        let unready = broker.read(|db| db.unready_disks()).expect("disks");
        let snapshots = broker.read(|db| db.unready_snapshots()).expect("snapshots");
        let named = |id: DiskId| broker.read(|db| db.snapshots_after(id, "", u32::MAX)).expect("snapshots");
        let named: Vec<_> = disks.iter().flat_map(|d| named(d.id)).collect();
        // Files are what disks and snapshots consist of; volumes have their snapshots themselves.
        let of_files: Vec<_> = named.iter().filter_map(|s| s.layer).collect();
        let named: BTreeSet<_> = named.iter().filter(|s| s.layer.is_none()).map(|s| s.id).collect();
        let layers = |id: DiskId| broker.read(|db| db.layers_from(id)).expect("layers").into_iter().map(|layer| layer.id);
        let there: BTreeSet<_> = host.snapshots.iter().map(|(_, s, _)| *s).collect();
        let tops = disks.iter().filter_map(|d| d.top).chain(of_files);
        let volumes = disks.iter().filter(|d| d.top.is_none()).map(|d| d.id);
        let rows: BTreeSet<_> = tops.flat_map(layers).chain(volumes).collect();
        let files: BTreeSet<_> = host.disks.keys().copied().collect();
        let switches = broker.read(|db| db.switches_after("", u32::MAX)).expect("switches");
        let numbers: BTreeSet<_> = switches.iter().map(|s| s.number).collect();
        let tunnels: BTreeMap<_, _> = switches.iter().filter_map(|s| Some((s.number, s.tunnel.clone()?))).collect();
        let mut machines = broker.read(|db| db.machines(Which::Unsettled)).expect("machines");
        machines.extend(broker.read(|db| db.machines(Which::After("", u32::MAX, None))).expect("machines"));
        let slots: BTreeSet<_> = machines.iter().filter(|m| m.slot.is_some()).map(|m| m.id).collect();
        let cells: BTreeSet<_> = host.cells.keys().copied().collect();
        let mut ids: BTreeSet<_> = machines.iter().map(|m| m.id).collect();
        // Those of a machine's snapshot are kept like a machine's.
        let wholes = broker.read(|db| db.wholes(None, None)).expect("rows");
        let unsettled = wholes.iter().find(|whole| whole.state != Whole::Ready).map(|whole| whole.name.clone());
        ids.extend(wholes.iter().map(|whole| skep_proto::MachineId::from_u128(whole.id.as_u128())));
        let moving = machines.iter().find(|m| {
            use MachineState::{Starting, Stopping};
            m.stage != Stage::Ready || matches!(m.state, Starting | Stopping)
        });
        match () {
            () if !broker.operations.borrow().is_empty() => Some("operations are at work".into()),
            () if !unready.is_empty() => Some(format!("disks are not ready: {unready:?}")),
            () if rows != files => Some(format!("disks {rows:?}, files {files:?}")),
            () if !snapshots.is_empty() => Some(format!("snapshots are not ready: {snapshots:?}")),
            () if named != there => Some(format!("snapshots {named:?}, on the host {there:?}")),
            () if numbers != host.bridges => Some(format!("switches {numbers:?}, bridges {:?}", host.bridges)),
            () if tunnels != host.tunnels => Some(format!("tunnels {tunnels:?}, on the host {:?}", host.tunnels)),
            () if !host.fetchers.is_empty() => Some(format!("fetchers are left: {:?}", host.fetchers)),
            () if slots != cells => Some(format!("machines {slots:?}, cells {cells:?}")),
            () if unsettled.is_some() => Some(format!("a machine's snapshot is not ready: {unsettled:?}")),
            () if !host.vars.is_subset(&ids) => Some("variable stores without machines".into()),
            () => moving.map(|m| format!("{} is {:?} ({:?})", m.name, m.state, m.stage)),
        }
    }
}

impl Life {
    pub async fn session(&self) -> Session {
        let mut session = Session(self.connect().await);
        let theirs = self.client();
        session.ask_with(OpenSession { credential: Credential::LocalSocket }, UpTo(vec![theirs])).await.expect("a session");
        session
    }

    /// The connection of a local client, as the frontend has accepted it.
    pub fn client(&self) -> OwnedFd {
        let (client, accepted) = self.client_as(nix::unistd::geteuid());
        self.clients.borrow_mut().push(client);
        accepted
    }

    /// The same of a user of the host, with his own end.
    pub fn client_as(&self, uid: Uid) -> (OwnedFd, OwnedFd) {
        let listener = skep_sys::sock::bind_stream(&self.broker.door, 0o666).expect("bind");
        skep_sys::sock::listen(listener.as_fd()).expect("listen");
        let own = nix::unistd::geteuid();
        if uid != own {
            let dir = self.broker.door.parent().expect("a directory");
            std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o711)).expect("chmod");
        }
        seteuid(uid).expect("seteuid");
        let client = std::os::unix::net::UnixStream::connect(&self.broker.door);
        seteuid(own).expect("seteuid");
        (client.expect("connect").into(), skep_sys::sock::accept(listener.as_fd()).expect("accept"))
    }

    /// A connection that has not said who it is for.
    pub async fn connect(&self) -> Client<proto::Broker> {
        let (ours, theirs) = skep_sys::sock::seqpacket_pair().expect("pair");
        let broker = self.broker.clone();
        tokio::task::spawn_local(async move {
            let _ = session(&broker, theirs).await;
        });
        Client::over(ours).await.expect("a connection")
    }

    /// Waits for all three helpers.
    pub async fn up(&self) {
        tokio::join!(self.broker.storage.wait(), self.broker.net.wait(), self.broker.cells.wait());
    }
}

impl Session {
    pub async fn ask_with<C: Call<Helper = proto::Broker>>(
        &mut self, call: C, fds: C::SendFds,
    ) -> Result<(C::Reply, C::ReplyFds), Refusal> {
        let user = Text::lossy("uid 4711, as the frontend says");
        match self.0.call(TraceId::random(), &user, call, fds, PATIENCE).await {
            Ok(answer) => Ok(answer),
            Err(CallError::Refused(refusal)) => Err(refusal),
            Err(error) => panic!("{error}"),
        }
    }

    pub async fn ask<C: Call<Helper = proto::Broker, SendFds = [OwnedFd; 0]>>(&mut self, call: C) -> Result<C::Reply, Refusal> {
        self.ask_with(call, []).await.map(|(reply, _)| reply)
    }

    /// Begins an import.
    pub async fn import_with(&mut self, import: DiskImport) -> Result<(OperationView, OwnedFd), Refusal> {
        let (view, UpTo(stream)) = self.ask_with(import, []).await?;
        Ok((view, stream.into_iter().next().expect("a stream")))
    }

    /// Waits for an operation.
    pub async fn done(&mut self, operation: OperationView) -> Result<OperationView, Refusal> {
        let view = self.ask(OperationGet { id: operation.id, wait: true }).await?;
        match view.state {
            OperationState::Failed(refusal) => Err(refusal),
            OperationState::Running => panic!("it is still at work"),
            OperationState::Done => Ok(view),
        }
    }

    pub async fn act(&mut self, name: &str, act: Act) -> Result<OperationView, Refusal> {
        let operation = self.ask(MachineAct { machine: Text::lossy(name), act }).await?;
        self.done(operation).await
    }

    pub async fn get(&mut self, name: &str) -> Result<MachineView, Refusal> {
        self.ask(MachineGet { machine: Text::lossy(name) }).await
    }

    pub async fn machine(&mut self, name: &str, disks: &[&str]) -> Result<MachineView, Refusal> {
        let draft = |name: &&str| DiskDraft {
            disk: Text::lossy(name),
            controller: Controller::VirtioBlk,
            read_only: false,
            flags: DiskFlags::default(),
            on: None,
        };
        let disks = Some(disks.iter().map(draft).collect());
        let settings = Settings { disks, memory_mib: Some(64), ..Settings::default() };
        self.ask(MachineCreate { name: name.parse().expect("a name"), settings, group: None }).await
    }

    pub async fn disk(&mut self, name: &str) -> Result<DiskView, Refusal> {
        let kind = skep_proto::storage::DiskKind::Raw;
        self.ask(DiskCreate { name: name.parse().expect("a name"), kind, size: 1 << 20, group: None }).await
    }

    pub async fn switch(&mut self, name: &str, uplink: Option<&str>) -> Result<SwitchView, Refusal> {
        let uplink = uplink.map(|u| u.parse().expect("a name"));
        self.ask(SwitchCreate {
            name: name.parse().expect("a name"),
            uplink,
            kind: SwitchKind::Plain,
            subnet: None,
            tunnel: None,
            subnet6: None,
        })
        .await
    }

    pub async fn nic(&mut self, name: &str, switch: Option<&str>, machine: Option<&str>) -> Result<NicView, Refusal> {
        let (switch, machine) = (switch.map(Text::lossy), machine.map(Text::lossy));
        self.ask(NicCreate {
            name: name.parse().expect("a name"),
            switch,
            mac: None,
            machine,
            group: None,
            model: NicModel::VirtioNet,
            slot: None,
            address: None,
            rates: skep_proto::Rates::default(),
            isolated: false,
            forwards: Default::default(),
        })
        .await
    }
}

/// A virtio NIC as it is asked for.
pub fn nic_create(name: &str, switch: Option<&str>, machine: Option<&str>, group: Option<&str>) -> NicCreate {
    NicCreate {
        name: name.parse().expect("a name"),
        switch: switch.map(Text::lossy),
        mac: None,
        machine: machine.map(Text::lossy),
        group: group.map(Text::lossy),
        model: NicModel::VirtioNet,
        slot: None,
        address: None,
        rates: skep_proto::Rates::default(),
        isolated: false,
        forwards: Default::default(),
    }
}
