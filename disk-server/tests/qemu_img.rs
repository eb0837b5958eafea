//! Images as qemu-img makes them are served as qemu-img reads them, and what is written it finds right.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use proptest::prelude::*;
use skep_disk_server::image::{Image, Unusable};
use skep_nbd::Export;
use skep_proto::storage::DiskKind;
use std::fs::File;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

fn qemu_img(args: &[&str]) {
    let out = Command::new("qemu-img").args(args).output().expect("qemu-img");
    assert!(out.status.success(), "qemu-img {args:?}: {}", String::from_utf8_lossy(&out.stderr));
}

/// The other end of a served image.
struct Served {
    export: Export<UnixStream>,
    thread: std::thread::JoinHandle<()>,
}

fn open(files: &[(&Path, DiskKind)], size: u64, read_only: bool) -> Result<Image, Unusable> {
    let opened = files
        .iter()
        .enumerate()
        .map(|(at, (path, kind))| (File::options().read(true).write(at == 0 && !read_only).open(path).unwrap(), *kind));
    Image::open(opened.collect(), size, read_only)
}

impl Served {
    fn new(files: &[(&Path, DiskKind)], size: u64, read_only: bool) -> Result<Self, Unusable> {
        let image = open(files, size, read_only)?;
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let thread = std::thread::spawn(move || image.serve(&mut theirs).unwrap());
        let export = Export::open(ours).unwrap();
        assert_eq!(export.size(), size);
        Ok(Self { export, thread })
    }

    fn end(self) {
        drop(self.export);
        self.thread.join().unwrap();
    }
}

const SIZE: u64 = 4 << 20;

/// A raw image, an image upon it in `cluster`s, of which a part is compressed, and an empty one upon that; each is `SIZE` long.
fn chain(dir: &Path, cluster: u32, width: u32) -> (Vec<PathBuf>, Vec<u8>) {
    let [raw, whole, middle, top] = ["raw", "whole", "middle", "top"].map(|name| dir.join(name));
    let text = |path: &PathBuf| path.to_str().unwrap().to_owned();
    let mut bytes: Vec<u8> = (0..SIZE / 8).flat_map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 9).to_le_bytes()).collect();
    std::fs::write(&raw, &bytes[..SIZE as usize / 2]).unwrap();
    bytes[SIZE as usize / 2..].fill(0);
    bytes[700_000..1_100_000].fill(7);
    bytes[3_000_000..3_000_100].fill(9);
    std::fs::write(&whole, &bytes).unwrap();
    let options = format!("cluster_size={cluster}");
    let base = text(&raw);
    qemu_img(&["convert", "-c", "-O", "qcow2", "-o", &options, "-B", &base, "-F", "raw", &text(&whole), &text(&middle)]);
    // As skep keeps them: none names what is under it.
    qemu_img(&["rebase", "-u", "-b", "", &text(&middle)]);
    qemu_img(&["create", "-q", "-f", "qcow2", "-o", &format!("{options},refcount_bits={width}"), &text(&top), &SIZE.to_string()]);
    (vec![top, middle, raw], bytes)
}

fn kinds(files: &[PathBuf]) -> Vec<(&Path, DiskKind)> {
    let kind = |at| if at == 2 { DiskKind::Raw } else { DiskKind::Qcow2 };
    files.iter().enumerate().map(|(at, path)| (path.as_path(), kind(at))).collect()
}

/// What qemu-img reads of it.
fn read_by_qemu(dir: &Path, files: &[PathBuf]) -> Vec<u8> {
    qemu_img(&["check", "-q", "-f", "qcow2", files[0].to_str().unwrap()]);
    let json = format!(
        "json:{{\"driver\":\"qcow2\",\"file\":{{\"driver\":\"file\",\"filename\":{0:?}}},\"backing\":{{\"driver\":\"qcow2\",\"file\":{{\"driver\":\"file\",\"filename\":{1:?}}},\"backing\":{{\"driver\":\"raw\",\"file\":{{\"driver\":\"file\",\"filename\":{2:?}}}}}}}}}",
        files[0], files[1], files[2]
    );
    let out = dir.join("out");
    qemu_img(&["convert", "-O", "raw", &json, out.to_str().unwrap()]);
    std::fs::read(out).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn what_is_written_over_a_chain_reads_the_same_here_and_there(
        bits in prop::sample::select(vec![9u32, 12, 16, 21]), width in prop::sample::select(vec![1u32, 4, 16, 64]),
        writes in prop::collection::vec((0..SIZE / 512, 1u64..300, any::<u8>()), 1..20),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let (files, mut expected) = chain(dir.path(), 1 << bits, width);
        let mut served = Served::new(&kinds(&files), SIZE, false).unwrap();
        for (sector, count, byte) in writes {
            let (from, to) = ((sector * 512) as usize, ((sector + count) * 512).min(SIZE) as usize);
            let bytes = vec![byte; to - from];
            prop_assert_eq!(served.export.write(&bytes, from as u64).unwrap(), 0);
            expected[from..to].copy_from_slice(&bytes);
        }
        let mut seen = vec![1; SIZE as usize];
        prop_assert_eq!(served.export.read(&mut seen, 0).unwrap(), 0);
        prop_assert!(seen == expected);
        // Without its end: whoever kills it now loses nothing.
        prop_assert!(read_by_qemu(dir.path(), &files) == expected);
        prop_assert_eq!(served.export.flush().unwrap(), 0);
        prop_assert!(served.export.read(&mut [0; 1024], SIZE - 512).unwrap() != 0);
        served.end();
        prop_assert!(read_by_qemu(dir.path(), &files) == expected);
        let mut again = Served::new(&kinds(&files), SIZE, true).unwrap();
        prop_assert_eq!(again.export.read(&mut seen, 0).unwrap(), 0);
        prop_assert!(seen == expected);
        prop_assert!(again.export.write(&[0; 512], 0).unwrap() != 0);
        again.end();
    }

    #[test]
    fn any_change_of_an_image_is_read_or_refused(
        changes in prop::collection::vec((0usize..6 * 512, any::<u8>()), 1..8),
        reads in prop::collection::vec(0..SIZE / 512, 1..4),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("image");
        let whole = dir.path().join("whole");
        std::fs::write(&whole, vec![3; 65536]).unwrap();
        File::options().write(true).open(&whole).unwrap().set_len(SIZE).unwrap();
        qemu_img(&["convert", "-O", "qcow2", "-o", "cluster_size=512", whole.to_str().unwrap(), path.to_str().unwrap()]);
        let mut bytes = std::fs::read(&path).unwrap();
        for (at, byte) in changes {
            bytes[at] = byte;
        }
        std::fs::write(&path, bytes).unwrap();
        // A process of its own runs it, whose end by a panic ends one disk: what must not happen is that it serves another size, or never ends.
        let served = std::panic::catch_unwind(|| {
            let Ok(mut served) = Served::new(&[(&path, DiskKind::Qcow2)], SIZE, false) else { return };
            for sector in reads {
                let mut bytes = vec![5; 512];
                let _ = served.export.read(&mut bytes, sector * 512);
                let _ = served.export.write(&bytes, sector * 512);
            }
            served.end();
        });
        drop(served);
    }
}

#[test]
fn what_an_image_names_is_not_opened_and_another_size_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (files, _) = chain(dir.path(), 65536, 16);
    let top = files[0].to_str().unwrap();
    assert!(matches!(open(&kinds(&files), SIZE / 2, false), Err(Unusable::Size(SIZE, _))));
    assert!(matches!(open(&[(&files[2], DiskKind::Raw), (&files[0], DiskKind::Qcow2)], SIZE, true), Err(Unusable::Kind(0))));
    assert!(matches!(open(&[], SIZE, true), Err(Unusable::None)));
    qemu_img(&["rebase", "-u", "-b", files[2].to_str().unwrap(), "-F", "raw", top]);
    assert!(matches!(open(&[(&files[0], DiskKind::Qcow2)], SIZE, true), Err(Unusable::File(0, _))));
    let (data, outside) = (dir.path().join("data"), dir.path().join("outside"));
    let option = format!("data_file={}", data.to_str().unwrap());
    qemu_img(&["create", "-q", "-f", "qcow2", "-o", &option, outside.to_str().unwrap(), &SIZE.to_string()]);
    assert!(matches!(open(&[(&outside, DiskKind::Qcow2)], SIZE, false), Err(Unusable::File(0, _))));
}
