//! Linux: /proc.

mod bare;
mod dhcp;
mod hand;
mod launch;
mod libvirt;
mod nat;

pub use bare::Bare;
pub use dhcp::run as dhcp;
pub use launch::run as launch;
pub use libvirt::{bare as bare_libvirt, measured as libvirt};
pub use nat::run as nat;

use super::Cell;
use anyhow::{Context, Result, ensure};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use skep_tests::{Suite, is_root};
use std::fs;
use std::os::fd::AsFd;
use std::path::Path;

/// Why the memory of processes cannot be seen here.
pub fn cannot_weigh() -> Option<&'static str> {
    let unseen = "this kernel does not show PSS (/proc/PID/smaps_rollup)";
    (!Path::new("/proc/self/smaps_rollup").exists()).then_some(unseen)
}

/// One line about the machine.
pub fn facts() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map_or("unknown", |(_, name)| name);
    let who = if is_root() { "root" } else { "an ordinary user" };
    format!("Machine: {cores} cores ({model}), Linux {}; measured as {who}.", kernel.trim())
}

/// The cores that this process may run on.
pub fn cores() -> Result<Vec<usize>> {
    let all = sched_getaffinity(Pid::this())?;
    Ok((0..CpuSet::count()).filter(|cpu| all.is_set(*cpu).unwrap_or(false)).collect())
}

/// Has a process run on these cores only.
pub fn place(pid: i32, cores: &[usize]) -> Result<()> {
    let mut set = CpuSet::new();
    cores.iter().try_for_each(|core| set.set(*core))?;
    Ok(sched_setaffinity(Pid::from_raw(pid), &set)?)
}

/// How many threads this process has.
pub fn threads() -> Result<usize> {
    Ok(fs::read_dir("/proc/self/task")?.count())
}

/// The memory of a process, shared pages by their share, in bytes.
pub fn pss(pid: i32) -> Result<u64> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).with_context(|| path.clone())?;
    let kib = text.lines().find_map(|line| line.strip_prefix("Pss:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    Ok(kib.with_context(|| format!("{path}: no Pss"))? * 1024)
}

fn pids() -> Result<Vec<i32>> {
    Ok(fs::read_dir("/proc")?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect())
}

/// The parent; 0 if the process is gone.
fn parent(pid: i32) -> i32 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name before it may hold anything, but no parenthesis follows it.
    stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse().ok()).unwrap_or_default()
}

/// The command line.
pub fn arguments(pid: i32) -> Vec<String> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    text.split_terminator('\0').map(str::to_owned).collect()
}

/// Process ids and names of the services, which have the suite's directory among their arguments, and of their supervisor.
pub fn services(suite: &Suite) -> Result<Vec<(i32, String)>> {
    let state = suite.state.to_string_lossy().into_owned();
    let mut found = Vec::new();
    for pid in pids()? {
        let arguments = arguments(pid);
        if arguments.windows(2).any(|pair| pair == ["--state", state.as_str()])
            && let Some(program) = arguments.first()
        {
            found.push((pid, Path::new(program).file_name().unwrap_or_default().to_string_lossy().into_owned()));
        }
    }
    found.sort_by(|a, b| a.1.cmp(&b.1));
    let above: Vec<i32> = found.iter().map(|(pid, _)| parent(*pid)).collect();
    let is_service = |pid: &&i32| found.iter().any(|(service, _)| service == *pid);
    if let Some(supervisor) = above.iter().find(|pid| **pid > 1 && !is_service(pid)) {
        found.push((*supervisor, "supervisor (skep up)".to_owned()));
    }
    ensure!(found.len() >= 6, "only these services are found: {found:?}");
    Ok(found)
}

/// The processes of the suite's only machine: they listen on its sockets.
pub fn cell(suite: &Suite) -> Result<Cell> {
    let listener = |dir: &str| -> Result<i32> {
        let dir = suite.run.join(dir);
        let socket = fs::read_dir(&dir)?.next().with_context(|| format!("{}: empty", dir.display()))??.path();
        let connection = skep_sys::sock::connect_seqpacket(&socket).with_context(|| socket.display().to_string())?;
        Ok(skep_sys::sock::peer(connection.as_fd())?.pid)
    };
    Ok(Cell { runner: listener("vm")?, console: listener("console")? })
}

/// The hypervisor of a cell.
pub fn hypervisor(cell: &Cell) -> Result<i32> {
    pids()?.into_iter().find(|pid| parent(*pid) == cell.runner).context("the runner has no child")
}
