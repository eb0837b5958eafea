//! Disks.

use super::Ref;
use crate::{
    DiskId, DiskName, DiskRates, SnapshotId, SnapshotName, Text,
    iscsi::{Chap, IscsiName, Portal},
    storage::{DiskKind, Packing, SourceFormat},
};
use serde::{Deserialize, Serialize};

/// Makes an empty disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskCreate {
    /// Its name.
    pub name: DiskName,
    /// How to keep it.
    pub kind: DiskKind,
    /// Bytes.
    pub size: u64,
    /// Its group; none: the one that is there from the start.
    pub group: Option<Ref>,
}

/// Makes a disk of an iSCSI target's logical unit, which is asked for its size. Nothing is written there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IscsiCreate {
    /// Its name.
    pub name: DiskName,
    /// Where the target is reached.
    pub portal: Portal,
    /// The target.
    pub target: IscsiName,
    /// The logical unit.
    pub lun: u16,
    /// Who we are to it, if it asks.
    pub chap: Option<Chap>,
    /// Its group; none: the one that is there from the start.
    pub group: Option<Ref>,
}

/// What users are told of an iSCSI disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IscsiView {
    /// Where the target is reached.
    pub portal: Portal,
    /// The target.
    pub target: IscsiName,
    /// The logical unit.
    pub lun: u16,
    /// CHAP's user; empty: none.
    pub user: Text<223>,
    /// What this suite calls itself to the target.
    pub initiator: IscsiName,
}

/// Starts an import. The descriptor is the end that the image is written to, in [`crate::upload`]'s pieces; closing it without the
/// end mark cancels. No descriptor: it is a repeat ([`super::RequestKey`]), and nothing more is to be sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskImport {
    /// Its name.
    pub name: DiskName,
    /// How to keep it.
    pub kind: DiskKind,
    /// How to read what is in the stream.
    pub format: SourceFormat,
    /// What the stream is packed with.
    pub packing: Packing,
    /// Bytes that will come, if known; else 0.
    pub expect: u64,
    /// SHA-256 that they must have.
    pub sha256: Option<[u8; 32]>,
    /// Its group; none: the one that is there from the start.
    pub group: Option<Ref>,
    /// It is an ISO image: kept raw, as it comes, and never written by a machine.
    pub iso: bool,
    /// It is an image, of which this is known. Not with `iso`.
    pub image: Option<ImageFacts>,
    /// What its users say of it.
    pub description: Text<256>,
}

/// Starts to fetch an image from an address. Through the descriptor that comes with the answer go certificates of authorities (PEM, in the
/// form of [`crate::upload`]) that are to be trusted in place of the host's; nothing but the end mark: the host's. If it is `signed`, then
/// public keys likewise, through a second one. A repeat gets none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskFetch {
    /// As it would be imported; its source is the address.
    pub import: DiskImport,
    /// From where: `https://…`.
    pub url: Text<{ crate::fetch::MAX_URL }>,
    /// A list of checksums in which its file's must be.
    pub sums: Option<Text<{ crate::fetch::MAX_URL }>>,
    /// One of the keys that come along must have signed that list or, if there is none, what is fetched.
    pub signed: bool,
    /// In a file of its own, which is there; none: in the list's. Never none where what is fetched is signed itself.
    pub signature: Option<Text<{ crate::fetch::MAX_URL }>>,
}

/// What is known of an image: a disk that machines are made from, which stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageFacts {
    /// Where it came from: a file's name, an address.
    pub source: Text<1024>,
    /// The operating system in it.
    pub os: Text<63>,
    /// The user that its guests let in by SSH key.
    pub user: Text<32>,
    /// Bytes that a disk made of it has at least; 0: as many as the image.
    pub min_disk: u64,
    /// MiB of memory that a machine made of it has at least; 0: any.
    pub min_memory: u32,
}

/// Copies a disk that no running machine writes to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskClone {
    /// The original.
    pub disk: Ref,
    /// Name of the copy.
    pub name: DiskName,
    /// The copy is an image, of which this is known; its source is written by the broker.
    pub image: Option<ImageFacts>,
    /// It stands on nothing, even where it could stand on the original.
    pub full: bool,
    /// Of the disk as it was when this snapshot was made.
    pub snapshot: Option<Ref>,
}

/// Makes a disk larger, while its machine runs, too; or smaller, if that is said and nobody has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskResize {
    /// Which.
    pub disk: Ref,
    /// The new size in bytes.
    pub size: u64,
    /// Whether it may become smaller: its last bytes are lost.
    pub shrink: bool,
}

/// Changes what is said of a disk; what is absent stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskSet {
    /// Which.
    pub disk: Ref,
    /// Its new name.
    pub name: Option<DiskName>,
    /// What its users say of it.
    pub description: Option<Text<256>>,
    /// What is known of an image, but for its source, which stays.
    pub image: Option<ImageFacts>,
    /// How much goes to and from it.
    pub rates: DiskRatesDraft,
}

/// Rates to be changed; what is absent stays. See [`DiskRates`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DiskRatesDraft {
    /// Bytes read.
    pub read_bps: Option<u64>,
    /// Bytes written.
    pub write_bps: Option<u64>,
    /// Reads.
    pub read_iops: Option<u64>,
    /// Writes.
    pub write_iops: Option<u64>,
}

/// Empties a disk: all of it reads as zeros from then on. No running machine may have it, nor may there be snapshots of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskWipe {
    /// Which.
    pub disk: Ref,
}

/// Opens a disk that no running machine writes to, to be read by a client; the descriptor is its file or volume, read-only and locked against
/// whoever would write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskExport {
    /// Which.
    pub disk: Ref,
}

/// Looks one disk up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskGet {
    /// Which.
    pub disk: Ref,
}

/// Lists disks by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskList {
    /// Begin after this name.
    pub after: Option<DiskName>,
    /// Only ISO images, or only what is none.
    pub iso: Option<bool>,
    /// Only images, or only what is none.
    pub image: Option<bool>,
}

/// Deletes a disk that no machine has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskDelete {
    /// Which.
    pub disk: Ref,
}

/// A disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskView {
    /// Its id.
    pub id: DiskId,
    /// Its name.
    pub name: DiskName,
    /// How it is kept.
    pub kind: DiskKind,
    /// Bytes that the guest sees.
    pub size: u64,
    /// Bytes that it occupies, when last asked.
    pub allocated: u64,
    /// SHA-256 of what was imported; empty for others.
    pub sha256: Text<64>,
    /// Names of the machines that have it.
    pub machines: Vec<Text<63>>,
    /// When it was made; nanoseconds since 1970.
    pub created_ns: i64,
    /// Name of its group.
    pub group: Text<63>,
    /// What its users say of it.
    pub description: Text<256>,
    /// Whether it is an ISO image.
    pub iso: bool,
    /// What is known of it, if it is an image.
    pub image: Option<ImageFacts>,
    /// How much goes to and from it.
    pub rates: DiskRates,
    /// Where its bytes are, if it is an iSCSI disk.
    pub iscsi: Option<IscsiView>,
}

/// A page; empty at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskPage {
    /// As many as fit a record.
    pub disks: Vec<DiskView>,
}

/// Makes a snapshot of a disk, whether a machine runs from it or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotCreate {
    /// Of which disk.
    pub disk: Ref,
    /// Its name, among the disk's.
    pub name: SnapshotName,
}

/// Lists snapshots of a disk by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotList {
    /// Of which disk.
    pub disk: Ref,
    /// Begin after this name.
    pub after: Option<SnapshotName>,
}

/// Brings a disk that no running machine has back to a snapshot; a volume to its newest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotRollBack {
    /// Which disk.
    pub disk: Ref,
    /// To which snapshot.
    pub snapshot: Ref,
}

/// Deletes a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotDelete {
    /// Of which disk.
    pub disk: Ref,
    /// Which.
    pub snapshot: Ref,
}

/// Renames a snapshot that is no part of a machine's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotRename {
    /// Of which disk.
    pub disk: Ref,
    /// Which.
    pub snapshot: Ref,
    /// The new name, among the disk's.
    pub name: SnapshotName,
}

/// A snapshot of a disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotView {
    /// Its id.
    pub id: SnapshotId,
    /// Its name.
    pub name: SnapshotName,
    /// Bytes that the guest saw.
    pub size: u64,
    /// Bytes that it occupies alone, when last asked.
    pub used: u64,
    /// When it was made; nanoseconds since 1970.
    pub created_ns: i64,
}

/// A page; empty at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotPage {
    /// As many as fit a record.
    pub snapshots: Vec<SnapshotView>,
}
