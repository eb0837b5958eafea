//! A guest's end of a cable, in a network namespace of the test's own.

use super::support::{NIC, Process};
use nix::sched::{CloneFlags, unshare};
use skep_proto::services::{AddPort, Document, Subnet};
use skep_proto::{MachineId, Text, UpTo};
use skep_sys::fd;
use std::os::fd::OwnedFd;
use std::process::Command;

/// Gives this thread a network namespace of its own, which what it starts has, too. False: it may not, and the test is skipped.
pub fn namespace() -> bool {
    let why = if Command::new("busybox").arg("true").status().is_err() {
        "there is no busybox"
    } else if unshare(CloneFlags::CLONE_NEWNET).is_err() {
        "not root: no network namespace can be made"
    } else {
        return true;
    };
    println!("SKIP {}: {why}", std::thread::current().name().unwrap_or("guest"));
    false
}

/// What a command at the guest's end says.
pub fn busybox(command: &[&str]) -> String {
    let output = Command::new("busybox").args(command).output().unwrap();
    // Some of them complain where they should answer.
    let said = if output.stdout.is_empty() { output.stderr } else { output.stdout };
    String::from_utf8_lossy(&said).into_owned()
}

/// A veth: the guest's end, and the host's, which has no address.
pub struct Cable {
    pub guest: String,
    pub index: u32,
    pub mac: [u8; 6],
    /// Of IPv6, too.
    pub six: bool,
    pub dir: tempfile::TempDir,
}

impl Cable {
    pub fn new(guest: &str) -> Self {
        let host = format!("veth{}", (0..).find(|n| index(&format!("veth{n}")).is_none()).unwrap());
        busybox(&["ip", "link", "add", "name", guest, "type", "veth"]);
        for end in [guest, &host] {
            busybox(&["ip", "link", "set", end, "up"]);
        }
        let shown = busybox(&["ip", "link", "show", "dev", guest]);
        let mac = shown.split_whitespace().skip_while(|word| *word != "link/ether").nth(1).unwrap_or_else(|| panic!("{shown}"));
        let mac: Vec<u8> = mac.split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
        Self {
            guest: guest.into(),
            index: index(&host).unwrap(),
            mac: mac.try_into().unwrap(),
            six: false,
            dir: tempfile::tempdir().unwrap(),
        }
    }

    /// What net-helper opens for its NIC.
    pub fn frames(&self) -> OwnedFd {
        skep_sys::linux::packet::port(self.index, self.six).unwrap()
    }
}

fn index(name: &str) -> Option<u32> {
    nix::net::if_::if_nametoindex(name).ok()
}

pub fn port(cable: &Cable, address: &str, host: &str) -> AddPort {
    AddPort {
        nic: NIC,
        machine: MachineId::from_u128(9),
        mac: cable.mac,
        address: address.parse().unwrap(),
        host: Text::lossy(host),
        subnet: Subnet {
            prefix: 24,
            router: Some("10.90.0.1".parse().unwrap()),
            domain: Text::lossy("lan"),
            mtu: 1500,
            v6: None,
        },
        document: false,
    }
}

impl Process {
    pub fn add(&mut self, port: AddPort, cable: &Cable, document: Option<&Document>) {
        let mut fds = vec![cable.frames()];
        fds.extend(document.map(|document| fd::sealed_memory_file(c"document", &document.encode().unwrap()).unwrap()));
        self.ask(AddPort { document: document.is_some(), ..port }, UpTo(fds)).unwrap();
    }
}
