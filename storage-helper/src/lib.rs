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

/// For fuzzing: these bytes in a file.
fn fuzz_file(bytes: &[u8]) -> Option<std::fs::File> {
    use std::os::unix::fs::FileExt;
    let file = skep_sys::fd::memory_file(c"image").map(std::fs::File::from).ok()?;
    file.write_all_at(bytes, 0).ok().map(|()| file)
}

/// For fuzzing: reads any bytes as an import does, from the header to the last cluster.
pub fn fuzz_import(bytes: &[u8]) {
    if let Some(file) = fuzz_file(bytes) {
        let _ = format::image::check(&file);
        let _ = format::image::unpack(&file, |_, _| Ok(()));
    }
}

/// For fuzzing: the same of a VMDK.
pub fn fuzz_vmdk(bytes: &[u8]) {
    let _ = fuzz_file(bytes).map(|file| format::vmdk::unpack(&file, |_, _| Ok(())));
}

/// For fuzzing: the same of a VHD.
pub fn fuzz_vhd(bytes: &[u8]) {
    let _ = fuzz_file(bytes).map(|file| format::vhd::unpack(&file, |_, _| Ok(())));
}

/// For fuzzing: the same of a VHDX.
pub fn fuzz_vhdx(bytes: &[u8]) {
    let _ = fuzz_file(bytes).map(|file| format::vhdx::unpack(&file, |_, _| Ok(())));
}

/// For fuzzing: unpacks any bytes, up to 16 MiB of what they hold.
pub fn fuzz_packed(bytes: &[u8]) {
    use std::io::Read;
    let packing = format::packed::detect(bytes);
    let _ = std::io::copy(&mut format::packed::unpack(packing, bytes).take(16 << 20), &mut std::io::sink());
}
