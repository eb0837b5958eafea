//! Disks that become larger or smaller.

use super::requests::{reason, text, web};
use super::suite::{Life, Session, Suite};
use skep_proto::broker::*;
use skep_proto::runner::GrowDisk;
use skep_proto::{Reason, Refusal};

const MIB: u64 = 1 << 20;

async fn resize(s: &mut Session, disk: &str, size: u64, shrink: bool) -> Result<DiskView, Refusal> {
    s.ask(DiskResize { disk: text(disk), size, shrink }).await
}

#[test]
fn a_disk_of_a_running_machine_grows_by_its_hypervisor() {
    let suite = Suite::new();
    let world = suite.world.clone();
    suite.live(async |life: Life| {
        let (mut s, _) = web(&life).await;
        s.ask(GroupQuota { group: text("default"), quota: Quota { disk_bytes: 8 * MIB, ..Quota::default() } })
            .await
            .expect("set");
        s.act("web", Act::Start).await.expect("started");
        if !crate::platform::capabilities(0).abilities.contains(&skep_machine::Ability::DiskGrowth) {
            let refusal = resize(&mut s, "root", 2 * MIB, false).await.expect_err("not while it runs");
            assert_eq!(refusal.reason, Reason::InUse);
            assert!(refusal.note.as_str().contains("stop the machine first"), "{refusal}");
            return;
        }
        assert_eq!(resize(&mut s, "root", 4 * MIB, false).await.expect("larger").size, 4 * MIB);
        // Its file may come to have what storage-helper says, and storage-helper itself does nothing to it.
        let told = || world.lock().grown.clone();
        assert_eq!(told(), [GrowDisk { slot: 0, size: 4 * MIB, most: 4 * MIB + 4096 }]);
        assert_eq!(world.lock().resized, []);
        // Not beyond its group's quota, and not smaller, whatever is said.
        assert_eq!(reason(resize(&mut s, "root", 9 * MIB, false).await), Reason::QuotaReached);
        assert_eq!(reason(resize(&mut s, "root", 2 * MIB, false).await), Reason::InUse);
        assert_eq!(reason(resize(&mut s, "root", 2 * MIB, true).await), Reason::InUse);
        assert_eq!(told().len(), 1);
        // What was refused keeps no room.
        assert_eq!(resize(&mut s, "root", 8 * MIB, true).await.expect("larger").size, 8 * MIB);
        // One that it has from its next start on is none of its hypervisor's.
        s.ask(GroupQuota { group: text("default"), quota: Quota::default() }).await.expect("set");
        s.disk("more").await.expect("a disk");
        let disk = |disk| DiskDraft {
            disk: text(disk),
            controller: Controller::VirtioBlk,
            read_only: false,
            flags: DiskFlags::default(),
            on: None,
        };
        let settings = Settings { disks: Some(vec![disk("root"), disk("more")]), ..Settings::default() };
        let revision = s.get("web").await.expect("there").revision;
        s.ask(MachineSet { machine: text("web"), settings, revision }).await.expect("set");
        assert_eq!(reason(resize(&mut s, "more", 2 * MIB, false).await), Reason::InUse);
        s.act("web", Act::Kill).await.expect("ended");
        // Now by storage-helper.
        resize(&mut s, "more", 2 * MIB, false).await.expect("larger");
        assert_eq!((told().len(), world.lock().resized.clone()), (2, vec![(2 * MIB, false)]));
    });
}

#[test]
fn an_nvme_disk_keeps_its_size_until_it_is_stopped() {
    let suite = Suite::new();
    suite.live(async |life: Life| {
        life.up().await;
        let mut s = life.session().await;
        s.disk("root").await.expect("a disk");
        let flags = DiskFlags::default();
        let disk = DiskDraft { disk: text("root"), controller: Controller::Nvme, read_only: false, flags, on: None };
        let settings = Settings { disks: Some(vec![disk]), memory_mib: Some(64), ..Settings::default() };
        s.ask(MachineCreate { name: "m".parse().expect("a name"), settings, group: None }).await.expect("a machine");
        s.act("m", Act::Start).await.expect("started");
        let refusal = resize(&mut s, "root", 2 * MIB, false).await.expect_err("refused");
        assert_eq!(refusal.reason, Reason::InUse, "{refusal}");
        assert_eq!(suite.world.lock().grown, []);
    });
}

#[test]
fn a_disk_becomes_smaller_if_that_is_said_and_nothing_needs_the_rest() {
    let suite = Suite::new();
    let world = suite.world.clone();
    suite.live(async |life: Life| {
        life.up().await;
        let mut s = life.session().await;
        let kind = skep_proto::storage::DiskKind::Zvol;
        s.ask(DiskCreate { name: "vol".parse().expect("a name"), kind, size: 4 * MIB, group: None }).await.expect("a volume");
        s.ask(SnapshotCreate { disk: text("vol"), name: "before".parse().expect("a name") }).await.expect("a snapshot");
        let refusal = resize(&mut s, "vol", 2 * MIB, true).await.expect_err("it has a snapshot");
        assert_eq!(refusal.reason, Reason::InUse);
        assert!(refusal.note.as_str().contains("before"), "{refusal}");
        resize(&mut s, "vol", 5 * MIB, true).await.expect("larger");
        s.ask(SnapshotDelete { disk: text("vol"), snapshot: text("before") }).await.expect("deleted");
        assert_eq!(resize(&mut s, "vol", 2 * MIB, true).await.expect("smaller").size, 2 * MIB);
        // What was not meant is storage-helper's to refuse, which says what would be lost.
        let _ = resize(&mut s, "vol", MIB, false).await;
        assert_eq!(world.lock().resized, [(5 * MIB, false), (2 * MIB, true), (MIB, false)]);
    });
}

#[test]
fn a_snapshot_is_as_large_as_the_file_that_it_is_of() {
    if !crate::platform::LAYERS {
        return;
    }
    let suite = Suite::new();
    let world = suite.world.clone();
    suite.live(async |life: Life| {
        life.up().await;
        let mut s = life.session().await;
        let disk = s.disk("root").await.expect("a disk");
        // It grew, and the broker that asked for it died before it could write that down.
        world.lock().disks.insert(disk.id, 4 * MIB);
        let made = s.ask(SnapshotCreate { disk: text("root"), name: "one".parse().expect("a name") }).await.expect("a snapshot");
        assert_eq!(made.size, 4 * MIB);
        // What it goes on in is no smaller.
        assert_eq!(world.lock().disks.values().copied().collect::<Vec<_>>(), [4 * MIB, 4 * MIB]);
    });
}
