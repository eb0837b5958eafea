//! Limits by cgroup of version 2, whose controllers few hosts that test this have free: in a guest, by the spawner's own code.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use support::{guest, programs, skip};

/// One member of an initial RAM disk, in the kernel's format (Documentation/driver-api/early-userspace/buffer-format.rst).
fn member(archive: &mut Vec<u8>, name: &str, mode: u32, bytes: &[u8]) {
    let pad = |archive: &mut Vec<u8>| archive.resize(archive.len().next_multiple_of(4), 0);
    let fields =
        [0, mode, 0, 0, 1, 0, u32::try_from(bytes.len()).unwrap(), 0, 0, 0, 0, u32::try_from(name.len()).unwrap() + 1, 0];
    archive.extend(b"070701");
    archive.extend(fields.iter().flat_map(|field| format!("{field:08x}").into_bytes()));
    archive.extend(name.as_bytes());
    archive.push(0);
    pad(archive);
    archive.extend(bytes);
    pad(archive);
}

const SCRIPT: &str = "#!/bin/sh
mkdir -p /sys/fs/cgroup
mount -t cgroup2 none /sys/fs/cgroup
/limits/limits 2>&1
poweroff -f
";

#[test]
fn version_2_limits_memory_cpu_tasks_and_disks_of_a_cell() {
    let name = "version_2_limits_memory_cpu_tasks_and_disks_of_a_cell";
    let (Some(kernel), Some(initrd)) = (guest("kernel"), guest("initrd")) else {
        return skip(name, "no test guest; see scripts/guest");
    };
    let dir = tempfile::tempdir().unwrap();
    let mut archive = std::fs::read(initrd).unwrap();
    // Archives follow one another.
    archive.resize(archive.len().next_multiple_of(512), 0);
    for directory in ["limits", "lib", "lib/x86_64-linux-gnu", "lib64"] {
        member(&mut archive, directory, 0o040_755, b"");
    }
    member(&mut archive, "limits/go", 0o100_755, SCRIPT.as_bytes());
    member(&mut archive, "limits/limits", 0o100_755, &std::fs::read(programs().join("examples/limits")).unwrap());
    for library in ["lib/x86_64-linux-gnu/libgcc_s.so.1", "lib/x86_64-linux-gnu/libc.so.6", "lib64/ld-linux-x86-64.so.2"] {
        member(&mut archive, library, 0o100_755, &std::fs::read(Path::new("/").join(library)).unwrap());
    }
    member(&mut archive, "TRAILER!!!", 0, b"");
    let disk = dir.path().join("initrd");
    File::create(&disk).unwrap().write_all(&archive).unwrap();
    let mut command = Command::new("qemu-system-x86_64");
    command.args(["-nodefaults", "-no-user-config", "-M", "q35", "-accel", "tcg", "-cpu", "max", "-m", "256", "-no-reboot"]);
    command.args(["-display", "none", "-serial", "stdio", "-append", "console=ttyS0 quiet skep.exec=/limits/go"]);
    let data = dir.path().join("data");
    File::create(&data).unwrap().set_len(4 << 20).unwrap();
    command.arg("-drive").arg(format!("if=virtio,format=raw,file={}", data.display()));
    command.arg("-kernel").arg(kernel).arg("-initrd").arg(&disk).stdin(Stdio::null()).stdout(Stdio::piped());
    let Ok(mut hypervisor) = command.spawn() else { return skip(name, "no hypervisor; see scripts/packages") };
    let output = BufReader::new(hypervisor.stdout.take().unwrap());
    let lines: Vec<String> = output.split(b'\n').map(|line| String::from_utf8_lossy(&line.unwrap()).trim().to_owned()).collect();
    hypervisor.wait().unwrap();
    let all = lines.join("\n");
    let said: Vec<&str> = lines.iter().filter_map(|line| Some(line.split_once("limits: ")?.1)).collect();
    let says = |text: &str| assert!(said.contains(&text), "`{text}` is missing:\n{all}");
    says("offered memory cpu tasks priority rates");
    says("disk true");
    says("modest exit 0");
    // By the kernel, when the group had no memory left.
    says("greedy SIGKILL");
    let busy = said.iter().find_map(|line| line.strip_prefix("busy exit ")).unwrap_or_else(|| panic!("{all}"));
    let busy: u32 = busy.parse().unwrap();
    assert!((10..=30).contains(&busy), "{busy} percent of a CPU, where 20 were allowed:\n{all}");
    says("counted memory true cpu true");
    says("machines 1");
    // Five tasks: itself and four more.
    says("breeding exit 4");
    says("reading exit 0");
    assert!(said.iter().any(|line| line.starts_with("read ") && line.ends_with("slower true")), "{all}");
    assert!(said.iter().any(|line| line.starts_with("io.max ") && line.contains("rbps=524288 wbps=max")), "{all}");
    says("nice 5 of 1");
    // What only root with CAP_SYS_RESOURCE lets its children have, each of them what it asked for and no more.
    says("Precedence { raises: true, spares: true, wires: true }");
    says("nothing: nice 0 score 0 raised false never false locked false of 8388608");
    says("all: nice -7 score -999 raised false never false locked true of 8388608");
    says("yielding: nice 7 score 0 raised false never false locked false of 8388608");
    let refused = "a file in memory: limits.write_iops the device of a disk is not known";
    assert!(said.iter().any(|line| line.starts_with(refused)), "{all}");
    says("machines after it 0");
    says("swept, machines 0");
    says("done");
}
