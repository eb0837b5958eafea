//! Switches.

use super::{Cx, find_switch, group, said, taken};
use crate::broker::Broker;
use crate::db::groups::Groups;
use crate::db::nics::Nics;
use crate::db::switches::{SwitchRow, Switches};
use crate::db::{Change, Who};
use crate::page::{ROWS, fit};
use crate::served;
use skep_machine::Ability;
use skep_proto::broker::{
    Done, SwitchCreate, SwitchDelete, SwitchGet, SwitchKind, SwitchList, SwitchOpen, SwitchPage, SwitchSet, SwitchView,
};
use skep_proto::net;
use skep_proto::{Choice6, IfName, InstanceId, Reason, Refusal, Subnet, Subnet6, SwitchId, SwitchName, Text};
use std::fmt::Display;
use std::net::Ipv4Addr;

/// Subnets that are tried when one is to be chosen.
const TRIES: usize = 64;

fn view(instance: InstanceId, switch: SwitchRow) -> SwitchView {
    let SwitchRow { id, name, number, uplink, created_ns, nics, open, groups, description, kind, subnet, tunnel, subnet6 } =
        switch;
    let bridge = Text::lossy(IfName::bridge(instance, number).as_str());
    let uplink = uplink.map(|u| Text::lossy(u.as_str())).unwrap_or_default();
    SwitchView { id, name, bridge, uplink, nics, created_ns, open, groups, description, kind, subnet, tunnel, subnet6 }
}

fn meet(a: Subnet, b: Subnet) -> bool {
    skep_proto::overlap(a.into(), b.into())
}

fn no_subnet(name: &SwitchName) -> Refusal {
    let refusal = Refusal::new(Reason::LimitReached, format_args!("switch {name}")).field("subnet");
    refusal.note("every subnet that would be chosen is taken; give one")
}

/// Subnets that no switch has, in the order in which they are tried: they begin where no other suite's do.
fn candidates(db: &impl Switches, instance: InstanceId) -> Result<impl Iterator<Item = Subnet>, Refusal> {
    let taken = db.subnets()?;
    // Of 10.64.0.0/10, which few use: 16,384 networks of 254 hosts.
    const NETWORKS: u32 = 1 << 14;
    let first = u32::from(instance.number()) << 6;
    let net = move |n: u32| Subnet::new((u32::from(Ipv4Addr::new(10, 64, 0, 0)) | ((first + n) % NETWORKS) << 8).into(), 24);
    Ok((0..NETWORKS).filter_map(move |n| net(n).ok()).filter(move |subnet| !taken.iter().any(|other| meet(*subnet, *other))))
}

/// An IPv6 network that no switch has.
fn drawn(db: &impl Switches) -> Result<Subnet6, Refusal> {
    let taken = db.subnets6()?;
    // Some bits of an id are the same in all; the others' meet them.
    let random = || SwitchId::random().as_u128();
    let mut all = std::iter::repeat_with(random).map(|id| Subnet6::drawn((id >> 64) as u64 ^ id as u64));
    all.find(|subnet| !taken.contains(subnet)).ok_or_else(|| Refusal::new(Reason::Internal, "switch").field("subnet6"))
}

fn reserve(change: &Change<'_>, instance: InstanceId, c: &SwitchCreate) -> Result<SwitchRow, Refusal> {
    if change.find_switch(c.name.as_str())?.is_some() {
        return Err(taken("switch", &c.name));
    }
    let subnet = match (c.kind, c.subnet) {
        (kind, _) if !kind.is_subnet() => None,
        (_, None) => Some(candidates(change, instance)?.next().ok_or_else(|| no_subnet(&c.name))?),
        (_, Some(subnet)) => match change.subnets()?.into_iter().find(|other| meet(subnet, *other)) {
            None => Some(subnet),
            Some(other) => {
                let refusal = Refusal::new(Reason::AlreadyExists, format_args!("switch {}", c.name)).field("subnet");
                return Err(refusal.note(format_args!("another switch has {other}")));
            }
        },
    };
    let subnet6 = match c.subnet6 {
        None => None,
        Some(Choice6::Auto) => Some(drawn(change)?),
        Some(Choice6::This(subnet)) if change.subnets6()?.contains(&subnet) => {
            let refusal = Refusal::new(Reason::AlreadyExists, format_args!("switch {}", c.name)).field("subnet6");
            return Err(refusal.note(format_args!("another switch has {subnet}")));
        }
        Some(Choice6::This(subnet)) => Some(subnet),
    };
    let full = || Refusal::new(Reason::LimitReached, format_args!("switch {}", c.name)).note("too many switches");
    let switch = SwitchRow {
        id: SwitchId::random(),
        name: c.name.clone(),
        number: change.switch_number()?.ok_or_else(full)?,
        uplink: c.uplink.clone(),
        created_ns: skep_service::now_ns(),
        nics: 0,
        open: false,
        groups: Vec::new(),
        description: Text::default(),
        kind: c.kind,
        subnet,
        tunnel: c.tunnel.clone(),
        subnet6,
    };
    change.add_switch(&switch)?;
    change.event("switch", switch.id, &switch.name, "created", "")?;
    change.made(switch.id)?;
    Ok(switch)
}

/// Refuses an interface of the suite's own as an uplink.
fn foreign(instance: InstanceId, name: impl Display, uplink: Option<&IfName>) -> Result<(), Refusal> {
    if uplink.is_none_or(|uplink| !uplink.is_of(instance)) {
        return Ok(());
    }
    let refusal = Refusal::new(Reason::InvalidValue, format_args!("switch {name}")).field("uplink");
    Err(refusal.note("an interface of this suite cannot be an uplink"))
}

/// `SwitchCreate`. A crash after the row finishes it: rows are made true whenever net-helper is there.
pub async fn create(cx: &Cx, c: SwitchCreate) -> Result<SwitchView, Refusal> {
    let broker = &cx.broker;
    if let Some(id) = cx.before::<SwitchId>(|switch| SwitchGet { switch }.into())? {
        return Ok(view(broker.instance, broker.read(|db| find_switch(db, &id.to_string()))?));
    }
    make(cx, c).await
}

/// Makes a switch.
pub(super) async fn make(cx: &Cx, c: SwitchCreate) -> Result<SwitchView, Refusal> {
    let Cx { broker, who, .. } = cx;
    foreign(broker.instance, &c.name, c.uplink.as_ref())?;
    if c.kind.is_subnet() && c.uplink.is_some() {
        let refusal = Refusal::new(Reason::InvalidValue, format_args!("switch {}", c.name)).field("uplink");
        return Err(refusal.note("a switch with a subnet has none: its gateway is the way out"));
    }
    if !c.kind.is_subnet() && c.subnet.is_some() {
        let refusal = Refusal::new(Reason::InvalidValue, format_args!("switch {}", c.name)).field("subnet");
        return Err(refusal.note("a switch that is not nat or host-only has none"));
    }
    if c.subnet6.is_some() {
        let refuse = |reason| Refusal::new(reason, format_args!("switch {}", c.name)).field("subnet6");
        if !c.kind.is_subnet() {
            return Err(refuse(Reason::InvalidValue).note("a switch that is not nat or host-only has none"));
        }
        let host = crate::platform::capabilities(0);
        if !host.abilities.contains(&Ability::SwitchIpv6) {
            return Err(refuse(Reason::Unsupported).note(Ability::SwitchIpv6.why(host.hypervisor)));
        }
    }
    if c.tunnel.is_some() {
        let why = if c.kind != SwitchKind::Plain {
            Some(
                "only a switch without a subnet, whose bridge is the host's, has a tunnel: who is at its other end is held to no address",
            )
        } else {
            c.uplink.as_ref().map(|_| "a switch with a tunnel has no uplink")
        };
        if let Some(why) = why {
            return Err(Refusal::new(Reason::InvalidValue, format_args!("switch {}", c.name)).field("tunnel").note(why));
        }
    }
    let mut switch = broker.change(who, |change| reserve(change, broker.instance, &c))?;
    if let Err(refusal) =
        establish(cx, &mut switch, Chosen { subnet: c.subnet.is_none(), subnet6: c.subnet6 == Some(Choice6::Auto) }).await
    {
        // Its bridge may be there, without what was refused. If this fails, too, it is removed when net-helper is back: no row knows it.
        let _ = unmake(broker, who, &switch).await;
        broker.change(who, |change| {
            change.unmade(switch.id)?;
            change.remove_switch(switch.id)?;
            change.event("switch", switch.id, &switch.name, "deleted", &refusal)
        })?;
        return Err(refusal);
    }
    Ok(view(broker.instance, switch))
}

/// Deletes its bridge, with the tunnel that is on it.
async fn unmake(broker: &Broker, who: &Who, switch: &SwitchRow) -> Result<(), Refusal> {
    let number = switch.number;
    if switch.tunnel.is_some() {
        broker.net.call(who, net::DeleteTunnel { number }).await?;
    }
    broker.net.call(who, net::DeleteSwitch { number }).await.map(drop)
}

/// Makes its bridge and the tunnel on it, or brings them to this state.
pub(crate) async fn bridge(broker: &Broker, who: &Who, switch: &SwitchRow, uplink: Option<IfName>) -> Result<(), Refusal> {
    let &SwitchRow { id: switch, number, kind, ref tunnel, .. } = switch;
    match kind {
        SwitchKind::Netgraph => broker.net.call(who, net::CreateGraphSwitch { switch, number, uplink }).await.map(drop)?,
        _ => broker.net.call(who, net::CreateSwitch { switch, number, uplink }).await.map(drop)?,
    }
    match tunnel.clone() {
        Some(tunnel) => broker.net.call(who, net::CreateTunnel { switch, number, tunnel }).await.map(drop),
        None => Ok(()),
    }
}

/// What of a switch was chosen for its user.
#[derive(Debug, Clone, Copy, Default)]
struct Chosen {
    subnet: bool,
    subnet6: bool,
}

/// Makes it on the host. If its subnet was chosen for its user, and the host reaches that already, the next one is tried.
async fn establish(cx: &Cx, switch: &mut SwitchRow, chosen: Chosen) -> Result<(), Refusal> {
    let Cx { broker, who, .. } = cx;
    bridge(broker, who, switch, switch.uplink.clone()).await?;
    let mut tried: Vec<Subnet> = Vec::new();
    for _ in 0..TRIES {
        if switch.subnet.is_none() {
            return Ok(());
        }
        match gateway(broker, who, switch).await {
            Err(refusal) if chosen.subnet6 && refusal.reason == Reason::InUse && refusal.field.as_str() == "subnet6" => {
                let next = broker.read(drawn)?;
                broker.change(who, |change| change.set_subnet6(switch.id, next))?;
                switch.subnet6 = Some(next);
            }
            Err(refusal) if chosen.subnet && refusal.reason == Reason::InUse && refusal.field.as_str() == "subnet" => {
                tried.extend(switch.subnet);
                let next = broker
                    .read(|db| candidates(db, broker.instance).map(|mut all| all.find(|subnet| !tried.contains(subnet))))?;
                let next = next.ok_or_else(|| no_subnet(&switch.name))?;
                broker.change(who, |change| change.set_subnet(switch.id, next))?;
                switch.subnet = Some(next);
            }
            result => return result,
        }
    }
    Err(no_subnet(&switch.name))
}

/// Has the host be on a switch as its row says, and its ports lead where those of the switch's NICs do.
pub(crate) async fn gateway(broker: &Broker, who: &Who, switch: &SwitchRow) -> Result<(), Refusal> {
    let _turn = broker.moves.lock().await;
    let gateway = switch.gateway();
    let forwards = if gateway.is_some() { broker.read(|db| db.forwards_on(switch.id))? } else { Vec::new() };
    broker.net.call(who, net::SetGateway { number: switch.number, gateway, forwards }).await.map(drop)
}

/// The same of a switch that is a subnet, after rows of its NICs changed.
pub(super) async fn forward(broker: &Broker, who: &Who, switch: SwitchId) -> Result<(), Refusal> {
    match broker.read(|db| db.find_switch(&switch.to_string()))?.filter(|switch| switch.subnet.is_some()) {
        Some(switch) => gateway(broker, who, &switch).await,
        None => Ok(()),
    }
}

/// `SwitchList`.
pub async fn list(cx: &Cx, c: SwitchList) -> Result<SwitchPage, Refusal> {
    let after = c.after.as_ref().map_or("", SwitchName::as_str);
    let rows = cx.broker.read(|db| {
        let mut rows = db.switches_after(after, ROWS)?;
        hide(cx, db, &mut rows)?;
        Ok::<_, Refusal>(rows)
    })?;
    Ok(SwitchPage { switches: fit(rows.into_iter().map(|row| view(cx.broker.instance, row))) })
}

/// Of groups that are not the user's to see, not even the name.
fn hide(cx: &Cx, db: &impl Groups, rows: &mut [SwitchRow]) -> Result<(), Refusal> {
    if let Some(seen) = &cx.user.rights.seen() {
        let groups = db.groups_after("", u32::MAX, Some(seen))?;
        for row in rows {
            row.groups.retain(|name| groups.iter().any(|group| group.name.as_str() == name.as_str()));
        }
    }
    Ok(())
}

/// `SwitchGet`.
pub async fn get(cx: &Cx, c: SwitchGet) -> Result<SwitchView, Refusal> {
    cx.broker.read(|db| {
        let mut row = find_switch(db, c.switch.as_str())?;
        hide(cx, db, std::slice::from_mut(&mut row))?;
        Ok(view(cx.broker.instance, row))
    })
}

/// `SwitchSet`. The helper first, which may refuse an uplink: cut off after that, the bridge is brought to its row when the helper or the
/// broker is back.
pub async fn set(cx: &Cx, c: SwitchSet) -> Result<SwitchView, Refusal> {
    let Cx { broker, who, .. } = cx;
    let invalid = |e| Refusal::new(Reason::InvalidValue, format_args!("switch {}", c.switch)).field("uplink").note(e);
    let uplink = match &c.uplink {
        Some(name) if name.as_str().is_empty() => Some(None),
        Some(name) => Some(Some(name.as_str().parse::<IfName>().map_err(invalid)?)),
        None => None,
    };
    foreign(broker.instance, &c.switch, uplink.as_ref().and_then(Option::as_ref))?;
    let found = broker.read(|db| find_switch(db, c.switch.as_str()))?;
    if found.subnet.is_some() && uplink.as_ref().is_some_and(Option::is_some) {
        let refusal = Refusal::new(Reason::InvalidValue, format_args!("switch {}", found.name)).field("uplink");
        return Err(refusal.note("a switch with a subnet has none: its gateway is the way out"));
    }
    if found.tunnel.is_some() && uplink.as_ref().is_some_and(Option::is_some) {
        let refusal = Refusal::new(Reason::InvalidValue, format_args!("switch {}", found.name)).field("uplink");
        return Err(refusal.note("a switch with a tunnel has no uplink"));
    }
    let asked = uplink.clone().filter(|uplink| *uplink != found.uplink);
    if let Some(uplink) = asked.clone() {
        bridge(broker, who, &found, uplink).await?;
    }
    let set = broker.change(who, |change| {
        let old = find_switch(change, &found.id.to_string())?;
        let mut new = old.clone();
        if let Some(name) = c.name.clone().filter(|name| *name != old.name) {
            if change.find_switch(name.as_str())?.is_some() {
                return Err(taken("switch", name));
            }
            new.name = name;
        }
        new.description = c.description.clone().unwrap_or(new.description);
        new.uplink = uplink.clone().unwrap_or(new.uplink);
        change.set_switch(&new)?;
        said(change, "switch", old.id, (&old.name, &old.description), (&new.name, &new.description))?;
        if new.uplink != old.uplink {
            let now = new.uplink.as_ref().map_or("none", IfName::as_str);
            change.event("switch", new.id, &new.name, "changed", format_args!("uplink {now}"))?;
        }
        Ok::<_, Refusal>(())
    });
    served::renamed(broker);
    // Another may have changed it meanwhile, or the row may not have been written.
    if let Some(told) = asked {
        bring(cx, found.id, told).await?;
    }
    set?;
    get(cx, SwitchGet { switch: Text::lossy(&found.id.to_string()) }).await
}

/// Brings its bridge to what its row says, until that is what the helper was `told` last.
async fn bring(cx: &Cx, switch: SwitchId, mut told: Option<IfName>) -> Result<(), Refusal> {
    loop {
        let row = cx.broker.read(|db| find_switch(db, &switch.to_string()))?;
        if told == row.uplink {
            return Ok(());
        }
        bridge(&cx.broker, &cx.who, &row, row.uplink.clone()).await?;
        told = row.uplink;
    }
}

/// `SwitchDelete`.
pub async fn delete(cx: &Cx, c: SwitchDelete) -> Result<Done, Refusal> {
    let Cx { broker, who, .. } = cx;
    let used = |switch: &SwitchRow| {
        let refusal = Refusal::new(Reason::InUse, format_args!("switch {}", switch.name));
        if switch.nics == 0 { Ok(()) } else { Err(refusal.note(format_args!("{} NICs are connected to it", switch.nics))) }
    };
    let switch = broker.read(|db| find_switch(db, c.switch.as_str()))?;
    used(&switch)?;
    unmake(broker, who, &switch).await?;
    let removed = broker.change(who, |change| {
        used(&find_switch(change, &switch.id.to_string())?)?;
        change.remove_switch(switch.id)?;
        Ok::<_, Refusal>(change.event("switch", switch.id, &switch.name, "deleted", "")?)
    });
    if let Err(refusal) = removed {
        // A NIC has come meanwhile.
        let mut row = broker.read(|db| find_switch(db, &switch.id.to_string()))?;
        establish(cx, &mut row, Chosen::default()).await?;
        return Err(refusal);
    }
    served::poke(broker, switch.id);
    Ok(Done {})
}

/// `SwitchOpen`.
pub async fn open(cx: &Cx, c: SwitchOpen) -> Result<SwitchView, Refusal> {
    cx.broker.change(&cx.who, |change| {
        let switch = find_switch(change, c.switch.as_str())?;
        let group = c.group.as_ref().map(|name| group::named(change, Some(name))).transpose()?;
        change.open_switch(switch.id, group.as_ref().map(|group| group.id), c.open)?;
        // Everybody sees it, but not every group.
        let whom = if group.is_some() { "a group" } else { "all groups" };
        let what = if c.open { "open to" } else { "closed to" };
        change.event("switch", switch.id, &switch.name, "changed", format_args!("{what} {whom}"))?;
        Ok(view(cx.broker.instance, find_switch(change, &switch.id.to_string())?))
    })
}
