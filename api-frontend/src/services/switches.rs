//! Switches.

use super::{Answer, Api};
use crate::convert::{self, network};
use skep_api::v1::switches_server::Switches;
use skep_api::v1::{
    CreateSwitchRequest, DeleteSwitchRequest, GetSwitchRequest, ListSwitchesRequest, ListSwitchesResponse, OpenSwitchRequest,
    Switch, UpdateSwitchRequest,
};
use skep_proto::broker::{SwitchDelete, SwitchGet, SwitchList, SwitchOpen, SwitchSet};
use tonic::Request;

#[tonic::async_trait]
impl Switches for Api {
    async fn create(&self, request: Request<CreateSwitchRequest>) -> Answer<Switch> {
        let (call, request) = self.enter("Switches.Create", request)?;
        call.run(async { Ok(network::switch(call.make(&request.request_id, network::switch_create(&request)?).await?.0)) }).await
    }

    async fn get(&self, request: Request<GetSwitchRequest>) -> Answer<Switch> {
        let (call, request) = self.enter("Switches.Get", request)?;
        call.run(async {
            let switch = convert::named("switch", "switch", &request.switch)?;
            Ok(network::switch(call.read(SwitchGet { switch }).await?.0))
        })
        .await
    }

    async fn update(&self, request: Request<UpdateSwitchRequest>) -> Answer<Switch> {
        let (call, request) = self.enter("Switches.Update", request)?;
        call.run(async {
            let set = SwitchSet {
                switch: convert::named("switch", "switch", &request.switch)?,
                name: convert::given("switch", "name", request.name.as_ref())?,
                description: convert::given("switch", "description", request.description.as_ref())?,
                uplink: convert::given("switch", "uplink", request.uplink.as_ref())?,
            };
            Ok(network::switch(call.act(set).await?.0))
        })
        .await
    }

    async fn list(&self, request: Request<ListSwitchesRequest>) -> Answer<ListSwitchesResponse> {
        let (call, request) = self.enter("Switches.List", request)?;
        call.run(async {
            let page = call.pages(
                "switch",
                request.page_size,
                &request.page_token,
                |after| SwitchList { after },
                |page| page.switches,
                |v| &v.name,
            );
            let (got, next_page_token) = page.await?;
            Ok(ListSwitchesResponse { switches: got.into_iter().map(network::switch).collect(), next_page_token })
        })
        .await
    }

    async fn open(&self, request: Request<OpenSwitchRequest>) -> Answer<Switch> {
        let (call, request) = self.enter("Switches.Open", request)?;
        call.run(async {
            let switch = convert::named("switch", "switch", &request.switch)?;
            let group = convert::maybe_named("switch", "group", &request.group)?;
            Ok(network::switch(call.act(SwitchOpen { switch, group, open: request.open }).await?.0))
        })
        .await
    }

    async fn delete(&self, request: Request<DeleteSwitchRequest>) -> Answer<()> {
        let (call, request) = self.enter("Switches.Delete", request)?;
        call.run(async {
            let switch = convert::named("switch", "switch", &request.switch)?;
            call.act(SwitchDelete { switch }).await.map(drop)
        })
        .await
    }
}
