//! The tables against what enforces them, on whatever system: a name that no kernel knows would end a process at its start.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use skep_rights::{ALL, Process, hypervisor};

fn tables() -> impl Iterator<Item = &'static Process> {
    ALL.iter().copied().chain([&hypervisor::TABLE_KVM])
}

#[test]
fn every_capsicum_right_is_known() {
    let known = include_str!("../src/freebsd.rs");
    for table in tables() {
        for line in table.descriptors {
            for right in line.rights {
                assert!(known.contains(&format!("\"{right}\" => ")), "{}, {}: {right}", table.name, line.name);
            }
            assert!(line.ioctls.is_empty() || line.rights.contains(&"IOCTL"), "{}, {}: no CAP_IOCTL", table.name, line.name);
        }
    }
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
