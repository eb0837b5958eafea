//! What the helpers of the tests remember: the "host".

use skep_ipc::ProtocolError;
use skep_proto::runner::{End, Phase, RunnerEvent};
use skep_proto::{DiskId, MachineId, Refusal, SnapshotId, wire};
use skep_sys::msg;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Where a call is cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// The helper dies before it has acted.
    Before,
    /// It dies after it has acted, before it has answered.
    After,
    /// The broker dies while the helper acts.
    Broker,
}

/// A cell.
pub struct FakeCell {
    pub phase: Phase,
    pub last_end: Option<End>,
    pub starts: u32,
    pub console: bool,
    /// What is started in it shows whether KVM works.
    pub tries_kvm: bool,
    pub watchers: Vec<OwnedFd>,
    /// Threads that serve its sockets end when these are dropped.
    pub lives: Vec<OwnedFd>,
}

#[derive(Default)]
pub struct State {
    pub disks: BTreeMap<DiskId, u64>,
    /// What was asked of a hypervisor last: this disk may become so large.
    pub growing: Option<(DiskId, u64)>,
    /// Disks that hypervisors made larger.
    pub grown: Vec<skep_proto::runner::GrowDisk>,
    /// Sizes that storage-helper was asked for, and whether less than before was meant.
    pub resized: Vec<(u64, bool)>,
    /// In the order in which they were made.
    pub snapshots: Vec<(DiskId, SnapshotId, u64)>,
    pub vars: BTreeSet<MachineId>,
    /// Of variables, in their order; and whether the last one set a boot order.
    pub edits: Vec<skep_proto::storage::VarEdit>,
    pub own_order: bool,
    /// CPUs that the host's kernel gives a machine.
    pub most_cpus: Option<u16>,
    /// There is a device for KVM: how the guest ends by which it is tried; none: not at all.
    pub kvm: Option<Option<End>>,
    /// Whether the cell that was made last has it.
    pub accelerated: bool,
    /// What the spawner says that the host lacks.
    pub lacks: Vec<(skep_proto::Text<32>, skep_proto::Text<200>)>,
    pub bridges: BTreeSet<u16>,
    /// By the numbers of their switches.
    pub tunnels: BTreeMap<u16, skep_proto::tunnel::Tunnel>,
    /// Subnets that the host reaches without us.
    pub reached: Vec<skep_proto::Subnet>,
    /// IPv6 networks of switches, as the helper was told last; and whether the host reaches the next one without us.
    pub sixes: HashMap<u16, Option<skep_proto::Subnet6>>,
    pub reaches_next_six: bool,
    /// Ports of the host's that lead to guests of a switch.
    pub forwards: HashMap<u16, Vec<skep_proto::net::PortForward>>,
    pub cells: BTreeMap<MachineId, FakeCell>,
    /// Disks whose images are being fetched.
    pub fetchers: Vec<DiskId>,
    /// Of the cell that was made last.
    pub limits: Option<skep_proto::cell::Limits>,
    /// Why the spawner makes no cell.
    pub unkept: Option<skep_proto::Refusal>,
    /// Every call so far.
    pub calls: Vec<&'static str>,
    pub cut: Option<(usize, Cut)>,
    /// The next call of this name waits for `resume`.
    pub block: Option<&'static str>,
    /// Copies stay unfinished until somebody takes them from here.
    pub hold_jobs: bool,
    pub jobs: Vec<(DiskId, OwnedFd)>,
    /// Guests ignore their power button.
    pub deaf: bool,
    /// The next start of a hypervisor fails with this.
    pub crash: Option<Refusal>,
    resumed: bool,
}

/// See the module.
#[derive(Clone, Default)]
pub struct World {
    state: Arc<(Mutex<State>, Condvar)>,
    /// Something happened.
    pub news: Arc<Notify>,
    /// The broker is to die now.
    pub die: Arc<Notify>,
}

/// Whether this call is cut off after its act.
pub struct Fate(pub bool, Arc<Notify>);

impl Drop for Fate {
    /// The call has ended: whoever looked while it was at work looks again.
    fn drop(&mut self) {
        self.1.notify_one();
    }
}

impl World {
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.0.lock().expect("a test has failed elsewhere")
    }

    /// A call begins.
    pub fn begin(&self, op: &'static str) -> Result<Fate, ProtocolError> {
        let mut state = self.lock();
        state.calls.push(op);
        let number = state.calls.len() - 1;
        self.news.notify_one();
        if state.block == Some(op) {
            (state.block, state.cut) = (None, Some((number, Cut::Broker)));
        }
        match state.cut {
            Some((at, Cut::Before)) if at == number => Err(ProtocolError::Order("a test")),
            Some((at, Cut::After)) if at == number => Ok(Fate(true, self.news.clone())),
            Some((at, Cut::Broker)) if at == number => {
                state.resumed = false;
                self.die.notify_one();
                drop(self.state.1.wait_while(state, |s| !s.resumed));
                Ok(Fate(false, self.news.clone()))
            }
            _ => Ok(Fate(false, self.news.clone())),
        }
    }

    /// The broker is dead; calls that it was at go on.
    pub fn resume(&self) {
        self.lock().resumed = true;
        self.state.1.notify_all();
    }

    /// A runner says something to whoever watches.
    pub fn tell(&self, machine: MachineId, event: &RunnerEvent) {
        let mut state = self.lock();
        let Some(cell) = state.cells.get_mut(&machine) else { return };
        match event {
            RunnerEvent::Phase(phase) => cell.phase = *phase,
            RunnerEvent::Ended(End::Reboot | End::Reset) => cell.starts += 1,
            RunnerEvent::Ended(end) => (cell.phase, cell.last_end) = (Phase::Ended, Some(end.clone())),
        }
        let bytes = wire::encode(event).expect("fits");
        let deadline = Some(Instant::now() + Duration::from_secs(5));
        cell.watchers.retain(|w| msg::send(w.as_fd(), &bytes, &[], deadline).is_ok());
        self.news.notify_one();
    }
}
