//! The real QEMU, started on a generated configuration.

use crate::platform;
use nix::sys::socket::{AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, socketpair};
use serde_json::{Value, json};
use skep_engine_qemu::qmp::{self, Line, Reader, Reply};
use skep_engine_qemu::*;
use skep_machine::*;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard};

/// Descriptors are inherited by every child of this process: one QEMU at a time.
static ALONE: Mutex<()> = Mutex::new(());

pub fn skipped(why: &str) {
    println!("SKIP {}: {why}", std::thread::current().name().unwrap_or("?"));
}

pub fn qemu_is_there() -> bool {
    Path::new(BINARY).exists() || {
        skipped("qemu-system-x86_64 is not installed");
        false
    }
}

/// The kernel and initial RAM disk that `scripts/guest` made.
pub fn guest() -> Option<PathBuf> {
    let made = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/guest");
    let dir = std::env::var_os("SKEP_GUEST_DIR").map_or(made, PathBuf::from);
    if dir.join("kernel").exists() && dir.join("initrd").exists() {
        return Some(dir);
    }
    skipped("no guest: run scripts/guest and set SKEP_GUEST_DIR");
    None
}

pub struct Running {
    pub child: Child,
    pub qmp: UnixStream,
    pub serial: UnixStream,
    reader: Reader,
    lines: std::collections::VecDeque<Line>,
    history: History,
    next: u64,
    _dir: tempfile::TempDir,
    _alone: MutexGuard<'static, ()>,
}

pub fn tap_name(slot: u8) -> String {
    format!("skeq{slot}-{}", std::process::id())
}

pub fn pair() -> (UnixStream, OwnedFd) {
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC).unwrap();
    let ours = UnixStream::from(ours);
    // So that a guest that hangs fails its test.
    ours.set_read_timeout(Some(std::time::Duration::from_secs(90))).unwrap();
    (ours, theirs)
}

impl Running {
    /// Starts QEMU for the model; disks are new files of 16 MiB, or that file for slot 0.
    pub fn start(spec: &MachineSpec, disk0: Option<&Path>) -> Self {
        let alone = ALONE.lock().unwrap_or_else(|dead| dead.into_inner());
        let dir = tempfile::tempdir().unwrap();
        let ((qmp, qmp_end), (serial, serial_end)) = (pair(), pair());
        let mut keep: Vec<OwnedFd> = vec![];
        let mut fds = Fds { qmp: qmp_end.as_raw_fd(), serials: vec![serial_end.as_raw_fd()], ..Fds::standard() };
        for _ in 1..spec.serial_ports.len() {
            let (ours, theirs) = pair();
            fds.serials.push(theirs.as_raw_fd());
            keep.extend([theirs, ours.into()]);
        }
        keep.extend([qmp_end, serial_end]);
        for disk in &spec.disks {
            let path = dir.path().join(format!("disk{}", disk.slot));
            match disk0.filter(|_| disk.slot == 0) {
                Some(from) => drop(std::fs::copy(from, &path).unwrap()),
                None if disk.format == Format::Qcow2 => std::fs::write(&path, empty_qcow2()).unwrap(),
                None => File::create(&path).unwrap().set_len(16 << 20).unwrap(),
            }
            let file = OpenOptions::new().read(true).write(!disk.is_read_only()).open(&path).unwrap();
            fds.disks.insert(disk.slot, file.as_raw_fd());
            keep.push(file.into());
        }
        if spec.boot == Boot::Uefi {
            std::fs::copy(UEFI_VARS, dir.path().join("vars")).unwrap();
            let vars = OpenOptions::new().read(true).write(true).open(dir.path().join("vars")).unwrap();
            fds.vars = vars.as_raw_fd();
            keep.push(vars.into());
        }
        for nic in &spec.nics {
            let tap = platform::tap(&tap_name(nic.slot)).unwrap();
            fds.taps.insert(nic.slot, tap.as_raw_fd());
            keep.push(tap);
        }
        let launch = configure(spec, &fds).unwrap();
        // There is no cell here: what is at fixed places there is in a directory of the test's.
        let own = dir.path().display();
        let here = |text: &str| text.replace("/run/", &format!("{own}/")).replace("\"/share/", &format!("\"{own}/share"));
        for at in 0..spec.shares.len() {
            std::fs::create_dir(dir.path().join(format!("share{at}"))).unwrap();
        }
        std::fs::write(dir.path().join("machine.conf"), here(&launch.config)).unwrap();
        if let (Boot::Direct { .. }, Some(guest)) = (&spec.boot, guest()) {
            std::fs::copy(guest.join("kernel"), dir.path().join("kernel")).unwrap();
            std::fs::copy(guest.join("initrd"), dir.path().join("initrd")).unwrap();
        }
        for fd in &keep {
            skep_sys::fd::set_cloexec(fd.as_fd(), false).unwrap();
        }
        let errors = File::create(dir.path().join("stderr")).unwrap();
        let child = Command::new(BINARY).args(launch.argv.iter().map(|a| here(a))).stdin(Stdio::null()).stderr(errors).spawn();
        drop(keep);
        let mut running = Self {
            child: child.unwrap(),
            qmp,
            serial,
            reader: Reader::default(),
            lines: Default::default(),
            history: History::default(),
            next: 10,
            _dir: dir,
            _alone: alone,
        };
        match running.line() {
            Some(Line::Greeting(major, ..)) => assert!(major >= 7),
            other => panic!("{other:?}: {}", running.last_words()),
        }
        let (cont, before) = launch.qmp_first.split_last().unwrap();
        assert_eq!(*cont, qmp::cont(1));
        before.iter().enumerate().for_each(|(id, line)| assert_eq!(running.ask(id as u64, line), json!({})));
        running
    }
    pub fn last_words(&self) -> String {
        std::fs::read_to_string(self._dir.path().join("stderr")).unwrap()
    }
    /// The next line; `None` at the end.
    pub fn line(&mut self) -> Option<Line> {
        let mut bytes = [0; 4096];
        while self.lines.is_empty() {
            match self.qmp.read(&mut bytes) {
                Ok(0) | Err(_) => return None,
                Ok(n) => self.reader.feed(&bytes[..n], |line| self.lines.push_back(line)).unwrap(),
            }
        }
        let line = self.lines.pop_front();
        if let Some(Line::Event(event)) = line {
            self.history.note(event);
        }
        line
    }
    pub fn ask(&mut self, id: u64, line: &str) -> Value {
        self.qmp.write_all(line.as_bytes()).unwrap();
        loop {
            match self.line().unwrap_or_else(|| panic!("QEMU ended: {}", self.last_words())) {
                Line::Reply(of, Reply::Done(value)) if of == id => return value,
                Line::Event(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }
    /// Sends a descriptor, which is then called `given`.
    pub fn give(&mut self, theirs: OwnedFd, id: u64) {
        let line = qmp::getfd(id, "given");
        let rights = [theirs.as_raw_fd()];
        let parts = [std::io::IoSlice::new(line.as_bytes())];
        let sent = sendmsg::<()>(self.qmp.as_raw_fd(), &parts, &[ControlMessage::ScmRights(&rights)], MsgFlags::empty(), None);
        assert_eq!(sent, Ok(line.len()));
        assert_eq!(self.ask(id, ""), json!({}));
    }
    pub fn query(&mut self, name: &str) -> Value {
        self.next += 1;
        let line = format!("{}\n", json!({"execute": name, "id": self.next}));
        self.ask(self.next, &line)
    }
    pub fn run(&mut self) {
        assert_eq!(self.ask(1, &qmp::cont(1)), json!({}));
    }
    /// Reads until the mark has come; gives what came.
    pub fn serial_until(&mut self, mark: &str) -> String {
        let mut seen = Vec::new();
        let mut bytes = [0; 4096];
        while !String::from_utf8_lossy(&seen).contains(mark) {
            let n =
                self.serial.read(&mut bytes).unwrap_or_else(|e| panic!("{e} before {mark}: {}", String::from_utf8_lossy(&seen)));
            assert!(n > 0, "serial ended: {}", String::from_utf8_lossy(&seen));
            seen.extend_from_slice(&bytes[..n]);
        }
        String::from_utf8_lossy(&seen).into_owned()
    }
    /// Reads both lines to their ends and judges.
    pub fn end(mut self) -> Ended {
        let mut serial = self.serial.try_clone().unwrap();
        let drain = std::thread::spawn(move || std::io::copy(&mut serial, &mut std::io::sink()));
        while self.line().is_some() {}
        if self.child.try_wait().unwrap().is_none() && self.history == History::default() {
            self.child.kill().unwrap(); // it hangs; let the verdict show it
        }
        let status = self.child.wait().unwrap();
        let _ = drain.join();
        let exit = status.code().map_or_else(|| Exit::Signal(status.signal().unwrap()), Exit::Code);
        self.history.ended(exit)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A QCOW2 image of 16 MiB with nothing in it (docs/interop/qcow2.txt), version 2.
pub fn empty_qcow2() -> Vec<u8> {
    const CLUSTER: usize = 1 << 16;
    let mut image = vec![0; 4 * CLUSTER];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"QFI\xfb");
    put(4, &2u32.to_be_bytes());
    put(20, &16u32.to_be_bytes()); // cluster bits
    put(24, &(16u64 << 20).to_be_bytes());
    put(36, &1u32.to_be_bytes()); // L1 entries
    put(40, &(3 * CLUSTER as u64).to_be_bytes()); // L1 table
    put(48, &(CLUSTER as u64).to_be_bytes()); // refcount table
    put(56, &1u32.to_be_bytes()); // its clusters
    put(CLUSTER, &(2 * CLUSTER as u64).to_be_bytes());
    for cluster in 0..4 {
        put(2 * CLUSTER + 2 * cluster, &1u16.to_be_bytes());
    }
    image
}
