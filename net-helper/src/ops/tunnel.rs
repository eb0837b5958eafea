//! Tunnels: at most one a switch, by which it spans several hosts.

use super::{Attempt, Place, bridge_of, find, foreign, refused, unlisted};
use crate::platform::{Link, NetHost};
use skep_proto::net::{CreateTunnel, DeleteTunnel, Done, HostKeyed, Named};
use skep_proto::tunnel::{Far, Tunnel};
use skep_proto::{IfName, InstanceId, Reason, Refusal};

/// What is beneath a tunnel.
const WIREGUARD: &str = "interface of WireGuard";

/// Brings a tunnel to the wanted state: there, set to what is asked, a member of its switch's bridge, up. One that is set to something
/// else is made anew, since what it is set to cannot be changed while it is up.
pub fn create((host, instance): Place<'_>, uplinks: &[IfName], call: &CreateTunnel) -> Result<Named, Refusal> {
    let name = IfName::tunnel(instance, call.number);
    check(host, uplinks, call)?;
    check_key(host, instance, call)?;
    let bridge = bridge_of(host, instance, call.number)?;
    let links = host.links().map_err(unlisted)?;
    let former = find(&links, &name);
    if let Some(link) = former.filter(|link| !link.is_tunnel()) {
        return Err(foreign(link, "tunnel"));
    }
    let beneath = find(&links, &name.beneath());
    if let Some(link) = beneath.filter(|link| !link.is_wireguard()) {
        return Err(foreign(link, WIREGUARD));
    }
    let settings = if former.is_some() { host.tunnel(&name).map_err(refused(&name))? } else { None };
    let kept = former.filter(|_| settings.as_ref() == Some(&call.tunnel));
    let before = settings.clone();
    host.guard_tunnel(&name, Some(&call.tunnel)).map_err(refused(&name))?;
    let made = Attempt::all(host, |attempt| {
        if kept.is_none() {
            if let Some(former) = former {
                let on = links.iter().find(|link| Some(link.index) == former.bridge);
                attempt.delete_tunnel(former, settings, on)?;
            }
            if let Some(beneath) = beneath {
                attempt.delete_beneath(beneath)?;
            }
            attempt.make_tunnel(&name, &call.tunnel)?;
        }
        let note = format!("skep {instance}: tunnel {} of switch {}", call.tunnel.vni, call.switch);
        attempt.mark(&name, &note, kept.map(|link| link.note.as_str()))?;
        attempt.place(&name, kept, &links, Some(&bridge))?;
        if !kept.is_some_and(|link| link.up) {
            attempt.raise(&name)?;
        }
        Ok(Named { name: name.clone() })
    });
    made.map_err(|refusal| match host.guard_tunnel(&name, before.as_ref()) {
        Ok(()) => refusal,
        Err(error) => {
            let note = format!("{}; {name} was left changed: {error}", refusal.note);
            refusal.note(note)
        }
    })
}

/// Deletes a tunnel, and what is beneath it; its bridge stays.
pub fn delete((host, instance): Place<'_>, call: &DeleteTunnel) -> Result<Done, Refusal> {
    let name = IfName::tunnel(instance, call.number);
    let links = host.links().map_err(unlisted)?;
    let (above, beneath) = (find(&links, &name), find(&links, &name.beneath()));
    for (link, is, wanted) in [(above, Link::is_tunnel as fn(&Link) -> bool, "tunnel"), (beneath, Link::is_wireguard, WIREGUARD)]
    {
        if let Some(link) = link.filter(|link| !is(link)) {
            return Err(foreign(link, wanted));
        }
    }
    for link in [above, beneath].into_iter().flatten() {
        host.delete(&link.name).map_err(refused(&link.name))?;
    }
    host.guard_tunnel(&name, None).map_err(refused(&name))?;
    Ok(Done {})
}

/// This host's public key of WireGuard.
pub fn host_key((host, instance): Place<'_>) -> Result<HostKeyed, Refusal> {
    let key = host.host_key(instance).map_err(refused(&IfName::keying(instance)))?;
    Ok(HostKeyed { key })
}

/// That this host has WireGuard, if the tunnel goes through it.
fn check_key(host: &mut dyn NetHost, instance: InstanceId, call: &CreateTunnel) -> Result<(), Refusal> {
    let Some(peer) = call.tunnel.peer_key else { return Ok(()) };
    let refuse =
        |note| Refusal::new(Reason::InvalidValue, format_args!("tunnel of switch {}", call.number)).field("peer_key").note(note);
    if matches!(call.tunnel.far, Far::Group { .. }) {
        return Err(refuse("WireGuard leads to one host, not to a group"));
    }
    if host_key((host, instance))?.key == peer {
        return Err(refuse("that is this host's own key; the other host's is expected, `skep host show` there tells it"));
    }
    Ok(())
}

/// That this host can have such a tunnel: it leaves from an address, and to a group through an interface, of those that the host's
/// administrator gave to switches.
fn check(host: &mut dyn NetHost, uplinks: &[IfName], call: &CreateTunnel) -> Result<(), Refusal> {
    let Tunnel { local, far, .. } = &call.tunnel;
    let refuse = |reason, field| Refusal::new(reason, format_args!("tunnel of switch {}", call.number)).field(field);
    if !call.tunnel.is_of_one_family() {
        return Err(refuse(Reason::InvalidValue, "far")
            .note(format_args!("from {local} there is no way to {}: one is an IPv4 address, the other IPv6", far.address())));
    }
    if far.address() == local.get() {
        return Err(refuse(Reason::InvalidValue, "far").note(format_args!("{local} is this host itself")));
    }
    // Whoever asks may be a taken-over broker: of other interfaces it is not even told that they have the address.
    let owners = host.owners(local.get()).map_err(unlisted)?;
    if !owners.iter().any(|owner| uplinks.contains(owner)) {
        let note = format!("{local} is no address of an interface that this host's administrator gives to switches (--uplinks)");
        return Err(refuse(Reason::PermissionDenied, "local").note(note));
    }
    let Far::Group { uplink, .. } = far else { return Ok(()) };
    if !uplinks.contains(uplink) {
        let note = format!("{uplink} is no interface that this host's administrator gives to switches (--uplinks)");
        return Err(refuse(Reason::PermissionDenied, "uplink").note(note));
    }
    match host.link(uplink).map_err(refused(uplink))? {
        None => Err(refuse(Reason::NotFound, "uplink").note(format_args!("this host has no interface {uplink}"))),
        Some(_) => Ok(()),
    }
}
