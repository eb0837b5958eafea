//! Files that stand on one another, through the program.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod support;

use skep_proto::storage::*;
use skep_proto::{DiskId, Reason, Refusal};
use skep_sys::sock;
use std::fs::File;
use std::os::unix::fs::FileExt;
use support::*;

const MIB: u64 = 1 << 20;

fn write(helper: &mut Helper, layer: Layer, at: u64, bytes: &[u8]) {
    let call = OpenDisk { disk: layer.layer, kind: layer.kind, read_only: false, no_cache: false, sync: false };
    let (_, [file]) = helper.call(call, []).unwrap();
    File::from(file).write_all_at(bytes, at).unwrap();
}

fn open(layer: Layer, held: bool) -> OpenLayer {
    OpenLayer { layer, held, no_cache: false, sync: false }
}

fn merge(helper: &mut Helper, call: MergeLayers) -> Result<JobDone, Refusal> {
    let (ours, theirs) = sock::seqpacket_pair().unwrap();
    helper.call(call, [theirs])?;
    finish(&ours).1
}

fn layer(helper: &mut Helper, kind: DiskKind) -> Layer {
    Layer { layer: helper.create(kind, MIB), kind }
}

#[test]
fn layers_are_opened_for_reading_and_shared() {
    let place = Place::new();
    let mut helper = place.start();
    for kind in [DiskKind::Raw, DiskKind::Qcow2] {
        let base = layer(&mut helper, kind);
        let (opened, [one]) = helper.call(open(base, false), []).unwrap();
        assert_eq!(opened.disk.size, MIB);
        let (_, [two]) = helper.call(open(base, false), []).unwrap();
        assert!(File::from(one).write_all_at(b"x", 0).is_err(), "a layer can be written");
        // Whoever would write it, or delete it, is refused while somebody stands on it.
        let writes = OpenDisk { disk: base.layer, kind, read_only: false, no_cache: false, sync: false };
        refused(helper.call(writes.clone(), []), Reason::InUse);
        refused(helper.ask(DeleteDisk { disk: base.layer, kind }), Reason::InUse);
        drop(two);
        let (_, [writer]) = helper.call(writes, []).unwrap();
        refused(helper.call(open(base, false), []), Reason::InUse);
        helper.call(open(base, true), []).unwrap();
        drop(writer);
    }
    let none = Layer { layer: DiskId::random(), kind: DiskKind::Qcow2 };
    refused(helper.call(open(none, false), []), Reason::NotFound);
    refused(helper.call(open(Layer { kind: DiskKind::Zvol, ..none }, false), []), Reason::Unsupported);
}

#[test]
fn layers_are_merged_into_one() {
    let place = Place::new();
    let mut helper = place.start();
    let [raw, top] = [DiskKind::Raw, DiskKind::Qcow2].map(|kind| layer(&mut helper, kind));
    write(&mut helper, raw, 65536, &[7; 4096]);
    let to = DiskId::random();
    let call = MergeLayers { layers: vec![top, raw], merged: 2, to, held: false };
    for wrong in [
        MergeLayers { layers: vec![], ..call.clone() },
        MergeLayers { merged: 0, ..call.clone() },
        MergeLayers { merged: 3, ..call.clone() },
        MergeLayers { layers: vec![raw, top], ..call.clone() },
        MergeLayers { layers: vec![top; 18], ..call.clone() },
    ] {
        refused(merge(&mut helper, wrong), Reason::InvalidValue);
    }
    let done = merge(&mut helper, call.clone()).unwrap();
    assert_eq!((done.disk.disk, done.disk.kind, done.disk.size), (to, DiskKind::Qcow2, MIB));
    refused(merge(&mut helper, call.clone()), Reason::AlreadyExists);
    // One that is being written is merged only if that was said.
    let writes = OpenDisk { disk: top.layer, kind: top.kind, read_only: false, no_cache: false, sync: false };
    let (_, [writer]) = helper.call(writes, []).unwrap();
    let again = MergeLayers { to: DiskId::random(), ..call };
    refused(merge(&mut helper, again.clone()), Reason::InUse);
    merge(&mut helper, MergeLayers { held: true, ..again }).unwrap();
    drop(writer);
    if !has_qemu_img("layers_are_merged_into_one") {
        return;
    }
    let path = |name: String| place.state().join("disks").join(name).to_str().unwrap().to_owned();
    let merged = path(format!("{to}.qcow2"));
    qemu_img(&["check", &merged]).unwrap();
    qemu_img(&["compare", "-f", "qcow2", "-F", "raw", &merged, &path(format!("{}.raw", raw.layer))]).unwrap();
}

#[test]
fn a_layer_that_names_a_file_under_it_is_refused() {
    let place = Place::new();
    let mut helper = place.start();
    let [top, base] = [DiskKind::Qcow2; 2].map(|kind| layer(&mut helper, kind));
    // As a hypervisor could that was taken over: backing_file_offset and its length, and a name.
    let file = File::options().write(true).open(place.state().join(format!("disks/{}.qcow2", top.layer))).unwrap();
    for (at, bytes) in [(8, &200u64.to_be_bytes()[..]), (16, &11u32.to_be_bytes()), (200, b"/etc/passwd")] {
        file.write_all_at(bytes, at).unwrap();
    }
    refused(helper.call(open(top, false), []), Reason::NamesOtherFile);
    let call = MergeLayers { layers: vec![top, base], merged: 2, to: DiskId::random(), held: false };
    refused(merge(&mut helper, call), Reason::NamesOtherFile);
    assert_eq!(place.files().len(), 2);
}
