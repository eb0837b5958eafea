//! Switches and NICs.

use super::{devices, given, invalid, known, maybe_named, named, not, optional, strings, time, value, within};
use skep_api::v1;
use skep_proto::broker::{NicCreate, NicSet, NicView, SwitchCreate, SwitchKind, SwitchView};
use skep_proto::tunnel::{Far, PORT, Tunnel, Vni, WIREGUARD_PORT};
use skep_proto::{Forwards, Rate, Rates, Refusal};
use std::num::NonZeroU16;

/// A switch.
pub fn switch(view: SwitchView) -> v1::Switch {
    v1::Switch {
        id: view.id.to_string(),
        name: view.name.to_string(),
        bridge: view.bridge.to_string(),
        uplink: view.uplink.to_string(),
        nics: view.nics,
        create_time: time(view.created_ns),
        open: view.open,
        groups: strings(&view.groups),
        description: view.description.to_string(),
        kind: kind_view(&view).into(),
        subnet: view.subnet.map(|subnet| subnet.to_string()).unwrap_or_default(),
        tunnel: view.tunnel.map(tunnel_view),
        subnet6: view.subnet6.map(|subnet| subnet.to_string()).unwrap_or_default(),
    }
}

fn tunnel_view(tunnel: Tunnel) -> v1::Tunnel {
    let Tunnel { vni, local, far, port, peer_key } = tunnel;
    let peer_key = peer_key.map(|key| key.to_string()).unwrap_or_default();
    let (remote, interface) = match far {
        Far::Host(address) => (address.to_string(), String::new()),
        Far::Group { address, uplink } => (address.to_string(), uplink.to_string()),
    };
    v1::Tunnel { vni: vni.get(), local: local.to_string(), remote, port: port.get().into(), interface, peer_key }
}

/// A tunnel to be.
fn tunnel(asked: &v1::Tunnel) -> Result<Tunnel, Refusal> {
    let peer_key = optional("switch", "tunnel.peer_key", &asked.peer_key)?;
    let usual = if peer_key.is_some() { WIREGUARD_PORT } else { PORT };
    let port = if asked.port == 0 { usual.into() } else { within("switch", "tunnel.port", asked.port, &(1..=u16::MAX.into()))? };
    let port = u16::try_from(port).ok().and_then(NonZeroU16::new);
    let far = match optional("switch", "tunnel.interface", &asked.interface)? {
        None => Far::Host(value("switch", "tunnel.remote", &asked.remote)?),
        Some(uplink) => Far::Group { address: value("switch", "tunnel.remote", &asked.remote)?, uplink },
    };
    Ok(Tunnel {
        vni: Vni::new(asked.vni).map_err(|e| invalid("switch", "tunnel.vni", not(e, &asked.vni.to_string())))?,
        local: value("switch", "tunnel.local", &asked.local)?,
        far,
        port: port.ok_or_else(|| invalid("switch", "tunnel.port", "1 to 65535 is expected"))?,
        peer_key,
    })
}

fn kind_view(view: &SwitchView) -> v1::SwitchKind {
    match view.kind {
        SwitchKind::Plain if view.tunnel.is_some() => v1::SwitchKind::Vxlan,
        SwitchKind::Plain if view.uplink.as_str().is_empty() => v1::SwitchKind::Internal,
        SwitchKind::Plain => v1::SwitchKind::Bridged,
        SwitchKind::HostOnly => v1::SwitchKind::HostOnly,
        SwitchKind::Nat => v1::SwitchKind::Nat,
        SwitchKind::Netgraph => v1::SwitchKind::Netgraph,
    }
}

/// What to create.
pub fn switch_create(request: &v1::CreateSwitchRequest) -> Result<SwitchCreate, Refusal> {
    let uplink = optional("switch", "uplink", &request.uplink)?;
    let tunnel = request.tunnel.as_ref().map(tunnel).transpose()?;
    let asked = known("switch", "kind", request.kind)?;
    if (asked == v1::SwitchKind::Vxlan) != tunnel.is_some() {
        return Err(invalid("switch", "tunnel", "a VXLAN switch has one, and no other kind"));
    }
    let kind = match (asked, &uplink) {
        (v1::SwitchKind::Bridged, None) => return Err(invalid("switch", "uplink", "a bridged switch needs one")),
        (v1::SwitchKind::Internal, Some(_)) => return Err(invalid("switch", "uplink", "an internal switch has none")),
        (v1::SwitchKind::Unspecified | v1::SwitchKind::Bridged | v1::SwitchKind::Internal | v1::SwitchKind::Vxlan, _) => {
            SwitchKind::Plain
        }
        (v1::SwitchKind::HostOnly, _) => SwitchKind::HostOnly,
        (v1::SwitchKind::Nat, _) => SwitchKind::Nat,
        (v1::SwitchKind::Netgraph, _) => SwitchKind::Netgraph,
    };
    let subnet = optional("switch", "subnet", &request.subnet)?;
    let subnet6 = optional("switch", "subnet6", &request.subnet6)?;
    Ok(SwitchCreate { name: value("switch", "name", &request.name)?, uplink, kind, subnet, tunnel, subnet6 })
}

/// A NIC.
pub fn nic(view: NicView) -> v1::Nic {
    let (slot, function) = devices::place_parts(view.slot.unwrap_or(0));
    v1::Nic {
        id: view.id.to_string(),
        name: view.name.to_string(),
        mac: mac_text(view.mac),
        switch: view.switch.to_string(),
        machine: view.machine.to_string(),
        tap: view.tap.to_string(),
        create_time: time(view.created_ns),
        group: view.group.to_string(),
        description: view.description.to_string(),
        model: devices::nic_model_view(view.model).into(),
        slot,
        function,
        address: view.address.map(|address| address.to_string()).unwrap_or_default(),
        rate_in: view.rates.inward.map_or(0, Rate::bits),
        rate_out: view.rates.outward.map_or(0, Rate::bits),
        isolated: view.isolated,
        forwards: view.forwards.iter().map(ToString::to_string).collect(),
        address6: view.address6.map(|address| address.to_string()).unwrap_or_default(),
    }
}

/// 0: no limit.
fn rate(field: &str, bits: u64) -> Result<Option<Rate>, Refusal> {
    (bits > 0).then(|| Rate::new(bits)).transpose().map_err(|e| invalid("nic", field, e))
}

/// What to create.
pub fn nic_create(request: &v1::CreateNicRequest) -> Result<NicCreate, Refusal> {
    Ok(NicCreate {
        name: value("nic", "name", &request.name)?,
        switch: maybe_named("switch", "switch", &request.switch)?,
        mac: if request.mac.is_empty() { None } else { Some(mac(&request.mac)?) },
        machine: maybe_named("machine", "machine", &request.machine)?,
        group: maybe_named("nic", "group", &request.group)?,
        model: devices::nic_model("model", request.model)?.unwrap_or_default(),
        slot: Some(devices::place("nic", "", request.slot, request.function)?).filter(|place| *place > 0),
        address: optional("nic", "address", &request.address)?,
        rates: Rates { inward: rate("rate_in", request.rate_in)?, outward: rate("rate_out", request.rate_out)? },
        isolated: request.isolated,
        forwards: forwards(&request.forwards)?,
    })
}

/// What to change.
pub fn nic_set(request: &v1::UpdateNicRequest) -> Result<NicSet, Refusal> {
    Ok(NicSet {
        nic: named("nic", "nic", &request.nic)?,
        name: given("nic", "name", request.name.as_ref())?,
        description: given("nic", "description", request.description.as_ref())?,
        switch: given("switch", "switch", request.switch.as_ref())?,
        mac: request.mac.as_deref().map(mac).transpose()?,
        model: devices::nic_model("model", request.model)?,
        slot: match (request.slot, request.function) {
            (None, 0) => None,
            (slot, function) => Some(devices::place("nic", "", slot.unwrap_or(0), function)?),
        },
        address: given("nic", "address", request.address.as_ref())?,
        rate_in: request.rate_in.map(|bits| rate("rate_in", bits)).transpose()?,
        rate_out: request.rate_out.map(|bits| rate("rate_out", bits)).transpose()?,
        isolated: request.isolated,
        forwards: request.forwards.as_ref().map(|list| forwards(&list.forwards)).transpose()?,
    })
}

/// A MAC address as text.
pub fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// Six pairs of digits; not a group's address and not all zeros.
fn mac(text: &str) -> Result<[u8; 6], Refusal> {
    let wrong = || invalid("nic", "mac", not("a unicast address such as 02:00:5e:00:53:01 is expected", text));
    let pair = |part: &str| {
        let digits = part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit());
        digits.then(|| u8::from_str_radix(part, 16).ok()).flatten()
    };
    let bytes: Option<Vec<u8>> = text.split(':').map(pair).collect();
    let mac: [u8; 6] = bytes.and_then(|b| b.try_into().ok()).ok_or_else(wrong)?;
    let [first, ..] = mac;
    if first & 1 == 1 || mac == [0; 6] { Err(wrong()) } else { Ok(mac) }
}

fn forwards(list: &[String]) -> Result<Forwards, Refusal> {
    let wrong = |e: &dyn std::fmt::Display| invalid("nic", "forwards", e);
    let each = list.iter().map(|text| text.parse().map_err(|e| wrong(&format_args!("{text}: {e}"))));
    Forwards::new(each.collect::<Result<_, _>>()?).map_err(|e| wrong(&e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mac_addresses() {
        assert_eq!(mac("02:00:5e:00:53:Af").map(mac_text).expect("valid"), "02:00:5e:00:53:af");
        for wrong in ["", "02:00:5e:00:53", "02:00:5e:00:53:1", "01:00:5e:00:53:01", "00:00:00:00:00:00", "02:00:5e:00:53:+1"] {
            let refusal = mac(wrong).expect_err("refused");
            assert_eq!(refusal.field.as_str(), "mac", "{wrong}");
            assert!(refusal.note.as_str().ends_with(&format!("is expected, not \"{wrong}\"")), "{refusal}");
        }
    }
}
