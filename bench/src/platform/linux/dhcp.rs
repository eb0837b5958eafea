//! A switch's guest-services: how soon a guest is answered that asks for its address, and their memory.

use super::hand::run as host;
use crate::report::{Outcome, Row};
use crate::stats::Samples;
use crate::suite;
use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use skep_ipc::Client;
use skep_proto::services::{AddPort, Services, Subnet};
use skep_proto::{MachineId, NicId, Text, TraceId, UpTo};
use skep_sys::process::{Fork, exit_now, fork};
use skep_sys::{fd, linux, msg, sock};
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// Guests on the switch, and questions of each.
const GUESTS: u8 = 8;
const ASKED: u32 = 500;
/// What a tap puts before each frame (virtio_net_hdr).
const HEADER: usize = 10;

/// A guest: the hypervisor's end of its tap.
struct Guest {
    tap: File,
    mac: [u8; 6],
}

fn mac(number: u8) -> [u8; 6] {
    [0x52, 0x54, 0, 0, 1, number]
}

/// DHCPDISCOVER (RFC 2131) in UDP, IPv4 and Ethernet.
fn discover(mac: [u8; 6], transaction: u32) -> Vec<u8> {
    let mut bootp = vec![0; 236];
    bootp[..4].copy_from_slice(&[1, 1, 6, 0]);
    bootp[4..8].copy_from_slice(&transaction.to_be_bytes());
    bootp[28..34].copy_from_slice(&mac);
    // The magic number, the kind, the end.
    bootp.extend([99, 130, 83, 99, 53, 1, 1, 255]);
    bootp.resize(300, 0);
    let udp_length = (bootp.len() + 8) as u16;
    let mut ip = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255];
    ip[2..4].copy_from_slice(&(udp_length + 20).to_be_bytes());
    let mut sum: u32 = ip.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    ip[10..12].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    let mut frame = vec![0; HEADER];
    frame.extend([0xff; 6]);
    frame.extend(mac);
    frame.extend([8, 0]);
    frame.extend(ip);
    // From port 68 to 67, without a checksum.
    frame.extend([0, 68, 0, 67]);
    frame.extend(udp_length.to_be_bytes());
    frame.extend([0, 0]);
    frame.extend(bootp);
    frame
}

impl Guest {
    /// Asks once, and waits for the offer.
    fn ask(&mut self, transaction: u32) -> Result<Duration> {
        let frame = discover(self.mac, transaction);
        let from = Instant::now();
        self.tap.write_all(&frame)?;
        let mut buffer = vec![0; 2048];
        loop {
            let got = self.tap.read(&mut buffer)?;
            // The transaction's number behind the headers of the frame, of IPv4 and UDP; the kernel says other things, too.
            let at = HEADER + 14 + 20 + 8 + 4;
            if got > at + 4 && buffer[at..at + 4] == transaction.to_be_bytes() {
                return Ok(from.elapsed());
            }
        }
    }
}

pub fn run() -> Result<Outcome> {
    if !skep_tests::is_root() {
        return Ok(Outcome::Skipped("taps need root".into()));
    }
    suite::single_threaded()?;
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("s");
    let listener = sock::bind_seqpacket(&path, 0o600)?;
    let (report, report_theirs) = sock::seqpacket_pair()?;
    let program = CString::new(suite::programs()?.join("skep-guest-services").into_os_string().into_encoded_bytes())?;
    let pid = match fork()? {
        Fork::Parent(pid) => pid,
        Fork::Child => {
            let environment: [&CStr; 0] = [];
            if fd::arrange(&[(report_theirs.as_fd(), 3), (listener.as_fd(), 4)]).is_ok() {
                let _ = nix::unistd::execve(&program, &[&program], &environment);
            }
            exit_now(1)
        }
    };
    drop(report_theirs);
    let measured = measure(pid, &path, || Ok(msg::recv(report.as_fd(), 100, 0, None)?.bytes));
    kill(Pid::from_raw(pid), Signal::SIGKILL)?;
    nix::sys::wait::waitpid(Pid::from_raw(pid), None)?;
    measured
}

fn measure(pid: i32, path: &std::path::Path, report: impl FnOnce() -> Result<Vec<u8>>) -> Result<Outcome> {
    ensure!(report()? == b"ready", "guest-services did not get ready");
    let mut client: Client<Services> = Client::connect(path)?;
    let mut guests = Vec::new();
    for number in 0..GUESTS {
        let tap = File::options().read(true).write(true).open("/dev/net/tun")?;
        let name = format!("skb{}d{number}", std::process::id());
        linux::tun::set_tap(tap.as_fd(), &name)?;
        host(&format!("ip link set {name} up"))?;
        let index = nix::net::if_::if_nametoindex(name.as_str())?;
        let port = AddPort {
            nic: NicId::from_u128(u128::from(number) + 1),
            machine: MachineId::from_u128(u128::from(number) + 1),
            mac: mac(number),
            address: format!("10.97.1.{}", number + 2).parse()?,
            host: Text::lossy(&format!("web{number}")),
            subnet: Subnet { prefix: 24, router: Some("10.97.1.1".parse()?), domain: Text::lossy("lan"), mtu: 1500, v6: None },
            document: false,
        };
        let frames = linux::packet::port(index, false)?;
        let patience = Duration::from_secs(20);
        client.call(TraceId::random(), &Text::lossy("bench"), port, UpTo(vec![frames]), patience).context("AddPort")?;
        guests.push(Guest { tap, mac: mac(number) });
    }
    let mut answers = Samples::default();
    for turn in 0..=ASKED {
        for guest in &mut guests {
            let took = guest.ask(turn + 1)?;
            if turn > 0 {
                answers.add(took);
            }
        }
    }
    let mib = super::pss(pid)? as f64 / f64::from(1 << 20);
    Ok(Outcome::Rows(vec![
        Row::floor("DHCPDISCOVER at a guest's tap until the offer is there, eight guests on a switch", &answers),
        Row::size("memory of the switch's process with eight guests", mib, None),
    ]))
}
