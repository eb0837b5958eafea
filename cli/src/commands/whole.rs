//! `skep vm snapshot`.

use super::Ctx;
use super::pages::pages;
use crate::args::WholeCommand;
use crate::error::Failure;
use crate::view;
use skep_api::v1::{
    CreateMachineSnapshotRequest, DeleteMachineSnapshotRequest, ListMachineSnapshotsRequest, RenameMachineSnapshotRequest,
    RollBackMachineRequest,
};

/// Runs one.
pub async fn run(ctx: Ctx, command: WholeCommand) -> Result<(), Failure> {
    let mut api = ctx.api.machines();
    match command {
        WholeCommand::Create { machine, name } => {
            let made = ctx.make(|api, request_id| {
                let request = CreateMachineSnapshotRequest { machine: machine.clone(), name: name.clone(), request_id };
                async move { api.machines().create_snapshot(request).await }
            });
            let made = made.await?;
            ctx.made(&view::whole(&made), "snapshot", "made");
        }
        WholeCommand::List { machine } => {
            let all = pages!(api.list_snapshots, snapshots, ListMachineSnapshotsRequest { machine: machine.clone() });
            ctx.output.list(view::WHOLES, all.iter().map(|s| (view::whole(s), view::whole_row(s))));
        }
        WholeCommand::Rename { machine, snapshot, name } => {
            let renamed = api.rename_snapshot(RenameMachineSnapshotRequest { machine, snapshot, name }).await?.into_inner();
            ctx.made(&view::whole(&renamed), "snapshot", "renamed");
        }
        WholeCommand::Rollback { machine, snapshot } => {
            let machine = api.roll_back(RollBackMachineRequest { machine, snapshot }).await?.into_inner();
            ctx.made(&view::machine(&machine), "machine", "rolled back");
        }
        WholeCommand::Delete { machine, snapshot } => {
            api.delete_snapshot(DeleteMachineSnapshotRequest { machine, snapshot: snapshot.clone() }).await?;
            ctx.gone("snapshot", &snapshot);
        }
    }
    Ok(())
}
