//! The installed program on directories of its own, and a client in the broker's place.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

use nix::unistd::{Uid, geteuid, seteuid};
use skep_ipc::{CallError, Client};
use skep_proto::storage::*;
use skep_proto::{Call, DiskId, NoFds, Reason, Refusal, Text, TraceId, upload, wire};
use skep_sys::{msg, sock};
use std::io::{BufRead, BufReader};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);
const BROKER: u32 = 61_801;
pub const STORAGE: u32 = 61_803;

pub fn is_root() -> bool {
    geteuid().is_root()
}

/// Tests beside each other are suites beside each other: what they own on the host goes by this.
pub fn instance() -> String {
    format!("t{:03x}", std::process::id() & 0xfff)
}

/// The program: as installed, or as cargo has built it.
fn program() -> PathBuf {
    match std::env::var_os("SKEP_BIN_DIR") {
        Some(dir) => Path::new(&dir).join("skep-storage-helper"),
        None => env!("CARGO_BIN_EXE_skep-storage-helper").into(),
    }
}

/// Says why a test shows nothing here.
pub fn skip(name: &str, reason: &str) {
    println!("SKIP {name}: {reason}");
}

/// STATE and RUN of a helper that may be started several times.
pub struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("skst").tempdir_in("/tmp").unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        for name in ["s", "s/disks", "s/firmware", "r"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        Self { dir }
    }

    /// STATE.
    pub fn state(&self) -> PathBuf {
        self.dir.path().join("s")
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("r/storage-helper.sock")
    }

    /// A scratch file of the test.
    pub fn scratch(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Names in `STATE/disks`.
    pub fn files(&self) -> Vec<String> {
        let mut list: Vec<_> = std::fs::read_dir(self.state().join("disks"))
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        list.sort();
        list
    }

    /// RUN.
    pub fn run(&self) -> PathBuf {
        self.dir.path().join("r")
    }

    /// Starts the program and waits until it serves.
    pub fn start(&self) -> Helper {
        self.start_with(&[]).expect("the helper ended before it served")
    }

    /// The same with more flags; the last line that it said, if it ended.
    pub fn start_with(&self, flags: &[&str]) -> Result<Helper, String> {
        let mut command = Command::new(program());
        command.arg("--state").arg(self.state()).arg("--run").arg(self.run()).args(["--instance", &instance()]).args(flags);
        if is_root() {
            let ids = format!(
                "broker={BROKER},api-frontend=61802,storage-helper={STORAGE},net-helper=61804,vm-runner=61805,machines=61900"
            );
            command.args(["--ids", &ids]);
        }
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut said = String::new();
        loop {
            let Some(line) = lines.next() else {
                child.wait().unwrap();
                return Err(said);
            };
            said = line.unwrap();
            eprintln!("{said}");
            if said.ends_with(" serves") {
                break;
            }
        }
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| eprintln!("{line}")));
        let client = connect(&self.socket()).unwrap();
        Ok(Helper { child, client, socket: self.socket() })
    }
}

/// Connects as the broker does.
fn connect(socket: &Path) -> Result<Client<Storage>, CallError> {
    as_broker(|| Client::connect(socket))
}

pub fn as_broker<T>(act: impl FnOnce() -> T) -> T {
    let root = is_root();
    if root {
        seteuid(Uid::from_raw(BROKER)).unwrap();
    }
    let result = act();
    if root {
        seteuid(Uid::from_raw(0)).unwrap();
    }
    result
}

/// A running program.
pub struct Helper {
    child: Child,
    client: Client<Storage>,
    pub socket: PathBuf,
}

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Helper {
    /// One call with descriptors.
    pub fn call<C: Call<Helper = Storage>>(&mut self, call: C, fds: C::SendFds) -> Result<(C::Reply, C::ReplyFds), Refusal> {
        match self.client.call(TraceId::random(), &Text::lossy("tester"), call, fds, PATIENCE) {
            Ok(reply) => Ok(reply),
            Err(CallError::Refused(refusal)) => Err(refusal),
            Err(other) => panic!("{other}"),
        }
    }

    /// One call without descriptors.
    pub fn ask<C: Call<Helper = Storage, SendFds = NoFds>>(&mut self, call: C) -> Result<C::Reply, Refusal> {
        self.call(call, []).map(|(reply, _)| reply)
    }

    /// One call of a program that may die in it; says whether it answered.
    pub fn try_ask<C: Call<Helper = Storage, SendFds = NoFds>>(&mut self, call: C) -> bool {
        self.client.call(TraceId::random(), &Text::lossy("tester"), call, [], PATIENCE).is_ok()
    }

    pub fn create(&mut self, kind: DiskKind, size: u64) -> DiskId {
        let disk = DiskId::random();
        assert_eq!(self.ask(CreateDisk { disk, kind, size }).unwrap().size, size);
        disk
    }

    /// Starts an import; gives the job's channel.
    pub fn import(&mut self, call: ImportDisk, stream: OwnedFd) -> Result<OwnedFd, Refusal> {
        let (ours, theirs) = sock::seqpacket_pair().unwrap();
        self.call(call, [stream, theirs]).map(|_| ours)
    }

    /// Imports an image's bytes through a pipe, to the end.
    pub fn import_bytes(&mut self, call: ImportDisk, bytes: &[u8]) -> Result<JobDone, Refusal> {
        self.import_wire(call, whole(bytes))
    }

    /// Imports what comes through a pipe.
    pub fn import_wire(&mut self, call: ImportDisk, bytes: Vec<u8>) -> Result<JobDone, Refusal> {
        let (stream, feed) = pipe();
        let channel = self.import(call, stream)?;
        // A job that has refused no longer reads.
        let feeder = std::thread::spawn(move || drop(std::io::Write::write_all(&mut std::fs::File::from(feed), &bytes)));
        let result = finish(&channel).1;
        feeder.join().unwrap();
        result
    }

    pub fn clone_disk(&mut self, from: DiskId, to: DiskId, kind: DiskKind) -> Result<JobDone, Refusal> {
        let (ours, theirs) = sock::seqpacket_pair().unwrap();
        self.call(CloneDisk { from, snapshot: None, to, kind }, [theirs])?;
        finish(&ours).1
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Open descriptors of the program, once it has nothing more to do.
    pub fn descriptors(&mut self) -> usize {
        self.ask(Space {}).unwrap();
        match std::fs::read_dir(format!("/proc/{}/fd", self.pid())) {
            Ok(list) => list.count(),
            Err(_) => words("procstat", &["-h", "-f", &self.pid().to_string()]).lines().count(),
        }
    }

    /// Processes of its jobs.
    pub fn jobs(&self) -> Vec<i32> {
        let list = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.pid()));
        let text = list.unwrap_or_else(|_| words("pgrep", &["-P", &self.pid().to_string()]));
        text.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
    }
}

fn words(program: &str, args: &[&str]) -> String {
    String::from_utf8(Command::new(program).args(args).output().unwrap().stdout).unwrap()
}

/// Reads a job's records to the last.
pub fn finish(channel: &OwnedFd) -> (Vec<(u64, u64)>, Result<JobDone, Refusal>) {
    let mut progress = Vec::new();
    loop {
        match next(channel).expect("the channel was closed without a last record") {
            JobRecord::Progress { done, total } => progress.push((done, total)),
            JobRecord::Done(result) => return (progress, result),
        }
    }
}

/// One record of a job.
pub fn next(channel: &OwnedFd) -> Option<JobRecord> {
    match msg::recv(channel.as_fd(), skep_proto::MAX_RECORD, 0, None) {
        Ok(record) => Some(wire::decode(&record.bytes).unwrap()),
        Err(msg::RecvError::Closed) => None,
        // It was closed with something of ours unread.
        Err(msg::RecvError::Io(e)) if e.kind() == std::io::ErrorKind::ConnectionReset => None,
        Err(e) => panic!("{e}"),
    }
}

/// An upload of these bytes, in pieces of many lengths, with its end.
pub fn whole(bytes: &[u8]) -> Vec<u8> {
    let mut wire = Vec::with_capacity(bytes.len() + 64);
    let (mut rest, mut length) = (bytes, 1);
    while !rest.is_empty() {
        let (piece, more) = rest.split_at(rest.len().min(length));
        wire.extend(upload::header(piece.len()).unwrap());
        wire.extend(piece);
        (rest, length) = (more, length * 3);
    }
    wire.extend(upload::END);
    wire
}

/// Reading and writing end.
pub fn pipe() -> (OwnedFd, OwnedFd) {
    nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap()
}

/// An import without conditions.
pub fn import(disk: DiskId, kind: DiskKind) -> ImportDisk {
    ImportDisk {
        disk,
        kind,
        format: SourceFormat::Detect,
        packing: Packing::Detect,
        limit: 1 << 40,
        most: u64::MAX,
        expect: 0,
        sha256: None,
    }
}

/// Bytes that do not compress and hold no zeros.
pub fn noise(len: usize) -> Vec<u8> {
    let mut x = 0x9e37_79b9_7f4a_7c15u64;
    let step = move || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        (x >> 32) as u8 | 1
    };
    std::iter::repeat_with(step).take(len).collect()
}

/// A whole QCOW2 image of 1 MiB: header, refcount table, refcount block, L1 table, L2 table, one cluster of data.
pub fn qcow2() -> Vec<u8> {
    const CLUSTER: usize = 65536;
    let mut image = vec![0; 6 * CLUSTER];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"QFI\xfb\0\0\0\x03");
    put(20, &16u32.to_be_bytes());
    put(24, &(1u64 << 20).to_be_bytes());
    put(36, &1u32.to_be_bytes());
    put(40, &(3 * CLUSTER as u64).to_be_bytes());
    put(48, &(CLUSTER as u64).to_be_bytes());
    put(56, &1u32.to_be_bytes());
    put(96, &4u32.to_be_bytes());
    put(100, &104u32.to_be_bytes());
    put(CLUSTER, &(2 * CLUSTER as u64).to_be_bytes());
    for used in 0..6 {
        put(2 * CLUSTER + 2 * used, &1u16.to_be_bytes());
    }
    put(3 * CLUSTER, &((1 << 63) | (4 * CLUSTER as u64)).to_be_bytes());
    put(4 * CLUSTER + 8, &((1 << 63) | (5 * CLUSTER as u64)).to_be_bytes());
    put(5 * CLUSTER, &noise(CLUSTER));
    image
}

/// Runs qemu-img; `None` if it is not installed.
pub fn qemu_img(args: &[&str]) -> Option<String> {
    let output = Command::new("qemu-img").args(args).output().ok()?;
    assert!(output.status.success(), "qemu-img {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap())
}

/// Whether qemu-img is there; says that the test `name` is skipped if not.
pub fn has_qemu_img(name: &str) -> bool {
    let there = qemu_img(&["--version"]).is_some();
    if !there {
        skip(name, "qemu-img (Debian: qemu-utils) is not installed");
    }
    there
}

pub fn refused<T: std::fmt::Debug>(result: Result<T, Refusal>, reason: Reason) -> Refusal {
    let refusal = result.unwrap_err();
    assert_eq!(refusal.reason, reason, "{refusal}");
    refusal
}

/// Reads and writes by patterns, as qemu-io(1) does; a read that finds another one fails.
pub fn qemu_io(format: &str, path: &str, commands: &[&str]) {
    let commands = commands.iter().flat_map(|c| ["-c", c]);
    let output = std::process::Command::new("qemu-io").args(["-f", format]).args(commands).arg(path).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && !text.contains("failed"), "{text}{}", String::from_utf8_lossy(&output.stderr));
}
