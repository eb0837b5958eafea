//! `skep doctor`: what is missing here, and the command that mends it.

use crate::up::Places;
use serde::Serialize;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    /// There.
    Ok,
    /// Not there; something will not work.
    Weaker,
    /// Not there; no machine will run.
    Missing,
}

/// One check.
#[derive(Debug, Serialize)]
struct Check {
    what: &'static str,
    verdict: Verdict,
    found: String,
    /// The command that mends it, or what to do; empty if nothing is to be done.
    mend: String,
}

fn check(what: &'static str, there: bool, otherwise: Verdict, found: impl ToString, mend: impl ToString) -> Check {
    let verdict = if there { Verdict::Ok } else { otherwise };
    Check { what, verdict, found: found.to_string(), mend: if there { String::new() } else { mend.to_string() } }
}

/// Prints all checks. Exit code 1 if a needed thing is missing.
pub fn run(places: &Places, json: bool) -> ExitCode {
    let checks = if cfg!(target_os = "freebsd") { freebsd(places) } else { linux(places) };
    for check in &checks {
        if json {
            println!("{}", serde_json::to_string(check).unwrap_or_default());
            continue;
        }
        let verdict = match check.verdict {
            Verdict::Ok => "ok     ",
            Verdict::Weaker => "weaker ",
            Verdict::Missing => "MISSING",
        };
        println!("{verdict}  {:<18} {}", check.what, check.found);
        if !check.mend.is_empty() {
            println!("{:9}{:<18} → {}", "", "", check.mend);
        }
    }
    if checks.iter().any(|c| c.verdict == Verdict::Missing) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Where a file is, below the directory of unpacked packages or the root.
fn find(places: &Places, path: &str) -> Option<PathBuf> {
    let unpacked = std::env::var_os("SKEP_PKG").map_or_else(|| places.state.join("pkg"), PathBuf::from);
    let below = |prefix: &Path| prefix.join(path.trim_start_matches('/'));
    [below(&unpacked), PathBuf::from(path)].into_iter().find(|p| p.exists())
}

fn file(places: &Places, what: &'static str, path: &str, otherwise: Verdict, mend: &str) -> Check {
    let found = find(places, path);
    let text = found.as_ref().map_or_else(|| format!("{path} is not there"), |p| p.display().to_string());
    check(what, found.is_some(), otherwise, text, mend)
}

fn value(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn linux(places: &Places) -> Vec<Check> {
    let root = nix::unistd::geteuid().is_root();
    let mut checks = vec![
        file(places, "hypervisor", "/usr/bin/qemu-system-x86_64", Verdict::Missing, "apt-get install qemu-system-x86"),
        file(places, "UEFI firmware", "/usr/share/OVMF/OVMF_CODE_4M.fd", Verdict::Weaker, "apt-get install ovmf"),
    ];
    let allowed = value("/proc/sys/kernel/unprivileged_userns_clone").is_none_or(|v| v != "0")
        && value("/proc/sys/user/max_user_namespaces").is_none_or(|v| v != "0");
    let mend = "sysctl kernel.unprivileged_userns_clone=1 user.max_user_namespaces=10000";
    checks.push(check("user namespaces", allowed, Verdict::Missing, if allowed { "allowed" } else { "not allowed" }, mend));
    let landlock = value("/sys/kernel/security/lsm").map_or_else(
        || ("not readable from here; each service checks it when it starts".to_owned(), true),
        |list| (format!("security modules: {list}"), list.split(',').any(|l| l == "landlock")),
    );
    checks.push(check("Landlock", landlock.1, Verdict::Missing, landlock.0, "boot with lsm=landlock,… (Linux 5.19 or later)"));
    let seccomp = value("/proc/sys/kernel/seccomp/actions_avail").unwrap_or_default();
    checks.push(check("seccomp", seccomp.contains("errno"), Verdict::Missing, &seccomp, "a kernel with CONFIG_SECCOMP_FILTER"));
    checks.push(check("root", root, Verdict::Weaker, if root { "yes" } else { "no: no switches, no limits by cgroup, one uid for all" }, "sudo skep up"));
    if root {
        let tun = Path::new("/dev/net/tun").exists();
        checks.push(check("taps", tun, Verdict::Weaker, if tun { "/dev/net/tun" } else { "/dev/net/tun is not there" }, "modprobe tun"));
        let controllers = controllers();
        let all = ["memory", "cpu", "pids"].iter().all(|c| controllers.iter().any(|have| have == c));
        checks.push(check("cgroup limits", all, Verdict::Weaker, controllers.join(" "), "a kernel with the memory, cpu and pids controllers"));
    }
    checks.push(space(places));
    checks
}

/// Controllers that limits can be set by, of either version.
fn controllers() -> Vec<String> {
    let v2 = ["/sys/fs/cgroup/cgroup.controllers", "/sys/fs/cgroup/unified/cgroup.controllers"];
    let mut names: Vec<String> = v2.iter().filter_map(|p| value(p)).flat_map(|t| t.split_whitespace().map(str::to_owned).collect::<Vec<_>>()).collect();
    for name in ["memory", "cpu", "pids"] {
        if Path::new("/sys/fs/cgroup").join(name).is_dir() && !names.iter().any(|n| n == name) {
            names.push(name.to_owned());
        }
    }
    names
}

fn space(places: &Places) -> Check {
    let existing = places.state.ancestors().find(|p| p.exists()).unwrap_or(Path::new("/"));
    let free = nix::sys::statvfs::statvfs(existing).map_or(0, |s| s.blocks_available() as u64 * s.fragment_size() as u64);
    let found = format!("{} MiB free in {}", free >> 20, existing.display());
    check("space", free >= 256 << 20, Verdict::Weaker, found, "free some space, or set SKEP_STATE")
}

fn freebsd(places: &Places) -> Vec<Check> {
    let root = nix::unistd::geteuid().is_root();
    vec![
        file(places, "hypervisor", "/usr/sbin/bhyve", Verdict::Missing, "install the base system's bhyve"),
        file(places, "vmm", "/dev/vmm", Verdict::Missing, "kldload vmm; sysrc kld_list+=vmm"),
        file(places, "UEFI firmware", "/usr/local/share/uefi-firmware/BHYVE_UEFI.fd", Verdict::Weaker, "pkg install edk2-bhyve"),
        check("root", root, Verdict::Missing, if root { "yes" } else { "no: jails need root" }, "su -l root -c 'skep up'"),
        space(places),
    ]
}
