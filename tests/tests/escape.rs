//! A stranger with full control of a hypervisor finds an empty room: `probe/probe.c` runs in the hypervisor's place, with its exact
//! confinement, and everything it tries fails there; outside, as root, each attempt succeeds.
#![cfg(target_os = "linux")]

use anyhow::{Context, Result, ensure};
use skep_tests::iscsi::{self, Target};
use skep_tests::{Mode, Suite, escape, is_root, root, skip};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Compiles the probe, static, so that it needs nothing of the host.
fn compile(to: &Path) -> Result<()> {
    let source = root().join("tests/probe/probe.c");
    let status = Command::new("cc").args(["-O1", "-static", "-o"]).arg(to).arg(source).status().context("cc")?;
    ensure!(status.success(), "the probe does not compile");
    Ok(())
}

fn in_the_hypervisors_place(mode: Mode, shares: &[&str]) -> Result<()> {
    in_its_place(mode, shares, false)
}

fn in_its_place(mode: Mode, shares: &[&str], iscsi: bool) -> Result<()> {
    let suite = Suite::prepare(mode)?;
    let shared = suite.dir().join("shared");
    std::fs::create_dir(&shared)?;
    std::fs::set_permissions(&shared, std::os::unix::fs::PermissionsExt::from_mode(0o777))?;
    std::fs::copy("/bin/true", shared.join("program"))?;
    std::os::unix::fs::symlink(suite.dir().canonicalize()?.join("secret"), shared.join("link"))?;
    let shared = format!("dir={0},same={0}", shared.canonicalize()?.display());
    suite.ok(&["up", "--shares", &shared, "--iscsi-portals", "127.0.0.1"])?;
    let probe = suite.dir().join("probe");
    compile(&probe)?;
    let secret = suite.dir().join("secret");
    std::fs::write(&secret, "x")?;
    let port = std::net::TcpListener::bind("127.0.0.1:0")?;
    let name = format!("skep-probe-{}", std::process::id());
    let _abstract = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name)?)?;
    let bait = Bait(Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn()?);
    let pid = bait.0.id();
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let address = maps.split('-').next().context("no mapping")?.to_owned();
    let facts = |place: &str, own: &str, host: &str| {
        format!(
            "probe-begin where={place} secret={} state={} self={own} port={} abstract={name} broker={} pid={pid} address={address} \
             host={host} shm={pid} queue=skep-q-{pid} probe-end ",
            secret.display(),
            suite.state.display(),
            port.local_addr().map(|a| a.port()).unwrap_or(0),
            suite.run.join("broker.sock").display()
        )
    };
    // Outside: the same program as root. Shared memory and a message queue for it to find.
    let file = suite.dir().join("facts");
    std::fs::write(&file, facts("outside", &probe.to_string_lossy(), "probe"))?;
    let ipc = Command::new("python3").args(["-c", IPC, "make", &format!("/skep-q-{pid}"), &pid.to_string()]).status()?;
    ensure!(ipc.success(), "shared memory for the probe to find");
    let disk = suite.dir().join("disk");
    let script = format!("exec 9</usr 8<>{}; exec {} {}", disk.display(), probe.display(), file.display());
    let outside = Command::new("unshare").args(["--mount", "--uts", "sh", "-c", &script]).output()?;
    let outside = String::from_utf8_lossy(&outside.stderr).into_owned();

    // Inside: the cell root's hypervisor is the probe; the facts come in the kernel's command line.
    let hypervisor = suite.state.join("cell/root/usr/bin/qemu-system-x86_64");
    std::fs::remove_file(&hypervisor)?;
    std::fs::copy(&probe, &hypervisor)?;
    suite.import_guest()?;
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname")?;
    let line = facts("cell", "/usr/bin/qemu-system-x86_64", host.trim());
    suite.ok(&["disk", "create", "data", "--size", "8M"])?;
    let machine = ["vm", "create", "m", "--memory", "128M", "--kernel", "kernel", "--initrd", "initrd", "--disk", "data"];
    let target = if iscsi { Some(Target::start(suite.dir(), None)?) } else { None };
    if let Some(target) = &target {
        suite.ok(&["disk", "create", "san", "--iscsi", iscsi::NAME, "--portal", &target.portal(), "--lun", iscsi::LUN])?;
    }
    let san = if iscsi { &["--disk", "san"][..] } else { &[] };
    let args = [&machine[..], &["--cmdline", &line], shares, san].concat();
    suite.ok(&args)?;
    let (_, message) = suite.fails(&["vm", "start", "m"])?;
    let inside = suite.ok(&["vm", "log", "m", "--hypervisor"])?;
    drop(bait);

    // It connects to its disk, and there is nothing else that it could.
    let known = if iscsi { &["unix_socket"][..] } else { &[] };
    escape::judge(&outside, &inside, "docs/escape.md", known).with_context(|| message.clone())?;
    drop(target);
    suite.finish()
}

/// A process for the probe to find, with its shared memory and its message queue: none of them stays, however the test ends. A few queues
/// that stay are all that a user may have.
struct Bait(Child);

impl Drop for Bait {
    fn drop(&mut self) {
        let pid = self.0.id();
        let _ = Command::new("python3").args(["-c", IPC, "remove", &format!("/skep-q-{pid}"), &pid.to_string()]).status();
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const IPC: &str = r#"
import ctypes, sys
libc = ctypes.CDLL(None, use_errno=True); rt = ctypes.CDLL("librt.so.1", use_errno=True)
if sys.argv[1] == "make":
    ok = libc.shmget(int(sys.argv[3]), 4096, 0o1600) >= 0 and rt.mq_open(sys.argv[2].encode(), 0o102, 0o600, None) >= 0
else:
    ok = libc.shmctl(libc.shmget(int(sys.argv[3]), 0, 0), 0, None) >= 0 and rt.mq_unlink(sys.argv[2].encode()) >= 0
sys.exit(not ok)
"#;

#[test]
fn nothing_that_a_taken_over_hypervisor_tries_gets_out_of_its_cell() -> Result<()> {
    if !is_root() {
        skip!("the attempts outside need root");
    }
    in_the_hypervisors_place(Mode::Root, &[])
}

#[test]
fn nor_out_of_an_ordinary_users_cell() -> Result<()> {
    if !is_root() {
        skip!("the attempts outside need root");
    }
    in_the_hypervisors_place(Mode::User, &[])
}

/// The right to files of two directories is no right to anything else.
#[test]
fn nor_out_of_one_that_shares_directories() -> Result<()> {
    if !is_root() {
        skip!("the attempts outside need root");
    }
    in_the_hypervisors_place(Mode::Root, &["--share", "dir,ro", "--share", "same"])
}

/// The right to connect to one's disk is no right to anything else.
#[test]
fn nor_out_of_one_with_an_iscsi_disk() -> Result<()> {
    if !is_root() {
        skip!("the attempts outside need root");
    }
    in_its_place(Mode::Root, &[], true)
}
