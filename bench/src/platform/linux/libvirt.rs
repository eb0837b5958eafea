//! libvirt, driven by one `virsh` that is told a call a line, beside a libvirtd of its own (scripts/libvirt).

use crate::many::{Keeper, Measured, measure, name};
use anyhow::{Context, Result, bail, ensure};
use std::io::{BufRead, BufReader, Lines, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// What `virsh` says after each call.
const DONE: &str = "skep-bench-done";

/// Both counts, in one libvirtd. It runs this program again, where its socket is.
pub fn measured(few: usize, many: usize) -> Result<(Measured, Measured)> {
    ensure!(skep_tests::is_root(), "libvirtd is started by root only");
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../scripts/libvirt");
    let own = std::env::current_exe()?;
    let counts = [few.to_string(), many.to_string()];
    let output = Command::new(&script).arg(own).arg("bare-libvirt").args(counts).stderr(Stdio::inherit()).output();
    let output = output.with_context(|| script.display().to_string())?;
    ensure!(output.status.success(), "{}: {}", script.display(), output.status);
    let text = String::from_utf8(output.stdout)?;
    let mut found = text.lines().map(parse).collect::<Result<Vec<_>>>()?.into_iter();
    Ok((found.next().context("no measurement")?, found.next().context("one measurement")?))
}

/// The program below the script: prints a line for each count.
pub fn bare(few: usize, many: usize) -> Result<()> {
    let mut libvirt = Libvirt::start()?;
    for (from, to) in [(0, few), (few, many)] {
        println!("{}", text(&measure(&mut libvirt, from, to)?));
    }
    Ok(())
}

fn text(measured: &Measured) -> String {
    let Measured { list, show, edit, event, mib } = measured;
    let nanos = |samples: &crate::stats::Samples| samples.nanos().map(|n| n.to_string()).collect::<Vec<_>>().join(",");
    format!("{} {} {} {} {mib}", nanos(list), nanos(show), nanos(edit), nanos(event))
}

fn parse(line: &str) -> Result<Measured> {
    let parts: Vec<&str> = line.split(' ').collect();
    let [list, show, edit, event, mib] = parts.as_slice() else { bail!("{line}") };
    let samples = |text: &str| text.split(',').map(|n| Ok(n.parse::<u64>()?)).collect::<Result<crate::stats::Samples>>();
    Ok(Measured { list: samples(list)?, show: samples(show)?, edit: samples(edit)?, event: samples(event)?, mib: mib.parse()? })
}

struct Libvirt {
    virsh: Child,
    to: ChildStdin,
    from: Lines<BufReader<ChildStdout>>,
    watch: Child,
    events: Lines<BufReader<ChildStdout>>,
    files: tempfile::TempDir,
}

/// One that is told what to do line by line. Not `-q`: nothing would end the line that `echo` prints.
fn virsh() -> Result<Child> {
    let mut command = Command::new("virsh");
    command.args(["-c", "qemu:///system"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    command.spawn().context("virsh")
}

/// What it printed since it was told last, without empty lines. It repeats what it is told, behind its prompt.
fn said(from: &mut Lines<BufReader<ChildStdout>>) -> Result<Vec<String>> {
    let mut said = Vec::new();
    loop {
        let line = from.next().context("virsh ended")??;
        match line.trim() {
            DONE => return Ok(said),
            line if line.is_empty() || line.starts_with("virsh # ") => {}
            line => said.push(line.to_owned()),
        }
    }
}

fn lines(child: &mut Child) -> Result<Lines<BufReader<ChildStdout>>> {
    Ok(BufReader::new(child.stdout.take().context("no output")?).lines())
}

impl Libvirt {
    fn start() -> Result<Self> {
        let mut virsh_ = virsh()?;
        // Line by line, though it is a pipe.
        let watch = ["-oL", "virsh", "-q", "-c", "qemu:///system", "event", "--event", "metadata-change", "--loop"];
        let mut watch =
            Command::new("stdbuf").args(watch).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("stdbuf")?;
        let (from, events) = (lines(&mut virsh_)?, lines(&mut watch)?);
        let to = virsh_.stdin.take().context("no input")?;
        let mut libvirt = Self { virsh: virsh_, to, from, watch, events, files: tempfile::tempdir()? };
        libvirt.call("version")?;
        // The watch is there when it hears of a change; until then it is told of one after the other.
        libvirt.one(0)?;
        let watched = std::thread::scope(|scope| {
            let Self { events, to, from, .. } = &mut libvirt;
            let heard = scope.spawn(|| events.next().is_some());
            while !heard.is_finished() {
                writeln!(to, "desc {} --config --new-desc begin", name(0))?;
                writeln!(to, "echo {DONE}")?;
                to.flush()?;
                said(from)?;
            }
            anyhow::Ok(heard.join().unwrap_or(false))
        })?;
        ensure!(watched, "the watch ended");
        Ok(libvirt)
    }

    /// Does one call, and gives what it printed.
    fn call(&mut self, command: &str) -> Result<Vec<String>> {
        writeln!(self.to, "{command}")?;
        writeln!(self.to, "echo {DONE}")?;
        self.to.flush()?;
        said(&mut self.from)
    }

    fn one(&mut self, number: usize) -> Result<()> {
        let path = self.files.path().join("domain.xml");
        let name = name(number);
        let xml = format!(
            "<domain type='qemu'><name>{name}</name><memory unit='MiB'>128</memory><vcpu>1</vcpu><os><type arch='x86_64' machine='q35'>hvm</type></os></domain>"
        );
        std::fs::write(&path, xml)?;
        let said = self.call(&format!("define {}", path.display()))?;
        ensure!(said.iter().any(|line| line.contains("defined")) || said.is_empty(), "{said:?}");
        Ok(())
    }
}

impl Keeper for Libvirt {
    fn define(&mut self, from: usize, to: usize) -> Result<()> {
        (from.max(1)..to).try_for_each(|number| self.one(number))
    }
    fn list(&mut self) -> Result<usize> {
        Ok(self.call("list --all")?.iter().filter(|line| line.contains("machine-")).count())
    }
    fn show(&mut self, name: &str) -> Result<()> {
        let said = self.call(&format!("dumpxml {name}"))?;
        ensure!(said.iter().any(|line| line.contains(name)), "{said:?}");
        Ok(())
    }
    fn edit(&mut self, name: &str, description: &str) -> Result<()> {
        let said = self.call(&format!("desc {name} --config --new-desc '{description}'"))?;
        ensure!(!said.iter().any(|line| line.starts_with("error")), "{said:?}");
        Ok(())
    }
    fn heard(&mut self, name: &str) -> Result<()> {
        while !self.events.next().context("the watch ended")??.contains(name) {}
        Ok(())
    }
    fn mib(&mut self) -> Result<f64> {
        let pid: i32 = std::fs::read_to_string("/run/libvirtd.pid").context("/run/libvirtd.pid")?.trim().parse()?;
        Ok(super::pss(pid)? as f64 / f64::from(1 << 20))
    }
}

impl Drop for Libvirt {
    fn drop(&mut self) {
        for child in [&mut self.virsh, &mut self.watch] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
