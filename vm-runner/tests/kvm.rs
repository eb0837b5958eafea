//! Hardware acceleration: who may open its device, what the guest shows by which it is tried, and the end of one that it is at a loss with.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[macro_use]
mod support;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use skep_proto::cell::{CellMade, Facilities, FdRole, Limits, MakeCell};
use skep_proto::runner::{self, End};
use skep_proto::{MachineId, Refusal, UpTo};
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use support::{Events, Spawner, ask, is_root, memory_file, skip};

/// Makes the cell of a machine that tries a processor.
fn make(spawner: &mut Spawner, machine: MachineId, config: &str, firmware: &[u8], kvm: bool) -> Result<CellMade, Refusal> {
    let call = MakeCell {
        machine,
        slot: 5,
        limits: Limits::default(),
        fds: vec![FdRole::Config, FdRole::Kernel],
        kvm,
        file_limit: 0,
        shares: vec![],
        serial: vec![],
        sound: vec![],
        remote: vec![],
    };
    spawner.ask(call, UpTo(vec![memory_file(config.as_bytes()), memory_file(firmware)]))
}

/// How it ends.
fn run(spawner: &mut Spawner, config: &str, firmware: &[u8], kvm: bool) -> End {
    let machine = MachineId::random();
    make(spawner, machine, config, firmware, kvm).unwrap();
    let mut runner = spawner.runner(machine);
    let mut events = Events::of(&mut runner);
    // It may have ended before it could be said to run.
    let _ = ask(&mut runner, runner::Start {}, []);
    let end = events.until_end();
    spawner.ask(skep_proto::cell::KillCell { machine }, []).unwrap();
    spawner.ask(skep_proto::cell::SweepCell { machine }, []).unwrap();
    end
}

#[test]
fn the_guest_that_tries_a_processor_powers_off_on_one_and_resets_where_something_is_wrong() {
    let mut spawner = spawner!("the_guest_that_tries_a_processor_powers_off_on_one_and_resets_where_something_is_wrong");
    let (config, firmware) = skep_engine_qemu::probe(false).unwrap();
    assert_eq!(run(&mut spawner, &config, &firmware, false), End::PowerOff);
    // Another sum than that of the processor.
    let mut wrong = firmware.clone();
    let add = firmware.windows(4).position(|code| code == [0x66, 0x0f, 0xd4, 0xc0]).unwrap();
    wrong[add + 2] = 0xfb; // psubq
    assert_eq!(run(&mut spawner, &config, &wrong, false), End::Reboot);
}

/// From here on this thread, and what it starts, has a `/dev/kvm` of its own, with this number, mode and group.
fn device(dir: &Path, name: &str, number: (u64, u64), mode: u32, group: u32) {
    let node = dir.join(name);
    mknod(&node, SFlag::S_IFCHR, Mode::empty(), makedev(number.0, number.1)).unwrap();
    chown(&node, None, Some(group)).unwrap();
    fs::set_permissions(&node, fs::Permissions::from_mode(mode)).unwrap();
    mount(Some(&node), "/dev/kvm", None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
}

/// A place for such devices, which nobody else sees; none: they cannot be had here.
fn place(name: &str) -> Option<tempfile::TempDir> {
    let why = if !is_root() {
        "it needs root"
    } else if !Path::new("/dev/kvm").exists() {
        "this host has no /dev/kvm"
    } else if unshare(CloneFlags::CLONE_NEWNS).is_err() {
        "no mount namespace is to be had"
    } else {
        let none: Option<&str> = None;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        let dir = tempfile::tempdir_in("/tmp").unwrap();
        mount(Some("tmpfs"), dir.path(), Some("tmpfs"), MsFlags::empty(), Some("size=64k,mode=755")).unwrap();
        return Some(dir);
    };
    skip(name, why);
    None
}

const KVM: (u64, u64) = (10, 232);
/// A group that nothing else has.
const GROUP: u32 = 61_777;

#[test]
fn who_may_open_the_device_is_told_and_why_nobody_may() {
    let name = "who_may_open_the_device_is_told_and_why_nobody_may";
    let Some(dir) = place(name) else { return };
    let lacks = |spawner: &mut Spawner| {
        let state = spawner.ask(Facilities {}, []).unwrap();
        state.lacks.into_iter().find_map(|(what, why)| (what.as_str() == "kvm").then(|| why.to_string()))
    };
    let (config, firmware) = skep_engine_qemu::probe(true).unwrap();
    // Root's alone; everybody's, and no KVM.
    device(dir.path(), "root", KVM, 0o600, 0);
    let mut spawner = spawner!("who_may_open_the_device_is_told_and_why_nobody_may");
    let why = lacks(&mut spawner).unwrap();
    assert!(why.starts_with("machines have uids of their own, which may not open /dev/kvm (mode 600, group 0)"), "{why}");
    drop(spawner);
    device(dir.path(), "null", (1, 3), 0o666, 0);
    let mut spawner = spawner!("who_may_open_the_device_is_told_and_why_nobody_may");
    assert_eq!(lacks(&mut spawner), None);
    let End::Crash { code: 1, words } = run(&mut spawner, &config, &firmware, true) else { panic!("it is no KVM") };
    assert!(words.as_str().contains("kvm"), "{words}");
    drop(spawner);
    // A group's: cells with the device have it, others have not.
    device(dir.path(), "group", KVM, 0o660, GROUP);
    let mut spawner = spawner!("who_may_open_the_device_is_told_and_why_nobody_may");
    assert_eq!(lacks(&mut spawner), None);
    for (kvm, groups) in [(true, GROUP.to_string()), (false, String::new())] {
        let machine = MachineId::random();
        let made = make(&mut spawner, machine, &config, &firmware, kvm).unwrap();
        let status = fs::read_to_string(format!("/proc/{}/status", made.runner)).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("Groups:")).unwrap();
        assert_eq!(line.trim(), groups, "{kvm}");
        spawner.ask(skep_proto::cell::KillCell { machine }, []).unwrap();
        spawner.ask(skep_proto::cell::SweepCell { machine }, []).unwrap();
    }
    // It is another one by now.
    device(dir.path(), "other", KVM, 0o660, GROUP + 1);
    assert!(lacks(&mut spawner).unwrap().contains("start it anew"));
    drop(spawner);
    // A directory of devices without it.
    let none: Option<&str> = None;
    let bare = dir.path().join("dev");
    fs::create_dir(&bare).unwrap();
    mount(Some("tmpfs"), &bare, Some("tmpfs"), MsFlags::empty(), Some("size=64k,mode=755")).unwrap();
    for device in ["null", "zero", "random", "urandom"] {
        fs::write(bare.join(device), "").unwrap();
        mount(Some(&Path::new("/dev").join(device)), &bare.join(device), none, MsFlags::MS_BIND, none).unwrap();
    }
    mount(Some(&bare), "/dev", none, MsFlags::MS_MOVE, none).unwrap();
    let mut spawner = spawner!("who_may_open_the_device_is_told_and_why_nobody_may");
    assert!(lacks(&mut spawner).unwrap().starts_with("there is no /dev/kvm: modprobe"));
    let refusal = make(&mut spawner, MachineId::random(), &config, &firmware, true).unwrap_err();
    assert!(refusal.note.as_str().contains("device"), "{refusal}");
}

#[test]
fn a_guest_that_kvm_is_at_a_loss_with_ends_as_crashed() {
    let Some(dir) = place("a_guest_that_kvm_is_at_a_loss_with_ends_as_crashed") else { return };
    device(dir.path(), "kvm", KVM, 0o660, GROUP);
    let mut spawner = spawner!("a_guest_that_kvm_is_at_a_loss_with_ends_as_crashed");
    let (config, firmware) = skep_engine_qemu::probe(true).unwrap();
    // Where KVM runs below a kernel that was not made for it, QEMU dies of a register before the guest begins, if it is to have this one.
    let config = format!("{config}\n[global]\ndriver = \"max-x86_64-cpu\"\nproperty = \"arch-capabilities\"\nvalue = \"off\"\n");
    match run(&mut spawner, &config, &firmware, true) {
        End::PowerOff => println!("KVM works here: nothing is at a loss"),
        End::Crash { words, .. } => {
            println!("KVM does not work here: {words}");
            assert!(words.as_str().contains("skep: KVM could not go on with the guest"), "{words}");
        }
        end => panic!("{end:?}"),
    }
}
