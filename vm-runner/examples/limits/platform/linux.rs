//! Makes a cell's groups by the spawner's own code, puts a greedy child into them, and says what happened.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

/// The code under test.
#[allow(dead_code)]
#[path = "../../../src/platform/linux/cgroup.rs"]
mod cgroup;
#[allow(dead_code)]
#[path = "../../../src/platform/linux/precedence.rs"]
mod precedence;

use cgroup::Cgroups;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Gid, Pid, Uid, setgroups, setresgid, setresuid};
use skep_proto::MachineId;
use skep_proto::cell::Limits;
use skep_sys::process::{Fork, exit_now, fork};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

/// The spawner's uid here.
const SPAWNER: u32 = 71_004;
const END_MS: u16 = 10_000;

/// As in the spawner.
fn ended(process: BorrowedFd<'_>, patience_ms: u16) -> bool {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    poll(&mut [PollFd::new(process, PollFlags::POLLIN)], PollTimeout::from(patience_ms)).is_ok_and(|n| n > 0)
}

/// A child in a machine's groups.
fn child(joined: &cgroup::Joined, act: impl FnOnce() -> i32) -> i32 {
    match fork().unwrap() {
        Fork::Parent(pid) => pid,
        Fork::Child => {
            for procs in &joined.procs {
                if let Err(e) = std::fs::write(procs, "0") {
                    println!("limits: join {}: {e}", procs.display());
                    exit_now(99);
                }
            }
            exit_now(act())
        }
    }
}

fn wait(pid: i32) -> String {
    match waitpid(Pid::from_raw(pid), None) {
        Ok(WaitStatus::Exited(_, code)) => format!("exit {code}"),
        Ok(WaitStatus::Signaled(_, signal, _)) => signal.as_str().to_owned(),
        other => format!("{other:?}"),
    }
}

fn eat(bytes: usize) -> i32 {
    let mut all = Vec::new();
    while all.len() * 65536 < bytes {
        all.push(vec![1u8; 65536]);
    }
    i32::from(all.iter().map(|v| usize::from(v[4096])).sum::<usize>() == 0)
}

/// Busy for a while; its share of one CPU in percent.
fn share() -> i32 {
    let wall = Duration::from_secs(3);
    let begun = Instant::now();
    while begun.elapsed() < wall {}
    let used = Duration::from_nanos(skep_sys::process::cpu_time_of(0).unwrap());
    i32::try_from(used.as_millis() * 100 / begun.elapsed().as_millis()).unwrap()
}

/// Two MiB from the beginning of the disk, past the kernel's memory of it.
fn read(disk: BorrowedFd<'_>) -> i32 {
    // Aligned as O_DIRECT wants it.
    #[repr(align(4096))]
    struct Page([u8; 65536]);
    let mut page = Box::new(Page([0; 65536]));
    let done = (0..32).all(|at| nix::sys::uio::pread(disk, &mut page.0, at * 65536).is_ok_and(|n| n == 65536));
    i32::from(!done)
}

fn breed() -> i32 {
    let mut made = 0;
    for _ in 0..50 {
        match fork() {
            Ok(Fork::Child) => loop {
                nix::unistd::pause();
            },
            Ok(Fork::Parent(_)) => made += 1,
            Err(_) => break,
        }
    }
    made
}

/// What a process that becomes a cell has, and what it cannot take.
fn settled(what: &str, limits: &Limits) -> i32 {
    if let Err((step, error)) = precedence::settle(Some(limits)) {
        println!("limits: {step}: {error}");
        return 1;
    }
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let nice = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(16)).unwrap();
    let score = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap();
    let raised = skep_sys::process::set_priority(-20).is_ok();
    let never = std::fs::write("/proc/self/oom_score_adj", "-1000").is_ok();
    let room = vec![1u8; 8 << 20];
    let locked = nix::sys::mman::mlockall(nix::sys::mman::MlockAllFlags::MCL_CURRENT).is_ok();
    println!(
        "limits: {what}: nice {nice} score {} raised {raised} never {never} locked {locked} of {}",
        score.trim(),
        room.len()
    );
    0
}

pub fn main() {
    let groups = Cgroups::acquire("test".parse().unwrap(), Some(SPAWNER));
    println!("limits: offered {}", groups.limits().join(" "));
    println!("limits: {:?}", precedence::Precedence::acquire());
    let disk = std::fs::OpenOptions::new().read(true).custom_flags(nix::libc::O_DIRECT).open("/dev/vda");
    println!("limits: disk {}", disk.is_ok());
    let disk = disk.ok();
    // From here on as the spawner, which has no right over files any more.
    setgroups(&[]).unwrap();
    setresgid(Gid::from_raw(SPAWNER), Gid::from_raw(SPAWNER), Gid::from_raw(SPAWNER)).unwrap();
    setresuid(Uid::from_raw(SPAWNER), Uid::from_raw(SPAWNER), Uid::from_raw(SPAWNER)).unwrap();
    let machine = MachineId::from_u128(7);
    let disk = disk.as_ref().map(AsFd::as_fd);
    let with = |limits: Limits| {
        let disks: Vec<BorrowedFd<'_>> = disk.into_iter().collect();
        groups.make(machine, &limits, &disks).unwrap_or_else(|refusal| panic!("limits: {refusal}"))
    };
    let made = with(Limits { memory: Some(24 << 20), ..Limits::default() });
    println!("limits: modest {}", wait(child(&made, || eat(8 << 20))));
    println!("limits: greedy {}", wait(child(&made, || eat(64 << 20))));
    let made = with(Limits { cpu_percent: Some(20), ..Limits::default() });
    println!("limits: busy {}", wait(child(&made, share)));
    let usage = groups.usage(machine);
    println!("limits: counted memory {} cpu {}", usage.memory.is_some(), usage.cpu_ns.is_some_and(|ns| ns > 100_000_000));
    println!("limits: machines {}", groups.machines().len());
    let made = with(Limits { tasks: Some(5), ..Limits::default() });
    println!("limits: breeding {}", wait(child(&made, breed)));
    if let Some(disk) = disk {
        let time = |made: &cgroup::Joined| {
            let begun = Instant::now();
            println!("limits: reading {}", wait(child(made, || read(disk))));
            begun.elapsed().as_millis()
        };
        // A tenth of the time that this takes without a limit is far less than what two MiB take at half a MiB a second.
        let free = time(&with(Limits::default()));
        let throttled = time(&with(Limits { read_bps: Some(512 << 10), ..Limits::default() }));
        println!("limits: read {free} ms, throttled {throttled} ms, slower {}", throttled > 2 * free && throttled > 1500);
        let written = std::fs::read_to_string(format!("/sys/fs/cgroup/skep-test/{machine}/io.max")).unwrap();
        println!("limits: io.max {}", written.trim());
    }
    let made = with(Limits { priority: 5, ..Limits::default() });
    let nice = std::fs::read_to_string(format!("/sys/fs/cgroup/skep-test/{machine}/cpu.weight.nice")).unwrap();
    println!("limits: nice {} of {}", nice.trim(), made.procs.len());
    let none = Limits::default();
    for (what, limits) in [
        ("nothing", &none),
        ("all", &Limits { priority: -7, protect: true, wired: Some(64 << 20), ..Limits::default() }),
        ("yielding", &Limits { priority: 7, ..Limits::default() }),
    ] {
        println!("limits: {what}: {}", wait(child(&cgroup::Joined::default(), || settled(what, limits))));
    }
    // A file in memory is on no device.
    let file = skep_sys::fd::memory_file(c"disk").unwrap();
    let limits = Limits { write_iops: Some(10), ..Limits::default() };
    match groups.make(machine, &limits, &[file.as_fd()]) {
        Ok(_) => println!("limits: a file in memory is limited"),
        Err(refusal) => println!("limits: a file in memory: {} {}", refusal.field, refusal.note),
    }
    println!("limits: machines after it {}", groups.machines().len());
    // Its children are orphans in the group by now, and the sweep ends them.
    match groups.sweep(machine) {
        Ok(()) => println!("limits: swept, machines {}", groups.machines().len()),
        Err(refusal) => println!("limits: {refusal}"),
    }
    println!("limits: done");
}
