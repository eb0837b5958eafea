//! Interfaces of WireGuard beneath tunnels: made by rtnetlink, keyed by generic netlink (linux/wireguard.h).

use super::{Host, HostError, addresses, netlink::Netlink, vxlan};
use crate::key::PrivateKey;
use crate::platform::{WIREGUARD_MTU, written, wrote};
use netlink_packet_core::{DecodeError, NLM_F_ACK, NLM_F_DUMP, NetlinkDeserializable, NetlinkHeader, NetlinkSerializable};
use netlink_packet_generic::GenlMessage;
use netlink_packet_generic::ctrl::nlas::GenlCtrlAttrs;
use netlink_packet_generic::ctrl::{GenlCtrl, GenlCtrlCmd};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::link::{InfoData, InfoKind, LinkAttribute};
use netlink_packet_wireguard::{
    WireguardAddressFamily, WireguardAllowedIp, WireguardAllowedIpAttr, WireguardAttribute, WireguardCmd, WireguardDeviceFlags,
    WireguardMessage, WireguardPeer, WireguardPeerAttribute,
};
use netlink_sys::protocols::NETLINK_GENERIC;
use nix::errno::Errno;
use skep_proto::tunnel::{PORT, PublicKey, Tunnel};
use skep_proto::{IfName, InstanceId};
use std::io;
use std::net::SocketAddr;

const MISSING: &str = "make an interface of WireGuard, which this kernel has not (modprobe wireguard)";
const KEY: &str = "set the keys of WireGuard";
const LOOK: &str = "look at the interface of WireGuard";

/// What is said by generic netlink.
#[derive(Debug, Clone)]
pub enum Message {
    /// About families.
    Control(GenlMessage<GenlCtrl>),
    /// About WireGuard, whose family's number the kernel chose.
    Device(GenlMessage<WireguardMessage>),
}

/// `GENL_ID_CTRL` (linux/genetlink.h).
const CONTROL: u16 = 0x10;

impl NetlinkSerializable for Message {
    fn message_type(&self) -> u16 {
        match self {
            Self::Control(message) => message.message_type(),
            Self::Device(message) => message.message_type(),
        }
    }
    fn buffer_len(&self) -> usize {
        match self {
            Self::Control(message) => NetlinkSerializable::buffer_len(message),
            Self::Device(message) => NetlinkSerializable::buffer_len(message),
        }
    }
    fn serialize(&self, buffer: &mut [u8]) {
        match self {
            Self::Control(message) => message.serialize(buffer),
            Self::Device(message) => message.serialize(buffer),
        }
    }
}

impl NetlinkDeserializable for Message {
    type Error = DecodeError;
    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        if header.message_type == CONTROL {
            GenlMessage::deserialize(header, payload).map(Self::Control)
        } else {
            GenlMessage::deserialize(header, payload).map(Self::Device)
        }
    }
}

/// Generic netlink.
pub type Generic = Netlink<Message>;

impl Generic {
    pub fn open() -> io::Result<Self> {
        Self::connect(NETLINK_GENERIC)
    }

    fn device(
        &mut self, cmd: WireguardCmd, attributes: Vec<WireguardAttribute>, flags: u16,
    ) -> io::Result<Vec<WireguardAttribute>> {
        let name = vec![GenlCtrlAttrs::FamilyName("wireguard".into())];
        let question = GenlMessage::from_payload(GenlCtrl { cmd: GenlCtrlCmd::GetFamily, nlas: name });
        let answer = self.ask(Message::Control(question), NLM_F_ACK)?;
        let family = answer.into_iter().find_map(|message| {
            let Message::Control(message) = message else { return None };
            message.payload.nlas.into_iter().find_map(|nla| if let GenlCtrlAttrs::FamilyId(id) = nla { Some(id) } else { None })
        });
        let mut message = GenlMessage::from_payload(WireguardMessage { cmd, attributes });
        message.set_resolved_family_id(family.ok_or(Errno::ENOENT)?);
        let answer = self.ask(Message::Device(message), flags)?;
        let devices =
            answer.into_iter().filter_map(|message| if let Message::Device(m) = message { Some(m.payload) } else { None });
        Ok(devices.flat_map(|message| message.attributes).collect())
    }
}

/// What an interface is to be.
fn settings(name: &IfName, key: &PrivateKey, to: Option<(&Tunnel, &PublicKey)>) -> Vec<WireguardAttribute> {
    use WireguardAllowedIpAttr as Allowed;
    use WireguardPeerAttribute as Peer;
    let mut all = vec![WireguardAttribute::IfName(name.as_str().to_owned()), WireguardAttribute::PrivateKey(*key.bytes())];
    if let Some((tunnel, peer)) = to {
        let address = WireguardAllowedIp(vec![
            Allowed::Family(WireguardAddressFamily::Ipv6),
            Allowed::IpAddr(peer.address().into()),
            Allowed::Cidr(128),
        ]);
        let peer = WireguardPeer(vec![
            Peer::PublicKey(*peer.bytes()),
            Peer::Endpoint(SocketAddr::new(tunnel.far.address(), tunnel.port.get())),
            Peer::AllowedIps(vec![address]),
        ]);
        all.extend([
            WireguardAttribute::Flags(WireguardDeviceFlags::ReplacePeers),
            WireguardAttribute::ListenPort(tunnel.port.get()),
            WireguardAttribute::Peers(vec![peer]),
        ]);
    }
    all
}

fn public(attributes: &[WireguardAttribute]) -> Option<PublicKey> {
    attributes.iter().find_map(|a| if let WireguardAttribute::PublicKey(key) = a { PublicKey::new(*key).ok() } else { None })
}

impl Host {
    fn generic(&mut self) -> Result<&mut Generic, HostError> {
        self.generic.as_mut().ok_or_else(|| HostError::step("open generic netlink, which this kernel has not")(Errno::EOPNOTSUPP))
    }

    fn key(&self) -> Result<PrivateKey, HostError> {
        let missing = |why| HostError::step("read this host's key of WireGuard")(io::Error::other(why));
        self.key.clone().map_err(missing)
    }

    fn make_wireguard(&mut self, name: &IfName) -> Result<(), HostError> {
        let made = self.make(name, InfoKind::Wireguard, InfoData::Wireguard(Vec::new()), MISSING);
        made?;
        self.set(name, "set its MTU", |message| message.attributes.push(LinkAttribute::Mtu(WIREGUARD_MTU)))
    }

    fn look_at_wireguard(&mut self, name: &IfName) -> Result<Vec<WireguardAttribute>, HostError> {
        let which = vec![WireguardAttribute::IfName(name.as_str().to_owned())];
        self.generic()?.device(WireguardCmd::GetDevice, which, NLM_F_DUMP).map_err(HostError::step(LOOK))
    }

    /// Gives an interface this host's key, and the other end; says the public one.
    fn key_wireguard(&mut self, name: &IfName, to: Option<(&Tunnel, &PublicKey)>) -> Result<PublicKey, HostError> {
        let all = settings(name, &self.key()?, to);
        self.generic()?.device(WireguardCmd::SetDevice, all, NLM_F_ACK).map_err(HostError::step(KEY))?;
        public(&self.look_at_wireguard(name)?).ok_or_else(|| HostError::step(KEY)(Errno::EINVAL))
    }
}

/// This host's public key. Only WireGuard itself makes it of the private one: an interface is there for a moment.
pub fn host_key(host: &mut Host, instance: InstanceId) -> Result<PublicKey, HostError> {
    use crate::platform::NetHost as _;
    if let Some(key) = host.public {
        return Ok(key);
    }
    host.key()?;
    let name = IfName::keying(instance);
    host.delete(&name)?;
    host.make_wireguard(&name)?;
    let key = host.key_wireguard(&name, None);
    host.delete(&name)?;
    host.public = Some(key?);
    host.public.ok_or_else(|| HostError::step(KEY)(Errno::EINVAL))
}

/// Makes the interface beneath a tunnel, up; says this host's public key, and its index.
pub fn make(host: &mut Host, tunnel_name: &IfName, tunnel: &Tunnel, peer: &PublicKey) -> Result<(PublicKey, u32), HostError> {
    use crate::platform::NetHost as _;
    let name = tunnel_name.beneath();
    host.make_wireguard(&name)?;
    let mut rest = || {
        let own = host.key_wireguard(&name, Some((tunnel, peer)))?;
        host.mark(&name, "skep makes it")?;
        addresses::set(host, &name, AddressFamily::Inet6, &[(own.address().into(), 64)])?;
        host.set_up(&name, true)?;
        let link = host.get(&name).map_err(HostError::step(LOOK))?;
        Ok((own, link.ok_or_else(|| HostError::step(LOOK)(Errno::ENODEV))?.index))
    };
    rest().inspect_err(|_: &HostError| {
        let _ = host.delete(&name);
    })
}

/// Says what it is for, once all of it is there.
pub fn finish(host: &mut Host, tunnel_name: &IfName, tunnel: &Tunnel) -> Result<(), HostError> {
    use crate::platform::NetHost as _;
    host.mark(&tunnel_name.beneath(), &written(tunnel_name, tunnel))
}

/// What a tunnel over WireGuard is set to; none if it is not what it says, or not whole.
pub fn tunnel(host: &mut Host, name: &IfName, above: &vxlan::Settings) -> Result<Option<Tunnel>, HostError> {
    let Some(link) = host.get(&name.beneath()).map_err(HostError::step(LOOK))? else { return Ok(None) };
    let Some((tunnel, peer)) = wrote(name, &link.note) else { return Ok(None) };
    if !link.up || !link.is_wireguard() {
        return Ok(None);
    }
    let (key, mut all) = (host.key()?, host.look_at_wireguard(&link.name)?);
    let Some(own) = public(&all) else { return Ok(None) };
    all.retain(|attribute| match attribute {
        WireguardAttribute::PrivateKey(private) => private == key.bytes(),
        WireguardAttribute::ListenPort(port) => *port == tunnel.port.get(),
        WireguardAttribute::Peers(peers) => {
            matches!(&peers[..], [one] if one.0.contains(&WireguardPeerAttribute::PublicKey(*peer.bytes())))
        }
        _ => false,
    });
    let same = all.len() == 3 && above.is(tunnel.vni, own.address(), peer.address(), PORT);
    Ok(same.then_some(tunnel))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use netlink_packet_core::Emitable;

    /// Written down by hand from linux/wireguard.h, which has an example of it.
    #[test]
    fn settings_are_as_the_kernel_has_them() {
        let dir = tempfile::tempdir().unwrap();
        let key = PrivateKey::of(dir.path()).unwrap();
        let tunnel: Tunnel = "7 192.0.2.1 198.51.100.2 51820 key=xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=".parse().unwrap();
        let peer = tunnel.peer_key.unwrap();
        let message = WireguardMessage {
            cmd: WireguardCmd::SetDevice,
            attributes: settings(&"w0".parse().unwrap(), &key, Some((&tunnel, &peer))),
        };
        let mut bytes = vec![0; message.buffer_len()];
        message.emit(&mut bytes);
        let attribute = |kind: u16, value: &[u8]| {
            let mut all = [((value.len() + 4) as u16).to_le_bytes(), kind.to_le_bytes()].concat();
            all.extend(value);
            all.resize(all.len().next_multiple_of(4), 0);
            all
        };
        const NESTED: u16 = 0x8000;
        let allowed = [attribute(1, &[10, 0]), attribute(2, &peer.address().octets()), attribute(3, &[128])].concat();
        let endpoint = [2, 0, 0xca, 0x6c, 198, 51, 100, 2, 0, 0, 0, 0, 0, 0, 0, 0];
        let one =
            [attribute(1, peer.bytes()), attribute(4, &endpoint), attribute(9 | NESTED, &attribute(NESTED, &allowed))].concat();
        let expected = [
            attribute(2, b"w0\0"),
            attribute(3, key.bytes()),
            attribute(5, &[1, 0, 0, 0]),
            attribute(6, &51_820u16.to_le_bytes()),
            attribute(8 | NESTED, &attribute(NESTED, &one)),
        ]
        .concat();
        assert_eq!(bytes, expected);
    }
}
