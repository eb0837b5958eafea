//! `skep switch`.

use super::pages::pages;
use super::{Ctx, or_none};
use crate::args::{SwitchCommand, SwitchKind, TunnelArgs};
use crate::error::Failure;
use crate::view;
use skep_api::v1::{
    self, CreateSwitchRequest, DeleteSwitchRequest, GetSwitchRequest, ListSwitchesRequest, OpenSwitchRequest, UpdateSwitchRequest,
};

/// As the API has it.
fn number(kind: Option<SwitchKind>) -> i32 {
    let kind = match kind {
        None => v1::SwitchKind::Unspecified,
        Some(SwitchKind::Bridged) => v1::SwitchKind::Bridged,
        Some(SwitchKind::Internal) => v1::SwitchKind::Internal,
        Some(SwitchKind::HostOnly) => v1::SwitchKind::HostOnly,
        Some(SwitchKind::Nat) => v1::SwitchKind::Nat,
        Some(SwitchKind::Netgraph) => v1::SwitchKind::Netgraph,
        Some(SwitchKind::Vxlan) => v1::SwitchKind::Vxlan,
    };
    kind.into()
}

fn made_of(tunnel: TunnelArgs) -> Option<v1::Tunnel> {
    let TunnelArgs { vni, local, peer, port, group_interface, peer_key } = tunnel;
    Some(v1::Tunnel {
        vni: vni?,
        local: local.unwrap_or_default(),
        remote: peer.unwrap_or_default(),
        port: port.unwrap_or_default(),
        interface: group_interface.unwrap_or_default(),
        peer_key: peer_key.unwrap_or_default(),
    })
}

/// Runs one.
pub async fn run(ctx: Ctx, command: SwitchCommand) -> Result<u8, Failure> {
    let mut api = ctx.api.switches();
    match command {
        SwitchCommand::Create { name, uplink, kind, subnet, subnet6, tunnel } => {
            let (uplink, subnet) = (uplink.unwrap_or_default(), subnet.unwrap_or_default());
            let subnet6 = subnet6.unwrap_or_default();
            let tunnel = made_of(tunnel);
            let kind = number(kind.or(tunnel.as_ref().map(|_| SwitchKind::Vxlan)));
            let request = CreateSwitchRequest { name, uplink, request_id: String::new(), kind, subnet, tunnel, subnet6 };
            let made = ctx.make(|api, request_id| {
                let request = CreateSwitchRequest { request_id, ..request.clone() };
                async move { api.switches().create(request).await }
            });
            let made = made.await?;
            ctx.made(&view::switch(&made), "switch", "made");
        }
        SwitchCommand::Show { switch } => {
            let switch = api.get(GetSwitchRequest { switch }).await?.into_inner();
            let mut shown = view::switch(&switch);
            // The key that the other host is to be told belongs to this host, and all its switches.
            if switch.tunnel.is_some_and(|tunnel| !tunnel.peer_key.is_empty())
                && let Some(tunnel) = shown.get_mut("tunnel").and_then(serde_json::Value::as_object_mut)
            {
                let host = ctx.api.host().show(v1::ShowHostRequest {}).await?.into_inner();
                tunnel.insert("key".into(), host.wireguard_key.into());
            }
            ctx.output.object(&shown);
        }
        SwitchCommand::Rename { switch, name } => {
            let request = UpdateSwitchRequest { switch, name: Some(name), ..Default::default() };
            ctx.made(&view::switch(&api.update(request).await?.into_inner()), "switch", "renamed");
        }
        SwitchCommand::Set { switch, uplink, description } => {
            let request = UpdateSwitchRequest { switch, uplink: uplink.map(or_none), description, ..Default::default() };
            ctx.made(&view::switch(&api.update(request).await?.into_inner()), "switch", "changed");
        }
        SwitchCommand::List => {
            let all = pages!(api.list, switches, ListSwitchesRequest {});
            ctx.output.list(view::SWITCHES, all.iter().map(|s| (view::switch(s), view::switch_row(s))));
        }
        SwitchCommand::Open { switch, group } => {
            let request = OpenSwitchRequest { switch, group: group.unwrap_or_default(), open: true };
            ctx.made(&view::switch(&api.open(request).await?.into_inner()), "switch", "open");
        }
        SwitchCommand::Close { switch, group } => {
            let request = OpenSwitchRequest { switch, group: group.unwrap_or_default(), open: false };
            ctx.made(&view::switch(&api.open(request).await?.into_inner()), "switch", "closed");
        }
        SwitchCommand::Delete { switch } => {
            api.delete(DeleteSwitchRequest { switch: switch.clone() }).await?;
            ctx.gone("switch", &switch);
        }
    }
    Ok(0)
}
