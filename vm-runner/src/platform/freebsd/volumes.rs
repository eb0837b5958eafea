//! What ZFS counts of a volume: statistics of its dataset below `kstat.zfs`, since the host has it.

use skep_proto::DiskCounts;
use skep_sys::freebsd::ask::{sysctl, sysctl_name, sysctl_next, sysctl_numbers, text_of};
use std::ffi::CString;
use std::io;

/// The last of the names of a dataset's statistics that comes first.
const NAME: &str = "dataset_name";

/// What is counted of the volume whose own name, without the datasets that it is in, is this. `None`: there is none.
pub fn counts(volume: &str) -> io::Result<Option<DiskCounts>> {
    let root = sysctl_numbers(c"kstat.zfs")?;
    let mut at = root.clone();
    while let Some(next) = sysctl_next(&at)?.filter(|next| next.starts_with(&root)) {
        let name = sysctl_name(&next)?;
        at = match (name.strip_suffix(NAME), next.split_last()) {
            (Some(prefix), Some((_, dataset))) => {
                // One may go meanwhile.
                let full = sysctl(&next).map(|bytes| text_of(&bytes)).unwrap_or_default();
                if full.rsplit('/').next() == Some(volume) {
                    return read(prefix).map(Some);
                }
                // The rest of what is counted of it is not looked at.
                [dataset, &[i32::MAX]].concat()
            }
            _ => next,
        };
    }
    Ok(None)
}

fn read(prefix: &str) -> io::Result<DiskCounts> {
    let number = |name: &str| {
        let name = CString::new(format!("{prefix}{name}"))?;
        let bytes = sysctl(&sysctl_numbers(&name)?)?;
        let number = bytes.first_chunk().ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
        Ok::<_, io::Error>(u64::from_ne_bytes(*number))
    };
    Ok(DiskCounts {
        read_bytes: number("nread")?,
        write_bytes: number("nwritten")?,
        read_ops: number("reads")?,
        write_ops: number("writes")?,
    })
}
