//! The real program and a real client: busybox's udhcpc, nslookup and wget at one end of a veth, a packet socket at the other.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/guest.rs"]
mod guest;
mod support;

use guest::{Cable, busybox, namespace, port};
use skep_proto::services::{AddPort, ListPorts, MAX_DOCUMENT, ServiceEvent, SetResolvers};
use skep_proto::{NicId, Reason, UpTo, wire};
use skep_sys::{fd, msg};
use std::net::UdpSocket;
use std::os::fd::AsFd;
use support::{NIC, Process, document};

/// Takes what it is told, and says it.
const SCRIPT: &str = "#!/bin/sh
[ \"$1\" = bound ] || exit 0
busybox ip addr add $ip/$mask dev $interface
set -- $staticroutes
while [ $# -gt 1 ]; do
	if [ \"$2\" = 0.0.0.0 ]; then busybox ip route add $1 dev $interface; else busybox ip route add $1 via $2 dev $interface; fi
	shift 2
done
echo \"ip=$ip mask=$mask router=$router dns=$dns domain=$domain hostname=$hostname mtu=$mtu lease=$lease serverid=$serverid routes=$staticroutes\"
";

fn lease(cable: &Cable) -> String {
    let script = cable.dir.path().join("script");
    std::fs::write(&script, SCRIPT).unwrap();
    busybox(&["chmod", "+x", script.to_str().unwrap()]);
    let script = script.to_str().unwrap();
    let said = busybox(&[
        "udhcpc",
        "-i",
        &cable.guest,
        "-f",
        "-n",
        "-q",
        "-t",
        "20",
        "-T",
        "1",
        "-s",
        script,
        "-O",
        "staticroutes",
        "-O",
        "mtu",
        "-O",
        "hostname",
    ]);
    said.lines().find(|line| line.starts_with("ip=")).unwrap_or_else(|| panic!("no lease: {said}")).to_owned()
}

fn next_event(watcher: &std::os::fd::OwnedFd) -> ServiceEvent {
    wire::decode(&msg::recv(watcher.as_fd(), 1000, 0, None).unwrap().bytes).unwrap()
}

#[test]
fn a_real_client_gets_its_lease_its_names_and_its_metadata() {
    if !namespace() {
        return;
    }
    let cable = Cable::new("g0");
    let mut process = Process::start();
    let watcher = process.watch().unwrap();
    process.add(port(&cable, "10.90.0.7", "web1"), &cable, Some(&document()));

    let lease = lease(&cable);
    let wanted = "ip=10.90.0.7 mask=24 router=10.90.0.1 dns=169.254.169.254 domain=lan hostname=web1 mtu=1500 lease=3600 \
                  serverid=169.254.169.254 routes=169.254.169.254/32 0.0.0.0 0.0.0.0/0 10.90.0.1";
    assert_eq!(lease, wanted);
    assert_eq!(next_event(&watcher), ServiceEvent::Leased(NIC));

    let server = "169.254.169.254";
    let said = busybox(&["nslookup", "web1.lan", server]);
    assert!(said.contains("Address: 10.90.0.7"), "{said}");
    let said = busybox(&["nslookup", "-type=ptr", "7.0.90.10.in-addr.arpa", server]);
    assert!(said.contains("web1.lan"), "{said}");
    let said = busybox(&["nslookup", "nobody.lan", server]);
    assert!(said.contains("NXDOMAIN"), "{said}");
    let said = busybox(&["nslookup", "example.org", server]);
    assert!(said.contains("REFUSED"), "{said}");

    let get = |path: &str| busybox(&["wget", "-q", "-O", "-", &format!("http://{server}{path}")]);
    assert_eq!(get("/latest/meta-data/instance-id"), "i-0123");
    assert_eq!(get("/2009-04-04/meta-data/local-ipv4"), "10.90.0.7");
    assert_eq!(get("/latest/meta-data/public-keys/0/openssh-key"), "ssh-ed25519 AAAA me\n");
    // Larger than any window.
    assert!(get("/latest/user-data").as_bytes() == document().user_data);
    assert!(get("/openstack/latest/meta_data.json").contains("\"uuid\":\"i-0123\""));
    assert!(get("/nocloud/meta-data").contains("instance-id: \"i-0123\""));
    busybox(&["wget", "-q", "-O", "-", "--post-data", "hostname=web1", &format!("http://{server}/phone-home")]);
    assert_eq!(next_event(&watcher), ServiceEvent::Home(NIC));

    let page = process.ask(ListPorts { after: None }, []).unwrap();
    let [served] = page.ports.as_slice() else { panic!("{page:?}") };
    assert!(
        served.leased
            && served.home
            && served.frames > 20
            && served.address == "10.90.0.7".parse::<std::net::Ipv4Addr>().unwrap()
    );
}

#[test]
fn a_killed_process_is_replaced_and_the_lease_is_the_same() {
    if !namespace() {
        return;
    }
    let cable = Cable::new("g0");
    let mut leases = Vec::new();
    for _ in 0..2 {
        let mut process = Process::start();
        process.add(port(&cable, "10.90.0.7", "web1"), &cable, None);
        leases.push(lease(&cable));
        busybox(&["ip", "addr", "flush", "dev", &cable.guest]);
    }
    assert_eq!(leases[0], leases[1]);
}

#[test]
fn a_port_that_is_removed_is_silent() {
    if !namespace() {
        return;
    }
    let cable = Cable::new("g0");
    let mut process = Process::start();
    process.add(port(&cable, "10.90.0.7", "web1"), &cable, None);
    lease(&cable);
    for _ in 0..2 {
        process.ask(skep_proto::services::RemovePort { nic: NIC }, []).unwrap();
    }
    assert!(process.ask(ListPorts { after: None }, []).unwrap().ports.is_empty());
    // The kernel knows of no socket that its frames would go to.
    let sockets = std::fs::read_to_string("/proc/thread-self/net/packet").unwrap();
    assert_eq!(sockets.lines().count(), 1, "{sockets}");
}

#[test]
fn ports_are_listed_in_pages() {
    if !namespace() {
        return;
    }
    let cable = Cable::new("g0");
    let mut process = Process::start();
    let numbered =
        |n: u8| AddPort { nic: NicId::from_u128(n.into()), ..port(&cable, &format!("10.90.0.{n}"), &format!("host-{n}")) };
    for n in 2..=200 {
        process.add(numbered(n), &cable, None);
    }
    // One that is there is described anew; another cannot have its address.
    process.add(AddPort { address: "10.90.0.222".parse().unwrap(), ..numbered(7) }, &cable, Some(&document()));
    let twice = AddPort { address: "10.90.0.8".parse().unwrap(), ..numbered(7) };
    let refusal = process.ask(twice, UpTo(vec![cable.frames()])).unwrap_err();
    assert_eq!((refusal.reason, refusal.field.as_str()), (Reason::AlreadyExists, "address"));
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let page = process.ask(ListPorts { after }, []).unwrap().ports;
        let Some(last) = page.last() else { break };
        assert!(page.len() <= 64);
        after = Some(last.nic);
        all.extend(page);
    }
    let ids: Vec<_> = all.iter().map(|port| port.nic).collect();
    assert_eq!(ids, (2..=200).map(NicId::from_u128).collect::<Vec<_>>());
    assert_eq!(all[5].address, "10.90.0.222".parse::<std::net::Ipv4Addr>().unwrap());
    // A document that is not sealed, or is none.
    for (document, reason) in [
        (fd::memory_file(c"document").unwrap(), Reason::InvalidValue),
        (fd::sealed_memory_file(c"document", b"x").unwrap(), Reason::InvalidValue),
        (fd::sealed_memory_file(c"document", &vec![0; MAX_DOCUMENT + 1]).unwrap(), Reason::TooLarge),
    ] {
        let port = AddPort { document: true, ..numbered(7) };
        assert_eq!(process.ask(port, UpTo(vec![cable.frames(), document])).unwrap_err().reason, reason);
    }
}

/// Answers one question with an address.
fn resolver(socket: &UdpSocket) {
    let mut buffer = [0; 4096];
    let (length, from) = socket.recv_from(&mut buffer).unwrap();
    let mut answer = buffer[..length].to_vec();
    (answer[2], answer[3]) = (0x81, 0x80);
    // Its question, then one record that names it by a pointer.
    let end = 12 + answer[12..].iter().position(|b| *b == 0).unwrap() + 5;
    answer.truncate(end);
    answer.splice(4..12, [0, 1, 0, 1, 0, 0, 0, 0]);
    answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 33]);
    socket.send_to(&answer, from).unwrap();
}

#[test]
fn names_of_others_are_asked_of_the_resolvers() {
    if !namespace() {
        return;
    }
    let cable = Cable::new("g0");
    busybox(&["ip", "link", "set", "lo", "up"]);
    let (silent, speaks) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
    let connected = |to: &UdpSocket| {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(to.local_addr().unwrap()).unwrap();
        std::os::fd::OwnedFd::from(socket)
    };
    let sockets = vec![connected(&silent), connected(&speaks)];
    let mut process = Process::start();
    process.add(port(&cable, "10.90.0.7", "web1"), &cable, None);
    process.ask(SetResolvers {}, UpTo(sockets)).unwrap();
    lease(&cable);
    let answers = std::thread::spawn(move || resolver(&speaks));
    let said = busybox(&["nslookup", "-type=a", "example.org", "169.254.169.254"]);
    assert!(said.contains("192.0.2.33"), "{said}");
    answers.join().unwrap();
    // The first was asked, and waited for.
    let mut buffer = [0; 512];
    silent.recv(&mut buffer).unwrap();
}
