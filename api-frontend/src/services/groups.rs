//! Groups.

use super::{Answer, Api};
use crate::convert::{self, access};
use skep_api::v1::add_to_group_request::What;
use skep_api::v1::groups_server::Groups;
use skep_api::v1::{
    AddToGroupRequest, CreateGroupRequest, DeleteGroupRequest, Group, ListGroupsRequest, ListGroupsResponse, RenameGroupRequest,
    SetQuotaRequest,
};
use skep_proto::broker::{GroupAdd, GroupCreate, GroupDelete, GroupList, GroupQuota, GroupRename, Moved};
use tonic::Request;

#[tonic::async_trait]
impl Groups for Api {
    async fn create(&self, request: Request<CreateGroupRequest>) -> Answer<Group> {
        let (call, request) = self.enter("Groups.Create", request)?;
        call.run(async {
            let name = convert::value("group", "name", &request.name)?;
            let quota = access::quota(request.quota.as_ref())?;
            Ok(access::group(call.make(&request.request_id, GroupCreate { name, quota }).await?.0))
        })
        .await
    }

    async fn list(&self, request: Request<ListGroupsRequest>) -> Answer<ListGroupsResponse> {
        let (call, request) = self.enter("Groups.List", request)?;
        call.run(async {
            let page = call.pages(
                "group",
                request.page_size,
                &request.page_token,
                |after| GroupList { after },
                |page| page.groups,
                |v| &v.name,
            );
            let (got, next_page_token) = page.await?;
            Ok(ListGroupsResponse { groups: got.into_iter().map(access::group).collect(), next_page_token })
        })
        .await
    }

    async fn rename(&self, request: Request<RenameGroupRequest>) -> Answer<Group> {
        let (call, request) = self.enter("Groups.Rename", request)?;
        call.run(async {
            let group = convert::named("group", "group", &request.group)?;
            let name = convert::value("group", "name", &request.name)?;
            Ok(access::group(call.act(GroupRename { group, name }).await?.0))
        })
        .await
    }

    async fn set_quota(&self, request: Request<SetQuotaRequest>) -> Answer<Group> {
        let (call, request) = self.enter("Groups.SetQuota", request)?;
        call.run(async {
            let group = convert::named("group", "group", &request.group)?;
            let quota = access::quota(request.quota.as_ref())?;
            Ok(access::group(call.act(GroupQuota { group, quota }).await?.0))
        })
        .await
    }

    async fn add(&self, request: Request<AddToGroupRequest>) -> Answer<()> {
        let (call, request) = self.enter("Groups.Add", request)?;
        call.run(async {
            let group = convert::named("group", "group", &request.group)?;
            let what = match &request.what {
                Some(What::Machine(machine)) => Moved::Machine(convert::named("machine", "machine", machine)?),
                Some(What::Disk(disk)) => Moved::Disk(convert::named("disk", "disk", disk)?),
                None => return Err(convert::invalid("group", "what", "a machine or a disk is expected")),
            };
            call.act(GroupAdd { group, what }).await.map(drop)
        })
        .await
    }

    async fn delete(&self, request: Request<DeleteGroupRequest>) -> Answer<()> {
        let (call, request) = self.enter("Groups.Delete", request)?;
        call.run(async {
            let group = convert::named("group", "group", &request.group)?;
            call.act(GroupDelete { group }).await.map(drop)
        })
        .await
    }
}
