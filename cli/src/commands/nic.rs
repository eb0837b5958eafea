//! `skep nic`.

use super::pages::pages;
use super::{Ctx, or_none};
use crate::args::{NicCommand, NicModel, Switched};
use crate::error::Failure;
use crate::view;
use skep_api::v1::nics_client::NicsClient;
use skep_api::v1::{
    self, AttachNicRequest, CloneNicRequest, CreateNicRequest, DeleteNicRequest, DetachNicRequest, GetNicRequest,
    ListNicsRequest, NicForwards, UpdateNicRequest,
};

/// As the API has it.
fn number(model: Option<NicModel>) -> i32 {
    match model {
        None => v1::NicModel::Unspecified.into(),
        Some(NicModel::VirtioNet) => v1::NicModel::VirtioNet.into(),
        Some(NicModel::E1000) => v1::NicModel::E1000.into(),
    }
}

/// Runs one.
pub async fn run(ctx: Ctx, command: NicCommand) -> Result<u8, Failure> {
    let mut api = ctx.api.nics();
    match command {
        NicCommand::Create { name, switch, machine, mac, group, model, slot, address, rate_in, rate_out, isolated, forwards } => {
            let (slot, function) = slot.unwrap_or_default();
            let request = CreateNicRequest {
                name,
                switch: switch.map(or_none).unwrap_or_default(),
                mac: mac.unwrap_or_default(),
                machine: machine.unwrap_or_default(),
                group: group.unwrap_or_default(),
                model: number(model),
                slot,
                function,
                address: address.unwrap_or_default(),
                rate_in: rate_in.unwrap_or_default(),
                rate_out: rate_out.unwrap_or_default(),
                isolated,
                forwards,
                request_id: String::new(),
            };
            let made = ctx.make(|api, request_id| {
                let request = CreateNicRequest { request_id, ..request.clone() };
                async move { api.nics().create(request).await }
            });
            let made = made.await?;
            ctx.made(&view::nic(&made), "nic", "made");
        }
        NicCommand::Show { nic } => {
            let nic = api.get(GetNicRequest { nic }).await?.into_inner();
            ctx.output.object(&view::nic(&nic));
        }
        NicCommand::Rename { nic, name } => {
            let request = UpdateNicRequest { nic, name: Some(name), ..Default::default() };
            ctx.made(&view::nic(&api.update(request).await?.into_inner()), "nic", "renamed");
        }
        NicCommand::Set { nic, switch, mac, model, slot, address, rate_in, rate_out, isolated, forwards, description } => {
            let (switch, model) = (switch.map(or_none), number(model));
            let isolated = isolated.map(|switched| switched == Switched::On);
            let forwards = forwards.map(|list| NicForwards { forwards: if list == ["none"] { Vec::new() } else { list } });
            let request = UpdateNicRequest {
                nic,
                name: None,
                description,
                switch,
                mac,
                model,
                slot: slot.map(|(slot, _)| slot),
                function: slot.map_or(0, |(_, function)| function),
                address,
                rate_in,
                rate_out,
                isolated,
                forwards,
            };
            ctx.made(&view::nic(&api.update(request).await?.into_inner()), "nic", "changed");
        }
        NicCommand::Clone { nic, name } => {
            let copy = ctx.make(|api, request_id| {
                let request = CloneNicRequest { nic: nic.clone(), name: name.clone(), request_id };
                async move { NicsClient::clone(&mut api.nics(), request).await }
            });
            let copy = copy.await?;
            ctx.made(&view::nic(&copy), "nic", "made");
        }
        NicCommand::Attach { nic, machine } => {
            let nic = api.attach(AttachNicRequest { nic, machine }).await?.into_inner();
            ctx.made(&view::nic(&nic), "nic", &format!("attached to {}", nic.machine));
        }
        NicCommand::Detach { nic } => {
            let nic = api.detach(DetachNicRequest { nic }).await?.into_inner();
            ctx.made(&view::nic(&nic), "nic", "detached");
        }
        NicCommand::List => {
            let all = pages!(api.list, nics, ListNicsRequest {});
            ctx.output.list(view::NICS, all.iter().map(|n| (view::nic(n), view::nic_row(n))));
        }
        NicCommand::Delete { nic } => {
            api.delete(DeleteNicRequest { nic: nic.clone() }).await?;
            ctx.gone("nic", &nic);
        }
    }
    Ok(0)
}
