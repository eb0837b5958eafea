//! What goes over TCP: HTTP, and DNS once more.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod wire;

use skep_guest_services::{Identity, Port, World};
use skep_proto::NicId;
use skep_proto::services::{AddPort, ServiceEvent};
use std::time::Duration;
use wire::{AT, NIC, Tcp, added, port, question, world};

fn get(port: &mut Port, world: &mut World, head: &str) -> (u16, String, Vec<u8>) {
    let mut tcp = Tcp::connect(port, world, AT, 40_000, 80);
    tcp.send(port, world, AT, head.as_bytes());
    let all = tcp.drain(port, world, AT);
    let end = all.windows(4).position(|w| w == b"\r\n\r\n").unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&all))) + 4;
    let head = String::from_utf8(all[..end].to_vec()).unwrap();
    (head[9..12].parse().unwrap(), head, all[end..].to_vec())
}

#[test]
fn metadata_in_the_words_of_all() {
    let (mut port, mut world) = (port(), world());
    let mut body = |path: &str| {
        let (status, head, body) =
            get(&mut port, &mut world, &format!("GET {path} HTTP/1.1\r\nHost: 169.254.169.254\r\nConnection: close\r\n\r\n"));
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{head}");
        (status, String::from_utf8(body).unwrap())
    };
    let listing = "hostname\ninstance-id\nlocal-hostname\nlocal-ipv4\nmac\nnetwork/\npublic-keys/";
    for (path, wanted) in [
        ("/", "1.0\n2009-04-04\nlatest"),
        ("/latest/", "meta-data\nuser-data"),
        ("/latest/meta-data", listing),
        ("/2021-03-23/meta-data/", listing),
        ("/latest/meta-data/instance-id", "i-0123"),
        ("/latest/meta-data/local-hostname?x=1", "web1.lan"),
        ("/latest/meta-data/hostname", "web1.lan"),
        ("/latest/meta-data/local-ipv4", "10.90.0.7"),
        ("/latest/meta-data/mac", "52:54:00:01:02:03"),
        ("/latest/meta-data/public-keys/", "0=key-0\n1=key-1"),
        ("/latest/meta-data/public-keys/1/", "openssh-key"),
        ("/latest/meta-data/public-keys/0/openssh-key", "ssh-ed25519 AAAA me\n"),
        ("/latest/meta-data/network/interfaces/macs/", "52:54:00:01:02:03/"),
        ("/latest/meta-data/network/interfaces/macs/52:54:00:01:02:03/subnet-ipv4-cidr-block", "10.90.0.0/24"),
        ("/openstack/", "2018-08-27\nlatest"),
        ("/openstack/latest/vendor_data.json", "{\"cloud-init\":\"#cloud-config\\n\"}"),
        ("/nocloud/vendor-data", "#cloud-config\n"),
        ("/nocloud/network-config", "version: 2\n"),
        (
            "/nocloud/meta-data",
            "instance-id: \"i-0123\"\nlocal-hostname: \"web1\"\npublic-keys:\n- \"ssh-ed25519 AAAA me\"\n- \"ssh-rsa BBBB \\\"you\\\"\"\n",
        ),
    ] {
        assert_eq!(body(path), (200, wanted.to_owned()), "{path}");
    }
    for path in ["/latest/user-data", "/1.0/user-data", "/openstack/2018-08-27/user_data", "/nocloud/user-data"] {
        assert_eq!(body(path), (200, "u".repeat(100_000)), "{path}");
    }
    for path in [
        "/nothing",
        "/latest/meta-data/nothing",
        "/openstack/2012-08-10/meta_data.json",
        "/latest/meta-data/public-keys/2/openssh-key",
        "/2009-4-04/meta-data",
        "/latest/meta-data/network/interfaces/macs/52:54:00:01:02:04/mac",
        "/nocloud",
        "/latest/../nocloud/user-data",
    ] {
        assert_eq!(body(path).0, 404, "{path}");
    }
    let (_, meta) = body("/openstack/latest/meta_data.json");
    let meta: serde_json::Value = serde_json::from_str(&meta).unwrap();
    assert_eq!(meta["public_keys"]["key-1"], "ssh-rsa BBBB \"you\"");
    let (_, network) = body("/openstack/latest/network_data.json");
    let network: serde_json::Value = serde_json::from_str(&network).unwrap();
    assert_eq!(network["links"][0]["ethernet_mac_address"], "52:54:00:01:02:03");
    assert!(port.wakes().is_none(), "no connection is left");
}

#[test]
fn a_session_token_is_given_and_a_wrong_one_refused() {
    let (mut port, mut world) = (port(), world());
    let mut ask = |head: &str| get(&mut port, &mut world, &format!("{head}Connection: close\r\n\r\n"));
    let put = "PUT /latest/api/token HTTP/1.1\r\n";
    let ttl = "X-aws-ec2-metadata-token-ttl-seconds";
    let (status, head, token) = ask(&format!("{put}{ttl}: 60\r\n"));
    assert!(status == 200 && head.contains("x-aws-ec2-metadata-token-ttl-seconds: 60\r\n"), "{head}");
    let token = String::from_utf8(token).unwrap();
    let get = "GET /latest/meta-data/mac HTTP/1.1\r\n";
    assert_eq!(ask(&format!("{get}X-aws-ec2-metadata-token: {token}\r\n")).0, 200);
    assert_eq!(ask(&format!("{get}X-aws-ec2-metadata-token: {}\r\n", token.replace('0', "1"))).0, 401);
    assert_eq!(ask(get).0, 200);
    for bad in ["", "0", "21601", "x", "-1"] {
        assert_eq!(ask(&format!("{put}{ttl}: {bad}\r\n")).0, 400, "{bad}");
    }
    assert_eq!(ask(put).0, 400);
    assert_eq!(ask("GET /latest/api/token HTTP/1.1\r\n").0, 405);
    // Another port's token is no good here.
    let mut other = Port::new(Identity::new(17, AddPort { nic: NicId::from_u128(6), ..added() }).unwrap(), None);
    assert_eq!(
        super_get(&mut other, &mut world, &format!("{get}X-aws-ec2-metadata-token: {token}\r\nConnection: close\r\n\r\n")),
        401
    );
}

fn super_get(port: &mut Port, world: &mut World, head: &str) -> u16 {
    get(port, world, head).0
}

#[test]
fn requests_that_come_from_elsewhere_or_are_malformed_are_refused() {
    let (mut port, mut world) = (port(), world());
    let mut ask = |head: &str| get(&mut port, &mut world, head).0;
    let get = "GET /latest/meta-data/mac HTTP/1.1\r\n";
    assert_eq!(ask(&format!("{get}X-Forwarded-For: 192.0.2.1\r\n\r\n")), 403);
    assert_eq!(ask(&format!("{get}Host: evil.example\r\n\r\n")), 421);
    assert_eq!(ask(&format!("{get}Transfer-Encoding: chunked\r\n\r\n")), 411);
    assert_eq!(ask(&format!("{get}Content-Length: 65537\r\n\r\n")), 413);
    for length in ["x", "-1", "+1", "99999999999999999999", "1\r\nContent-Length: 1"] {
        assert_eq!(ask(&format!("{get}Content-Length: {length}\r\n\r\n")), 400, "{length}");
    }
    assert_eq!(ask("GET latest HTTP/1.1\r\n\r\n"), 400);
    assert_eq!(ask("\0\0\0\0\0\0\0"), 400);
    assert_eq!(ask(&format!("{get}A: {}\r\n\r\n", "a".repeat(8192))), 431);
    assert_eq!(ask(&format!("{get}{}\r\n", "A: a\r\n".repeat(65))), 431);
    assert_eq!(ask("DELETE /latest/user-data HTTP/1.1\r\nConnection: close\r\n\r\n"), 405);
    let (status, _, body) = frames_head(&mut port, &mut world);
    assert_eq!((status, body.len()), (200, 0));
}

fn frames_head(port: &mut Port, world: &mut World) -> (u16, String, Vec<u8>) {
    get(port, world, "HEAD /latest/user-data HTTP/1.0\r\n\r\n")
}

#[test]
fn a_guest_says_once_that_it_is_done() {
    let (mut port, mut world) = (port(), world());
    assert_eq!(get(&mut port, &mut world, "GET /phone-home HTTP/1.0\r\n\r\n").0, 405);
    assert!(!port.home);
    for _ in 0..2 {
        let post = "POST /phone-home HTTP/1.1\r\nContent-Length: 13\r\nConnection: close\r\n\r\nhostname=web1";
        assert_eq!(get(&mut port, &mut world, post).0, 200);
    }
    assert!(port.home);
    assert_eq!(port.events(), [ServiceEvent::Home(NIC)]);
}

#[test]
fn requests_follow_each_other_on_a_connection() {
    let (mut port, mut world) = (port(), world());
    let mut tcp = Tcp::connect(&mut port, &mut world, AT, 40_000, 80);
    let post = "POST /phone-home HTTP/1.1\r\nContent-Length: 6000\r\n\r\n";
    let get = "GET /latest/meta-data/mac HTTP/1.1\r\n\r\n";
    tcp.send(&mut port, &mut world, AT, post.as_bytes());
    for piece in vec![b'x'; 6000].chunks(1000) {
        tcp.send(&mut port, &mut world, AT, piece);
    }
    // Two at once, the second in two pieces.
    let both = [get, get].concat();
    tcp.send(&mut port, &mut world, AT, &both.as_bytes()[..50]);
    tcp.send(&mut port, &mut world, AT, &both.as_bytes()[50..]);
    let said = String::from_utf8(tcp.received.clone()).unwrap();
    assert_eq!(said.matches("HTTP/1.1 200 OK").count(), 3, "{said}");
    assert_eq!(said.matches("52:54:00:01:02:03").count(), 2, "{said}");
    assert!(port.wakes().is_some());
    // Who says nothing more is left after a while.
    while let Some(at) = port.wakes() {
        port.poll(&mut world, at);
    }
}

#[test]
fn who_is_refused_may_say_the_rest() {
    let (mut port, mut world) = (port(), world());
    let mut tcp = Tcp::connect(&mut port, &mut world, AT, 40_000, 80);
    tcp.send(&mut port, &mut world, AT, b"POST /phone-home HTTP/1.1\r\nContent-Length: 100000\r\n\r\n");
    assert!(tcp.received.starts_with(b"HTTP/1.1 413 ") && tcp.closed);
    for piece in vec![b'x'; 100_000].chunks(3000) {
        tcp.send(&mut port, &mut world, AT, piece);
    }
    tcp.drain(&mut port, &mut world, AT);
    assert!(port.wakes().is_none() && !port.home);
}

#[test]
fn dns_goes_over_tcp_too() {
    let (mut port, mut world) = (port(), world());
    world.forwarder.set_resolvers(1);
    let mut tcp = Tcp::connect(&mut port, &mut world, AT, 40_000, 53);
    let framed = |question: &[u8]| [&(question.len() as u16).to_be_bytes(), question].concat();
    // In pieces.
    for byte in framed(&question("web1.lan", 1)) {
        tcp.send(&mut port, &mut world, AT, &[byte]);
    }
    assert!(tcp.received.ends_with(&[10, 90, 0, 7]) && tcp.received.len() == 44);
    tcp.received.clear();
    tcp.send(&mut port, &mut world, AT, &framed(&question("example.org", 1)));
    let [(0, query)] = &world.forwarder.outgoing()[..] else { panic!() };
    // More is asked for than fits into what the client did not offer; it does not see that.
    assert!(query.ends_with(&[0, 0, 41, 0x10, 0, 0, 0, 0, 0, 0, 0]), "{query:02x?}");
    let mut answer = query.clone();
    (answer[2], answer[3]) = (0x81, 0x80);
    let (client, bytes) = world.forwarder.reply(&answer).unwrap();
    let frames = port.answer(&mut world, AT, client.via, &bytes);
    tcp.take(&mut port, &mut world, AT, frames);
    assert_eq!(tcp.received.len(), 2 + question("example.org", 1).len());
    assert_eq!(tcp.received[2..4], [0xab, 0xcd]);
    // An answer for a connection that has gone.
    assert!(port.answer(&mut world, AT, client.via, &bytes).is_empty());
}

#[test]
fn connections_are_bounded_and_end() {
    let (mut port, mut world) = (port(), world());
    let mut open: Vec<Tcp> = (0..6).map(|n| Tcp::connect(&mut port, &mut world, AT, 40_000 + n, 80)).collect();
    let refused = Tcp::syn(&mut port, &mut world, AT, 41_000, 80);
    assert!(refused.is_none(), "one too many is reset");
    // Another kind is not hindered.
    Tcp::connect(&mut port, &mut world, AT, 42_000, 53);
    // Slow ones end; whoever comes then is served.
    open[0].send(&mut port, &mut world, AT, b"GET /");
    let mut at = AT;
    while let Some(next) = port.wakes() {
        assert!(next > at || next == at && port.wakes().is_some());
        at = next.max(at);
        port.poll(&mut world, at);
        assert!(at < AT + Duration::from_secs(60));
    }
    Tcp::connect(&mut port, &mut world, at, 43_000, 80);
    // Ports that nobody serves.
    let mut idle = Port::new(Identity::new(17, added()).unwrap(), None);
    assert!(Tcp::syn(&mut idle, &mut world, AT, 40_000, 443).is_none());
    assert!(idle.wakes().is_none());
}
