//! The tables against what enforces them, on whatever system: a name that no kernel knows would end a process at its start.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use skep_rights::{ALL, Process, VARIANTS, hypervisor};

fn tables() -> impl Iterator<Item = &'static Process> {
    let variants = VARIANTS.iter().map(|(_, table, _)| *table);
    ALL.iter().copied().chain(variants).chain([&hypervisor::TABLE_KVM_SHARES])
}

#[test]
fn every_capsicum_right_is_known() {
    let known = include_str!("../src/freebsd.rs");
    for table in tables() {
        for line in table.descriptors {
            if line.rights == skep_rights::UNLIMITED {
                continue;
            }
            for right in line.rights {
                assert!(known.contains(&format!("\"{right}\" => ")), "{}, {}: {right}", table.name, line.name);
            }
            assert!(line.ioctls.is_empty() || line.rights.contains(&"IOCTL"), "{}, {}: no CAP_IOCTL", table.name, line.name);
        }
    }
}

/// Whoever serves in a loop of its own takes from each connection what only its listener needs; the event loops of broker and frontend
/// set their sockets up themselves.
#[test]
fn a_connection_has_fewer_rights_than_its_listener() {
    for table in tables() {
        let line = |name| table.descriptors.iter().find(|line| line.name == name);
        let (Some(listener), Some(connection)) = (line("listener"), line("connection")) else { continue };
        if ["broker", "api-frontend"].contains(&table.name) {
            assert_eq!(connection.rights, listener.rights, "{}", table.name);
            continue;
        }
        assert!(connection.rights.iter().all(|right| listener.rights.contains(right)), "{}", table.name);
        for right in ["ACCEPT", "GETSOCKOPT", "SETSOCKOPT", "FCNTL"] {
            assert!(!connection.rights.contains(&right), "{}: {right}", table.name);
        }
    }
    let served = tables().filter(|table| table.descriptors.iter().any(|line| line.name == "connection"));
    assert!(served.count() >= 7);
}

#[cfg(target_os = "linux")]
#[test]
fn every_list_of_system_calls_compiles() {
    for table in tables() {
        skep_sandbox::seccomp::compile(table).unwrap_or_else(|error| panic!("{}: {error}", table.name));
    }
}

#[test]
fn names_of_descriptors_are_unique_in_a_table_and_every_line_has_a_reason() {
    for table in tables() {
        for (n, line) in table.descriptors.iter().enumerate() {
            assert!(!table.descriptors.iter().skip(n + 1).any(|other| other.name == line.name), "{}: {}", table.name, line.name);
            assert!(!line.why.is_empty(), "{}: {}", table.name, line.name);
        }
        assert!(table.syscalls.iter().all(|group| !group.why.is_empty()), "{}", table.name);
    }
}

/// In a child, which has one thread, as a service has.
#[cfg(target_os = "linux")]
#[test]
fn who_may_become_a_machine_becomes_nobody_else() {
    use nix::errno::Errno;
    use nix::unistd::{Gid, Pid, Uid, getuid, setgroups, setresgid, setresuid};
    use skep_sys::process::{Fork, exit_now, fork};
    let Fork::Parent(child) = fork().unwrap() else {
        let (uid, gid, denied) = (Uid::from_raw, Gid::from_raw, Err(Errno::EPERM));
        let confined = nix::sys::prctl::set_no_new_privs().is_ok() && skep_sandbox::seccomp::only_ids(72_000..=72_003).is_ok();
        let wrong = [(0, 0, 0), (71_999, 71_999, 71_999), (72_000, 72_004, 72_000), (72_000, 72_000, u32::MAX)];
        let refused = wrong.into_iter().all(|(real, effective, saved)| {
            setresuid(uid(real), uid(effective), uid(saved)) == denied
                && setresgid(gid(real), gid(effective), gid(saved)) == denied
        });
        let refused = refused && setgroups(&[gid(0)]) == denied && nix::unistd::setuid(uid(72_000)) == denied;
        let machine = !getuid().is_root()
            || setgroups(&[]).is_ok()
                && setresgid(gid(72_003), gid(72_003), gid(72_003)).is_ok()
                && setresuid(uid(72_003), uid(72_003), uid(72_003)).is_ok();
        exit_now(i32::from(!(confined && refused && machine)));
    };
    let ended = nix::sys::wait::waitpid(Pid::from_raw(child), None).unwrap();
    assert_eq!(ended, nix::sys::wait::WaitStatus::Exited(Pid::from_raw(child), 0));
}
