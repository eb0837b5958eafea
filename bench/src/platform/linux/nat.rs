//! What goes from a guest through a nat switch to a host beyond, against a tap, a bridge and a masquerade made by hand.

use super::hand::{Hypervisor, accelerator, has, run as host};
use crate::report::{Outcome, Row};
use crate::stats::{Samples, ratio};
use crate::suite;
use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{setsockopt, sockopt::ReceiveTimeout};
use nix::sys::time::TimeVal;
use std::fs;
use std::io::Read;
use std::net::TcpListener;
use std::time::{Duration, Instant};

/// Transfers of each kind, in turn.
const PAIRS: usize = 41;
/// MiB of each.
const MIB: u64 = 64;
/// Of the floor's throughput, at least.
const LEAST: f64 = 0.9;
/// This host's side of the cable to the host beyond, and that one's.
const NEAR: &str = "198.51.100.65";
const FAR: &str = "198.51.100.66";
const FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";
/// The hand-made switch and its guest.
const ROUTER: &str = "10.98.1.1";
const GUEST: &str = "10.98.1.2";

/// All that is made by hand on the host; undone when it is dropped.
struct Made {
    name: String,
    forwarded: String,
}

impl Made {
    fn new() -> Result<Self> {
        let name = format!("skb{}", std::process::id());
        let forwarded = fs::read_to_string(FORWARD).context(FORWARD)?;
        let made = Self { name: name.clone(), forwarded };
        // As an administrator who wants a router: both have it.
        fs::write(FORWARD, "1")?;
        host(&format!("ip netns add {name}"))?;
        host(&format!("ip link add {name}a type veth peer name {name}b netns {name}"))?;
        host(&format!("ip addr add {NEAR}/26 dev {name}a"))?;
        host(&format!("ip link set {name}a up"))?;
        host(&format!("ip -n {name} addr add {FAR}/26 dev {name}b"))?;
        host(&format!("ip -n {name} link set {name}b up"))?;
        host(&format!("ip link add {name}r type bridge"))?;
        host(&format!("ip addr add {ROUTER}/24 dev {name}r"))?;
        host(&format!("ip tuntap add dev {name}t mode tap"))?;
        host(&format!("ip link set {name}t master {name}r up"))?;
        host(&format!("ip link set {name}r up"))?;
        host(&format!("nft add table ip {name}"))?;
        host(&format!("nft add chain ip {name} out {{ type nat hook postrouting priority srcnat ; }}"))?;
        host(&format!("nft add rule ip {name} out ip saddr {GUEST} masquerade"))?;
        Ok(made)
    }

    /// A server at the host beyond.
    fn listener(&self) -> Result<TcpListener> {
        let path = format!("/run/netns/{}", self.name);
        let namespace = fs::File::open(&path).context(path)?;
        // A socket stays in the network that its maker was in; this thread is to stay in its own.
        let made = std::thread::spawn(move || -> Result<TcpListener> {
            setns(namespace, CloneFlags::CLONE_NEWNET)?;
            Ok(TcpListener::bind((FAR, 0))?)
        });
        made.join().ok().context("the thread ended")?
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        let name = &self.name;
        let lines = [
            format!("nft delete table ip {name}"),
            format!("ip link delete {name}t"),
            format!("ip link delete {name}r"),
            format!("ip link delete {name}a"),
            format!("ip netns delete {name}"),
        ];
        for line in lines {
            if let Err(error) = host(&line) {
                eprintln!("skep-bench: {error:#}");
            }
        }
        let _ = fs::write(FORWARD, &self.forwarded);
    }
}

/// What does not come in this time does not come.
const PATIENCE: i64 = 120;

/// From the first byte that comes until the sender is done.
fn taken(listener: &TcpListener) -> Result<Duration> {
    let patience = TimeVal::new(PATIENCE, 0);
    setsockopt(listener, ReceiveTimeout, &patience)?;
    let (mut stream, _) = listener.accept().context("nobody came")?;
    setsockopt(&stream, ReceiveTimeout, &patience)?;
    let (mut buffer, mut bytes, mut from) = (vec![0; 1 << 18], 0, None);
    loop {
        let got = stream.read(&mut buffer)?;
        let from = *from.get_or_insert_with(Instant::now);
        bytes += got as u64;
        if bytes == MIB << 20 {
            return Ok(from.elapsed());
        }
        if got == 0 {
            bail!("only {bytes} bytes came");
        }
    }
}

pub fn run() -> Result<Outcome> {
    if !skep_tests::is_root() {
        return Ok(Outcome::Skipped("switches need root".into()));
    }
    if !has("nft") || !has("ip") {
        return Ok(Outcome::Skipped("nft and ip (Debian: nftables, iproute2) are not both installed".into()));
    }
    let made = Made::new()?;
    let listener = made.listener()?;
    let send = format!(
        // Written to the socket by dd itself: what nc copies goes a KiB at a time, and its guest is measured, not the network.
        "nc {FAR} {} -e dd if=/dev/zero bs=65536 count={} 2>/dev/null; echo s''ent",
        listener.local_addr()?.port(),
        MIB * 16
    );

    let suite = suite::start()?;
    suite.import_guest()?;
    suite.ok(&["switch", "create", "net", "--kind", "nat"])?;
    suite.define("m", &[])?;
    suite.ok(&["nic", "create", "m", "--switch", "net", "--machine", "m"])?;
    suite.boot("m")?;
    suite.guest_runs("m", "udhcpc -i eth0 -q -n -f >/dev/null && echo l''eased", "leased")?;
    let guest = skep_tests::guest()?;
    let more = [
        "-kernel".to_owned(),
        guest.join("kernel").to_string_lossy().into_owned(),
        "-initrd".to_owned(),
        guest.join("initrd").to_string_lossy().into_owned(),
        "-append".to_owned(),
        "console=ttyS0 quiet".to_owned(),
        "-netdev".to_owned(),
        format!("tap,id=n,ifname={}t,script=no,downscript=no,vhost=off", made.name),
        "-device".to_owned(),
        "virtio-net-pci,netdev=n,mac=52:54:00:00:00:01".to_owned(),
    ];
    let mut bare = Hypervisor::start(&accelerator(&suite)?, "128", &more)?;
    bare.until("skep-guest ready")?;
    bare.command(
        &format!("ip link set eth0 up; ip addr add {GUEST}/24 dev eth0; ip route add default via {ROUTER}; echo d''one"),
        "done",
    )?;

    let (mut ours, mut floor) = (Samples::default(), Samples::default());
    for turn in 0..=PAIRS {
        let (a, b) = std::thread::scope(|scope| -> Result<_> {
            let told = scope.spawn(|| suite.guest_runs("m", &send, "sent"));
            let a = taken(&listener)?;
            told.join().ok().context("the thread ended")??;
            let told = scope.spawn(|| bare.command(&send, "sent"));
            let b = taken(&listener)?;
            told.join().ok().context("the thread ended")??;
            Ok((a, b))
        })?;
        // The first of each warms up.
        if turn > 0 {
            ours.add(a);
            floor.add(b);
        }
    }
    drop(bare);
    suite.ok(&["vm", "kill", "m"])?;
    suite::stop(suite)?;
    let value = ratio(ours.p50(), floor.p50());
    Ok(Outcome::Rows(vec![
        Row::ratio(format!("{MIB} MiB from a guest through a nat switch to a host beyond"), &ours, value, 1.0 / LEAST),
        Row::floor("floor: the same through a tap, a bridge and a masquerade made by hand", &floor),
    ]))
}
