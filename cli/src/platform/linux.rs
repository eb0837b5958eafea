//! Linux.

use super::{Check, Found, first_file};
use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use skep_sys::process::{Fork, exit_now, fork};
use std::fs;
use std::io;
use std::path::Path;

/// STATE of root's suite.
pub const STATE: &str = "/var/lib/skep";
/// Where packages put the file of [`crate::installed`].
pub const CONF: &str = "/etc/skep/skep.conf";

/// Who runs an installed suite.
pub const MANAGED: &str = "`systemctl status skep.target`";

/// The command that makes the user of a service.
pub fn make_user(name: &str) -> String {
    format!("`systemd-sysusers`, or `useradd --system --user-group --no-create-home --shell /usr/sbin/nologin {name}`")
}

/// There are none here.
pub fn enter_jail(_name: &str) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// What services cannot take away themselves when the suite ends: nothing.
pub fn clear(_run: &Path, _instance: skep_proto::InstanceId) {}

/// What machines need of this host.
pub fn checks(prefixes: &[&Path], root: bool) -> Vec<Check> {
    vec![
        hypervisor(prefixes),
        firmware(prefixes),
        landlock(),
        seccomp(),
        namespaces(root),
        tap(root),
        limits(root),
        acceleration(),
    ]
}

fn hypervisor(prefixes: &[&Path]) -> Check {
    let found = first_file(prefixes, &[skep_cellroot::HYPERVISOR]);
    let detail = found.as_ref().map_or_else(|| "qemu-system-x86_64 was not found".to_owned(), |p| p.display().to_string());
    let state = if found.is_some() { Found::Ok } else { Found::Missing };
    Check::new("hypervisor", state, detail, "apt-get install qemu-system-x86")
}

fn firmware(prefixes: &[&Path]) -> Check {
    let found = first_file(prefixes, &[skep_cellroot::UEFI]);
    let missing = || format!("{} was not found: machines boot kernels directly only", skep_cellroot::UEFI);
    let detail = found.as_ref().map_or_else(missing, |p| p.display().to_string());
    let state = if found.is_some() { Found::Ok } else { Found::Weaker };
    Check::new("UEFI firmware", state, detail, "apt-get install ovmf")
}

fn landlock() -> Check {
    let mend = "boot Linux 5.19 or later with `landlock` in the kernel parameter lsm=";
    match skep_sys::linux::landlock_abi() {
        Ok(abi) if abi >= 2 => Check::new("Landlock", Found::Ok, format_args!("ABI {abi}"), mend),
        Ok(abi) => Check::new("Landlock", Found::Missing, format_args!("ABI {abi}, and 2 is needed"), mend),
        Err(error) => Check::new("Landlock", Found::Missing, error, mend),
    }
}

fn seccomp() -> Check {
    let actions = fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail").unwrap_or_default();
    let state = if actions.contains("errno") { Found::Ok } else { Found::Missing };
    Check::new("seccomp", state, actions.trim(), "boot a kernel with CONFIG_SECCOMP_FILTER")
}

fn namespaces(root: bool) -> Check {
    let all = CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWPID;
    let all = all | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWCGROUP;
    let who = if root { "root" } else { "this user" };
    let (found, detail, mend) = match in_child(|| unshare(all)) {
        Ok(()) => (Found::Ok, format!("{who} can make them"), String::new()),
        Err(error) => {
            let set = |name: &str| fs::read_to_string(Path::new("/proc/sys").join(name)).unwrap_or_default().trim().to_owned();
            (Found::Missing, format!("{who} cannot make them: {}", error.desc()), why_not(error, root, set))
        }
    };
    Check::new("user namespaces", found, detail, &mend)
}

/// What keeps namespaces from being made, by the kernel's answer and its settings; and what mends it.
fn why_not(error: Errno, root: bool, setting: impl Fn(&str) -> String) -> String {
    if error == Errno::EINVAL {
        return "boot a kernel with CONFIG_USER_NS and the other namespaces".into();
    }
    let none = ["user", "mnt", "net", "pid", "ipc", "uts", "cgroup"].into_iter().filter(|kind| {
        let most = setting(&format!("user/max_{kind}_namespaces"));
        most == "0" || error == Errno::ENOSPC && *kind == "user"
    });
    let mut mends: Vec<String> = none.map(|kind| format!("user.max_{kind}_namespaces=10000")).collect();
    if !root && setting("kernel/unprivileged_userns_clone") == "0" {
        mends.push("kernel.unprivileged_userns_clone=1".into());
    }
    if !root && setting("kernel/apparmor_restrict_unprivileged_userns") == "1" {
        mends.push("kernel.apparmor_restrict_unprivileged_userns=0".into());
    }
    if mends.is_empty() {
        // No setting denies it: it is where this process is.
        "leave the chroot or the container that this runs in: in a chroot the kernel makes none, and a container's runtime may forbid them".into()
    } else {
        format!("sysctl -w {}", mends.join(" "))
    }
}

/// Does something in a child of this process, made for it. This process has one thread.
fn in_child(act: impl FnOnce() -> nix::Result<()>) -> nix::Result<()> {
    match fork().map_err(|e| e.raw_os_error().map_or(Errno::EAGAIN, Errno::from_raw))? {
        Fork::Child => exit_now(act().err().map_or(0, |e| e as i32)),
        Fork::Parent(pid) => match waitpid(Pid::from_raw(pid), None)? {
            WaitStatus::Exited(_, 0) => Ok(()),
            WaitStatus::Exited(_, errno) => Err(Errno::from_raw(errno)),
            // Killed: by a filter of system calls.
            _ => Err(Errno::EPERM),
        },
    }
}

fn tap(root: bool) -> Check {
    let name = "switches and NICs";
    if !root {
        return Check::new(name, Found::Weaker, "they need a suite that root started", "sudo skep up");
    }
    let opened = fs::OpenOptions::new().read(true).write(true).open("/dev/net/tun");
    match opened {
        Ok(_) => Check::new(name, Found::Ok, "/dev/net/tun", ""),
        Err(error) => Check::new(name, Found::Weaker, format_args!("/dev/net/tun: {error}"), "modprobe tun"),
    }
}

fn limits(root: bool) -> Check {
    let name = "limits by cgroup";
    if !root {
        return Check::new(name, Found::Weaker, "they need a suite that root started", "sudo skep up");
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut found = Vec::new();
    for line in mounts.lines() {
        let Some((before, after)) = line.split_once(" - ") else { continue };
        let point = before.split(' ').nth(4).unwrap_or_default();
        let controllers = if after.starts_with("cgroup2 ") {
            fs::read_to_string(Path::new(point).join("cgroup.controllers")).unwrap_or_default()
        } else if after.starts_with("cgroup ") {
            after.rsplit(' ').next().unwrap_or_default().replace(',', " ")
        } else {
            continue;
        };
        let wanted = ["cpu", "memory", "pids"].into_iter().filter(|c| controllers.split_whitespace().any(|k| k == *c));
        found.extend(wanted);
    }
    found.sort_unstable();
    found.dedup();
    let state = if found.len() == 3 { Found::Ok } else { Found::Weaker };
    let mend = "mount cgroup2 with its controllers: mount -t cgroup2 none /sys/fs/cgroup";
    Check::new(name, state, if found.is_empty() { "none".to_owned() } else { found.join(", ") }, mend)
}

/// Whether KVM truly works, only a boot shows, which the suite makes when it starts.
fn acceleration() -> Check {
    let there = Path::new("/dev/kvm").exists();
    let (detail, mend) = if there {
        ("/dev/kvm is there; `skep host show` says whether it runs guests (`kvm`)", "chgrp kvm /dev/kvm; chmod 660 /dev/kvm")
    } else {
        ("no /dev/kvm: emulation in software", "modprobe kvm_intel or kvm_amd, if the firmware lets the processor virtualise")
    };
    Check::new("acceleration", Found::Weaker, detail, mend)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_keeps_namespaces_from_being_made_is_named() {
        let with = |name: &'static str, value: &'static str| move |asked: &str| if asked == name { value } else { "" }.to_owned();
        let nothing = with("", "");
        assert!(why_not(Errno::EPERM, false, nothing).contains("chroot"));
        let apparmor = with("kernel/apparmor_restrict_unprivileged_userns", "1");
        assert_eq!(why_not(Errno::EPERM, false, apparmor), "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0");
        assert!(why_not(Errno::EPERM, true, apparmor).contains("chroot"), "it does not hold root back");
        assert_eq!(why_not(Errno::ENOSPC, false, nothing), "sysctl -w user.max_user_namespaces=10000");
        assert_eq!(why_not(Errno::ENOSPC, true, with("user/max_net_namespaces", "0")).matches("=10000").count(), 2);
        assert!(why_not(Errno::EINVAL, true, nothing).contains("CONFIG_USER_NS"));
    }
}
