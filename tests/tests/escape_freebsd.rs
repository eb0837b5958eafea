//! A stranger with full control of bhyve finds an empty room: `probe/freebsd.c` runs in bhyve's place, with its exact confinement, and
//! everything it tries fails there; outside, as root, each attempt succeeds.
#![cfg(target_os = "freebsd")]

use anyhow::{Context, Result, ensure};
use skep_tests::{Mode, Suite, escape, is_root, platform, skip};
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};

/// A jail and an instance of vmm of somebody else's, which go with this.
struct Others {
    jail: String,
    vm: String,
}

impl Others {
    fn make(mark: &str) -> Result<Self> {
        let (jail, vm) = (format!("skp{mark}"), format!("skp{mark}"));
        ensure!(Command::new("jail").args(["-c", "persist", "path=/", &format!("name={jail}")]).status()?.success(), "jail");
        let others = Self { jail, vm };
        others.make_vm()?;
        Ok(others)
    }
    fn make_vm(&self) -> Result<()> {
        let made = Command::new("sysctl").arg(format!("hw.vmm.create={}", self.vm)).stdout(Stdio::null()).status()?;
        ensure!(made.success(), "hw.vmm.create");
        Ok(())
    }
    fn jid(&self) -> Result<String> {
        let output = Command::new("jls").args(["-j", &self.jail, "jid"]).output()?;
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }
}

impl Drop for Others {
    fn drop(&mut self) {
        let _ = Command::new("jail").args(["-r", &self.jail]).status();
        let _ = Command::new("sysctl").arg(format!("hw.vmm.destroy={}", self.vm)).stdout(Stdio::null()).status();
    }
}

/// A process of the host that nobody may touch.
struct Victim(std::process::Child);

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Devices of tuntap(4) that the host has.
fn taps() -> Result<Vec<String>> {
    let names = std::fs::read_dir("/dev")?.map(|e| Ok(e?.file_name().to_string_lossy().into_owned()));
    let names = names.collect::<Result<Vec<_>>>()?;
    Ok(names.into_iter().filter(|name| ["tap", "tun", "vmnet"].iter().any(|kind| name.starts_with(kind))).collect())
}

/// The first disk of the host, its first interface, the type of its root.
fn of_host() -> Result<(String, String, String)> {
    let line = |program: &str, args: &[&str]| -> Result<String> {
        Ok(String::from_utf8(Command::new(program).args(args).output().context(program.to_owned())?.stdout)?)
    };
    let disks = line("sysctl", &["-n", "kern.disks"])?;
    let disk = disks.split_whitespace().next().context("the host has no disk")?.to_owned();
    let interfaces = line("ifconfig", &["-l"])?;
    let interface = interfaces.split_whitespace().next().context("no interface")?.to_owned();
    let mounts = line("mount", &["-p"])?;
    let root = mounts.lines().map(|l| l.split_whitespace().collect::<Vec<_>>()).find(|f| f.get(1) == Some(&"/"));
    let kind = root.and_then(|f| f.get(2).map(|k| (*k).to_owned())).context("no root file system")?;
    Ok((format!("/dev/{disk}"), interface, kind))
}

/// A module that is not loaded, and that nothing would miss.
fn module() -> Result<&'static str> {
    let loaded = Command::new("kldstat").output()?.stdout;
    let loaded = String::from_utf8_lossy(&loaded).into_owned();
    let candidates = [
        "if_disc",
        "if_edsc",
        "accf_data",
        "accf_http",
        "snp",
        "if_gif",
        "mqueuefs",
        "ng_hole",
        "ng_echo",
        "ng_pipe",
        "ng_tee",
        "if_lagg",
        "filemon",
    ];
    let free = |m: &&str| !loaded.contains(*m) && std::path::Path::new(&format!("/boot/kernel/{m}.ko")).exists();
    candidates.into_iter().find(free).context("no small kernel module to try with")
}

#[test]
fn nothing_that_a_taken_over_bhyve_tries_gets_out_of_its_jail() -> Result<()> {
    if !is_root() {
        skip!("the attempts outside need root");
    }
    let before = taps()?;
    let suite = Suite::start(Mode::Root)?;
    let probe = suite.dir().join("probe");
    platform::probe(&probe)?;
    let secret = suite.dir().join("secret");
    std::fs::write(&secret, "x")?;
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let terminal = nix::pty::openpty(None, None)?;
    let tty = nix::unistd::ttyname(&terminal.slave)?;
    ensure!(terminal.master.as_raw_fd() >= 0);
    let victim = Victim(Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn()?);
    let others = Others::make(&suite.instance())?;
    let (disk, interface, kind) = of_host()?;
    let host = Command::new("hostname").output()?.stdout;
    let facts = format!(
        " secret={} state={} port={} broker={} pid={} jail={} vm={} disk={disk} interface={interface} fstype={kind} tty={} module={} \
         host={} ",
        secret.display(),
        suite.state.display(),
        listener.local_addr()?.port(),
        suite.run.join("broker.sock").display(),
        victim.0.id(),
        others.jid()?,
        others.vm,
        tty.display(),
        module()?,
        String::from_utf8_lossy(&host).trim(),
    );
    let file = suite.dir().join("facts");
    std::fs::write(&file, format!(" where=outside{facts}"))?;
    let outside = Command::new(&probe).arg(&file).output()?;
    // It is destroyed by the last attempt on it.
    others.make_vm()?;

    let cell = suite.state.join("cell/root");
    let hypervisor = cell.join(platform::HYPERVISOR);
    std::fs::remove_file(&hypervisor)?;
    std::fs::copy(&probe, &hypervisor)?;
    std::fs::write(cell.join("skep/facts"), format!(" where=cell{facts}"))?;
    suite.import_guest()?;
    suite.define("m", &[])?;
    // bhyve says nothing while it starts, so that it was started counts.
    suite.ok(&["vm", "start", "m"])?;
    suite.ok(&["events", "--after", "0", "--until", "failed", "--timeout", "120"])?;
    let log = suite.ok(&["vm", "log", "m", "--hypervisor"])?;
    drop(victim);
    drop(others);
    // Without a network stack of its own a jail still answers what flags an interface has.
    let known: &[&str] = if std::path::Path::new("/dev/vmmctl").exists() { &["hosts_interface"] } else { &[] };
    escape::judge(&String::from_utf8_lossy(&outside.stderr), &log, "docs/escape-freebsd.md", known)?;
    suite.finish()?;
    // Before 15 the kernel makes a device for whoever is root of a network stack, and only then says that there is none to open.
    let after = taps()?;
    ensure!(after == before, "left in /dev: {after:?}, before {before:?}");
    Ok(())
}
