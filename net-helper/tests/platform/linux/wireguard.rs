//! Two hosts, each in a network of its own, and what goes between them looked at.

use crate::acts::Net7;
use crate::support::frames::{frame, hear, send};
use crate::support::{Network, Served, ask, host};
use nix::sched::{CloneFlags, unshare};
use skep_ipc::Client;
use skep_net_helper::key::PrivateKey;
use skep_net_helper::platform::NetHost;
use skep_proto::net::{CreateSwitch, CreateTap, CreateTunnel, HostKey, Net};
use skep_proto::tunnel::{Far, PublicKey, Tunnel};
use skep_proto::{MachineId, NicId, Reason, SwitchId};
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex};

const HOSTS: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2)];

/// The calling thread's network, served: what comes out of it is read from the descriptor.
fn end(network: &mut Network, address: Ipv4Addr, state: &Path) -> (Served, Client<Net>, OwnedFd) {
    let outside = network.outside("up0");
    host().set_up(&"up0".parse().unwrap(), true).unwrap();
    network.address("up0", address);
    let served = Served::new(host().with_key(PrivateKey::of(state)), true);
    let client = served.client();
    (served, client, outside)
}

/// Carries frames from one host to the other, and keeps them.
fn carry(from: &OwnedFd, to: &OwnedFd, seen: &Arc<Mutex<Vec<u8>>>) {
    let (from, to, seen) = (from.try_clone().unwrap(), to.try_clone().unwrap(), seen.clone());
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(got) = nix::unistd::read(&from, &mut buffer) {
            seen.lock().unwrap().extend_from_slice(&buffer[..got]);
            let _ = nix::unistd::write(&to, &buffer[..got]);
        }
    });
}

#[test]
fn what_goes_through_wireguard_is_read_by_nobody_on_the_way() {
    let Some(mut near) = Net7::new() else { return };
    let states = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let (_served, mut here, near_wire) = end(&mut near.network, HOSTS[0], states[0].path());
    let state = states[1].path().to_owned();
    let far = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        end(&mut Network::this(), HOSTS[1], &state)
    });
    let (_far, mut there, far_wire) = far.join().unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    carry(&near_wire, &far_wire, &seen);
    carry(&far_wire, &near_wire, &seen);

    let key = |client: &mut Client<Net>| ask(client, HostKey {}).map(|(keyed, [])| keyed.key);
    let keys = match (key(&mut here), key(&mut there)) {
        (Ok(here), Ok(there)) => [here, there],
        (Err(refusal), _) | (_, Err(refusal)) => {
            assert_eq!(refusal.reason, Reason::Unsupported, "{refusal}");
            println!("SKIP what_goes_through_wireguard_is_read_by_nobody_on_the_way: {refusal}");
            return;
        }
    };
    let switch = SwitchId::random();
    let taps = [&mut here, &mut there].map(|client| {
        ask(client, CreateSwitch { switch, number: 0, uplink: None }).unwrap();
        let call = CreateTap { machine: MachineId::random(), nic: NicId::random(), number: 0, switch: Some(0) };
        ask(client, call).map(|(_, [tap])| tap).unwrap()
    });
    for (text, sealed) in [("anybody may read this", false), ("nobody may read this", true)] {
        let tunnel = |from: usize, peer: PublicKey| Tunnel {
            vni: "7".parse().unwrap(),
            local: HOSTS[from].to_string().parse().unwrap(),
            far: Far::Host(HOSTS[1 - from].to_string().parse().unwrap()),
            port: 4790.try_into().unwrap(),
            peer_key: sealed.then_some(peer),
        };
        ask(&mut here, CreateTunnel { switch, number: 0, tunnel: tunnel(0, keys[1]) }).unwrap();
        ask(&mut there, CreateTunnel { switch, number: 0, tunnel: tunnel(1, keys[0]) }).unwrap();
        seen.lock().unwrap().clear();
        let [one, other] = &taps;
        for (from, to) in [(one, other), (other, one)] {
            send(from, &frame(text));
            assert_eq!(hear(to, |_| ()), text);
            let seen = seen.lock().unwrap();
            let read = seen.windows(text.len()).any(|window| window == text.as_bytes());
            assert!(read != sealed && seen.len() > 100, "{} bytes", seen.len());
        }
    }
}
