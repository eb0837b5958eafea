//! `skep host`, `skep token`.

use super::Ctx;
use crate::args::{HostCommand, TokenCommand};
use crate::error::Failure;
use crate::view;
use serde_json::json;
use skep_api::v1::{CreateTokenRequest, ShowHostRequest};

/// `skep host`.
pub async fn run(ctx: Ctx, command: HostCommand) -> Result<u8, Failure> {
    let HostCommand::Show = command;
    let host = ctx.api.host().show(ShowHostRequest {}).await?.into_inner();
    ctx.output.object(&view::host(&host));
    Ok(0)
}

/// `skep token`.
pub async fn token(ctx: Ctx, command: TokenCommand) -> Result<u8, Failure> {
    let TokenCommand::Create { name } = command;
    let made = ctx.api.host().create_token(CreateTokenRequest { name: name.clone() }).await?.into_inner();
    if ctx.output.json {
        ctx.output.line(json!({"name": name, "token": made.token}));
    } else {
        ctx.output.line(&made.token);
    }
    Ok(0)
}
