//! The host.

use super::{Answer, Api};
use crate::convert::{self, event::host_info};
use skep_api::v1::{
    CreateTokenRequest, CreateTokenResponse, HostInfo, RestHostRequest, RestHostResponse, ShowHostRequest, host_server::Host,
};
use skep_proto::broker::{HostRest, HostShow, TokenCreate};
use tonic::Request;

#[tonic::async_trait]
impl Host for Api {
    async fn show(&self, request: Request<ShowHostRequest>) -> Answer<HostInfo> {
        let (call, _) = self.enter("Host.Show", request)?;
        call.run(async { Ok(host_info(call.read(HostShow {}).await?.0)) }).await
    }

    async fn rest(&self, request: Request<RestHostRequest>) -> Answer<RestHostResponse> {
        let (call, _) = self.enter("Host.Rest", request)?;
        call.run(async {
            let (_, []) = call.act(HostRest {}).await?;
            Ok(RestHostResponse {})
        })
        .await
    }

    async fn create_token(&self, request: Request<CreateTokenRequest>) -> Answer<CreateTokenResponse> {
        let (call, request) = self.enter("Host.CreateToken", request)?;
        call.run(async {
            let name = convert::named("token", "name", &request.name)?;
            let (made, []) = call.act(TokenCreate { name }).await?;
            Ok(CreateTokenResponse { token: made.token.to_string() })
        })
        .await
    }
}
