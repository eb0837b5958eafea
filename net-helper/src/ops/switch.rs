//! Switches: a bridge each.

use super::{Attempt, Place, bridge_of, find, foreign, no_uplink, refused, unlisted};
use crate::platform::{Link, Switch};
use skep_proto::net::{CreateSwitch, DeleteSwitch, Done, Named};
use skep_proto::{IfName, InstanceId, Reason, Refusal};

/// Brings a switch to the wanted state: its bridge is there and up, and of the host's interfaces the uplink alone is a member, and up.
pub fn create((host, instance): Place<'_>, uplinks: &[IfName], call: &CreateSwitch, kind: Switch) -> Result<Named, Refusal> {
    let name = IfName::bridge(instance, call.number);
    let links = host.links().map_err(unlisted)?;
    let bridge = find(&links, &name);
    let wanted = if kind == Switch::Bridge { "bridge" } else { "bridge of netgraph" };
    if let Some(link) = bridge.filter(|link| link.switch() != Some(kind)) {
        return Err(foreign(link, wanted));
    }
    let uplink = call.uplink.as_ref().map(|uplink| usable(&links, uplink, uplinks, instance, bridge)).transpose()?;
    let former = members(&links, bridge).filter(|m| !m.name.is_of(instance) && uplink.is_none_or(|u| u.index != m.index));
    Attempt::all(host, |attempt| {
        if bridge.is_none() {
            attempt.make_bridge(&name, kind)?;
        }
        attempt.mark(&name, &format!("skep {instance}: switch {}", call.switch), bridge.map(|b| b.note.as_str()))?;
        for member in former {
            attempt.leave(&member.name, &name)?;
        }
        if let Some(uplink) = uplink {
            if uplink.bridge.is_none() {
                attempt.join(&uplink.name, &name)?;
            }
            if !uplink.up {
                attempt.raise(&uplink.name)?;
            }
        }
        if !bridge.is_some_and(|b| b.up) {
            attempt.raise(&name)?;
        }
        Ok(Named { name: name.clone() })
    })
}

/// Deletes a switch on which nothing of ours is; its uplink is released, and stays up.
pub fn delete((host, instance): Place<'_>, call: &DeleteSwitch) -> Result<Done, Refusal> {
    let name = IfName::bridge(instance, call.number);
    if host.link(&name).map_err(refused(&name))?.is_none() {
        super::gateway::forget((host, instance), &name).map_err(refused(&name))?;
        return Ok(Done {});
    }
    let bridge = bridge_of(host, instance, call.number)?;
    let links = host.links().map_err(unlisted)?;
    let ours: Vec<_> = members(&links, Some(&bridge)).filter(|m| m.name.is_of(instance)).map(|m| m.name.as_str()).collect();
    if !ours.is_empty() {
        let note = format!("interfaces of skep's are on it: {}", ours.join(", "));
        return Err(Refusal::new(Reason::InUse, format_args!("switch {}", call.number)).note(note));
    }
    // Rules go after what they keep apart.
    host.delete(&name).map_err(refused(&name))?;
    super::gateway::forget((host, instance), &name).map_err(refused(&name))?;
    Ok(Done {})
}

fn members<'l>(links: &'l [Link], bridge: Option<&Link>) -> impl Iterator<Item = &'l Link> {
    let index = bridge.map(|b| b.index);
    links.iter().filter(move |link| index.is_some() && link.bridge == index)
}

/// The uplink, if it is one that this bridge may have.
fn usable<'l>(
    links: &'l [Link], name: &IfName, allowed: &[IfName], instance: InstanceId, bridge: Option<&Link>,
) -> Result<&'l Link, Refusal> {
    let refuse = |reason| Refusal::new(reason, format_args!("uplink {name}")).field("uplink");
    // Before anything is told of it: whoever asks may be a taken-over broker.
    if !allowed.contains(name) {
        let mend =
            "this host's administrator gives no such interface to switches: `skep up --uplinks`, or --uplinks of net-helper";
        return Err(refuse(Reason::PermissionDenied).note(mend));
    }
    let Some(link) = find(links, name) else { return Err(refuse(Reason::NotFound)) };
    if let Some(why) = no_uplink(link, instance) {
        return Err(refuse(Reason::InvalidValue).note(why));
    }
    match link.bridge {
        Some(index) if bridge.is_none_or(|b| b.index != index) => {
            let other = links.iter().find(|l| l.index == index).map_or("another interface", |l| l.name.as_str());
            Err(refuse(Reason::InUse).note(format_args!("it is a member of {other}")))
        }
        _ => Ok(link),
    }
}
