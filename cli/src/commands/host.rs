//! `skep host`.

use super::Ctx;
use crate::args::HostCommand;
use crate::error::Failure;
use crate::view;
use skep_api::v1::ShowHostRequest;

/// `skep host`.
pub async fn run(ctx: Ctx, command: HostCommand) -> Result<u8, Failure> {
    let HostCommand::Show = command;
    let host = ctx.api.host().show(ShowHostRequest {}).await?.into_inner();
    ctx.output.object(&view::host(&host));
    Ok(0)
}
