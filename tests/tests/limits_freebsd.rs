//! Limits of machines on FreeBSD, from the command to the kernel: each is read back from the kernel or seen to act on a guest, and the
//! audit sees rules that should not be.
#![cfg(target_os = "freebsd")]

use anyhow::{Context, Result, ensure};
use nix::libc::{self, kinfo_proc};
use skep_sys::freebsd::{ask, cpu, jail, rctl};
use skep_tests::{Mode, PATIENCE, Suite, is_root, skip};
use std::mem::offset_of;
use std::process::Command;
use std::time::{Duration, Instant};

/// Bytes that the guest writes to be measured.
const WRITTEN: f64 = 4.0 * 1024.0 * 1024.0;
/// `P_PROTECTED` (sys/proc.h).
const PROTECTED: i64 = 0x0010_0000;
/// With threads (sys/sysctl.h).
const KERN_PROC_INC_THREAD: i32 = 0x10;

fn run(program: &str, args: &[&str]) -> Result<String> {
    let output = Command::new(program).args(args).output().context(program.to_owned())?;
    ensure!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// A thread of a process as the kernel shows it.
#[derive(Debug)]
struct Seen {
    pid: i32,
    thread: i32,
    jail: i32,
    nice: i8,
    flags: i64,
    name: String,
}

/// Of every process (`who` is `KERN_PROC_PROC`), or of one with its threads.
fn seen(who: &[i32]) -> Result<Vec<Seen>> {
    let bytes = ask::sysctl(&[&[libc::CTL_KERN, libc::KERN_PROC], who].concat())?;
    let (mut all, mut rest) = (Vec::new(), bytes.as_slice());
    let word = |one: &[u8], at: usize| one.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(-1, i32::from_ne_bytes);
    while let Ok(size) = usize::try_from(word(rest, 0))
        && let Some((one, more)) = rest.split_at_checked(size).filter(|_| size > 0)
    {
        rest = more;
        let long = one.get(offset_of!(kinfo_proc, ki_flag)..).and_then(|b| b.first_chunk::<8>());
        let name = one.get(offset_of!(kinfo_proc, ki_tdname)..).unwrap_or_default();
        let name = name.split(|b| *b == 0).next().unwrap_or_default();
        all.push(Seen {
            pid: word(one, offset_of!(kinfo_proc, ki_pid)),
            thread: word(one, offset_of!(kinfo_proc, ki_tid)),
            jail: word(one, offset_of!(kinfo_proc, ki_jid)),
            nice: one.get(offset_of!(kinfo_proc, ki_nice)).map_or(0, |b| b.cast_signed()),
            flags: long.map_or(0, |b| i64::from_ne_bytes(*b)),
            name: String::from_utf8_lossy(name).into_owned(),
        });
    }
    Ok(all)
}

fn jail_of(suite: &Suite, machine: &str) -> Result<String> {
    let shown = suite.json(&["vm", "show", machine])?;
    let id = shown.first().and_then(|v| v["id"].as_str()).context("no id in vm show")?;
    Ok(format!("skep-{}-{id}", suite.instance()))
}

fn usage(jail: &str, resource: &str) -> Option<u64> {
    let text = rctl::usage(&format!("jail:{jail}")).ok()?;
    text.split(',').find_map(|part| part.strip_prefix(resource)?.strip_prefix('=')?.parse().ok())
}

/// What `skep audit` says, which must differ in something.
fn audited(suite: &Suite) -> Result<String> {
    let output = suite.skep(&["audit"])?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.code() == Some(1), "exit {:?}\n{text}", output.status);
    Ok(text)
}

#[test]
fn limits_are_the_kernels() -> Result<()> {
    if !is_root() {
        skip!("needs root");
    }
    if rctl::usage("user:0").is_err() {
        skip!("kern.racct.enable is not set");
    }
    let suite = Suite::start(Mode::Root)?;
    suite.import_guest()?;
    let cores = cpu::allowed()?;
    let last = *cores.last().context("no CPU")?;
    let (allowed, pin) = (last.to_string(), format!("0:{last}"));
    let mut more = vec!["--memory-limit", "384M", "--tasks", "100", "--pcpu", "2000", "--read-bps", "1G", "--write-bps", "1G"];
    more.extend(["--read-iops", "100000", "--write-iops", "90000", "--cpus-allowed", &allowed, "--pin", &pin]);
    more.extend(["--priority", "-5", "--protect", "on", "--wired", "on"]);
    suite.define("m", &more)?;
    let jail = jail_of(&suite, "m")?;
    let wired = || -> Result<u64> { Ok(run("sysctl", &["-n", "vm.stats.vm.v_user_wire_count"])?.parse()?) };
    let before = wired()?;
    suite.boot("m")?;

    let rules = rctl::rules(&format!("jail:{jail}"))?;
    for rule in [
        "vmemoryuse:deny=402653184",
        "maxproc:deny=100",
        "nthr:deny=100",
        "pcpu:deny=2000",
        "readbps:throttle=1073741824",
        "writebps:throttle=1073741824",
        "readiops:throttle=100000",
        "writeiops:throttle=90000",
    ] {
        ensure!(rules.contains(&format!("jail:{jail}:{rule}")), "{rule} is none of {rules:?}");
    }
    let id = jail::find(&jail)?.context("no jail")?;
    ensure!(cpu::of_jail(id)? == [last]);
    let inside: Vec<Seen> = seen(&[libc::KERN_PROC_PROC, 0])?.into_iter().filter(|p| p.jail == id).collect();
    ensure!(inside.len() >= 2, "runner and bhyve: {inside:?}");
    ensure!(inside.iter().all(|p| p.nice == -5 && p.flags & PROTECTED != 0), "{inside:?}");
    let mut bound = 0;
    for process in &inside {
        for thread in seen(&[libc::KERN_PROC_PID | KERN_PROC_INC_THREAD, process.pid])? {
            ensure!(cpu::of_thread(thread.thread)? == [last], "{thread:?}");
            bound += usize::from(thread.name.starts_with("vcpu"));
        }
    }
    ensure!(bound == 1, "{bound} threads of virtual CPUs");
    let first = inside.iter().map(|p| p.pid).collect::<Vec<_>>();
    let pages = wired()?.saturating_sub(before);
    ensure!(pages >= 128 << 8, "{pages} pages were wired for 128M");
    suite.ok(&["audit"])?;

    // Rules that nobody declared.
    rctl::add(&format!("jail:{jail}:vmemoryuse:log=1"))?;
    let text = audited(&suite)?;
    ensure!(text.contains(&format!("rule jail:{jail}:vmemoryuse:log=1")), "{text}");
    rctl::remove(&format!("jail:{jail}:vmemoryuse:log"))?;
    let ruleset = ask::jail(id)?.ruleset.to_string();
    run("devfs", &["rule", "-s", &ruleset, "add", "60000", "path", "mem", "unhide"])?;
    let text = audited(&suite)?;
    ensure!(text.contains("mem is shown"), "{text}");
    run("devfs", &["rule", "-s", &ruleset, "del", "60000"])?;
    suite.ok(&["audit"])?;
    suite.ok(&["vm", "kill", "m"])?;
    ensure!(rctl::rules(&format!("jail:{jail}"))?.is_empty(), "rules outlive their cell");

    // Where the cell may run anywhere, the virtual CPU alone is bound.
    suite.ok(&["vm", "set", "m", "--cpus-allowed", "all"])?;
    suite.boot("m")?;
    let id = jail::find(&jail)?.context("no jail")?;
    for process in seen(&[libc::KERN_PROC_PROC, 0])?.into_iter().filter(|p| p.jail == id && !first.contains(&p.pid)) {
        for thread in seen(&[libc::KERN_PROC_PID | KERN_PROC_INC_THREAD, process.pid])? {
            let wanted = if thread.name.starts_with("vcpu") { vec![last] } else { cores.clone() };
            ensure!(cpu::of_thread(thread.thread)? == wanted, "{thread:?}");
        }
    }
    suite.ok(&["vm", "kill", "m"])?;
    suite.finish()
}

#[test]
fn what_dead_cells_left_is_found_by_the_audit() -> Result<()> {
    if !is_root() {
        skip!("needs root");
    }
    let suite = Suite::start(Mode::Root)?;
    suite.ok(&["audit"])?;
    let (instance, machine) = (suite.instance(), uuid::Uuid::new_v4());
    let vm: String = machine.simple().to_string().chars().take(26).collect();
    run("sysctl", &[&format!("hw.vmm.create=sk{instance}{vm}")])?;
    let counts = rctl::add(&format!("jail:skep-{instance}-{machine}:maxproc:deny=9")).is_ok();
    let text = audited(&suite);
    run("sysctl", &[&format!("hw.vmm.destroy=sk{instance}{vm}")])?;
    if counts {
        rctl::remove(&format!("jail:skep-{instance}-{machine}"))?;
    }
    let text = text?;
    ensure!(text.contains(&format!("left over: vmm instance sk{instance}{vm}")), "{text}");
    ensure!(!counts || text.contains(&format!("left over: rule jail:skep-{instance}-{machine}:maxproc:deny=9")), "{text}");
    suite.ok(&["audit"])?;
    suite.finish()
}

#[test]
fn limits_act_on_a_guest() -> Result<()> {
    if !is_root() {
        skip!("needs root");
    }
    if rctl::usage("user:0").is_err() {
        skip!("kern.racct.enable is not set");
    }
    let suite = Suite::start(Mode::Root)?;
    suite.import_guest()?;
    suite.define("m", &[])?;
    suite.ok(&["disk", "create", "data", "--size", "16M"])?;
    suite.ok(&["vm", "set", "m", "--disk", "m-root", "--disk", "data"])?;

    // What cannot be is refused, with the reason.
    let (code, said) = suite.fails(&["vm", "set", "m", "--memory-limit", "200M"])?;
    ensure!(code == 8 && said.contains("at least 256"), "{code} {said}");
    suite.ok(&["vm", "set", "m", "--cpu-percent", "50"])?;
    let (_, said) = suite.fails(&["vm", "start", "m"])?;
    ensure!(said.contains("rctl(8) gives no share of a CPU"), "{said}");
    suite.ok(&["vm", "set", "m", "--cpu-percent", "0", "--cpus-allowed", "1023"])?;
    let (_, said) = suite.fails(&["vm", "start", "m"])?;
    ensure!(said.contains("CPU 1023"), "{said}");
    suite.ok(&["vm", "set", "m", "--cpus-allowed", "all"])?;

    if refuses_in_memory(&suite)? {
        suite.finish()?;
        skip!("its disks are in memory");
    }
    let jail = jail_of(&suite, "m")?;
    let write = || -> Result<Duration> {
        let begun = Instant::now();
        suite.guest_runs("m", "dd if=/dev/zero of=/dev/vtbd1 bs=64k count=64 2>/dev/null; echo wrote-$?", "wrote-0")?;
        Ok(begun.elapsed())
    };
    suite.boot("m")?;
    let free = write()?;
    let threads = usage(&jail, "nthr").context("threads are not counted")?;
    ensure!(threads > 16, "{threads} threads");
    suite.ok(&["vm", "kill", "m"])?;

    // An eighth of what it writes without a limit. The kernel lets no more through, however slow the host: what else keeps the guest
    // waiting adds to the time. A second's worth goes at once.
    let limit = (WRITTEN / free.as_secs_f64() / 8.0).min(512.0 * 1024.0) as u64;
    suite.ok(&["vm", "set", "m", "--write-bps", &limit.to_string()])?;
    suite.boot("m")?;
    let throttled = write()?;
    println!("{WRITTEN} bytes: {free:?} without a limit, {throttled:?} with {limit} in a second");
    ensure!(throttled > 3 * free, "{throttled:?} with a limit of {limit} bytes in a second, {free:?} without");
    suite.ok(&["vm", "kill", "m"])?;

    // bhyve wants more threads than it may have: it goes on without, or ends.
    suite.ok(&["vm", "set", "m", "--write-bps", "0", "--tasks", "16"])?;
    suite.ok(&["vm", "start", "m"])?;
    // Whichever it is, it is waited for: a guest that is up, or an end before that.
    let up = suite.skep(&["vm", "console", "m", "--expect", "skep-guest ready", "--timeout", PATIENCE])?;
    if up.status.success() {
        let threads = usage(&jail, "nthr").context("threads are not counted")?;
        ensure!((2..=16).contains(&threads), "{threads} threads, where 16 were allowed");
    } else {
        let said = String::from_utf8_lossy(&up.stderr).into_owned();
        // Before it was looked at, or while it was.
        ensure!(["it ended before", "it does not run"].iter().any(|why| said.contains(why)), "{said}");
        // What is left of it is swept first.
        suite.ok(&["events", "--after", "0", "--until", "failed", "--timeout", PATIENCE])?;
        ensure!(suite.state_of("m")? == "failed", "{}", suite.state_of("m")?);
    }
    let _ = suite.skep(&["vm", "kill", "m"])?;
    suite.finish()
}

/// What is in memory alone is neither read nor written: its rates cannot be kept, and are refused.
fn refuses_in_memory(suite: &Suite) -> Result<bool> {
    if nix::sys::statfs::statfs(&suite.state)?.filesystem_type_name() != "tmpfs" {
        return Ok(false);
    }
    suite.ok(&["vm", "set", "m", "--write-bps", "1048576"])?;
    let (code, said) = suite.fails(&["vm", "start", "m"])?;
    ensure!(code == 11 && said.contains("write_bps") && said.contains("tmpfs"), "{code} {said}");
    Ok(true)
}

/// How far above what was asked the mean may be that rctl holds a cell to.
const HELD: f64 = 1.5;

/// How long the guest takes for a command.
fn time(suite: &Suite, command: &str) -> Result<Duration> {
    let begun = Instant::now();
    suite.guest_runs("m", &format!("{command}; echo ended-$?"), "ended-0")?;
    Ok(begun.elapsed())
}

/// How much of it the guest gets done in a second, on average.
fn mean(amount: f64, time: Duration) -> f64 {
    amount / time.as_secs_f64()
}

/// A part of what it does without a limit, so that the host's speed does not count: what else keeps the guest waiting adds to the time.
#[test]
fn rates_and_pcpu_act_on_a_guest() -> Result<()> {
    if !is_root() {
        skip!("needs root");
    }
    if rctl::usage("user:0").is_err() {
        skip!("kern.racct.enable is not set");
    }
    let suite = Suite::start(Mode::Root)?;
    suite.import_guest()?;
    suite.define("m", &[])?;
    suite.ok(&["disk", "create", "data", "--size", "16M"])?;
    // Past the host's cache and in steps: what is read from memory, or written later by somebody else, is counted as nobody's.
    suite.ok(&["vm", "set", "m", "--disk", "m-root", "--disk", "data,nocache,sync"])?;
    if refuses_in_memory(&suite)? {
        suite.finish()?;
        skip!("its disks are in memory");
    }
    let read = "dd if=/dev/vtbd1 of=/dev/null bs=64k count=64 2>/dev/null";
    let (operations, write) = (128.0, "dd if=/dev/zero of=/dev/vtbd1 bs=512 count=128 2>/dev/null");
    let spin = |rounds: f64| format!("i=0; while [ $i -lt {rounds:.0} ]; do i=$((i+1)); done");
    suite.boot("m")?;
    time(&suite, "dd if=/dev/zero of=/dev/vtbd1 bs=64k count=64 2>/dev/null")?;
    let free = (time(&suite, read)?, time(&suite, write)?);
    // Some seconds of it, for what the kernel takes for the part of a CPU is a mean itself.
    let tried = 3000.0;
    let rounds = (8.0 * mean(tried, time(&suite, &spin(tried))?)).max(tried);
    let spun = time(&suite, &spin(rounds))?;
    suite.ok(&["vm", "kill", "m"])?;

    let reads = (mean(WRITTEN, free.0) / 8.0).min(512.0 * 1024.0) as u64;
    let writes = (mean(operations, free.1) / 8.0).clamp(1.0, 16.0) as u64;
    suite.ok(&["vm", "set", "m", "--read-bps", &reads.to_string(), "--write-iops", &writes.to_string()])?;
    suite.boot("m")?;
    let throttled = (time(&suite, read)?, time(&suite, write)?);
    println!("{WRITTEN} bytes read: {:?}, with {reads} in a second {:?}", free.0, throttled.0);
    println!("{operations} writes: {:?}, with {writes} in a second {:?}", free.1, throttled.1);
    ensure!(throttled.0 > 3 * free.0, "read {throttled:?}, without a limit {free:?}");
    ensure!(throttled.1 > 3 * free.1, "written {throttled:?}, without a limit {free:?}");
    suite.ok(&["vm", "kill", "m"])?;

    suite.ok(&["vm", "set", "m", "--read-bps", "0", "--write-iops", "0", "--pcpu", "40"])?;
    suite.boot("m")?;
    let stopped = time(&suite, &spin(rounds))?;
    println!("{rounds:.0} rounds: {spun:?}, with pcpu 40 {stopped:?}");
    ensure!(stopped > spun * 3 / 2, "{stopped:?} with pcpu 40, {spun:?} without");
    // The kernel counts in seconds, and stops the cell when a mean of its last ones is above; so the share is looked at after the first of them, over many.
    let jail = jail_of(&suite, "m")?;
    let used = || usage(&jail, "cputime").context("CPU time is not counted");
    let (before, begun) = (used()?, Instant::now());
    time(&suite, &spin(rounds))?;
    let (took, used) = (begun.elapsed().as_secs_f64(), used()?.saturating_sub(before) as f64);
    println!("{rounds:.0} rounds with pcpu 40: {used} s of CPU in {took:.1} s, {:.0} %", 100.0 * used / took);
    ensure!(used <= took * 0.4 * HELD + 2.0, "{used} s of CPU in {took:.1} s with pcpu 40");
    suite.ok(&["vm", "kill", "m"])?;
    suite.finish()
}
