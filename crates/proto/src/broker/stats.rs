//! Counters of running machines: one reading, a stream of them, and those of all machines.

use super::{MachineState, Ref};
use crate::runner::DiskStats;
use crate::{MachineId, MachineName, NicId, Refusal, Text};
use serde::{Deserialize, Serialize};

/// Counters since the hypervisor's start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatsView {
    /// When they were read; nanoseconds since 1970.
    pub read_ns: i64,
    /// CPU time of the hypervisor in nanoseconds.
    pub cpu_ns: u64,
    /// Bytes of memory of the cell; 0 where the host does not count it.
    pub memory: u64,
    /// Disks by slot.
    pub disks: Vec<DiskStats>,
    /// NICs; those that the host does not count are left out.
    pub nics: Vec<NicStats>,
}

/// Counters of one NIC, as the guest sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NicStats {
    /// Which.
    pub id: NicId,
    /// Its name.
    pub name: Text<63>,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Frames received.
    pub rx_packets: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Frames sent.
    pub tx_packets: u64,
}

/// Asks for a reading now and after every interval; the descriptor is a socket of records, each a [`StatsNews`]. No reading is
/// made before the one before it was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatsWatch {
    /// Of which machine.
    pub machine: Ref,
    /// Milliseconds, within [`INTERVALS`].
    pub interval_ms: u32,
}

/// What the interval of a [`StatsWatch`] may be, in milliseconds.
pub const INTERVALS: std::ops::RangeInclusive<u32> = 1_000..=3_600_000;

/// What comes out of a watch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum StatsNews {
    /// A reading.
    Reading(StatsView),
    /// There are no more: the machine ended, or may not be seen any more.
    Ended(Refusal),
}

/// Asks for what a monitoring system wants to know of all machines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetricsGet {
    /// Begin after this name.
    pub after: Option<MachineName>,
}

/// A page; empty at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetricsPage {
    /// As many as fit a record.
    pub machines: Vec<MachineMetrics>,
}

/// One machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineMetrics {
    /// Its id.
    pub id: MachineId,
    /// Its name.
    pub name: MachineName,
    /// Name of its group.
    pub group: Text<63>,
    /// What it is doing.
    pub state: MachineState,
    /// Its virtual CPUs.
    pub cpus: u32,
    /// Its memory in MiB.
    pub memory_mib: u64,
    /// When its hypervisor was started last; 0: never.
    pub started_ns: i64,
    /// Its counters; none if it does not run, or did not answer in time.
    pub stats: Option<StatsView>,
}
