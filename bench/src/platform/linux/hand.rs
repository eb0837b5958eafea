//! What an administrator would do by hand with the hypervisor, iproute2 and nftables: the floors of `launch` and `nat`.

use anyhow::{Context, Result, ensure};
use skep_tests::Suite;
use std::io::{BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

/// Where programs of the host are.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// Runs a command of the host's.
pub fn run(line: &str) -> Result<()> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (program, args) = words.split_first().context("a command")?;
    let output = Command::new(program).args(args).env("PATH", PATH).output().with_context(|| line.to_owned())?;
    ensure!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Whether the host has a program.
pub fn has(program: &str) -> bool {
    PATH.split(':').any(|dir| Path::new(dir).join(program).exists())
}

/// What has the suite's one running machine run: hardware or software, as QEMU names it.
pub fn accelerator(suite: &Suite) -> Result<String> {
    let configuration = super::bare::configuration(super::cell(suite)?.runner)?;
    let text = String::from_utf8_lossy(&configuration).into_owned();
    let found = text.lines().find_map(|line| line.trim().strip_prefix("accel = \"")?.strip_suffix('"').map(str::to_owned));
    found.context("the machine's configuration names no accelerator")
}

/// A hypervisor started by hand, whose guest's serial line is its standard input and output.
pub struct Hypervisor {
    child: Child,
    said: BufReader<ChildStdout>,
}

impl Hypervisor {
    /// Starts one of the same kind as a machine of skep's, with more of the command line.
    pub fn start(accelerator: &str, memory: &str, more: &[String]) -> Result<Self> {
        let mut command = Command::new("qemu-system-x86_64");
        command.args(["-nodefaults", "-no-user-config", "-display", "none", "-monitor", "none", "-serial", "stdio"]);
        command.args(["-machine", "q35", "-accel", accelerator, "-m", memory, "-smp", "1", "-device", "VGA"]);
        // The processor decides how fast an emulated guest copies.
        command.args(["-cpu", skep_engine_qemu::cpu(accelerator == "tcg", false)]).args(more);
        let mut child =
            command.env("PATH", PATH).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("qemu-system-x86_64")?;
        let said = BufReader::new(child.stdout.take().context("no output")?);
        Ok(Self { child, said })
    }

    /// Waits for the first byte on the serial line.
    pub fn first_byte(&mut self) -> Result<()> {
        self.said.read_exact(&mut [0]).context("the bare hypervisor ended before its guest said anything")
    }

    /// Waits for this text.
    pub fn until(&mut self, text: &str) -> Result<()> {
        let (mut seen, mut byte) = (Vec::new(), [0]);
        while !seen.ends_with(text.as_bytes()) {
            self.said.read_exact(&mut byte).with_context(|| format!("the bare hypervisor ended before {text:?}"))?;
            seen.extend(byte);
        }
        Ok(())
    }

    /// Types a line, and waits for what its command prints in the end, which is not to stand in the line itself.
    pub fn command(&mut self, line: &str, answer: &str) -> Result<()> {
        let input = self.child.stdin.as_mut().context("no input")?;
        writeln!(input, "{line}")?;
        input.flush()?;
        self.until(answer)
    }
}

impl Drop for Hypervisor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
