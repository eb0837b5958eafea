//! A host beyond this one (Linux): a network namespace with a server in it, on a network of its own.
#![cfg(target_os = "linux")]

use crate::Suite;
use anyhow::{Context, Result, ensure};
use std::process::{Child, Command};

const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// See the module. Gone when it is dropped.
pub struct Beyond {
    /// Its address, on which it serves `beyond-the-nat` by HTTP.
    pub address: String,
    /// This host's address beside it.
    pub host: String,
    name: String,
    server: Child,
}

/// Runs a command of the host's; what it prints.
pub fn run(line: &str) -> Result<String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (program, args) = words.split_first().context("a command")?;
    let output = Command::new(program).args(args).env("PATH", PATH).output().with_context(|| line.to_owned())?;
    ensure!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

impl Beyond {
    /// Makes one for a suite, on four addresses of 198.18.0.0/15 (RFC 2544) that are its alone.
    pub fn new(suite: &Suite) -> Result<Self> {
        let instance = suite.instance();
        let name = format!("skt{instance}");
        let net = 0xc612_0000u32 + ((u32::from(instance.parse::<skep_proto::InstanceId>()?.number()) & 0x7fff) << 2);
        let [host, address] = [1, 2].map(|n| std::net::Ipv4Addr::from(net + n).to_string());
        let (a, b) = (format!("{name}a"), format!("{name}b"));
        run(&format!("ip netns add {name}"))?;
        run(&format!("ip link add {a} type veth peer name {b} netns {name}"))?;
        run(&format!("ip addr add {host}/30 dev {a}"))?;
        run(&format!("ip link set {a} up"))?;
        run(&format!("ip -n {name} addr add {address}/30 dev {b}"))?;
        run(&format!("ip -n {name} link set {b} up"))?;
        run(&format!("ip -n {name} link set lo up"))?;
        let dir = suite.dir().join("beyond");
        std::fs::create_dir_all(&dir)?;
        std::fs::write(dir.join("index.html"), "beyond-the-nat\n")?;
        let words = format!("netns exec {name} busybox httpd -f -p {address}:80 -h");
        let server = Command::new("/usr/sbin/ip").args(words.split(' ')).arg(&dir).env("PATH", PATH).spawn()?;
        Ok(Self { address, host, name, server })
    }

    /// Runs a command there.
    pub fn run(&self, line: &str) -> Result<String> {
        run(&format!("ip netns exec {} {line}", self.name))
    }

    /// `skep up` there, with its interface as uplink: a suite's network is the one that it is started in.
    pub fn starts(&self, suite: &Suite) -> Result<()> {
        let up = suite.command(&["up", "--uplinks", &format!("{}b", self.name)]);
        // Not `ip netns exec`, which mounts another /sys, without cgroups.
        let mut there = Command::new("nsenter");
        there.arg(format!("--net=/run/netns/{}", self.name)).arg(up.get_program()).args(up.get_args());
        for (name, value) in up.get_envs() {
            match value {
                Some(value) => there.env(name, value),
                None => there.env_remove(name),
            };
        }
        let output = there.output()?;
        ensure!(output.status.success(), "{}\n{}", String::from_utf8_lossy(&output.stderr), suite.logs());
        Ok(())
    }
}

impl Drop for Beyond {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
        let _ = run(&format!("ip netns delete {}", self.name));
    }
}
