//! Names of what lies below the suite's dataset. They are made of ids, never of users' text.

use skep_proto::{DiskId, SnapshotId};
use std::fmt;
use std::str::FromStr;

/// Longest name of anything in ZFS (`ZFS_MAX_DATASET_NAME_LEN` without the NUL).
const LONGEST: usize = 255;
/// What stands behind the dataset's name at most: `/UUID@clone-UUID`.
const BEHIND: usize = 1 + 36 + 1 + 6 + 36;
/// Most components. (zfs(8) has 50.)
const DEEPEST: usize = 16;

/// The file system below which the volumes lie, `pool/skep`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dataset(String);

/// Text that is no dataset of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "not the name of a dataset of its own in a pool, such as zroot/skep: letters, digits, `-`, `_`, `.` and `:`, a letter first"
)]
pub struct BadDataset;

impl FromStr for Dataset {
    type Err = BadDataset;

    /// A pool alone is refused: what is set on the dataset should reach nothing else.
    fn from_str(text: &str) -> Result<Self, BadDataset> {
        let component = |part: &str| {
            !part.is_empty()
                && part != "."
                && part != ".."
                && part.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_.:".contains(&c))
        };
        let parts = text.split('/').count();
        let good = text.len() + BEHIND <= LONGEST
            && (2..=DEEPEST).contains(&parts)
            && text.split('/').all(component)
            && text.starts_with(|c: char| c.is_ascii_alphabetic());
        if good { Ok(Self(text.to_owned())) } else { Err(BadDataset) }
    }
}

impl fmt::Display for Dataset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Dataset {
    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its pool.
    pub fn pool(&self) -> &str {
        self.0.split('/').next().unwrap_or_default()
    }

    /// A disk's volume.
    pub fn volume(&self, disk: DiskId) -> String {
        format!("{self}/{disk}")
    }

    /// The disk that a volume directly below this dataset is, if its name is one of ours.
    pub fn disk(&self, volume: &str) -> Option<DiskId> {
        volume.strip_prefix(self.as_str())?.strip_prefix('/')?.parse().ok()
    }
}

/// A snapshot of a volume, by what stands behind its `@`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// One that was asked for.
    Asked(SnapshotId),
    /// One that a copy shares blocks through; it goes with the copy.
    Clone(DiskId),
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Mark::Asked(snapshot) => snapshot.fmt(f),
            Mark::Clone(disk) => write!(f, "clone-{disk}"),
        }
    }
}

impl FromStr for Mark {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text.strip_prefix("clone-") {
            Some(disk) => disk.parse().map(Mark::Clone).map_err(drop),
            None => text.parse().map(Mark::Asked).map_err(drop),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn hostile_datasets_are_refused() {
        for good in ["zroot/skep", "p/a/b", "tank/vm_1.x:y-z"] {
            assert_eq!(good.parse::<Dataset>().unwrap().to_string(), good);
        }
        let long = format!("p/{}", "x".repeat(200));
        let deep = format!("p{}", "/x".repeat(16));
        for bad in [
            "",
            "zroot",
            "/zroot/skep",
            "zroot/skep/",
            "zroot//skep",
            "zroot/../skep",
            "zroot/./skep",
            "zroot/skep@a",
            "zroot/skep#a",
            "zroot/sk%ep",
            "zroot/sk ep",
            "zroot/sk\0ep",
            "zroot/sk*",
            "zroot/sk[a]",
            "zroot/sk?",
            "1root/skep",
            "zroot/\u{e4}",
            "-p/skep",
            &long,
            &deep,
        ] {
            assert_eq!(bad.parse::<Dataset>(), Err(BadDataset), "{bad:?}");
        }
    }

    #[test]
    fn only_names_of_ids_directly_below_are_ours() {
        let dataset: Dataset = "zroot/skep".parse().unwrap();
        let disk = DiskId::from_u128(7);
        assert_eq!(dataset.disk(&dataset.volume(disk)), Some(disk));
        let id = "00000000-0000-0000-0000-000000000007";
        for other in [
            "zroot/skep".to_owned(),
            "zroot/skep/".into(),
            "zroot/skep/swap".into(),
            format!("zroot/skepx/{id}"),
            format!("zroot/skep{id}"),
            format!("zroot/skep/a/{id}"),
            format!("zroot/skep/{id}/x"),
            format!("zroot/skep/{id}@x"),
            format!("zroot/skep/{id} "),
            format!("zroot/skep/{}", id.replace('7', "A")),
            format!("tank/skep/{id}"),
        ] {
            assert_eq!(dataset.disk(&other), None, "{other}");
        }
        assert_eq!(dataset.pool(), "zroot");
    }

    #[test]
    fn marks_are_read_as_they_are_written() {
        for mark in [Mark::Asked(SnapshotId::from_u128(1)), Mark::Clone(DiskId::from_u128(2))] {
            assert_eq!(mark.to_string().parse(), Ok(mark));
        }
        for other in [
            "",
            "auto-2026",
            "clone-",
            "clone-x",
            "clone-clone-00000000-0000-0000-0000-000000000002",
            "x00000000-0000-0000-0000-000000000002",
        ] {
            assert_eq!(other.parse::<Mark>(), Err(()), "{other}");
        }
    }
}
