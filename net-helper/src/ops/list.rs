//! What there is.

use super::{Place, no_uplink, unlisted};
use crate::platform::Link;
use skep_proto::net::{Interface, InterfacePage, ListInterfaces};
use skep_proto::{IfName, Refusal};

/// Interfaces of a page: 50 of at most 61 bytes fit into a record.
const PAGE: usize = 50;

/// One page of our interfaces, or of the host's that may and can be an uplink.
pub fn list((host, instance): Place<'_>, uplinks: &[IfName], call: &ListInterfaces) -> Result<InterfacePage, Refusal> {
    let links = host.links().map_err(unlisted)?;
    let wanted = |link: &&Link| {
        let given = || uplinks.contains(&link.name) && no_uplink(link, instance).is_none();
        let chosen = if call.own { link.name.is_of(instance) } else { given() };
        link.index > call.after && chosen
    };
    let show = |link: &Link| Interface {
        index: link.index,
        name: link.name.clone(),
        up: link.up,
        bridge: links.iter().find(|l| Some(l.index) == link.bridge).map(|l| l.name.clone()),
        mtu: link.mtu,
        kind: link.kind.clone(),
    };
    let mut found: Vec<&Link> = links.iter().filter(wanted).collect();
    found.sort_by_key(|link| link.index);
    Ok(InterfacePage { interfaces: found.into_iter().take(PAGE).map(show).collect() })
}
