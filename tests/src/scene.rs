//! Two real guests behind NAT, one of them hostile: it can send whatever frames a test gives it (Linux).
#![cfg(target_os = "linux")]

use crate::frames::{self, Capture, Mac, Seen, Who, datagram, index};
use crate::{Mode, Suite};
use anyhow::{Context, Result, ensure};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::process::Command;

/// Where services are, and who answers there.
pub const SERVICES: Who = Who { mac: [0x02, 0x53, 0x4b, 0x45, 0x50, 0x01], ip: Ipv4Addr::new(169, 254, 169, 254) };
/// Of the hostile guest.
pub const EVIL_MAC: Mac = [0x02, 0, 0x5e, 0, 0x53, 0x66];
/// Of his neighbour.
pub const NEIGHBOUR_MAC: Mac = [0x02, 0, 0x5e, 0, 0x53, 0x11];

/// Everybody on the switch.
pub struct Scene {
    /// The suite.
    pub suite: Suite,
    /// The hostile guest.
    pub evil: Who,
    /// His neighbour.
    pub neighbour: Who,
    /// The host, on the switch.
    pub router: Who,
    /// Taps of the first two.
    pub taps: [usize; 2],
    /// Its IPv6 network, if it has one.
    pub net6: Option<Ipv6Addr>,
    /// In each frame that is to go nowhere.
    pub mark: Vec<u8>,
}

impl Scene {
    /// Two guests behind NAT, both with their leases; the first has what `batches` are, and can send it.
    pub fn new(batches: impl Fn(&Self) -> Vec<(&'static str, Vec<Vec<u8>>)>) -> Result<Self> {
        Self::with(&[], batches)
    }

    /// The same on a switch that is made with these words.
    pub fn with(words: &[&str], batches: impl Fn(&Self) -> Vec<(&'static str, Vec<Vec<u8>>)>) -> Result<Self> {
        let suite = Suite::start(Mode::Root)?;
        suite.import_guest()?;
        let switch = suite.json(&[&["switch", "create", "net", "--kind", "nat"], words].concat())?;
        let subnet: Ipv4Addr = switch[0]["subnet"].as_str().and_then(|s| s.split('/').next()).context("a subnet")?.parse()?;
        let net6 = switch[0]["subnet6"].as_str().and_then(|s| s.split('/').next()).filter(|s| !s.is_empty());
        let net6 = net6.map(str::parse).transpose()?;
        let host = |number: u32| Ipv4Addr::from(u32::from(subnet) + number);
        let (evil, neighbour) = (Who { mac: EVIL_MAC, ip: host(66) }, Who { mac: NEIGHBOUR_MAC, ip: host(11) });
        let bridge = switch[0]["bridge"].as_str().context("a bridge")?;
        let mut taps = Vec::new();
        for (name, who) in [("evil", evil), ("neighbour", neighbour)] {
            let (mac, address) = (frames::text(who.mac), who.ip.to_string());
            let nic = suite.json(&["nic", "create", name, "--switch", "net", "--mac", &mac, "--address", &address])?;
            taps.push(nic[0]["tap"].as_str().context("a tap")?.to_owned());
        }
        suite.define("neighbour", &[])?;
        suite.ok(&["nic", "attach", "neighbour", "neighbour"])?;
        suite.boot("neighbour")?;
        // The bridge has its address from now on.
        let router =
            Who { mac: frames::mac(&std::fs::read_to_string(format!("/sys/class/net/{bridge}/address"))?)?, ip: host(1) };
        let mark = format!("hostile-{}", suite.instance()).into_bytes();
        let mut scene = Self { suite, evil, neighbour, router, taps: [0; 2], net6, mark };
        scene.arm(&batches(&scene))?;
        for (tap, name) in scene.taps.iter_mut().zip(&taps) {
            *tap = index(name)?;
        }
        for (name, who) in [("evil", evil), ("neighbour", neighbour)] {
            scene.lease(name, who)?;
        }
        Ok(scene)
    }

    /// Boots the hostile guest with a disk of batches, and of the program that sends them.
    fn arm(&self, batches: &[(&'static str, Vec<Vec<u8>>)]) -> Result<()> {
        let dir = self.suite.dir().join("arms");
        std::fs::create_dir(&dir)?;
        for (name, frames) in batches {
            // The last one may be sent, and is seen: then all before it are through.
            let last = datagram(self.evil, self.neighbour, (9, 9), &self.end_of(name));
            let lines = frames.iter().chain([&last]).map(|frame| frame.iter().map(|byte| format!("{byte:02x}")).collect());
            std::fs::write(dir.join(name), lines.collect::<Vec<String>>().join("\n"))?;
        }
        let program = dir.join("skep-frames");
        std::fs::copy(crate::programs().join("skep-frames"), &program)?;
        // Lines of the program's source take most of it.
        let _ = Command::new("strip").arg(&program).status();
        std::fs::copy("/lib/x86_64-linux-gnu/libgcc_s.so.1", dir.join("libgcc_s.so.1"))?;
        let disk = self.suite.dir().join("arms.tar");
        let made = Command::new("tar").args(["-c", "-b", "2048", "-f"]).arg(&disk).arg("-C").arg(&dir).arg(".").status()?;
        ensure!(made.success(), "tar");
        let suite = &self.suite;
        suite.ok(&["disk", "import", "arms", &disk.to_string_lossy()])?;
        suite.define("evil", &["--disk", "arms"])?;
        suite.ok(&["nic", "attach", "evil", "evil"])?;
        suite.boot("evil")?;
        let unpack = "mkdir /arms && cd /arms && tar xf /dev/vda && export LD_LIBRARY_PATH=/arms && echo armed-$((40+2))";
        suite.guest_runs("evil", unpack, "armed-42")?;
        // As large a frame as it likes.
        suite.guest_runs("evil", "ip link set eth0 mtu 65000; ip link set eth0 up; echo large-$?", "large-0").map(drop)
    }

    fn end_of(&self, batch: &str) -> Vec<u8> {
        format!("through-{}-{batch};", self.suite.instance()).into_bytes()
    }

    /// Has the guest ask for its address, which is the one that it has always had.
    pub fn lease(&self, name: &str, who: Who) -> Result<()> {
        let ask = "udhcpc -i eth0 -q -f && echo has $(ip -4 -o address show eth0 | awk '{print $4}')";
        self.suite.guest_runs(name, ask, &format!("has {}/24", who.ip)).map(drop)
    }

    /// Has the hostile guest send a batch; what was seen on the host until its last frame was at the neighbour.
    pub fn send(&self, capture: &Capture, batch: &str) -> Result<Vec<Seen>> {
        let said = self.suite.guest_runs("evil", &format!("./skep-frames eth0 {batch}"), " refused-")?;
        println!("{}", said.lines().last().unwrap_or_default());
        let end = self.end_of(batch);
        capture.until(|seen| seen.out && seen.index == self.taps[1] && seen.has(&end))
    }

    /// Whether it came from the hostile guest, where it is taken off what he sends.
    pub fn is_his(&self, seen: &Seen) -> bool {
        seen.index == self.taps[0] && !seen.out
    }

    /// That the neighbour lacks nothing: his lease, his metadata, names, his gateway where it was.
    pub fn neighbour_is_well(&self) -> Result<()> {
        let Self { suite, neighbour, router, .. } = self;
        self.lease("neighbour", *neighbour)?;
        let ip = neighbour.ip.to_string();
        suite.guest_runs("neighbour", "wget -qO- http://169.254.169.254/latest/meta-data/local-ipv4; echo", &ip)?;
        suite.guest_runs(
            "neighbour",
            "nslookup evil.net.internal | grep -o 'Address: 10.*'",
            &format!("Address: {}", self.evil.ip),
        )?;
        suite.guest_runs(
            "neighbour",
            &format!("ping -c1 -W20 {} | grep -o '1 packets received'", router.ip),
            "1 packets received",
        )?;
        let gateway = format!("ip neigh show {} dev eth0", router.ip);
        suite.guest_runs("neighbour", &gateway, &format!("lladdr {}", frames::text(router.mac)))?;
        Ok(())
    }
}
