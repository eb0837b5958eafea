//! NICs.

use super::{Answer, Api};
use crate::convert::{self, network};
use skep_api::v1::nics_server::Nics;
use skep_api::v1::{
    AttachNicRequest, CloneNicRequest, CreateNicRequest, DeleteNicRequest, DetachNicRequest, GetNicRequest, ListNicsRequest,
    ListNicsResponse, Nic, UpdateNicRequest,
};
use skep_proto::broker::{NicAttach, NicClone, NicDelete, NicDetach, NicGet, NicList};
use tonic::Request;

#[tonic::async_trait]
impl Nics for Api {
    async fn create(&self, request: Request<CreateNicRequest>) -> Answer<Nic> {
        let (call, request) = self.enter("Nics.Create", request)?;
        call.run(async { Ok(network::nic(call.make(&request.request_id, network::nic_create(&request)?).await?.0)) }).await
    }

    async fn get(&self, request: Request<GetNicRequest>) -> Answer<Nic> {
        let (call, request) = self.enter("Nics.Get", request)?;
        call.run(async {
            let nic = convert::named("nic", "nic", &request.nic)?;
            Ok(network::nic(call.read(NicGet { nic }).await?.0))
        })
        .await
    }

    async fn update(&self, request: Request<UpdateNicRequest>) -> Answer<Nic> {
        let (call, request) = self.enter("Nics.Update", request)?;
        call.run(async { Ok(network::nic(call.act(network::nic_set(&request)?).await?.0)) }).await
    }

    async fn clone(&self, request: Request<CloneNicRequest>) -> Answer<Nic> {
        let (call, request) = self.enter("Nics.Clone", request)?;
        call.run(async {
            let nic = convert::named("nic", "nic", &request.nic)?;
            let name = convert::value("nic", "name", &request.name)?;
            Ok(network::nic(call.make(&request.request_id, NicClone { nic, name }).await?.0))
        })
        .await
    }

    async fn attach(&self, request: Request<AttachNicRequest>) -> Answer<Nic> {
        let (call, request) = self.enter("Nics.Attach", request)?;
        call.run(async {
            let nic = convert::named("nic", "nic", &request.nic)?;
            let machine = convert::named("machine", "machine", &request.machine)?;
            Ok(network::nic(call.act(NicAttach { nic, machine }).await?.0))
        })
        .await
    }

    async fn detach(&self, request: Request<DetachNicRequest>) -> Answer<Nic> {
        let (call, request) = self.enter("Nics.Detach", request)?;
        call.run(async {
            let nic = convert::named("nic", "nic", &request.nic)?;
            Ok(network::nic(call.act(NicDetach { nic }).await?.0))
        })
        .await
    }

    async fn list(&self, request: Request<ListNicsRequest>) -> Answer<ListNicsResponse> {
        let (call, request) = self.enter("Nics.List", request)?;
        call.run(async {
            let page = call.pages(
                "nic",
                request.page_size,
                &request.page_token,
                |after| NicList { after },
                |page| page.nics,
                |v| &v.name,
            );
            let (got, next_page_token) = page.await?;
            Ok(ListNicsResponse { nics: got.into_iter().map(network::nic).collect(), next_page_token })
        })
        .await
    }

    async fn delete(&self, request: Request<DeleteNicRequest>) -> Answer<()> {
        let (call, request) = self.enter("Nics.Delete", request)?;
        call.run(async {
            let nic = convert::named("nic", "nic", &request.nic)?;
            call.act(NicDelete { nic }).await.map(drop)
        })
        .await
    }
}
