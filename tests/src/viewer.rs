//! Somebody who looks at a machine's screen: a client of RFB (RFC 6143) on a port of `skep vm vnc`.

use crate::Suite;
use anyhow::{Context, Result, ensure};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};

/// See the module.
pub struct Viewer {
    relay: Child,
    stream: TcpStream,
    /// Width and height in pixels, as he was told them last.
    pub size: (u16, u16),
}

/// The pseudo-encoding by which a server says that its screen has another size (7.8.2).
const DESKTOP_SIZE: i32 = -223;

fn two(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

impl Viewer {
    /// Joins the screen of a machine.
    pub fn join(suite: &Suite, name: &str) -> Result<Self> {
        let mut relay = suite.command(&["vm", "vnc", name, "--listen", "127.0.0.1:0"]).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(relay.stdout.take().context("no output")?).read_line(&mut line)?;
        let stream = TcpStream::connect(line.split_whitespace().last().context("no address")?)?;
        let mut viewer = Self { relay, stream, size: (0, 0) };
        // 7.1 to 7.3: version; security types, of which none; shared.
        ensure!(viewer.read(12)? == b"RFB 003.008\n");
        viewer.stream.write_all(b"RFB 003.008\n")?;
        let types = viewer.read(1)?[0];
        ensure!(viewer.read(types.into())?.contains(&1), "no viewer without a password");
        viewer.stream.write_all(&[1])?;
        ensure!(viewer.read(4)? == [0; 4], "refused");
        viewer.stream.write_all(&[1])?;
        let size = viewer.read(4)?;
        viewer.size = (two(&size, 0), two(&size, 2));
        Ok(viewer)
    }

    fn read(&mut self, count: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; count];
        self.stream.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// Looks on until the screen has a size. To be called once, before anything else is read.
    pub fn sees(&mut self, size: (u16, u16)) -> Result<()> {
        let rest = self.read(20)?;
        let (pixel, name) = (usize::from(rest[0] / 8), u32::from_be_bytes([rest[16], rest[17], rest[18], rest[19]]));
        self.read(name.try_into()?)?;
        // Pixels as they are, and sizes.
        self.stream.write_all(&[&[2, 0, 0, 2, 0, 0, 0, 0][..], &DESKTOP_SIZE.to_be_bytes()].concat())?;
        while self.size != size {
            let (width, height) = self.size;
            let whole = [[0, 0], [0, 0], width.to_be_bytes(), height.to_be_bytes()].concat();
            self.stream.write_all(&[&[3, 1][..], &whole].concat())?;
            let head = self.read(4)?;
            ensure!(head[0] == 0, "message {} of the server", head[0]);
            for _ in 0..two(&head, 2) {
                let rect = self.read(12)?;
                let (width, height) = (two(&rect, 4), two(&rect, 6));
                match i32::from_be_bytes([rect[8], rect[9], rect[10], rect[11]]) {
                    0 => drop(self.read(usize::from(width) * usize::from(height) * pixel)?),
                    DESKTOP_SIZE => self.size = (width, height),
                    other => anyhow::bail!("encoding {other}, which nobody asked for"),
                }
            }
        }
        Ok(())
    }

    /// Presses a key and lets it go (7.5.4); for letters its symbol is theirs.
    pub fn types(&mut self, key: u32) -> Result<()> {
        for down in [1, 0] {
            self.stream.write_all(&[&[4, down, 0, 0][..], &key.to_be_bytes()].concat())?;
        }
        Ok(())
    }

    /// Goes away.
    pub fn leave(self) {}
}

impl Drop for Viewer {
    fn drop(&mut self) {
        // It would outlive the test, and keep its output open.
        let _ = self.relay.kill();
        let _ = self.relay.wait();
    }
}
