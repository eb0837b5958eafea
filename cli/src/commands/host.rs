//! `skep host`, `skep token`.

use super::Ctx;
use crate::args::{HostCommand, TokenCommand};
use crate::error::Failure;
use crate::output::bytes;
use crate::view;
use serde_json::{Value, json};
use skep_api::v1::{CreateTokenRequest, ShowHostRequest};

/// `skep host`.
pub async fn run(ctx: Ctx, command: HostCommand) -> Result<u8, Failure> {
    let HostCommand::Show = command;
    let host = ctx.api.host().show(ShowHostRequest {}).await?.into_inner();
    let mut value = view::host(&host);
    if !ctx.output.json {
        for name in ["memory", "space", "space_free"] {
            let Some(field) = value.get_mut(name) else { continue };
            *field = json!(bytes(field.as_u64().unwrap_or(0)));
        }
        // A line each reads better than one long line.
        let weaker = value.as_object_mut().and_then(|v| v.remove("weaker"));
        ctx.output.object(&value);
        for line in weaker.as_ref().and_then(Value::as_array).into_iter().flatten() {
            ctx.output.line(format_args!("weaker: {}", line.as_str().unwrap_or_default()));
        }
        return Ok(0);
    }
    ctx.output.object(&value);
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
