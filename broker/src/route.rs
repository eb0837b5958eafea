//! Every request, one line each.

use crate::requests::{
    Cx, disk, event, fetch, firmware, group, host, iscsi, launch, machine, machine_jobs, nic, resize, snapshot, stats, stream,
    switch, user, whole,
};
use crate::session::Desk;
use skep_ipc::ProtocolError;
use skep_proto::broker::*;
use skep_proto::{NoFds, Refusal};

/// An answer without descriptors.
fn plain<R>(result: Result<R, Refusal>) -> Result<(R, NoFds), Refusal> {
    result.map(|reply| (reply, []))
}

/// Has a request done.
pub async fn route(desk: &mut Desk<'_>, cx: Cx, request: BrokerRequest) -> Result<(), ProtocolError> {
    use BrokerRequest as R;
    macro_rules! plain {
        ($call:ident, $c:ident, $act:path) => {
            desk.answer::<$call>(&cx.who, async { plain($act(&cx, $c).await) }).await
        };
    }
    macro_rules! stream {
        ($call:ident, $c:ident, $act:path) => {
            desk.answer::<$call>(&cx.who, $act(&cx, $c)).await
        };
    }
    match request {
        // Sessions are opened once, before anything comes here.
        R::OpenSession(_) => Err(ProtocolError::Order("OpenSession")),
        // Nor does this, which the session answers itself.
        R::CallTold(_) => Err(ProtocolError::Order("CallTold")),
        // The session has taken it over.
        R::RequestKey(c) => plain!(RequestKey, c, host::key),
        R::HostShow(c) => plain!(HostShow, c, host::show),
        R::HostLog(c) => stream!(HostLog, c, stream::host_log),
        R::HostRest(c) => plain!(HostRest, c, host::rest),
        R::TokenCreate(c) => plain!(TokenCreate, c, user::token),
        R::TokenList(c) => plain!(TokenList, c, user::tokens),
        R::TokenDelete(c) => plain!(TokenDelete, c, user::delete_token),
        R::UserCreate(c) => plain!(UserCreate, c, user::create),
        R::UserGet(c) => plain!(UserGet, c, user::get),
        R::UserList(c) => plain!(UserList, c, user::list),
        R::UserRename(c) => plain!(UserRename, c, user::rename),
        R::UserDisable(c) => plain!(UserDisable, c, user::disable),
        R::UserPassword(c) => plain!(UserPassword, c, user::password),
        R::UserDelete(c) => plain!(UserDelete, c, user::delete),
        R::RoleGrant(c) => plain!(RoleGrant, c, user::grant),
        R::RoleRevoke(c) => plain!(RoleRevoke, c, user::revoke),
        R::RoleList(c) => plain!(RoleList, c, user::roles),
        R::GroupCreate(c) => plain!(GroupCreate, c, group::create),
        R::GroupList(c) => plain!(GroupList, c, group::list),
        R::GroupRename(c) => plain!(GroupRename, c, group::rename),
        R::GroupQuota(c) => plain!(GroupQuota, c, group::quota),
        R::GroupAdd(c) => plain!(GroupAdd, c, group::add),
        R::GroupDelete(c) => plain!(GroupDelete, c, group::delete),
        R::MachineCreate(c) => plain!(MachineCreate, c, machine::create),
        R::MachineGet(c) => plain!(MachineGet, c, machine::get),
        R::MachineList(c) => plain!(MachineList, c, machine::list),
        R::MachineSet(c) => plain!(MachineSet, c, machine::set),
        R::MachineRename(c) => plain!(MachineRename, c, machine::rename),
        R::MachineAct(c) => plain!(MachineAct, c, machine::act),
        R::MachineEject(c) => plain!(MachineEject, c, machine::eject),
        R::MachineLaunch(c) => stream!(MachineLaunch, c, launch::launch),
        R::MachineClone(c) => plain!(MachineClone, c, machine_jobs::copy),
        R::MachineDelete(c) => plain!(MachineDelete, c, machine_jobs::delete),
        R::MachineConsole(c) => stream!(MachineConsole, c, stream::console),
        R::MachineScreen(c) => stream!(MachineScreen, c, stream::screen),
        R::MachineGdb(c) => stream!(MachineGdb, c, stream::gdb),
        R::MachineChannel(c) => stream!(MachineChannel, c, stream::channel),
        R::MachineLog(c) => stream!(MachineLog, c, stream::log),
        R::MachineStats(c) => plain!(MachineStats, c, stats::show),
        R::StatsWatch(c) => stream!(StatsWatch, c, stats::watch),
        R::MetricsGet(c) => plain!(MetricsGet, c, stats::metrics),
        R::DiskCreate(c) => plain!(DiskCreate, c, disk::create),
        R::IscsiCreate(c) => plain!(IscsiCreate, c, iscsi::create),
        R::DiskImport(c) => stream!(DiskImport, c, disk::import),
        R::DiskFetch(c) => stream!(DiskFetch, c, fetch::fetch),
        R::DiskClone(c) => plain!(DiskClone, c, disk::copy),
        R::DiskSet(c) => plain!(DiskSet, c, disk::set),
        R::DiskWipe(c) => plain!(DiskWipe, c, disk::wipe),
        R::DiskResize(c) => plain!(DiskResize, c, resize::resize),
        R::DiskExport(c) => stream!(DiskExport, c, disk::export),
        R::DiskGet(c) => plain!(DiskGet, c, disk::get),
        R::DiskList(c) => plain!(DiskList, c, disk::list),
        R::DiskDelete(c) => plain!(DiskDelete, c, disk::delete),
        R::WholeCreate(c) => plain!(WholeCreate, c, whole::create),
        R::WholeList(c) => plain!(WholeList, c, whole::list),
        R::WholeRollBack(c) => plain!(WholeRollBack, c, whole::roll_back),
        R::WholeRename(c) => plain!(WholeRename, c, whole::rename),
        R::WholeDelete(c) => plain!(WholeDelete, c, whole::delete),
        R::SnapshotCreate(c) => plain!(SnapshotCreate, c, snapshot::create),
        R::SnapshotList(c) => plain!(SnapshotList, c, snapshot::list),
        R::SnapshotRollBack(c) => plain!(SnapshotRollBack, c, snapshot::roll_back),
        R::SnapshotRename(c) => plain!(SnapshotRename, c, snapshot::rename),
        R::SnapshotDelete(c) => plain!(SnapshotDelete, c, snapshot::delete),
        R::FirmwareList(c) => plain!(FirmwareList, c, firmware::list),
        R::FirmwareGet(c) => plain!(FirmwareGet, c, firmware::get),
        R::FirmwareEdit(c) => plain!(FirmwareEdit, c, firmware::edit),
        R::SwitchCreate(c) => plain!(SwitchCreate, c, switch::create),
        R::SwitchList(c) => plain!(SwitchList, c, switch::list),
        R::SwitchDelete(c) => plain!(SwitchDelete, c, switch::delete),
        R::SwitchGet(c) => plain!(SwitchGet, c, switch::get),
        R::SwitchSet(c) => plain!(SwitchSet, c, switch::set),
        R::SwitchOpen(c) => plain!(SwitchOpen, c, switch::open),
        R::NicCreate(c) => plain!(NicCreate, c, nic::create),
        R::NicAttach(c) => plain!(NicAttach, c, nic::attach),
        R::NicGet(c) => plain!(NicGet, c, nic::get),
        R::NicSet(c) => plain!(NicSet, c, nic::set),
        R::NicClone(c) => plain!(NicClone, c, nic::copy),
        R::NicDetach(c) => plain!(NicDetach, c, nic::detach),
        R::NicList(c) => plain!(NicList, c, nic::list),
        R::NicDelete(c) => plain!(NicDelete, c, nic::delete),
        R::OperationGet(c) => plain!(OperationGet, c, event::get),
        R::OperationList(c) => plain!(OperationList, c, event::list),
        R::OperationCancel(c) => plain!(OperationCancel, c, event::cancel),
        R::EventWatch(c) => stream!(EventWatch, c, event::watch),
    }
}
