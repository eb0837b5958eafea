//! An installer of our own: an ISO image with a kernel and an initial RAM disk, which reads answers, asks a question on the serial port, makes a
//! partition, copies a system and powers off. So small that a test can wait for it, and otherwise as vendors' are.

use anyhow::{Context, Result};
use std::path::Path;

/// Where the system's partition lies on the guest's disk (scripts/guest): an EFI system partition.
const PARTITION: std::ops::Range<usize> = 1 << 20..47 << 20;

/// What it does. The answers say a name and, if it is no real installation, `mode`.
const INSTALLER: &str = r#"#!/bin/sh
answers=/answers.cfg
if [ ! -e $answers ]; then mount -t vfat -o ro,iocharset=ascii /dev/vdb /mnt; answers=/mnt/answers.cfg; fi
name=$(sed -n 's/^name=//p' $answers) mode=$(sed -n 's/^mode=//p' $answers)
printf '\033[2J\033]0;title\007\302\233The installer of %s\n' "$name"
printf 'Erase the disk? '
read -r yes
[ "$yes" = yes ] || { echo "nothing done"; poweroff -f; }
umount /mnt 2>/dev/null
case $mode in
reboot) reboot -f ;;
fail) printf 'Installation \033[1mfai'; printf 'led-%s\n' "$((6*7))"; while :; do sleep 60; done ;;
wait) echo "waits-$((6*7))"; while :; do sleep 60; done ;;
esac
printf 'n\np\n1\n2048\n\nt\nef\nw\n' | fdisk /dev/vda >/dev/null
dd if=/system of=/dev/vda1 bs=64k 2>/dev/null
mount -t vfat -o iocharset=ascii /dev/vda1 /mnt
echo "of-$name" >/mnt/told
umount /mnt
sync
echo "installed-$((6*7))"
poweroff -f
"#;

/// Makes its ISO image. `guest`: what scripts/guest has made.
pub fn iso(guest: &Path, to: &Path) -> Result<()> {
    let read = |name: &str| std::fs::read(guest.join(name)).with_context(|| name.to_owned());
    let disk = read("disk.img")?;
    let mut initrd = read("initrd")?;
    initrd.resize(initrd.len().next_multiple_of(4), 0);
    cpio(&mut initrd, "installer", 0o100_755, INSTALLER.as_bytes());
    let partition = disk.get(PARTITION).context("a disk that small")?;
    // The disk that it is written to reads as zeros.
    let used = partition.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    cpio(&mut initrd, "system", 0o100_644, partition.get(..used).unwrap_or_default());
    cpio(&mut initrd, "TRAILER!!!", 0, &[]);
    std::fs::write(to, iso9660(&[("KERNEL.;1", &read("kernel")?), ("INITRD.;1", &initrd)], None)?)?;
    Ok(())
}

/// Makes an ISO image that UEFI boots by itself: a live system, the guest's own.
pub fn live(guest: &Path, to: &Path) -> Result<()> {
    let disk = std::fs::read(guest.join("disk.img"))?;
    let partition = disk.get(PARTITION).context("a disk that small")?;
    Ok(std::fs::write(to, iso9660(&[("BOOT.IMG;1", partition)], Some(0))?)?)
}

/// An entry of an archive for an initial RAM disk: cpio(5), `newc`.
fn cpio(to: &mut Vec<u8>, name: &str, mode: u32, data: &[u8]) {
    let fields = [1, mode as usize, 0, 0, 1, 0, data.len(), 0, 0, 0, 0, name.len() + 1, 0];
    to.extend_from_slice(b"070701");
    fields.iter().for_each(|field| to.extend_from_slice(format!("{field:08x}").as_bytes()));
    to.extend_from_slice(name.as_bytes());
    to.push(0);
    to.resize(to.len().next_multiple_of(4), 0);
    to.extend_from_slice(data);
    to.resize(to.len().next_multiple_of(4), 0);
}

/// A directory record (ECMA-119, 9.1): numbers in both orders.
fn record(name: &[u8], sector: u32, bytes: u32, directory: bool) -> Result<Vec<u8>> {
    let both = |number: u32| [number.to_le_bytes(), number.to_be_bytes()].concat();
    let length = (33 + name.len()).next_multiple_of(2);
    let mut record = vec![u8::try_from(length)?, 0];
    record.extend(both(sector));
    record.extend(both(bytes));
    record.extend([126, 11, 28, 0, 0, 0, 0, if directory { 2 } else { 0 }, 0, 0, 1, 0, 0, 1, u8::try_from(name.len())?]);
    record.extend_from_slice(name);
    record.resize(length, 0);
    Ok(record)
}

/// An ISO 9660 file system with these files in a directory `BOOT`. One of them may be what UEFI boots: a FAT file system (El Torito).
fn iso9660(files: &[(&str, &[u8])], bootable: Option<usize>) -> Result<Vec<u8>> {
    const SECTOR: usize = 2048;
    let (root, boot, catalogue) = (19, 20, 21_u32);
    let mut image = vec![0; 22 * SECTOR];
    let mut sectors_of = Vec::new();
    let mut listed = [record(&[0], boot, 2048, true)?, record(&[1], root, 2048, true)?].concat();
    for (name, data) in files {
        let sector = u32::try_from(image.len() / SECTOR)?;
        sectors_of.push(sector);
        listed.extend(record(name.as_bytes(), sector, u32::try_from(data.len())?, false)?);
        image.extend_from_slice(data);
        image.resize(image.len().next_multiple_of(SECTOR), 0);
    }
    let of_root = [record(&[0], root, 2048, true)?, record(&[1], root, 2048, true)?, record(b"BOOT", boot, 2048, true)?].concat();
    let sectors = u32::try_from(image.len() / SECTOR)?;
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(16 * SECTOR, b"\x01CD001\x01");
    put(16 * SECTOR + 80, &[sectors.to_le_bytes(), sectors.to_be_bytes()].concat());
    put(16 * SECTOR + 156, &record(&[0], root, 2048, true)?);
    put(17 * SECTOR, b"\xffCD001\x01");
    if let Some(sector) = bootable.and_then(|number| sectors_of.get(number)) {
        put(17 * SECTOR, b"\0CD001\x01EL TORITO SPECIFICATION");
        put(17 * SECTOR + 0x47, &catalogue.to_le_bytes());
        put(18 * SECTOR, b"\xffCD001\x01");
        // For UEFI (0xef), with a sum of zero; then what is booted, without emulation, up to the end.
        put(21 * SECTOR, &[1, 0xef]);
        put(21 * SECTOR + 28, &[0xaa, 0x66, 0x55, 0xaa]);
        put(21 * SECTOR + 32, &[0x88, 0, 0, 0, 0, 0, 1, 0]);
        put(21 * SECTOR + 40, &sector.to_le_bytes());
    }
    put(19 * SECTOR, &of_root);
    put(20 * SECTOR, &listed);
    Ok(image)
}
