//! storage-helper: files under `STATE/{disks,firmware,logs}` (and zvols on FreeBSD). It hands out open, limited descriptors.

use crate::{DiskId, MachineId, NoFds, OneFd, SnapshotId, UpTo, names::Text, protocol::protocol, refusal::Refusal};
use serde::{Deserialize, Serialize};
use std::os::fd::OwnedFd;

pub use crate::log::ServiceName;
pub use crate::resize::{Growth, MayGrow, ResizeDisk};
pub use crate::vars::{
    BootRef, EditVars, ListVars, OrderState, ReadVar, VarEdit, VarPage, VarPiece, VarState, VarsEdited, WhoseOrder,
};

/// How a disk is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum DiskKind {
    /// A plain file, sparse.
    Raw,
    /// A QCOW2 file, which names no backing file, whatever it stands on.
    Qcow2,
    /// A ZFS volume (FreeBSD).
    Zvol,
    /// It is an iSCSI target's: nothing of it is kept here.
    Iscsi,
}

/// How the bytes of an import are to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SourceFormat {
    /// What they begin (fixed VHD: end) like, else raw.
    Detect,
    /// As they are, whatever they look like.
    Raw,
    /// QCOW2; anything else is refused.
    Qcow2,
    /// VMDK that is one file; anything else is refused.
    Vmdk,
    /// VHD, fixed or dynamic; anything else is refused.
    Vhd,
    /// VHDX, fixed or dynamic; anything else is refused.
    Vhdx,
}

/// What the stream of an import is packed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Packing {
    /// What it begins like; nothing, if it is to be read as raw.
    Detect,
    /// Nothing, whatever it looks like.
    None,
    /// gzip; anything else is refused.
    Gzip,
    /// xz; anything else is refused.
    Xz,
    /// zstd; anything else is refused.
    Zstd,
    /// bzip2; anything else is refused.
    Bzip2,
}

/// A disk as it lies on the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskState {
    /// Which.
    pub disk: DiskId,
    /// How it is kept.
    pub kind: DiskKind,
    /// Bytes that the guest sees.
    pub size: u64,
    /// Bytes that it occupies on the host.
    pub allocated: u64,
}

/// Makes an empty disk. Making one that exists with the same kind and size succeeds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateDisk {
    /// Its id; the file's name.
    pub disk: DiskId,
    /// How to keep it.
    pub kind: DiskKind,
    /// Bytes; a multiple of 512, 1 MiB to 64 TiB. A volume is made of whole blocks and may be a little larger.
    pub size: u64,
}

/// Starts to fill a new disk from a stream. Descriptors: the stream (pipe, socket or file, in [`crate::upload`]'s pieces, read to
/// its end mark), the job's channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportDisk {
    /// Its id.
    pub disk: DiskId,
    /// How to keep it: `Raw` and `Zvol` convert other formats, `Qcow2` keeps QCOW2 (and refuses others).
    pub kind: DiskKind,
    /// How to read what is in the stream.
    pub format: SourceFormat,
    /// What the stream is packed with.
    pub packing: Packing,
    /// Most bytes that the stream may have, that it may have unpacked where that is kept, and that may be written of the disk.
    pub limit: u64,
    /// Most bytes that the disk may have.
    pub most: u64,
    /// Bytes that the stream will have, if known: the total of the progress, and checked at the end. 0: unknown.
    pub expect: u64,
    /// SHA-256 that the stream must have.
    pub sha256: Option<[u8; 32]>,
}

/// Starts to copy a disk: sharing its blocks where the file system can, or it is a volume, else only what is allocated. Descriptor: the job's channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloneDisk {
    /// The source; nobody may be writing to it (the broker sees to that), unless it is copied as a snapshot has it.
    pub from: DiskId,
    /// As it was when this snapshot was made, of a volume. The copy shares blocks with it, which stays for that long.
    pub snapshot: Option<SnapshotId>,
    /// The new disk.
    pub to: DiskId,
    /// Kind of both.
    pub kind: DiskKind,
}

/// A job has begun; everything else comes over its channel as [`JobRecord`]s.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobStarted {}

/// What a job sends over its channel (one record each, no hello). Closing the other end cancels the job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum JobRecord {
    /// So far.
    Progress {
        /// Bytes.
        done: u64,
        /// Bytes; 0 if unknown.
        total: u64,
    },
    /// The last record.
    Done(Result<JobDone, Refusal>),
}

/// A finished job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobDone {
    /// The disk that is now there.
    pub disk: DiskState,
    /// SHA-256 of the stream (imports).
    pub sha256: Option<[u8; 32]>,
}

/// Opens a disk for a hypervisor, with an exclusive lock unless read-only: whoever holds the descriptor holds the lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenDisk {
    /// Which.
    pub disk: DiskId,
    /// Its kind.
    pub kind: DiskKind,
    /// Open it for reading only (shared lock).
    pub read_only: bool,
    /// Pass by the host's cache (`O_DIRECT`), where the opener decides that (FreeBSD; QEMU does it for itself).
    pub no_cache: bool,
    /// Have each write on the medium before it is done (`O_SYNC`), likewise.
    pub sync: bool,
}

/// An open disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskOpened {
    /// As it is now.
    pub disk: DiskState,
    /// Bytes that its file may come to have while it is used as what it is. 0: it is no file.
    pub most: u64,
}

/// A file that a disk stands on: it stays as it is. Which stands on which is the broker's to know: no file says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Layer {
    /// Its id; the file's name.
    pub layer: DiskId,
    /// How it is kept; `Raw` or `Qcow2`.
    pub kind: DiskKind,
}

/// Opens a layer for a hypervisor that has a disk upon it: for reading only, with a shared lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenLayer {
    /// Which.
    pub layer: Layer,
    /// Its writer may still have it, and with it the lock: it is opened without one.
    pub held: bool,
    /// As of [`OpenDisk`].
    pub no_cache: bool,
    /// Likewise.
    pub sync: bool,
}

/// Starts to make one QCOW2 file of several layers, which stand on one another: what the first `merged` of them hold. Descriptor: the job's
/// channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MergeLayers {
    /// All of a disk, the topmost first; at most 17.
    pub layers: Vec<Layer>,
    /// How many of them become one, 1 to all; the others stay under it.
    pub merged: u8,
    /// The new file.
    pub to: DiskId,
    /// The topmost may still have its writer: it is read without a lock.
    pub held: bool,
}

/// Makes a disk that nobody has open an empty one of its size. A volume's snapshots are refused; one that is not there is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WipeDisk {
    /// Which.
    pub disk: DiskId,
    /// Its kind.
    pub kind: DiskKind,
    /// Bytes that it has.
    pub size: u64,
}

/// Deletes a disk with its snapshots. Deleting one that is not there succeeds; one that somebody holds open for writing is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteDisk {
    /// Which.
    pub disk: DiskId,
    /// Its kind.
    pub kind: DiskKind,
}

/// Lists disks in the order of their ids.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListDisks {
    /// Begin after this one.
    pub after: Option<DiskId>,
}

/// A page of [`ListDisks`]; empty at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskPage {
    /// At most 100.
    pub disks: Vec<DiskState>,
}

/// Opens a machine's UEFI variable store, made from the firmware's template at first use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenVars {
    /// Whose.
    pub machine: MachineId,
}

/// Copies one machine's variable store for another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloneVars {
    /// Whose; without a store nothing is copied.
    pub from: MachineId,
    /// For whom.
    pub to: MachineId,
}

/// A machine's logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum LogKind {
    /// What came out of the first serial port.
    Serial,
    /// The hypervisor's standard error: its last words.
    Hypervisor,
    /// What came out of the second serial port.
    Serial2,
    /// Of the third.
    Serial3,
    /// Of the fourth.
    Serial4,
}

impl LogKind {
    /// That of a serial port by its number.
    pub fn of_port(port: u8) -> Option<Self> {
        Some(match port {
            1 => Self::Serial,
            2 => Self::Serial2,
            3 => Self::Serial3,
            4 => Self::Serial4,
            _ => return None,
        })
    }
}

/// Opens both halves of a machine's log for its writer, which fills one and then truncates and fills the other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenLogWriter {
    /// Whose.
    pub machine: MachineId,
    /// Which.
    pub log: LogKind,
}

/// Opens both halves of a machine's log for reading, older half first; fewer if there are fewer. To follow it, both are made, and
/// where one is needed a watcher comes along as the last descriptor ([`LogOpened`]).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenLogReader {
    /// Whose.
    pub machine: MachineId,
    /// Which.
    pub log: LogKind,
    /// Whether what is written later is wanted, too.
    pub follow: bool,
}

/// How many of the descriptors are the log, older part first. One more is a watcher of them (skep_sys::changes).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogOpened {
    /// At most 2.
    pub files: u8,
}

/// Opens the log of a service of the suite for reading: what it moved to the former file, if there is that, and the present one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenServiceLog {
    /// Whose.
    pub service: ServiceName,
    /// Whether what is written later is wanted, too.
    pub follow: bool,
}

/// Deletes a machine's variable store and logs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteMachineFiles {
    /// Whose.
    pub machine: MachineId,
}

/// Asks for the space that is left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Space {}

/// Space where the disks lie.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpaceState {
    /// Bytes in all.
    pub total: u64,
    /// Bytes that may still be written.
    pub free: u64,
    /// Type of the file system, as the kernel names or numbers it.
    pub filesystem: Text<32>,
    /// Whether copies can share blocks here (found by trying).
    pub reflink: bool,
}

/// Asks for the space that is left for ZFS volumes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeSpace {}

/// A snapshot of a disk as it lies on the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotState {
    /// Which.
    pub snapshot: SnapshotId,
    /// Bytes that the guest saw then.
    pub size: u64,
    /// Bytes that it occupies alone.
    pub used: u64,
    /// Of two snapshots of a disk the newer one has the higher number.
    pub order: u64,
    /// When it was made, by the host's clock.
    pub created_ns: i64,
}

/// Makes a snapshot of a disk (ZFS volumes only), which may be open. Making one that exists succeeds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateSnapshot {
    /// Of which disk.
    pub disk: DiskId,
    /// The disk's kind.
    pub kind: DiskKind,
    /// Its id.
    pub snapshot: SnapshotId,
}

/// Lists snapshots of a disk in the order of their ids.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListSnapshots {
    /// Of which disk.
    pub disk: DiskId,
    /// The disk's kind.
    pub kind: DiskKind,
    /// Begin after this one.
    pub after: Option<SnapshotId>,
}

/// A page of [`ListSnapshots`]; empty at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotPage {
    /// At most 100.
    pub snapshots: Vec<SnapshotState>,
}

/// Brings a disk that nobody has open back to its newest snapshot, its size included.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RollBackDisk {
    /// Which.
    pub disk: DiskId,
    /// Its kind.
    pub kind: DiskKind,
    /// To which snapshot; one with newer ones is refused.
    pub snapshot: SnapshotId,
}

/// Deletes a snapshot. Deleting one that is not there succeeds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteSnapshot {
    /// Of which disk.
    pub disk: DiskId,
    /// The disk's kind.
    pub kind: DiskKind,
    /// Which.
    pub snapshot: SnapshotId,
}

/// Done, nothing to say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {}

protocol! {
    /// The protocol of storage-helper; its only client is the broker.
    Storage = "storage-helper", version 9, oldest 9, StorageRequest {
        0 CreateDisk [NoFds] => DiskState [NoFds];
        1 ImportDisk [[OwnedFd; 2]] => JobStarted [NoFds];
        2 CloneDisk [OneFd] => JobStarted [NoFds];
        3 OpenDisk [NoFds] => DiskOpened [OneFd];
        4 ResizeDisk [NoFds] => DiskState [NoFds];
        5 DeleteDisk [NoFds] => Done [NoFds];
        6 ListDisks [NoFds] => DiskPage [NoFds];
        7 OpenVars [NoFds] => Done [OneFd];
        8 CloneVars [NoFds] => Done [NoFds];
        9 OpenLogWriter [NoFds] => Done [[OwnedFd; 2]];
        10 OpenLogReader [NoFds] => LogOpened [UpTo<3>];
        11 DeleteMachineFiles [NoFds] => Done [NoFds];
        12 Space [NoFds] => SpaceState [NoFds];
        13 VolumeSpace [NoFds] => SpaceState [NoFds];
        14 CreateSnapshot [NoFds] => SnapshotState [NoFds];
        15 ListSnapshots [NoFds] => SnapshotPage [NoFds];
        16 RollBackDisk [NoFds] => DiskState [NoFds];
        17 DeleteSnapshot [NoFds] => Done [NoFds];
        18 ListVars [NoFds] => VarPage [NoFds];
        19 ReadVar [NoFds] => VarPiece [NoFds];
        20 EditVars [NoFds] => VarsEdited [NoFds];
        21 WhoseOrder [NoFds] => OrderState [NoFds];
        22 WipeDisk [NoFds] => DiskState [NoFds];
        23 OpenServiceLog [NoFds] => LogOpened [UpTo<3>];
        24 OpenLayer [NoFds] => DiskOpened [OneFd];
        25 MergeLayers [OneFd] => JobStarted [NoFds];
        26 MayGrow [NoFds] => Growth [NoFds];
    }
}
