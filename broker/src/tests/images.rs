//! Images: disks that machines are made from.

use super::requests::{reason, text};
use super::subnets::launch;
use super::suite::{Life, Suite};
use skep_proto::broker::*;
use skep_proto::storage::{DiskKind, Packing, SourceFormat};
use skep_proto::{Reason, Text, upload};
use std::io::Write;

fn facts() -> ImageFacts {
    let (source, os, user) = (Text::lossy("debian-12.raw"), Text::lossy("Debian 12"), Text::lossy("debian"));
    ImageFacts { source, os, user, min_disk: 3 << 20, min_memory: 700 }
}

fn import(name: &str) -> DiskImport {
    DiskImport {
        name: name.parse().expect("a name"),
        kind: DiskKind::Raw,
        format: SourceFormat::Detect,
        packing: Packing::Detect,
        expect: 0,
        sha256: None,
        group: None,
        iso: false,
        image: Some(facts()),
        description: Text::lossy("ours"),
    }
}

#[test]
fn an_image_stays_as_it_is_and_machines_are_what_it_says_at_least() {
    Suite::new().live(async |life: Life| {
        life.up().await;
        let mut s = life.session().await;
        let both = s.import_with(DiskImport { iso: true, ..import("deb") }).await.expect_err("one or the other");
        assert_eq!((both.reason, both.field.as_str()), (Reason::InvalidValue, "image"));
        let (op, stream) = s.import_with(import("deb")).await.expect("begun");
        let piece = [&upload::header(1 << 20).expect("a length")[..], &[7; 1 << 20], &upload::END].concat();
        // More than a pipe holds.
        std::thread::spawn(move || std::fs::File::from(stream).write_all(&piece).expect("written"));
        s.done(op).await.expect("imported");
        s.disk("data").await.expect("a disk");
        let names = async |s: &mut super::suite::Session, image| {
            let disks = s.ask(DiskList { after: None, iso: None, image }).await.expect("a list").disks;
            disks.iter().map(|disk| disk.name.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(names(&mut s, Some(true)).await, ["deb"]);
        assert_eq!(names(&mut s, Some(false)).await, ["data"]);
        let deb = s.ask(DiskGet { disk: text("deb") }).await.expect("there");
        assert_eq!((deb.image, deb.description.as_str()), (Some(facts()), "ours"));

        // It stays as it is.
        assert_eq!(reason(s.ask(DiskResize { disk: text("deb"), size: 1 << 22, shrink: false }).await), Reason::WrongState);
        assert_eq!(reason(s.ask(DiskWipe { disk: text("deb") }).await), Reason::WrongState);
        let flags = DiskFlags::default();
        let draft = DiskDraft { disk: text("deb"), controller: Controller::VirtioBlk, read_only: false, flags, on: None };
        let settings = Settings { disks: Some(vec![draft]), ..Settings::default() };
        let create = MachineCreate { name: "wrong".parse().expect("a name"), settings, group: None };
        let writes = s.ask(create).await.expect_err("it would be written");
        assert_eq!((writes.reason, writes.field.as_str()), (Reason::InvalidValue, "disks"));

        // Changed in what is known of it, but for where it came from.
        let other = ImageFacts { source: Text::lossy("elsewhere"), os: Text::lossy("Debian"), ..facts() };
        let set = |disk| DiskSet {
            disk: text(disk),
            name: None,
            description: None,
            image: Some(other.clone()),
            rates: DiskRatesDraft::default(),
        };
        let changed = s.ask(set("deb")).await.expect("changed").image.expect("an image");
        assert_eq!((changed.source, changed.os.as_str()), (facts().source, "Debian"));
        let no_image = s.ask(set("data")).await.expect_err("no image");
        assert_eq!((no_image.reason, no_image.field.as_str()), (Reason::WrongState, "image"));

        // Machines of it are what it says at least.
        let data = postcard::to_stdvec(&GuestData::default()).expect("bytes");
        let small = launch(&mut s, "web", &data, |l| (l.image, l.size) = (text("deb"), 2 << 20)).await.expect_err("small");
        assert_eq!((small.reason, small.field.as_str()), (Reason::InvalidValue, "size_bytes"), "{small}");
        let small = launch(&mut s, "web", &data, |l| (l.image, l.settings.memory_mib) = (text("deb"), Some(512)));
        let small = small.await.expect_err("small");
        assert_eq!((small.reason, small.field.as_str()), (Reason::InvalidValue, "memory"), "{small}");
        launch(&mut s, "web", &data, |l| (l.image, l.settings.memory_mib) = (text("deb"), None)).await.expect("launched");
        assert_eq!(s.get("web").await.expect("there").memory_mib, 700);
        let root = s.ask(DiskGet { disk: text("web-root") }).await.expect("there");
        assert_eq!((root.size, root.image), (3 << 20, None));

        // One is made of a disk; a copy of it is a disk.
        let clone = |disk, name: &str, image| DiskClone {
            disk: text(disk),
            name: name.parse().expect("a name"),
            image,
            full: false,
            snapshot: None,
        };
        let op = s.ask(clone("data", "ours", Some(facts()))).await.expect("begun");
        s.done(op).await.expect("made");
        let ours = s.ask(DiskGet { disk: text("ours") }).await.expect("there");
        assert_eq!(ours.image.expect("an image").source.as_str(), "disk data");
        let op = s.ask(clone("ours", "copy", None)).await.expect("begun");
        s.done(op).await.expect("made");
        assert_eq!(names(&mut s, Some(true)).await, ["deb", "ours"]);
        s.ask(DiskDelete { disk: text("deb") }).await.expect("deleted");
    });
}
