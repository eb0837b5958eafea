//! A hostile guest on a subnet, beside a neighbour, as real guests: what it may send goes nowhere, and the neighbour lacks nothing.
#![cfg(target_os = "linux")]

use anyhow::{Result, ensure};
use skep_tests::frames::{
    self, ARP, Capture, EVERYBODY, IPV4, IPV6, Mac, Noise, Seen, VLAN, Who, arp, datagram, dhcp, ethernet, ipv4, tagged, tcp, udp,
};
use skep_tests::scene::{EVIL_MAC, NEIGHBOUR_MAC, SERVICES, Scene};
use skep_tests::{is_root, skip};
use std::net::Ipv4Addr;

const STRANGER_MAC: Mac = [0x02, 0, 0x5e, 0, 0x53, 0x77];
/// Somebody beyond the host (RFC 5737).
const BEYOND: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);

/// What pretends to be somebody else, or is no frame that a guest of a subnet may send.
fn forged(scene: &Scene) -> Vec<Vec<u8>> {
    let Scene { evil, neighbour, router, mark, .. } = scene;
    let (evil, neighbour, router) = (*evil, *neighbour, *router);
    let say = |kind: &str| [mark, kind.as_bytes()].concat();
    let everybody = Who { mac: EVERYBODY, ip: Ipv4Addr::BROADCAST };
    let mut all = Vec::new();
    for mac in [neighbour.mac, router.mac, STRANGER_MAC, SERVICES.mac, [0; 6], [0x03, 0, 0, 0, 0, 1]] {
        all.push(datagram(Who { mac, ..evil }, neighbour, (7, 7), &say("mac")));
        all.push(datagram(Who { mac, ..evil }, everybody, (7, 7), &say("mac to all")));
    }
    let others = [neighbour.ip, router.ip, BEYOND, SERVICES.ip, [0; 4].into(), Ipv4Addr::BROADCAST, Ipv4Addr::LOCALHOST];
    for ip in others {
        let from = Who { ip, ..evil };
        for to in [neighbour, router, everybody, Who { ip: BEYOND, ..router }] {
            all.push(datagram(from, to, (7, 7), &say("source")));
        }
    }
    // ARP: who the router is, who the neighbour is, to one and to all; with the mark behind it.
    for (claim, told) in
        [(router, neighbour), (neighbour, router), (router, everybody), (Who { mac: STRANGER_MAC, ..neighbour }, everybody)]
    {
        for (answer, mac) in [(true, evil.mac), (false, evil.mac), (true, claim.mac), (true, STRANGER_MAC)] {
            let says = [arp(answer, Who { mac, ip: claim.ip }, told), say("arp")].concat();
            all.push(ethernet(evil.mac, told.mac, ARP, &says));
        }
    }
    // Its own address at another's hardware address; a probe for the neighbour's.
    all.push(ethernet(
        evil.mac,
        EVERYBODY,
        ARP,
        &[arp(true, Who { mac: neighbour.mac, ..evil }, neighbour), say("arp")].concat(),
    ));
    all.push(ethernet(
        evil.mac,
        EVERYBODY,
        ARP,
        &[arp(false, Who { ip: [0; 4].into(), ..evil }, neighbour), say("probe")].concat(),
    ));
    // A server of DHCP, whole and as a fragment; a client's question to all.
    for (kind, ports) in [(2, (67, 68)), (5, (67, 68)), (5, (4011, 68)), (1, (68, 67))] {
        let message = dhcp(kind, neighbour, evil.ip, &[&[54, 4][..], &evil.ip.octets(), &say("dhcp")].concat());
        for to in [neighbour, everybody] {
            all.push(datagram(evil, to, ports, &message));
            let fragment = ipv4(evil.ip, to.ip, 17, 0x2000, &[udp(ports.0, ports.1, &say("dhcp"))].concat());
            all.push(ethernet(evil.mac, to.mac, IPV4, &fragment));
        }
    }
    // Router advertisements, and whatever else is neither IPv4 nor ARP.
    for (kind, to) in
        [(IPV6, [0x33, 0x33, 0, 0, 0, 1]), (IPV6, neighbour.mac), (0x88b5, neighbour.mac), (40, [0x01, 0x80, 0xc2, 0, 0, 0])]
    {
        all.push(ethernet(evil.mac, to, kind, &[&[0x60, 0, 0, 0][..], &say("other")].concat()));
    }
    // Within VLANs, of which 0 is none, and within one within one.
    for frame in all.clone() {
        all.push(tagged(&frame, 0));
        all.push(tagged(&frame, 5));
        all.push(tagged(&tagged(&frame, 0), VLAN));
    }
    // To the addresses that bridges keep for themselves. (The first of them is a group as others are, where there is no spanning tree.)
    for last in 0..=0x0f {
        for from in [evil, neighbour, router].into_iter().filter(|from| last > 0 || *from != evil) {
            let to = Who { mac: [0x01, 0x80, 0xc2, 0, 0, last], ip: neighbour.ip };
            all.push(datagram(from, to, (7, 7), &say("to the bridge")));
        }
    }
    all
}

#[test]
fn who_pretends_to_be_somebody_else_is_heard_by_nobody() -> Result<()> {
    if !is_root() {
        skip!("switches need root");
    }
    let scene = Scene::new(|scene| vec![("forged", forged(scene))])?;
    let capture = Capture::begin()?;
    let seen = scene.send(&capture, "forged")?;
    let sent = seen.iter().filter(|seen| scene.is_his(seen) && seen.has(&scene.mark)).count();
    ensure!(sent > 300, "the guest sent {sent} frames");
    let leaked: Vec<&Seen> = seen.iter().filter(|seen| seen.has(&scene.mark) && !scene.is_his(seen)).collect();
    ensure!(leaked.is_empty(), "{} of {sent}, {leaked:02x?}", leaked.len());
    // What is for the neighbour comes to him, at once.
    let knock = format!("knock-{}", scene.suite.instance());
    std::net::UdpSocket::bind((scene.router.ip, 0))?.send_to(knock.as_bytes(), (scene.neighbour.ip, 9))?;
    let knocked = capture.until(|seen| seen.out && seen.has(knock.as_bytes()) && scene.taps.contains(&seen.index))?;
    ensure!(
        knocked.last().is_some_and(|seen| seen.index == scene.taps[1]),
        "what was for the neighbour went to the hostile guest"
    );
    scene.neighbour_is_well()?;

    // The guest's own system, with another's hardware address, and then with another's address.
    let guest = |line: &str, answer: &str| scene.suite.guest_runs("evil", line, answer);
    let (own, other) = (frames::text(EVIL_MAC), frames::text(NEIGHBOUR_MAC));
    let as_mac = |mac: &str| format!("ip link set eth0 down; ip link set eth0 address {mac}; ip link set eth0 up");
    let ask = "udhcpc -i eth0 -q -n -f -t 2 -T 1 >/dev/null && echo leased-$((40+2)) || echo refused-$((40+2))";
    guest(&format!("{}; {ask}", as_mac(&other)), "refused-42")?;
    guest(&as_mac(&own), "# ")?;
    let wanted = format!(
        "udhcpc -i eth0 -q -n -f -r {} && echo has $(ip -4 -o address show eth0 | awk '{{print $4}}')",
        scene.neighbour.ip
    );
    guest(&wanted, &format!("has {}/24", scene.evil.ip))?;
    let take = format!(
        "ip address add {}/24 dev eth0; ip route replace 169.254.169.254/32 dev eth0 src {}",
        scene.neighbour.ip, scene.neighbour.ip
    );
    let fetch =
        "wget -T 3 -qO- http://169.254.169.254/latest/meta-data/local-ipv4 && echo told-$((40+2)) || echo silent-$((40+2))";
    guest(&format!("{take}; {fetch}"), "silent-42")?;
    scene.neighbour_is_well()?;
    scene.suite.ok(&["audit"])?;
    for name in ["evil", "neighbour"] {
        scene.suite.ok(&["vm", "kill", name])?;
    }
    scene.suite.finish()
}

/// What services are asked in somebody else's name, or in no language of theirs.
fn asked(scene: &Scene) -> Vec<Vec<u8>> {
    let Scene { evil, neighbour, .. } = scene;
    let (evil, neighbour) = (*evil, *neighbour);
    let everybody = Who { mac: EVERYBODY, ip: Ipv4Addr::BROADCAST };
    let nobody = Who { mac: evil.mac, ip: [0; 4].into() };
    let wanted = [&[50, 4][..], &neighbour.ip.octets(), &[54, 4], &SERVICES.ip.octets()].concat();
    let own_id = |mac: Mac| [&[61, 7, 1][..], &mac, &wanted].concat();
    let mut all = Vec::new();
    // Another's lease: asked for, renewed, given back, declined; as oneself and as him.
    for claims in [nobody, Who { mac: neighbour.mac, ..nobody }, neighbour, Who { mac: evil.mac, ..neighbour }] {
        for kind in [1, 3, 4, 7, 8] {
            for from in [nobody, evil, neighbour, Who { mac: neighbour.mac, ..nobody }, Who { mac: evil.mac, ..neighbour }] {
                for to in [everybody, SERVICES] {
                    all.push(datagram(from, to, (68, 67), &dhcp(kind, claims, [0; 4].into(), &own_id(neighbour.mac))));
                }
            }
        }
    }
    // Another's metadata, and names asked in his name.
    let question = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x04evil\x03net\x08internal\x00\x00\x01\x00\x01";
    for from in [neighbour, Who { mac: evil.mac, ..neighbour }, Who { ip: neighbour.ip, mac: STRANGER_MAC }] {
        all.push(ethernet(from.mac, SERVICES.mac, IPV4, &ipv4(from.ip, SERVICES.ip, 6, 0, &tcp(1234, 80, 2, 5, &[]))));
        all.push(datagram(from, SERVICES, (1234, 53), question));
        all.push(ethernet(from.mac, EVERYBODY, ARP, &arp(false, from, SERVICES)));
    }
    // No language: questions that are cut, that point at themselves, that claim to be more than they are; and noise.
    let mut noise = Noise::new(7);
    for length in 0..question.len() {
        all.push(datagram(evil, SERVICES, (1234, 53), &question[..length]));
    }
    for at in 0..question.len() {
        for byte in [0x00, 0x3f, 0xc0, 0xff] {
            let mut wrong = question.to_vec();
            wrong[at] = byte;
            all.push(datagram(evil, SERVICES, (1234, 53), &wrong));
        }
    }
    all.push(datagram(evil, SERVICES, (1234, 53), b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\xc0\x0c\x00\x01\x00\x01"));
    all.push(datagram(evil, SERVICES, (1234, 53), &[&question[..12], &[63; 1200]].concat()));
    for port in [53, 67, 80, 546] {
        for _ in 0..100 {
            let length = noise.below(1400);
            let bytes = noise.bytes(length);
            all.push(datagram(evil, SERVICES, (68, port), &bytes));
            let (flags, words) = (bytes.first().copied().unwrap_or(0), bytes.get(1).copied().unwrap_or(0) & 15);
            all.push(ethernet(
                evil.mac,
                SERVICES.mac,
                IPV4,
                &ipv4(evil.ip, SERVICES.ip, 6, 0, &tcp(1234, port, flags, words, &bytes)),
            ));
            all.push(ethernet(evil.mac, SERVICES.mac, IPV4, &bytes));
            all.push(ethernet(evil.mac, SERVICES.mac, ARP, &bytes));
        }
    }
    // Too large, and too small for what they say they are.
    for length in [1473, 1600, 9_000, 32_000, 64_000] {
        all.push(datagram(evil, SERVICES, (1234, 53), &noise.bytes(length)));
        all.push(datagram(evil, SERVICES, (68, 67), &[dhcp(3, nobody, [0; 4].into(), &wanted), noise.bytes(length)].concat()));
    }
    for length in 14..60 {
        let whole = datagram(evil, SERVICES, (68, 67), &dhcp(1, nobody, [0; 4].into(), &[]));
        all.push(whole[..length].to_vec());
    }
    all
}

/// As many clients as an impostor can be.
fn starving(scene: &Scene) -> Vec<Vec<u8>> {
    let everybody = Who { mac: EVERYBODY, ip: Ipv4Addr::BROADCAST };
    let subnet = u32::from(scene.router.ip) - 1;
    let mut noise = Noise::new(3);
    let mut all = Vec::new();
    for number in 0..500u32 {
        let mac: Mac = [[0x02].to_vec(), noise.bytes(5)].concat().try_into().unwrap_or(STRANGER_MAC);
        let wanted = Ipv4Addr::from(subnet + number % 254 + 1);
        let claims = Who { mac, ip: [0; 4].into() };
        let options = [&[61, 7, 1][..], &mac, &[50, 4], &wanted.octets()].concat();
        for from in [claims, Who { mac: EVIL_MAC, ..claims }] {
            for kind in [1, 3] {
                all.push(datagram(from, everybody, (68, 67), &dhcp(kind, claims, [0; 4].into(), &options)));
                // As itself, by another name each time.
                all.push(datagram(
                    from,
                    everybody,
                    (68, 67),
                    &dhcp(kind, Who { mac: EVIL_MAC, ..claims }, [0; 4].into(), &options),
                ));
            }
        }
    }
    all
}

/// Addresses that were given by DHCP in these frames.
fn given<'s>(seen: impl Iterator<Item = &'s Seen>) -> Vec<Ipv4Addr> {
    let messages = seen.filter_map(|seen| seen.datagram_from(67));
    let yours = messages.filter_map(|message| message.get(16..20).and_then(|ip| <[u8; 4]>::try_from(ip).ok()));
    yours.map(Ipv4Addr::from).collect()
}

#[test]
fn services_give_nobody_what_is_anothers_and_starve_nobody() -> Result<()> {
    if !is_root() {
        skip!("switches need root");
    }
    let scene = Scene::new(|scene| vec![("asked", asked(scene)), ("starving", starving(scene))])?;
    let services = scene.suite.pids("guest-services")?;
    let capture = Capture::begin()?;
    let none = Ipv4Addr::UNSPECIFIED;
    let to_him = |seen: &&Seen| seen.out && seen.index == scene.taps[0];
    for batch in ["asked", "starving"] {
        let mut seen = scene.send(&capture, batch)?;
        // A port's frames are answered one after the other: with this one's answer all others' are there.
        scene.lease("evil", scene.evil)?;
        seen.extend(capture.seen()?);
        let given = given(seen.iter().filter(to_him));
        ensure!(given.contains(&scene.evil.ip), "{batch}: nobody was answered");
        ensure!(given.iter().all(|ip| *ip == none || *ip == scene.evil.ip), "{batch}: {given:?}");
        // Nothing at all is answered to another's address, by whomever he is named.
        let neighbour = scene.neighbour.ip.octets();
        let answers = seen.iter().filter(to_him).filter(|seen| {
            let is_ip = seen.frame.get(12..14) == Some(&IPV4.to_be_bytes()[..]) && seen.frame.get(30..34) == Some(&neighbour[..]);
            is_ip && seen.frame.get(26..30) == Some(&SERVICES.ip.octets()[..])
        });
        ensure!(answers.count() == 0, "{batch}: answers to the neighbour's address");
        // The neighbour saw nothing of it.
        let heard = seen.iter().filter(|seen| seen.out && seen.index == scene.taps[1] && seen.datagram_from(68).is_some());
        ensure!(heard.count() == 0, "{batch}: the neighbour heard questions of DHCP");
        scene.neighbour_is_well()?;
    }
    // While it goes on and on, too.
    scene.suite.guest_runs(
        "evil",
        "(while :; do ./skep-frames eth0 starving; done) >/dev/null 2>&1 & echo starving-$((40+2))",
        "starving-42",
    )?;
    scene.neighbour_is_well()?;
    scene.suite.guest_runs("evil", "kill $!; wait $!; echo ended-$((40+2))", "ended-42")?;
    ensure!(scene.suite.pids("guest-services")? == services, "services ended");
    let nics = scene.suite.json(&["nic", "list"])?;
    let addresses: Vec<&str> = nics.iter().filter_map(|nic| nic["address"].as_str()).collect();
    ensure!(addresses == [scene.evil.ip.to_string(), scene.neighbour.ip.to_string()], "{nics:?}");
    scene.suite.ok(&["audit"])?;
    for name in ["evil", "neighbour"] {
        scene.suite.ok(&["vm", "kill", name])?;
    }
    scene.suite.finish()
}

/// Frames larger than the switch takes, in its own name.
fn large(scene: &Scene) -> Vec<Vec<u8>> {
    let sizes = [1473, 1500, 4_000, 9_000, 30_000, 64_000];
    let to = [scene.neighbour, scene.router, Who { mac: EVERYBODY, ip: Ipv4Addr::BROADCAST }];
    let frame = |size: usize, to: Who| datagram(scene.evil, to, (7, 7), &[&scene.mark[..], &vec![0x5a; size]].concat());
    sizes.into_iter().flat_map(|size| to.map(|to| frame(size, to))).collect()
}

#[test]
fn frames_that_are_too_large_come_to_nobody() -> Result<()> {
    if !is_root() {
        skip!("switches need root");
    }
    let scene = Scene::new(|scene| vec![("large", large(scene))])?;
    let capture = Capture::begin()?;
    let seen = scene.send(&capture, "large")?;
    let sent = seen.iter().filter(|seen| scene.is_his(seen) && seen.has(&scene.mark)).count();
    ensure!(sent >= 12, "the guest sent {sent} frames");
    // Where the host shows bridges' packets to its chains (br_netfilter), it may have cut them to what the neighbour takes.
    let heard: Vec<usize> = seen
        .iter()
        .filter(|seen| seen.index == scene.taps[1] && seen.out && seen.has(&scene.mark))
        .map(|seen| seen.frame.len())
        .filter(|length| *length > 1514)
        .collect();
    ensure!(heard.is_empty(), "the neighbour got frames of {heard:?} bytes");
    scene.neighbour_is_well()?;
    scene.suite.ok(&["audit"])?;
    for name in ["evil", "neighbour"] {
        scene.suite.ok(&["vm", "kill", name])?;
    }
    scene.suite.finish()
}
