//! The host's report.

use super::Cx;
use crate::db::machines::{Machines, Which};
use crate::db::switches::Switches;
use crate::spec::MAX_CPUS;
use skep_machine::Ability;
use skep_proto::broker::{Done, HostRest, HostShow, HostView, RequestKey, Uplink};
use skep_proto::net::{DeleteSwitch, HostKey, Interface, ListInterfaces};
use skep_proto::storage::Space;
use skep_proto::{Reason, Refusal, Text};

/// Most uplinks that are told of.
const UPLINKS: usize = 32;

/// `HostShow`: what is known without the helpers that are away.
pub async fn show(cx: &Cx, HostShow {}: HostShow) -> Result<HostView, Refusal> {
    let Cx { broker, who, .. } = cx;
    let helpers =
        [("storage-helper", broker.storage.is_up()), ("net-helper", broker.net.is_up()), ("vm-runner", broker.cells.is_up())];
    let cell = if broker.cells.is_up() { broker.facilities(who).await.ok() } else { None };
    let space = if broker.storage.is_up() { broker.storage.call(who, Space {}).await.ok() } else { None };
    let space = space.map(|(space, [])| space);
    let given = ListInterfaces { own: false, after: 0 };
    let uplinks = if broker.net.is_up() { broker.net.call(who, given).await.ok() } else { None };
    let uplinks = uplinks.map(|(page, [])| page.interfaces).unwrap_or_default();
    let key = if broker.net.is_up() {
        broker.net.call(who, HostKey {}).await
    } else {
        Err(Refusal::new(Reason::Unavailable, "net-helper"))
    };
    let (wireguard_key, no_wireguard) = match key {
        Ok((keyed, [])) => (Some(keyed.key), None),
        Err(refusal) => (None, Some(Text::lossy(&format!("wireguard: {}", said(&refusal))))),
    };
    let uplink = |i: Interface| Uplink { name: i.name, up: i.up, mtu: i.mtu, bridge: i.bridge };
    let host = match broker.host_now(who).await {
        Some(host) => host,
        None => crate::platform::capabilities(0),
    };
    let limits = host.limits.iter().map(|limit| Text::lossy(limit.name()));
    Ok(HostView {
        version: Text::lossy(env!("CARGO_PKG_VERSION")),
        instance: broker.instance.into(),
        system: Text::lossy(&broker.facts.system),
        hypervisor: cell.as_ref().map(|c| c.hypervisor.clone()).unwrap_or_default(),
        uefi: cell.as_ref().is_some_and(|c| c.uefi),
        cpus: broker.facts.cpus,
        memory: broker.facts.memory,
        space: space.as_ref().map_or((0, 0), |s| (s.total, s.free)),
        reflink: space.is_some_and(|s| s.reflink),
        limits: if cell.is_some() { limits.collect() } else { Vec::new() },
        weaker: cell.as_ref().map(|c| c.weaker.clone()).unwrap_or_default(),
        uplinks: uplinks.into_iter().take(UPLINKS).map(uplink).collect(),
        sound: cell.as_ref().map(|c| c.sound.clone()).unwrap_or_default(),
        shares: cell.map(|c| c.shares).unwrap_or_default(),
        abilities: (host.abilities.iter().map(|ability| ability.name()))
            .chain(wireguard_key.map(|_| "wireguard"))
            .map(Text::lossy)
            .collect(),
        wireguard_key,
        inabilities: Ability::ALL
            .iter()
            .filter(|ability| !host.abilities.contains(ability))
            .map(|ability| Text::lossy(&format!("{}: {}", ability.name(), host.why(*ability))))
            .chain(no_wireguard)
            .collect(),
        keyboards: host.keyboards.iter().map(|name| Text::lossy(name)).collect(),
        machine_cpus: host.cpus.min(u16::try_from(MAX_CPUS).unwrap_or(u16::MAX)),
        screen: host.screen,
        helpers: helpers.iter().filter(|(_, up)| *up).map(|(name, _)| Text::lossy(name)).collect(),
    })
}

/// Why the host's key of WireGuard was not had.
fn said(refusal: &Refusal) -> String {
    if refusal.note.as_str().is_empty() { refusal.to_string() } else { refusal.note.to_string() }
}

/// `HostRest`: the database keeps the switches, so reconciliation makes their bridges anew.
pub async fn rest(cx: &Cx, HostRest {}: HostRest) -> Result<Done, Refusal> {
    let Cx { broker, who, .. } = cx;
    let running = broker.read(|db| db.machines(Which::Unsettled))?;
    if let Some(machine) = running.first() {
        return Err(Refusal::new(Reason::InUse, "host").note(format_args!("machine {} is not stopped", machine.name)));
    }
    broker.fetches.break_off().await;
    if broker.cells.is_up() {
        // The cell of a boot that is under way is gone then.
        broker.kvm().await;
    }
    for switch in broker.read(|db| db.switches_after("", u32::MAX))? {
        broker.net.call(who, DeleteSwitch { number: switch.number }).await?;
    }
    Ok(Done {})
}

/// `RequestKey`.
pub async fn key(_: &Cx, _: RequestKey) -> Result<Done, Refusal> {
    Ok(Done {})
}
