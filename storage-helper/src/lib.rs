//! storage-helper: keeps disks, variable stores and logs, and hands out open descriptors. [`serve`] is the way in; each operation
//! is a function in [`ops`].
#![forbid(unsafe_code)]

pub mod format;
pub mod job;
pub mod ops;
pub mod platform;
pub mod serve;
pub mod store;
pub mod zfs;

/// For fuzzing: reads any bytes as an import does, from the header to the last cluster.
pub fn fuzz_import(bytes: &[u8]) {
    use std::os::unix::fs::FileExt;
    let Ok(file) = skep_sys::fd::memory_file(c"image").map(std::fs::File::from) else { return };
    if file.write_all_at(bytes, 0).is_ok() {
        let _ = format::image::check(&file);
        let _ = format::image::unpack(&file, |_, _| Ok(()));
    }
}
