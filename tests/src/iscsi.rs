//! A real iSCSI target (tgt), on this host's loopback.

use anyhow::{Context, Result, ensure};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The target's name.
pub const NAME: &str = "iqn.2001-04.com.example:disk";
/// The logical unit that is a disk; 0 is none, but tgt's controller.
pub const LUN: &str = "1";

/// See the module. Dropped, it is gone.
pub struct Target {
    dir: PathBuf,
    port: u16,
    chap: Option<(String, String)>,
    server: Option<Child>,
}

impl Target {
    /// Serves a file of 16 MiB in a new directory in `dir`, to whoever has this user and secret, if there is one.
    pub fn start(dir: &Path, chap: Option<(&str, &str)>) -> Result<Self> {
        let dir = dir.join(if chap.is_some() { "chap" } else { "target" });
        std::fs::create_dir(&dir)?;
        std::fs::File::create(dir.join("disk"))?.set_len(16 << 20)?;
        // Free a moment ago, and again in a moment.
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let chap = chap.map(|(user, secret)| (user.to_owned(), secret.to_owned()));
        let mut target = Self { dir, port, chap, server: None };
        target.serve()?;
        Ok(target)
    }

    /// Where its bytes are.
    pub fn file(&self) -> PathBuf {
        self.dir.join("disk")
    }

    /// Where it is reached.
    pub fn portal(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn tgt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("TGT_IPC_SOCKET", self.dir.join("control")).args(["-C", "1"]);
        command
    }

    fn admin(&self, args: &[&str]) -> Result<()> {
        let done = self.tgt("tgtadm").args(["--lld", "iscsi", "--op"]).args(args).output().context("tgtadm")?;
        ensure!(done.status.success(), "tgtadm {args:?}: {}", String::from_utf8_lossy(&done.stderr));
        Ok(())
    }

    /// Is there, or again.
    pub fn serve(&mut self) -> Result<()> {
        for left in ["control", "ready"] {
            let _ = std::fs::remove_file(self.dir.join(left));
        }
        let word = UnixDatagram::bind(self.dir.join("ready"))?;
        word.set_read_timeout(Some(Duration::from_secs(60)))?;
        let log = std::fs::File::create(self.dir.join("log"))?;
        let mut command = self.tgt("tgtd");
        command.args(["-f", "--iscsi", &format!("portal={}", self.portal())]).env("NOTIFY_SOCKET", self.dir.join("ready"));
        self.server = Some(command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn().context("tgtd")?);
        let mut said = [0; 256];
        let length = word.recv(&mut said).context("tgtd does not say that it is ready")?;
        ensure!(said[..length].starts_with(b"READY=1"), "{:?}", String::from_utf8_lossy(&said[..length]));
        self.admin(&["new", "--mode", "target", "--tid", "1", "-T", NAME])?;
        self.admin(&["new", "--mode", "logicalunit", "--tid", "1", "--lun", LUN, "-b", &self.file().to_string_lossy()])?;
        if let Some((user, secret)) = &self.chap {
            self.admin(&["new", "--mode", "account", "--user", user, "--password", secret])?;
            self.admin(&["bind", "--mode", "account", "--tid", "1", "--user", user])?;
        }
        self.admin(&["bind", "--mode", "target", "--tid", "1", "-I", "ALL"])
    }

    /// Goes, without a word.
    pub fn stop(&mut self) {
        if let Some(mut server) = self.server.take() {
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        self.stop();
    }
}
