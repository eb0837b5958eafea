//! Machines.

use super::{Answer, Answers, Api, Call, Checked};
use crate::convert::{self, act, disk, event, machine, stats};
use crate::logs::{self, Wanted};
use crate::relay;
use skep_api::v1::machines_server::Machines;
use skep_api::v1::{
    ChannelInput, ChannelOutput, CloneMachineRequest, ConsoleAttached, ConsoleInput, ConsoleOutput, CreateMachineRequest,
    CreateMachineSnapshotRequest, DeleteMachineRequest, DeleteMachineSnapshotRequest, EjectRequest, GdbInput, GdbOutput,
    GetMachineRequest, LaunchMachineRequest, ListMachineSnapshotsRequest, ListMachineSnapshotsResponse, ListMachinesRequest,
    ListMachinesResponse, Machine, MachineActRequest, MachineLogChunk, MachineLogRequest, MachineSnapshot, MachineStats,
    MachineStatsRequest, Operation, RenameMachineRequest, RenameMachineSnapshotRequest, RollBackMachineRequest, ScreenInput,
    ScreenOutput, UpdateMachineRequest, UpdateMachineResponse, WatchMachineStatsRequest, channel_input, console_input,
    console_output, gdb_input, screen_input,
};
use skep_proto::broker::{
    self, Act, MachineAct, MachineClone, MachineDelete, MachineGet, MachineList, MachineRename, StatsNews, Stop, WholeCreate,
    WholeDelete, WholeList, WholeRename, WholeRollBack,
};
use skep_proto::{Refusal, UpTo};
use tonic::{Request, Streaming};

async fn done(api: &Api, method: &'static str, request: Request<MachineActRequest>, act: Act) -> Answer<Operation> {
    let (call, request) = api.enter(method, request)?;
    call.run(async {
        let machine = convert::named("machine", "machine", &request.machine)?;
        let act = act::act(act, &request)?;
        Ok(event::operation(call.act(MachineAct { machine, act }).await?.0))
    })
    .await
}

#[tonic::async_trait]
impl Machines for Api {
    async fn create(&self, request: Request<CreateMachineRequest>) -> Answer<Machine> {
        let (call, request) = self.enter("Machines.Create", request)?;
        call.run(async {
            Ok(machine::machine(
                call.make(&request.request_id.clone(), machine::create(request)?).await.map_err(act::of_settings)?.0,
            ))
        })
        .await
    }

    async fn get(&self, request: Request<GetMachineRequest>) -> Answer<Machine> {
        let (call, request) = self.enter("Machines.Get", request)?;
        call.run(async {
            let which = convert::named("machine", "machine", &request.machine)?;
            Ok(machine::machine(call.read(MachineGet { machine: which }).await?.0))
        })
        .await
    }

    async fn list(&self, request: Request<ListMachinesRequest>) -> Answer<ListMachinesResponse> {
        let (call, request) = self.enter("Machines.List", request)?;
        call.run(async {
            let page = call.pages(
                "machine",
                request.page_size,
                &request.page_token,
                |after| MachineList { after },
                |page| page.machines,
                |v| &v.name,
            );
            let (got, next_page_token) = page.await?;
            Ok(ListMachinesResponse { machines: got.into_iter().map(machine::machine).collect(), next_page_token })
        })
        .await
    }

    async fn update(&self, request: Request<UpdateMachineRequest>) -> Answer<UpdateMachineResponse> {
        let (call, request) = self.enter("Machines.Update", request)?;
        call.run(async { Ok(machine::edited(call.act(machine::set(request)?).await.map_err(act::of_settings)?.0)) }).await
    }

    async fn rename(&self, request: Request<RenameMachineRequest>) -> Answer<Machine> {
        let (call, request) = self.enter("Machines.Rename", request)?;
        call.run(async {
            let which = convert::named("machine", "machine", &request.machine)?;
            let name = convert::value("machine", "name", &request.name)?;
            Ok(machine::machine(call.act(MachineRename { machine: which, name }).await?.0))
        })
        .await
    }

    async fn start(&self, request: Request<MachineActRequest>) -> Answer<Operation> {
        done(self, "Machines.Start", request, Act::Start).await
    }
    async fn stop(&self, request: Request<MachineActRequest>) -> Answer<Operation> {
        done(self, "Machines.Stop", request, Act::Stop(Stop::default())).await
    }
    async fn kill(&self, request: Request<MachineActRequest>) -> Answer<Operation> {
        done(self, "Machines.Kill", request, Act::Kill).await
    }
    async fn reboot(&self, request: Request<MachineActRequest>) -> Answer<Operation> {
        done(self, "Machines.Reboot", request, Act::Reboot).await
    }
    async fn reset(&self, request: Request<MachineActRequest>) -> Answer<Operation> {
        done(self, "Machines.Reset", request, Act::Reset).await
    }
    async fn pause(&self, request: Request<MachineActRequest>) -> Answer<Operation> {
        done(self, "Machines.Pause", request, Act::Pause).await
    }
    async fn resume(&self, request: Request<MachineActRequest>) -> Answer<Operation> {
        done(self, "Machines.Resume", request, Act::Resume).await
    }

    async fn clone(&self, request: Request<CloneMachineRequest>) -> Answer<Operation> {
        let (call, request) = self.enter("Machines.Clone", request)?;
        call.run(async {
            let machine = convert::named("machine", "machine", &request.machine)?;
            let name = convert::value("machine", "name", &request.name)?;
            let snapshot = convert::optional("snapshot", "snapshot", &request.snapshot)?;
            let clone = MachineClone { machine, name, snapshot, full: request.full };
            Ok(event::operation(call.make(&request.request_id, clone).await?.0))
        })
        .await
    }

    async fn create_snapshot(&self, request: Request<CreateMachineSnapshotRequest>) -> Answer<MachineSnapshot> {
        let (call, request) = self.enter("Machines.CreateSnapshot", request)?;
        call.run(async {
            let machine = convert::named("machine", "machine", &request.machine)?;
            let name = convert::value("snapshot", "name", &request.name)?;
            Ok(disk::whole(call.make(&request.request_id, WholeCreate { machine, name }).await?.0))
        })
        .await
    }

    async fn list_snapshots(&self, request: Request<ListMachineSnapshotsRequest>) -> Answer<ListMachineSnapshotsResponse> {
        let (call, request) = self.enter("Machines.ListSnapshots", request)?;
        call.run(async {
            let of = convert::named("machine", "machine", &request.machine)?;
            let page = call.pages(
                "snapshot",
                request.page_size,
                &request.page_token,
                |after| WholeList { machine: of.clone(), after },
                |page| page.snapshots,
                |v| &v.name,
            );
            let (got, next_page_token) = page.await?;
            Ok(ListMachineSnapshotsResponse { snapshots: got.into_iter().map(disk::whole).collect(), next_page_token })
        })
        .await
    }

    async fn roll_back(&self, request: Request<RollBackMachineRequest>) -> Answer<Machine> {
        let (call, request) = self.enter("Machines.RollBack", request)?;
        call.run(async {
            let which = convert::named("machine", "machine", &request.machine)?;
            let snapshot = convert::named("snapshot", "snapshot", &request.snapshot)?;
            Ok(machine::machine(call.act(WholeRollBack { machine: which, snapshot }).await?.0))
        })
        .await
    }

    async fn rename_snapshot(&self, request: Request<RenameMachineSnapshotRequest>) -> Answer<MachineSnapshot> {
        let (call, request) = self.enter("Machines.RenameSnapshot", request)?;
        call.run(async {
            let machine = convert::named("machine", "machine", &request.machine)?;
            let snapshot = convert::named("snapshot", "snapshot", &request.snapshot)?;
            let name = convert::value("snapshot", "name", &request.name)?;
            Ok(disk::whole(call.act(WholeRename { machine, snapshot, name }).await?.0))
        })
        .await
    }

    async fn delete_snapshot(&self, request: Request<DeleteMachineSnapshotRequest>) -> Answer<()> {
        let (call, request) = self.enter("Machines.DeleteSnapshot", request)?;
        call.run(async {
            let machine = convert::named("machine", "machine", &request.machine)?;
            let snapshot = convert::named("snapshot", "snapshot", &request.snapshot)?;
            call.act(WholeDelete { machine, snapshot }).await.map(drop)
        })
        .await
    }

    async fn launch(&self, request: Request<LaunchMachineRequest>) -> Answer<Operation> {
        let (call, request) = self.enter("Machines.Launch", request)?;
        call.run(async { launch(&call, request).await }).await
    }

    async fn eject(&self, request: Request<EjectRequest>) -> Answer<Machine> {
        let (call, request) = self.enter("Machines.Eject", request)?;
        call.run(async {
            let which = convert::named("machine", "machine", &request.machine)?;
            let disk = convert::named("disk", "disk", &request.disk)?;
            Ok(machine::machine(call.act(broker::MachineEject { machine: which, disk }).await?.0))
        })
        .await
    }

    async fn delete(&self, request: Request<DeleteMachineRequest>) -> Answer<Operation> {
        let (call, request) = self.enter("Machines.Delete", request)?;
        call.run(async {
            let machine = convert::named("machine", "machine", &request.machine)?;
            Ok(event::operation(call.act(MachineDelete { machine, disks: request.disks }).await?.0))
        })
        .await
    }

    type ConsoleStream = Answers<ConsoleOutput>;

    async fn console(&self, request: Request<Streaming<ConsoleInput>>) -> Answer<Answers<ConsoleOutput>> {
        let (call, stream) = self.enter("Machines.Console", request)?;
        let mut stream = Checked(stream);
        call.run(async {
            let first = stream.message().await?.and_then(|m| m.kind);
            let Some(console_input::Kind::Attach(attach)) = first else {
                return Err(convert::invalid("console", "attach", "the first message must say which machine"));
            };
            let machine = convert::named("machine", "attach.machine", &attach.machine)?;
            let place = call.peer.stream_place()?;
            let port = convert::devices::port(attach.port)?;
            let ask = broker::MachineConsole { machine, write: attach.write, take: attach.take, port };
            let (got, [socket]) = call.act(ask).await?;
            let attached = ConsoleAttached { writer: got.writer, scrollback: got.scrollback };
            let hello = ConsoleOutput { kind: Some(console_output::Kind::Attached(attached)) };
            let read = |m: ConsoleInput| match m.kind {
                Some(console_input::Kind::Data(data)) => Ok(data),
                _ => Err(convert::invalid("console", "data", "only the first message may attach")),
            };
            let wrap = |data| ConsoleOutput { kind: Some(console_output::Kind::Data(data)) };
            relay::both_ways(call.clone(), place, socket, stream, Some(hello), read, wrap)
        })
        .await
    }

    type ScreenStream = Answers<ScreenOutput>;

    async fn screen(&self, request: Request<Streaming<ScreenInput>>) -> Answer<Answers<ScreenOutput>> {
        let (call, stream) = self.enter("Machines.Screen", request)?;
        let mut stream = Checked(stream);
        call.run(async {
            let Some(screen_input::Kind::Machine(name)) = stream.message().await?.and_then(|m| m.kind) else {
                return Err(convert::invalid("screen", "machine", "the first message must say which machine"));
            };
            let machine = convert::named("machine", "machine", &name)?;
            let place = call.peer.stream_place()?;
            let (_, [socket]) = call.act(broker::MachineScreen { machine }).await?;
            let read = |m: ScreenInput| match m.kind {
                Some(screen_input::Kind::Data(data)) => Ok(data),
                _ => Err(convert::invalid("screen", "data", "only the first message may name a machine")),
            };
            relay::both_ways(call.clone(), place, socket, stream, None, read, |data| ScreenOutput { data })
        })
        .await
    }

    type GdbStream = Answers<GdbOutput>;

    async fn gdb(&self, request: Request<Streaming<GdbInput>>) -> Answer<Answers<GdbOutput>> {
        let (call, stream) = self.enter("Machines.Gdb", request)?;
        let mut stream = Checked(stream);
        call.run(async {
            let Some(gdb_input::Kind::Machine(name)) = stream.message().await?.and_then(|m| m.kind) else {
                return Err(convert::invalid("gdb", "machine", "the first message must say which machine"));
            };
            let machine = convert::named("machine", "machine", &name)?;
            let place = call.peer.stream_place()?;
            let (_, [socket]) = call.act(broker::MachineGdb { machine }).await?;
            let read = |m: GdbInput| match m.kind {
                Some(gdb_input::Kind::Data(data)) => Ok(data),
                _ => Err(convert::invalid("gdb", "data", "only the first message may name a machine")),
            };
            relay::both_ways(call.clone(), place, socket, stream, None, read, |data| GdbOutput { data })
        })
        .await
    }

    type ChannelStream = Answers<ChannelOutput>;

    async fn channel(&self, request: Request<Streaming<ChannelInput>>) -> Answer<Answers<ChannelOutput>> {
        let (call, stream) = self.enter("Machines.Channel", request)?;
        let mut stream = Checked(stream);
        call.run(async {
            let Some(channel_input::Kind::Attach(attach)) = stream.message().await?.and_then(|m| m.kind) else {
                return Err(convert::invalid("channel", "attach", "the first message must say which channel"));
            };
            let machine = convert::named("machine", "attach.machine", &attach.machine)?;
            let channel = convert::value("channel", "attach.channel", &attach.channel)?;
            let place = call.peer.stream_place()?;
            let (_, [socket]) = call.act(broker::MachineChannel { machine, channel }).await?;
            let read = |m: ChannelInput| match m.kind {
                Some(channel_input::Kind::Data(data)) => Ok(data),
                _ => Err(convert::invalid("channel", "data", "only the first message may attach")),
            };
            relay::both_ways(call.clone(), place, socket, stream, None, read, |data| ChannelOutput { data })
        })
        .await
    }

    type LogStream = Answers<MachineLogChunk>;

    async fn log(&self, request: Request<MachineLogRequest>) -> Answer<Answers<MachineLogChunk>> {
        let (call, request) = self.enter("Machines.Log", request)?;
        call.run(async {
            let ask = machine::log(&request)?;
            let place = call.peer.log_place(request.follow)?;
            let since = request.since.map(|time| convert::nanoseconds("log", "since", &time)).transpose()?;
            let wanted = Wanted { tail: request.tail, since, follow: request.follow };
            let opened = call.read(ask).await?;
            logs::stream(call.clone(), place, opened, logs::Order::Turns, &wanted, |data| MachineLogChunk { data })
        })
        .await
    }

    async fn stats(&self, request: Request<MachineStatsRequest>) -> Answer<MachineStats> {
        let (call, request) = self.enter("Machines.Stats", request)?;
        call.run(async {
            let which = convert::named("machine", "machine", &request.machine)?;
            Ok(stats::stats(call.read(broker::MachineStats { machine: which }).await?.0))
        })
        .await
    }

    type WatchStatsStream = Answers<MachineStats>;

    async fn watch_stats(&self, request: Request<WatchMachineStatsRequest>) -> Answer<Answers<MachineStats>> {
        let (call, request) = self.enter("Machines.WatchStats", request)?;
        call.run(async {
            let ask = stats::watch(&request)?;
            let place = call.peer.stream_place()?;
            let (_, [socket]) = call.read(ask).await?;
            relay::records(call.clone(), place, socket, "the watch was cut off", |news| match news {
                StatsNews::Reading(view) => Ok(stats::stats(view)),
                StatsNews::Ended(refusal) => Err(refusal),
            })
        })
        .await
    }
}

/// What the guest is told goes to the broker by a pipe of its own: it is larger than a record, and secret.
async fn launch(call: &Call, request: LaunchMachineRequest) -> Result<Operation, Refusal> {
    let (launch, data) = machine::launch(&request)?;
    let (operation, UpTo(fds)) = call.make(&request.request_id, launch).await.map_err(act::of_settings)?;
    // A repeat has none: what was told then counts.
    if let Some(fd) = fds.into_iter().next() {
        super::pipe_out(fd, "machine", &data).await?;
    }
    Ok(event::operation(operation))
}
