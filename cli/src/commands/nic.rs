//! `skep nic`.

use super::Ctx;
use crate::args::NicCommand;
use crate::error::Failure;
use crate::view;
use skep_api::v1::{AttachNicRequest, CreateNicRequest, DeleteNicRequest, DetachNicRequest, ListNicsRequest};

/// Runs one.
pub async fn run(ctx: Ctx, command: NicCommand) -> Result<u8, Failure> {
    let mut api = ctx.api.nics();
    match command {
        NicCommand::Create { name, switch, machine, mac, group } => {
            let request = CreateNicRequest {
                name,
                switch: switch.unwrap_or_default(),
                mac: mac.unwrap_or_default(),
                machine: machine.unwrap_or_default(),
                group: group.unwrap_or_default(),
                request_id: String::new(),
            };
            let made = ctx.make(|api, request_id| {
                let request = CreateNicRequest { request_id, ..request.clone() };
                async move { api.nics().create(request).await }
            });
            let made = made.await?;
            ctx.made(&view::nic(&made), "nic", "made");
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
            let (mut all, mut page_token) = (Vec::new(), String::new());
            loop {
                let page = api.list(ListNicsRequest { page_size: 0, page_token }).await?.into_inner();
                all.extend(page.nics);
                page_token = page.next_page_token;
                if page_token.is_empty() {
                    break;
                }
            }
            ctx.output.list(view::NICS, all.iter().map(|n| (view::nic(n), view::nic_row(n))));
        }
        NicCommand::Delete { nic } => {
            api.delete(DeleteNicRequest { nic: nic.clone() }).await?;
            ctx.gone("nic", &nic);
        }
    }
    Ok(0)
}
