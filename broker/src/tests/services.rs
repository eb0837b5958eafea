//! storage-helper, net-helper and the spawner of the tests.

use super::runner::{serve_console, serve_runner};
use super::world::{FakeCell, Fate, World};
use skep_ipc::{Answered, Ask, ProtocolError, Server, Service, Silent};
use skep_proto::cell::{self, Cell, CellPage, CellRequest, CellState, FacilitiesState};
use skep_proto::net::{self, InterfacePage, Named, Net, NetRequest};
use skep_proto::runner::Phase;
use skep_proto::storage::{
    self, DiskOpened, DiskPage, DiskState, JobDone, JobRecord, JobStarted, SpaceState, Storage, StorageRequest,
};
use skep_proto::{DiskId, Helper, IfName, Reason, Refusal, Text, UpTo, upload, wire};
use skep_sys::msg;
use skep_sys::sock::{self, Peer};
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Acts, and answers unless the call is cut off.
macro_rules! act {
    ($ask:ident, $c:ident, $fate:ident, $act:expr) => {{
        let act = $act;
        if $fate.0 {
            let _ = act($c, None);
            Err(ProtocolError::Order("a test"))
        } else {
            $ask.answer($c, |_, c, fds| act(c, Some(fds)))
        }
    }};
}
pub(super) use act;

pub fn memory() -> OwnedFd {
    skep_sys::fd::memory_file(c"test").expect("a memory file")
}

/// Serves until the process ends.
pub fn start<H: Helper>(run: &Path, service: impl Service<H> + Send + 'static) {
    let path = run.join(format!("{}.sock", H::NAME));
    let listener = sock::bind_seqpacket(&path, 0o600).expect("bind");
    sock::listen(listener.as_fd()).expect("listen");
    std::thread::spawn(move || {
        let mut service = service;
        Server::<H>::new(listener, None).run(&mut service, &mut Silent)
    });
}

macro_rules! quiet {
    () => {
        fn closed(&mut self, _: Peer, _: &ProtocolError) {}
        fn stranger(&mut self, _: Peer) {}
    };
}
pub(super) use quiet;

pub struct FakeStorage(pub World);

impl FakeStorage {
    fn state(&self, disk: DiskId, kind: storage::DiskKind) -> Result<DiskState, Refusal> {
        let size = self.0.lock().disks.get(&disk).copied();
        let size = size.ok_or_else(|| Refusal::new(Reason::NotFound, disk))?;
        Ok(DiskState { disk, kind, size, allocated: 4096 })
    }
}

impl FakeStorage {
    fn snapshot(&self, snapshot: skep_proto::SnapshotId, used: u64) -> storage::SnapshotState {
        let all = self.0.lock().snapshots.clone();
        let at = all.iter().position(|(_, id, _)| *id == snapshot);
        let size = at.and_then(|at| all.get(at)).map_or(0, |(_, _, size)| *size);
        storage::SnapshotState { snapshot, size, used, order: at.unwrap_or(0) as u64, created_ns: 1 }
    }
}

/// Ends a job.
pub fn finish_job(world: &World, disk: DiskId, channel: &OwnedFd, size: u64) {
    world.lock().disks.insert(disk, size);
    let state = DiskState { disk, kind: storage::DiskKind::Raw, size, allocated: size };
    let done = JobRecord::Done(Ok(JobDone { disk: state, sha256: None }));
    for record in [JobRecord::Progress { done: size / 2, total: size }, done] {
        let bytes = wire::encode(&record).expect("fits");
        let _ = msg::send(channel.as_fd(), &bytes, &[], Some(Instant::now() + Duration::from_secs(5)));
    }
    world.news.notify_one();
}

impl Service<Storage> for FakeStorage {
    quiet!();
    fn serve(&mut self, ask: Ask<'_>, request: StorageRequest) -> Result<Answered, ProtocolError> {
        let fate = self.0.begin(Storage::op(&request).name)?;
        let world = &self.0;
        match request {
            StorageRequest::CreateDisk(c) => act!(ask, c, fate, |c: storage::CreateDisk, _| {
                world.lock().disks.insert(c.disk, c.size);
                Ok((self.state(c.disk, c.kind)?, []))
            }),
            StorageRequest::ImportDisk(c) => act!(ask, c, fate, |c: storage::ImportDisk, fds: Option<[OwnedFd; 2]>| {
                let Some([stream, channel]) = fds else { return Ok((JobStarted {}, [])) };
                let world = world.clone();
                std::thread::spawn(move || {
                    let mut bytes = Vec::new();
                    // Cut off, it is cancelled, and nobody waits for its end.
                    if upload::Pieces::new(std::fs::File::from(stream)).read_to_end(&mut bytes).is_ok() {
                        finish_job(&world, c.disk, &channel, bytes.len() as u64);
                    }
                });
                Ok((JobStarted {}, []))
            }),
            StorageRequest::CloneDisk(c) => act!(ask, c, fate, |c: storage::CloneDisk, fds: Option<[OwnedFd; 1]>| {
                let size = self.state(c.from, c.kind)?.size;
                let Some([channel]) = fds else { return Ok((JobStarted {}, [])) };
                if world.lock().hold_jobs {
                    world.lock().jobs.push((c.to, channel));
                    // Whoever waits for it may have looked just before.
                    world.news.notify_one();
                } else {
                    finish_job(world, c.to, &channel, size);
                }
                Ok((JobStarted {}, []))
            }),
            StorageRequest::OpenDisk(c) => {
                act!(ask, c, fate, |c: storage::OpenDisk, _| {
                    let disk = self.state(c.disk, c.kind)?;
                    Ok((DiskOpened { most: disk.size, disk }, [memory()]))
                })
            }
            StorageRequest::OpenLayer(c) => act!(ask, c, fate, |c: storage::OpenLayer, _| {
                let disk = self.state(c.layer.layer, c.layer.kind)?;
                Ok((DiskOpened { most: disk.size, disk }, [memory()]))
            }),
            StorageRequest::MergeLayers(c) => act!(ask, c, fate, |c: storage::MergeLayers, fds: Option<[OwnedFd; 1]>| {
                let top = c.layers.first().copied().ok_or_else(|| Refusal::new(Reason::InvalidValue, c.to))?;
                let size = self.state(top.layer, top.kind)?.size;
                if let Some([channel]) = fds {
                    finish_job(world, c.to, &channel, size);
                }
                Ok((JobStarted {}, []))
            }),
            StorageRequest::MayGrow(c) => act!(ask, c, fate, |c: storage::MayGrow, _| {
                self.state(c.disk, c.kind)?;
                world.lock().growing = Some((c.disk, c.size));
                Ok((storage::Growth { most: c.size + 4096 }, []))
            }),
            StorageRequest::ResizeDisk(c) => act!(ask, c, fate, |c: storage::ResizeDisk, _| {
                world.lock().disks.insert(c.disk, c.size);
                world.lock().resized.push((c.size, c.shrink));
                Ok((self.state(c.disk, c.kind)?, []))
            }),
            StorageRequest::WipeDisk(c) => act!(ask, c, fate, |c: storage::WipeDisk, _| {
                world.lock().disks.insert(c.disk, c.size);
                Ok((self.state(c.disk, c.kind)?, []))
            }),
            StorageRequest::DeleteDisk(c) => act!(ask, c, fate, |c: storage::DeleteDisk, _| {
                world.lock().disks.remove(&c.disk);
                world.lock().snapshots.retain(|(disk, ..)| *disk != c.disk);
                Ok((storage::Done {}, []))
            }),
            StorageRequest::ListDisks(c) => act!(ask, c, fate, |c: storage::ListDisks, _| {
                let disks: Vec<_> = world.lock().disks.iter().map(|(disk, size)| (*disk, *size)).collect();
                let after = disks.into_iter().filter(|(disk, _)| c.after.is_none_or(|a| *disk > a)).take(100);
                let state = |(disk, size)| DiskState { disk, kind: storage::DiskKind::Raw, size, allocated: 4096 };
                Ok((DiskPage { disks: after.map(state).collect() }, []))
            }),
            StorageRequest::OpenVars(c) => act!(ask, c, fate, |c: storage::OpenVars, _| {
                world.lock().vars.insert(c.machine);
                Ok((storage::Done {}, [memory()]))
            }),
            StorageRequest::CloneVars(c) => act!(ask, c, fate, |c: storage::CloneVars, _| {
                world.lock().vars.insert(c.to);
                Ok((storage::Done {}, []))
            }),
            StorageRequest::OpenLogWriter(c) => act!(ask, c, fate, |_, _| Ok((storage::Done {}, [memory(), memory()]))),
            StorageRequest::OpenLogReader(c) => {
                act!(ask, c, fate, |_, _| Ok((storage::LogOpened { files: 1 }, UpTo(vec![memory()]))))
            }
            StorageRequest::OpenServiceLog(c) => {
                act!(ask, c, fate, |_, _| Ok((storage::LogOpened { files: 1 }, UpTo(vec![memory(), memory()]))))
            }
            StorageRequest::DeleteMachineFiles(c) => act!(ask, c, fate, |c: storage::DeleteMachineFiles, _| {
                world.lock().vars.remove(&c.machine);
                Ok((storage::Done {}, []))
            }),
            StorageRequest::Space(c) => act!(ask, c, fate, |_, _| {
                Ok((SpaceState { total: 1 << 40, free: 1 << 39, filesystem: Text::lossy("test"), reflink: false }, []))
            }),
            StorageRequest::VolumeSpace(c) => act!(ask, c, fate, |_, _| {
                Ok((SpaceState { total: 1 << 40, free: 1 << 39, filesystem: Text::lossy("zfs"), reflink: true }, []))
            }),
            StorageRequest::CreateSnapshot(c) => act!(ask, c, fate, |c: storage::CreateSnapshot, _| {
                if c.kind != storage::DiskKind::Zvol {
                    return Err(Refusal::new(Reason::Unsupported, c.disk));
                }
                let size = self.state(c.disk, c.kind)?.size;
                world.lock().snapshots.push((c.disk, c.snapshot, size));
                Ok((self.snapshot(c.snapshot, 4096), []))
            }),
            StorageRequest::ListSnapshots(c) => act!(ask, c, fate, |c: storage::ListSnapshots, _| {
                let mut ids: Vec<_> =
                    world.lock().snapshots.iter().filter(|(disk, ..)| *disk == c.disk).map(|(_, id, _)| *id).collect();
                ids.sort();
                ids.retain(|id| c.after.is_none_or(|after| *id > after));
                let snapshots = ids.into_iter().take(100).map(|id| self.snapshot(id, 8192)).collect();
                Ok((storage::SnapshotPage { snapshots }, []))
            }),
            StorageRequest::RollBackDisk(c) => act!(ask, c, fate, |c: storage::RollBackDisk, _| {
                let all = world.lock().snapshots.clone();
                let newest = all.iter().rfind(|(disk, ..)| *disk == c.disk);
                let (_, newest, size) = newest.copied().ok_or_else(|| Refusal::new(Reason::NotFound, c.snapshot))?;
                if newest != c.snapshot {
                    let note = format_args!("snapshot {newest} is newer; delete it first");
                    return Err(Refusal::new(Reason::InUse, c.snapshot).note(note));
                }
                world.lock().disks.insert(c.disk, size);
                Ok((self.state(c.disk, c.kind)?, []))
            }),
            StorageRequest::DeleteSnapshot(c) => act!(ask, c, fate, |c: storage::DeleteSnapshot, _| {
                world.lock().snapshots.retain(|(_, snapshot, _)| *snapshot != c.snapshot);
                Ok((storage::Done {}, []))
            }),
            StorageRequest::ListVars(c) => {
                act!(ask, c, fate, |_, _| Ok((storage::VarPage { vars: Vec::new(), used: 0, room: 1 }, [])))
            }
            StorageRequest::ReadVar(c) => act!(ask, c, fate, |c: storage::ReadVar, _| {
                Err::<(storage::VarPiece, _), _>(Refusal::new(Reason::NotFound, c.name))
            }),
            StorageRequest::EditVars(c) => act!(ask, c, fate, |c: storage::EditVars, _| {
                let own = matches!(c.edit, storage::VarEdit::Order(_));
                world.lock().edits.push(c.edit);
                world.lock().own_order = own;
                Ok((storage::VarsEdited { order: vec![1], next: None }, []))
            }),
            StorageRequest::WhoseOrder(c) => {
                act!(ask, c, fate, |_, _| Ok((storage::OrderState { own: world.lock().own_order }, [])))
            }
        }
    }
}

pub struct FakeNet(pub World, pub skep_proto::InstanceId);

impl Service<Net> for FakeNet {
    quiet!();
    fn serve(&mut self, ask: Ask<'_>, request: NetRequest) -> Result<Answered, ProtocolError> {
        let fate = self.0.begin(Net::op(&request).name)?;
        let (world, instance) = (&self.0, self.1);
        match request {
            NetRequest::CreateSwitch(c) => act!(ask, c, fate, |c: net::CreateSwitch, _| {
                if c.uplink.is_some_and(|u| u.as_str() == "missing") {
                    return Err(Refusal::new(Reason::NotFound, "uplink missing"));
                }
                world.lock().bridges.insert(c.number);
                Ok((Named { name: IfName::bridge(instance, c.number) }, []))
            }),
            NetRequest::DeleteSwitch(c) => act!(ask, c, fate, |c: net::DeleteSwitch, _| {
                if world.lock().tunnels.contains_key(&c.number) {
                    return Err(Refusal::new(Reason::InUse, format_args!("switch {}", c.number)));
                }
                world.lock().bridges.remove(&c.number);
                Ok((net::Done {}, []))
            }),
            NetRequest::CreateTap(c) => {
                act!(ask, c, fate, |c: net::CreateTap, _| { Ok((Named { name: IfName::tap(instance, c.number) }, [memory()])) })
            }
            NetRequest::MoveTap(c) => act!(ask, c, fate, |_, _| Ok((net::Done {}, []))),
            NetRequest::DeleteTap(c) => act!(ask, c, fate, |_, _| Ok((net::Done {}, []))),
            NetRequest::ListInterfaces(c) => act!(ask, c, fate, |c: net::ListInterfaces, _| {
                let (bridges, tunnels) = {
                    let world = world.lock();
                    let tunnels: Vec<u16> = world.tunnels.keys().copied().collect();
                    (world.bridges.iter().copied().collect::<Vec<u16>>(), tunnels)
                };
                let named = bridges.into_iter().map(|n| (u32::from(n) + 1, IfName::bridge(instance, n)));
                let named = named.chain(tunnels.into_iter().map(|n| (u32::from(n) + 100_000, IfName::tunnel(instance, n))));
                let all = named.map(|(index, name)| net::Interface {
                    index,
                    name,
                    up: true,
                    bridge: None,
                    mtu: 1500,
                    kind: Text::lossy("bridge"),
                });
                Ok((InterfacePage { interfaces: all.filter(|i| i.index > c.after).take(50).collect() }, []))
            }),
            NetRequest::CountTaps(c) => act!(ask, c, fate, |c: net::CountTaps, _| {
                let count = |number| net::TapCount { number, rx_bytes: 1, rx_packets: 2, tx_bytes: 3, tx_packets: 4 };
                Ok((net::TapCounts { taps: c.numbers.into_iter().map(count).collect() }, []))
            }),
            NetRequest::SetGateway(c) => act!(ask, c, fate, |c: net::SetGateway, _| {
                let Some(gateway) = c.gateway else { return Ok((net::Done {}, [])) };
                world.lock().forwards.insert(c.number, c.forwards);
                if world.lock().reached.contains(&gateway.subnet) {
                    return Err(Refusal::new(Reason::InUse, format_args!("switch {}", c.number)).field("subnet"));
                }
                world.lock().sixes.insert(c.number, gateway.subnet6);
                if gateway.subnet6.is_some() && std::mem::take(&mut world.lock().reaches_next_six) {
                    return Err(Refusal::new(Reason::InUse, format_args!("switch {}", c.number)).field("subnet6"));
                }
                Ok((net::Done {}, []))
            }),
            NetRequest::CheckPort(c) => act!(ask, c, fate, |c: net::CheckPort, _| {
                // The host's own ssh.
                let taken = c.forward.port.get() == 22;
                if taken { Err(Refusal::new(Reason::InUse, "port 22/tcp").note("heard")) } else { Ok((net::Done {}, [])) }
            }),
            NetRequest::CreateTunnel(c) => act!(ask, c, fate, |c: net::CreateTunnel, _| {
                // What another tunnel of the host has.
                if world.lock().tunnels.iter().any(|(number, other)| *number != c.number && other.vni == c.tunnel.vni) {
                    return Err(Refusal::new(Reason::AlreadyExists, format_args!("tunnel of switch {}", c.number)));
                }
                world.lock().tunnels.insert(c.number, c.tunnel);
                Ok((Named { name: IfName::tunnel(instance, c.number) }, []))
            }),
            NetRequest::HostKey(c) => {
                act!(ask, c, fate, |_: net::HostKey, _| { Err(Refusal::new(Reason::Unsupported, "wireguard").note("none here")) })
            }
            NetRequest::DeleteTunnel(c) => act!(ask, c, fate, |c: net::DeleteTunnel, _| {
                world.lock().tunnels.remove(&c.number);
                Ok((net::Done {}, []))
            }),
            NetRequest::GuardTap(c) => act!(ask, c, fate, |_, _| Ok((net::Done {}, []))),
            NetRequest::LimitTap(c) => act!(ask, c, fate, |c: net::LimitTap, _| {
                if c.rates.inward.is_some_and(|rate| rate.bits() == skep_proto::Rate::MOST) {
                    return Err(Refusal::new(Reason::Unsupported, format_args!("tap {}", c.number)));
                }
                Ok((net::Done {}, []))
            }),
            NetRequest::OpenPort(c) => act!(ask, c, fate, |_, _| Ok((net::Done {}, [memory()]))),
            NetRequest::OpenResolvers(c) => act!(ask, c, fate, |_, _| Ok((net::Done {}, skep_proto::UpTo(Vec::new())))),
            NetRequest::ConnectServer(c) => act!(ask, c, fate, |_, _| Ok((net::Done {}, [memory()]))),
            // The broker makes none of these yet, and knows none to delete.
            NetRequest::CreatePair(_) | NetRequest::DeletePair(_) | NetRequest::CreateGraphSwitch(_) => {
                Err(ProtocolError::Order("what the broker does not make"))
            }
        }
    }
}

pub struct FakeSpawner(pub World, pub PathBuf);

impl Service<Cell> for FakeSpawner {
    quiet!();
    fn serve(&mut self, ask: Ask<'_>, request: CellRequest) -> Result<Answered, ProtocolError> {
        let fate: Fate = self.0.begin(Cell::op(&request).name)?;
        let (world, run) = (&self.0, &self.1);
        match request {
            CellRequest::MakeCell(c) => act!(ask, c, fate, |c: cell::MakeCell, _| {
                if world.lock().cells.contains_key(&c.machine) {
                    return Err(Refusal::new(Reason::InUse, c.machine));
                }
                let life = serve_runner(world, run, c.machine);
                let cell = FakeCell {
                    phase: Phase::Ready,
                    last_end: None,
                    starts: 0,
                    console: false,
                    tries_kvm: c.kvm && c.fds == [cell::FdRole::Config, cell::FdRole::Kernel],
                    watchers: vec![],
                    lives: vec![life],
                };
                let mut state = world.lock();
                if let Some(refusal) = state.unkept.take() {
                    return Err(refusal);
                }
                state.cells.insert(c.machine, cell);
                state.limits = Some(c.limits);
                state.accelerated = c.kvm;
                Ok((cell::CellMade { runner: 1 }, []))
            }),
            CellRequest::StartConsole(c) => act!(ask, c, fate, |c: cell::StartConsole, _| {
                let life = serve_console(world, run, c.machine);
                let mut state = world.lock();
                let cell = state.cells.get_mut(&c.machine).ok_or_else(|| Refusal::new(Reason::NotFound, c.machine))?;
                cell.console = true;
                cell.lives.push(life);
                Ok((cell::Started { pid: 2 }, []))
            }),
            CellRequest::StartServices(c) => act!(ask, c, fate, |_, _| Ok((cell::Started { pid: 3 }, []))),
            // Nobody listens there: whoever looks at a target is refused.
            CellRequest::StartInitiator(c) => act!(ask, c, fate, |_, _| Ok((cell::Started { pid: 5 }, []))),
            CellRequest::StartFetcher(c) => act!(ask, c, fate, |c: cell::StartFetcher, fds: Option<[OwnedFd; 1]>| {
                world.lock().fetchers.push(c.disk);
                fds.into_iter().for_each(|[channel]| super::fetches::fetcher(channel));
                Ok((cell::Started { pid: 4 }, []))
            }),
            CellRequest::StartDiskServer(c) => act!(ask, c, fate, |_, _| Ok((cell::Started { pid: 5 }, [memory()]))),
            CellRequest::KillCell(c) => act!(ask, c, fate, |c: cell::KillCell, _| {
                let mut state = world.lock();
                state.cells.remove(&c.machine);
                state.fetchers.retain(|disk| disk.cell() != c.machine);
                Ok((cell::Done {}, []))
            }),
            CellRequest::SweepCell(c) => act!(ask, c, fate, |c: cell::SweepCell, _| {
                let mut state = world.lock();
                if state.cells.get(&c.machine).is_some_and(|cell| !cell.lives.is_empty()) {
                    return Err(Refusal::new(Reason::InUse, c.machine));
                }
                state.cells.remove(&c.machine);
                Ok((cell::Done {}, []))
            }),
            CellRequest::ListCells(c) => act!(ask, c, fate, |c: cell::ListCells, _| {
                let state = world.lock();
                let cells = state.cells.iter().map(|(id, cell)| (*id, !cell.lives.is_empty(), cell.console));
                let fetchers = state.fetchers.iter().map(|disk| (disk.cell(), false, true));
                let mut cells: Vec<_> = cells.chain(fetchers).filter(|(id, ..)| c.after.is_none_or(|a| *id > a)).collect();
                cells.sort_unstable();
                let cells = cells.into_iter().map(|(machine, runner, console)| CellState { machine, runner, console });
                Ok((CellPage { cells: cells.take(100).collect() }, []))
            }),
            CellRequest::CellUsage(c) => {
                act!(ask, c, fate, |_, _| Ok((cell::Usage { memory: Some(1), cpu_ns: None, disk: None }, [])))
            }
            CellRequest::Facilities(c) => act!(ask, c, fate, |_, _| {
                let state = world.lock();
                let (cpus, mut lacks) = (state.most_cpus, state.lacks.clone());
                // bhyve is its host's vmm(4), and lacks nothing.
                let none = crate::platform::HYPERVISOR == skep_machine::Hypervisor::Qemu && state.kvm.is_none();
                lacks.extend(none.then(|| (Text::lossy("kvm"), Text::lossy("no device in this test"))));
                drop(state);
                let (hypervisor, limits) = (Text::lossy("QEMU of the tests"), ["cpu", "tasks", "cpus"].map(Text::lossy).to_vec());
                Ok((
                    FacilitiesState {
                        hypervisor,
                        uefi: true,
                        limits,
                        own_uids: false,
                        weaker: vec![],
                        shares: vec![],
                        can_share: true,
                        sound: vec![],
                        cpus,
                        keyboards: skep_machine::layouts(crate::platform::HYPERVISOR)
                            .iter()
                            .map(|name| Text::lossy(name))
                            .collect(),
                        lacks,
                    },
                    [],
                ))
            }),
        }
    }
}
