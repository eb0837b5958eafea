//! `skep op`.

use super::Ctx;
use crate::args::OpCommand;
use crate::error::Failure;
use crate::operation::{self, Interrupt};
use crate::view;
use skep_api::v1::{CancelOperationRequest, GetOperationRequest, ListOperationsRequest};

/// Runs one.
pub async fn run(ctx: Ctx, command: OpCommand) -> Result<u8, Failure> {
    let mut api = ctx.api.operations();
    match command {
        OpCommand::List { lines } => {
            let (mut all, mut page_token) = (Vec::new(), String::new());
            let wanted = usize::try_from(lines).unwrap_or(usize::MAX);
            while all.len() < wanted {
                let left = u32::try_from(wanted - all.len()).unwrap_or(1000).min(1000);
                let page = api.list(ListOperationsRequest { page_size: left, page_token }).await?.into_inner();
                all.extend(page.operations);
                page_token = page.next_page_token;
                if page_token.is_empty() {
                    break;
                }
            }
            ctx.output.list(view::OPERATIONS, all.iter().map(|o| (view::operation(o), view::operation_row(o))));
        }
        OpCommand::Show { operation, wait } => {
            let mut found = api.get(GetOperationRequest { operation }).await?.into_inner();
            if wait {
                found = operation::finish(&ctx.api, ctx.output, found, Interrupt::Leaves).await?;
            }
            ctx.output.object(&view::operation(&found));
        }
        OpCommand::Cancel { operation } => {
            let found = api.cancel(CancelOperationRequest { operation }).await?.into_inner();
            ctx.output.object(&view::operation(&found));
        }
    }
    Ok(0)
}
