//! A switch with an IPv6 network, with real guests: they make their addresses of what is advertised, and reach each other; one that is
//! hostile is no router of the other's, and nobody else.
#![cfg(target_os = "linux")]

use anyhow::{Context, Result, ensure};
use skep_tests::frames::{Capture, Mac, Seen, VLAN, icmp6, packet6, tagged};
use skep_tests::platform::end;
use skep_tests::scene::{EVIL_MAC, NEIGHBOUR_MAC, Scene};
use skep_tests::{is_root, skip};
use std::net::Ipv6Addr;

/// All nodes, and their hardware address.
const ALL: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_MAC: Mac = [0x33, 0x33, 0, 0, 0, 1];
/// Made of the guests' hardware addresses by hand (RFC 4291).
const EVIL: u64 = 0x0000_5eff_fe00_5366;
const NEIGHBOUR: u64 = 0x0000_5eff_fe00_5311;
const LINK: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0);
/// Kinds of messages.
const ADVERTISES: u8 = 134;
const ANSWERS: u8 = 136;
/// A network that is nobody's.
const STRAY: [u8; 8] = [0xfd, 0x66, 0, 0, 0, 0, 0, 0];

fn on(net: Ipv6Addr, host: u64) -> Ipv6Addr {
    Ipv6Addr::from_bits(net.to_bits() | u128::from(host))
}

fn net(scene: &Scene) -> Result<Ipv6Addr> {
    scene.net6.context("an IPv6 network")
}

/// Words of a router's, and of somebody else's, in every way that could be thought of to get them past a look at them.
fn forged(scene: &Scene) -> Vec<Vec<u8>> {
    let net = scene.net6.unwrap_or(LINK);
    let (evil, link, neighbour, router) = (on(net, EVIL), on(LINK, EVIL), on(net, NEIGHBOUR), on(net, 1));
    let macs = (EVIL_MAC, ALL_MAC);
    let prefix = [&[3, 4, 64, 0xc0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0][..], &STRAY, &[0; 8]].concat();
    let advertises = [&[ADVERTISES, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0], &prefix[..]].concat();
    let redirects = [&[137, 0, 0, 0, 0, 0, 0, 0], &evil.octets()[..], &router.octets()].concat();
    let option = [&[2, 1][..], &EVIL_MAC].concat();
    let tells = |target: Ipv6Addr| [&[ANSWERS, 0, 0, 0, 0x20, 0, 0, 0], &target.octets()[..], &option].concat();
    let looks = |target: Ipv6Addr| [&[135, 0, 0, 0, 0, 0, 0, 0], &target.octets()[..]].concat();
    let mut all = Vec::new();
    for from in [link, evil, on(LINK, NEIGHBOUR), on(LINK, 1), router, Ipv6Addr::UNSPECIFIED] {
        for message in [&advertises, &redirects, &tells(neighbour), &tells(router)] {
            let message = icmp6(from, ALL, message);
            all.push(packet6(macs, from, ALL, 58, &message));
            all.push(packet6((EVIL_MAC, NEIGHBOUR_MAC), from, on(LINK, NEIGHBOUR), 58, &message));
            // Behind one header, and two; in fragments, of which the first is the whole of it, or has no more than a header.
            let options = |next: u8| [next, 0, 1, 4, 0, 0, 0, 0];
            let fragment = |next: u8, offset: u8, more: u8| [next, 0, 0, offset << 3 | more, 0, 0, 0, 9];
            for next in [0, 43, 60, 135] {
                all.push(packet6(macs, from, ALL, next, &[&options(58)[..], &message].concat()));
                all.push(packet6(macs, from, ALL, next, &[&options(60)[..], &options(58), &message].concat()));
                all.push(packet6(macs, from, ALL, 44, &[&fragment(next, 0, 1)[..], &options(58)].concat()));
                all.push(packet6(macs, from, ALL, 44, &[&fragment(next, 1, 0)[..], &message].concat()));
                all.push(packet6(macs, from, ALL, next, &[&options(44)[..], &fragment(58, 0, 0), &message].concat()));
            }
            for (offset, more) in [(0, 0), (0, 1), (1, 0)] {
                all.push(packet6(macs, from, ALL, 44, &[&fragment(58, offset, more)[..], &message].concat()));
            }
        }
    }
    for target in [neighbour, on(LINK, NEIGHBOUR), router] {
        let message = icmp6(Ipv6Addr::UNSPECIFIED, ALL, &looks(target));
        all.push(packet6(macs, Ipv6Addr::UNSPECIFIED, ALL, 58, &message));
    }
    for frame in all.clone() {
        all.push(tagged(&frame, 0));
        all.push(tagged(&tagged(&frame, 0), VLAN));
    }
    // Behind the packet, where a frame has but padding.
    all.iter_mut().for_each(|frame| frame.extend(&scene.mark));
    all
}

/// Has a guest take up IPv6 anew, until it says that it has its address.
fn takes(scene: &Scene, capture: &Capture, who: usize, address: Ipv6Addr) -> Result<Vec<Seen>> {
    let name = ["evil", "neighbour"][who];
    let anew = "ip link set eth0 down; echo 1 >/proc/sys/net/ipv6/conf/eth0/ndisc_notify; ip link set eth0 up; echo up-$?";
    scene.suite.guest_runs(name, anew, "up-0")?;
    capture.until(|seen| !seen.out && seen.index == scene.taps[who] && seen.discovery() == Some((ANSWERS, Some(address))))
}

#[test]
fn guests_make_addresses_of_what_is_advertised_and_a_guest_is_nobodys_router() -> Result<()> {
    if !is_root() {
        skip!("switches need root");
    }
    let scene = Scene::with(&["--subnet6", "auto"], |scene| vec![("forged", forged(scene))])?;
    let suite = &scene.suite;
    let net = net(&scene)?;
    let (evil, neighbour, router) = (on(net, EVIL), on(net, NEIGHBOUR), on(net, 1));
    let nics = suite.json(&["nic", "list"])?;
    let shown: Vec<&str> = nics.iter().filter_map(|nic| nic["address6"].as_str()).collect();
    ensure!(shown == [evil.to_string(), neighbour.to_string()], "{nics:?}");

    let capture = Capture::begin()?;
    for (who, name, address) in [(0, "evil", evil), (1, "neighbour", neighbour)] {
        let seen = takes(&scene, &capture, who, address)?;
        ensure!(seen.iter().any(|seen| seen.out && seen.discovery().is_some_and(|(kind, _)| kind == ADVERTISES)));
        scene.lease(name, [scene.evil, scene.neighbour][who])?;
        suite.guest_runs(
            name,
            "echo has $(ip -6 -o address show dev eth0 scope global | awk '{print $4}')",
            &format!("has {address}/64"),
        )?;
        // Nobody is a router of IPv6 here.
        suite.guest_runs(name, "echo routers-$(ip -6 route show default | wc -l)", "routers-0")?;
    }
    let reaches = |name: &str, to: Ipv6Addr| {
        let line = format!("ping6 -c1 -W20 {to} | grep -o '1 packets received'");
        suite.guest_runs(name, &line, "1 packets received").map(drop)
    };
    // Each other, and of the host an echo, as with IPv4.
    reaches("neighbour", evil)?;
    reaches("evil", neighbour)?;
    reaches("neighbour", router)?;
    let named = |address: Ipv6Addr, name: &str| {
        let line = format!("nslookup {name}.net.internal | grep -o 'Address: fd.*'");
        suite.guest_runs("neighbour", &line, &format!("Address: {address}")).map(drop)
    };
    named(evil, "evil")?;
    named(neighbour, "neighbour")?;

    let seen = scene.send(&capture, "forged")?;
    let sent = seen.iter().filter(|seen| scene.is_his(seen) && seen.has(&scene.mark)).count();
    ensure!(sent > 500, "the guest sent {sent} frames");
    let leaked: Vec<&Seen> = seen.iter().filter(|seen| seen.has(&scene.mark) && !scene.is_his(seen)).collect();
    ensure!(leaked.is_empty(), "{} of {sent}, {leaked:02x?}", leaked.len());
    suite.guest_runs("neighbour", "echo strays-$(ip -6 route show | grep -c fd66)", "strays-0")?;
    suite.guest_runs("neighbour", "echo routers-$(ip -6 route show default | wc -l)", "routers-0")?;
    reaches("neighbour", evil)?;
    scene.neighbour_is_well()?;

    // Services that are killed are followed by others, who tell it again and ask who is there; guests keep what they have.
    let before = suite.pids("guest-services")?;
    ensure!(before.len() == 1, "{before:?}");
    capture.seen()?;
    end(before[0])?;
    let answers = |seen: &Seen| !seen.out && seen.index == scene.taps[0] && seen.discovery() == Some((ANSWERS, Some(evil)));
    let seen = capture.until(answers)?;
    let told =
        |tap: usize| seen.iter().any(|s| s.out && s.index == tap && s.discovery().is_some_and(|(kind, _)| kind == ADVERTISES));
    ensure!(told(scene.taps[0]), "the guest was told nothing anew");
    // A port's frames are answered one after the other.
    scene.lease("evil", scene.evil)?;
    named(evil, "evil")?;
    reaches("neighbour", evil)?;
    suite.ok(&["audit"])?;
    for name in ["evil", "neighbour"] {
        suite.ok(&["vm", "kill", name])?;
    }
    scene.suite.finish()
}

#[test]
fn a_network_is_checked_before_anything_is_made() -> Result<()> {
    if !is_root() {
        skip!("switches need root");
    }
    let suite = skep_tests::Suite::start(skep_tests::Mode::Root)?;
    for (words, why) in [
        (&["--kind", "nat", "--subnet6", "2001:db8::/64"][..], "fd00::/8"),
        (&["--kind", "nat", "--subnet6", "fd12::/48"], "/64"),
        (&["--kind", "internal", "--subnet6", "auto"], "subnet6"),
    ] {
        let (_, said) = suite.fails(&[&["switch", "create", "net"], words].concat())?;
        ensure!(said.contains(why), "{said}");
    }
    let made = suite.json(&["switch", "create", "net", "--kind", "host-only", "--subnet6", "auto"])?;
    let net = made[0]["subnet6"].as_str().context("a network")?.to_owned();
    let (_, said) = suite.fails(&["switch", "create", "more", "--kind", "nat", "--subnet6", &net])?;
    ensure!(said.contains("another switch"), "{said}");
    suite.ok(&["switch", "delete", "net"])?;
    suite.ok(&["switch", "create", "more", "--kind", "nat", "--subnet6", &net])?;
    suite.ok(&["switch", "delete", "more"])?;
    suite.finish()
}
