//! Tunnels: of if_vxlan(4), and of wg(4) beneath them.

use super::{Host, is, unmade};
use crate::key::PrivateKey;
use crate::platform::{HostError, WIREGUARD_MTU, written, wrote};
use nix::errno::Errno;
use nix::libc::IFF_RUNNING;
use skep_proto::tunnel::{Far, GroupAddress, HostAddress, PORT, PublicKey, Tunnel, Vni};
use skep_proto::{IfName, InstanceId};
use skep_sys::freebsd::{inet6, net, vxlan, wg};
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::os::fd::AsFd;

const MISSING: &str = "make an interface of WireGuard (kldload if_wg)";
const KEY: &str = "set the keys of WireGuard";
const LOOK: &str = "look at the tunnel";

fn as_vxlan(tunnel: &Tunnel) -> vxlan::Vxlan {
    let port = tunnel.port.get();
    let (local, remote) = (tunnel.local.get(), tunnel.far.address());
    vxlan::Vxlan { vni: tunnel.vni.get(), local, remote, local_port: port, remote_port: port, scope: 0 }
}

/// The same, over WireGuard.
fn inside(tunnel: &Tunnel, own: &PublicKey, peer: &PublicKey, scope: u32) -> vxlan::Vxlan {
    let (local, remote) = (own.address().into(), peer.address().into());
    vxlan::Vxlan { vni: tunnel.vni.get(), local, remote, local_port: PORT, remote_port: PORT, scope }
}

/// The same, back; none if it is nothing that we would make. A group without the interface on which it was joined is none, either: the
/// tunnel does not run.
fn as_tunnel(vxlan: &vxlan::Vxlan, uplink: Option<IfName>) -> Option<Tunnel> {
    let far = if vxlan.remote.is_multicast() {
        Far::Group { address: GroupAddress::new(vxlan.remote).ok()?, uplink: uplink? }
    } else {
        Far::Host(HostAddress::new(vxlan.remote).ok()?)
    };
    let port = NonZeroU16::new(vxlan.local_port).filter(|port| port.get() == vxlan.remote_port)?;
    let (vni, local) = (Vni::new(vxlan.vni).ok()?, HostAddress::new(vxlan.local).ok()?);
    Some(Tunnel { vni, local, far, port, peer_key: None })
}

impl Host {
    fn key(&self) -> Result<PrivateKey, HostError> {
        let missing = |why| HostError::step("read this host's key of WireGuard")(io::Error::other(why));
        self.key.clone().map_err(missing)
    }

    /// Makes one, which nothing is said to yet.
    fn make_wireguard(&self, name: &IfName) -> Result<(), HostError> {
        let made = net::create(self.socket.as_fd(), "wg").map_err(unmade("make an interface of WireGuard", MISSING))?;
        self.adopt(&made, name).inspect_err(|_| self.discard(&made))
    }

    fn key_wireguard(&self, name: &IfName, to: Option<(u16, &wg::Peer)>) -> Result<PublicKey, HostError> {
        let socket = self.addresses.as_fd();
        wg::set(socket, name.as_str(), self.key()?.bytes(), to).map_err(HostError::step(KEY))?;
        let made = wg::get(socket, name.as_str()).map_err(HostError::step(KEY))?;
        made.and_then(|made| PublicKey::new(made.public).ok()).ok_or_else(|| HostError::step(KEY)(Errno::EINVAL))
    }

    /// This host's public key. Only WireGuard itself makes it of the private one: an interface is there for a moment.
    pub(super) fn public_key(&mut self, instance: InstanceId) -> Result<PublicKey, HostError> {
        if let Some(key) = self.public {
            return Ok(key);
        }
        self.key()?;
        let name = IfName::keying(instance);
        self.remove(&name)?;
        self.make_wireguard(&name)?;
        let key = self.key_wireguard(&name, None);
        self.remove(&name)?;
        let key = key?;
        self.public = Some(key);
        Ok(key)
    }

    fn remove(&self, name: &IfName) -> Result<(), HostError> {
        match net::destroy(self.socket.as_fd(), name.as_str()) {
            Err(e) if is(&e, Errno::ENXIO) => Ok(()),
            result => result.map_err(HostError::step("delete it")),
        }
    }

    /// The interface beneath a tunnel, up; says this host's public key, and its index.
    fn lay(&self, tunnel_name: &IfName, tunnel: &Tunnel, peer: &PublicKey) -> Result<(PublicKey, u32), HostError> {
        let name = tunnel_name.beneath();
        self.make_wireguard(&name)?;
        let (socket, text) = (self.socket.as_fd(), name.as_str());
        let rest = || {
            net::set_mtu(socket, text, WIREGUARD_MTU).map_err(HostError::step("set its MTU"))?;
            let endpoint = SocketAddr::new(tunnel.far.address(), tunnel.port.get());
            let other = wg::Peer { key: *peer.bytes(), endpoint, inside: peer.address() };
            let own = self.key_wireguard(&name, Some((tunnel.port.get(), &other)))?;
            inet6::add_address(self.six()?, text, own.address()).map_err(HostError::step("set its address"))?;
            // One that cannot open its port says so to the console only, and does not run.
            let up = || -> io::Result<()> {
                net::set_up(socket, text, true)?;
                if net::flags(socket, text)? & IFF_RUNNING == 0 { Err(Errno::EADDRINUSE.into()) } else { Ok(()) }
            };
            up().map_err(HostError::step("set it up"))?;
            Ok((own, net::index(socket, text).map_err(HostError::step(LOOK))?))
        };
        rest().inspect_err(|_: &HostError| self.discard(text))
    }

    pub(super) fn make_a_tunnel(&self, name: &IfName, tunnel: &Tunnel) -> Result<(), HostError> {
        let create = |vxlan: &vxlan::Vxlan, group| {
            let made = vxlan::create(self.socket.as_fd(), vxlan, group);
            let made = made.map_err(unmade("make a tunnel", "make a tunnel (kldload if_vxlan)"))?;
            self.adopt(&made, name).inspect_err(|_| self.discard(&made))
        };
        let Some(peer) = &tunnel.peer_key else {
            let group = if let Far::Group { uplink, .. } = &tunnel.far { Some(uplink.as_str()) } else { None };
            return create(&as_vxlan(tunnel), group);
        };
        let (own, index) = self.lay(name, tunnel, peer)?;
        let beneath = name.beneath();
        // What it is for is said once all of it is there.
        let said = || net::describe(self.socket.as_fd(), beneath.as_str(), &written(name, tunnel));
        let above = create(&inside(tunnel, &own, peer, index), None);
        above.and_then(|()| said().map_err(HostError::step("describe it"))).inspect_err(|_| {
            self.discard(name.as_str());
            self.discard(beneath.as_str());
        })
    }

    pub(super) fn look_at_tunnel(&self, name: &IfName) -> Result<Option<Tunnel>, HostError> {
        let read = || -> io::Result<Option<Tunnel>> {
            let socket = self.socket.as_fd();
            let Some((vxlan, joined)) = vxlan::settings(socket, name.as_str())? else { return Ok(None) };
            if vxlan.scope != 0 {
                return Ok(None);
            }
            // Only the index of the interface with the group is told.
            let uplink = if joined == 0 {
                None
            } else {
                let found =
                    net::list(socket)?.into_iter().find(|name| net::index(socket, name).is_ok_and(|index| index == joined));
                found.and_then(|name| name.parse().ok())
            };
            Ok(as_tunnel(&vxlan, uplink))
        };
        match read().map_err(HostError::step(LOOK))? {
            None => self.look_beneath(name),
            found => Ok(found),
        }
    }

    /// What a tunnel over WireGuard is set to; none if it is not what it says, or not whole.
    fn look_beneath(&self, name: &IfName) -> Result<Option<Tunnel>, HostError> {
        let key = self.key()?;
        let read = || -> io::Result<Option<Tunnel>> {
            let (socket, beneath) = (self.socket.as_fd(), name.beneath());
            let note = net::description(socket, beneath.as_str())?;
            let Some((tunnel, peer)) = wrote(name, &note) else { return Ok(None) };
            let Some(set) = wg::get(self.addresses.as_fd(), beneath.as_str())? else { return Ok(None) };
            let runs = net::flags(socket, beneath.as_str())? & IFF_RUNNING != 0;
            let Ok(own) = PublicKey::new(set.public) else { return Ok(None) };
            let beneath_is = (set.port, &set.private, &set.peers[..]) == (tunnel.port.get(), key.bytes(), &[*peer.bytes()][..]);
            let wanted = inside(&tunnel, &own, &peer, net::index(socket, beneath.as_str())?);
            let above_is = vxlan::settings(socket, name.as_str())?.is_some_and(|(vxlan, _)| vxlan == wanted);
            Ok(Some(tunnel).filter(|_| runs && beneath_is && above_is))
        };
        match read() {
            // It is not there.
            Err(e) if is(&e, Errno::ENXIO) => Ok(None),
            result => result.map_err(HostError::step(LOOK)),
        }
    }
}
