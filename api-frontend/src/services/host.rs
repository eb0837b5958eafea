//! The host, and tokens.

use super::{Answer, Answers, Api};
use crate::convert::{self, access, event::host_info};
use crate::logs::{self, Wanted};
use skep_api::v1::{
    CreateTokenRequest, CreateTokenResponse, DeleteTokenRequest, HostInfo, ListTokensRequest, ListTokensResponse,
    RestHostRequest, RestHostResponse, ServiceLogChunk, ServiceLogRequest, ShowHostRequest, host_server::Host,
};
use skep_proto::broker::{HostLog, HostRest, HostShow, ServiceName, TokenCreate, TokenDelete, TokenList};
use tonic::Request;

#[tonic::async_trait]
impl Host for Api {
    async fn show(&self, request: Request<ShowHostRequest>) -> Answer<HostInfo> {
        let (call, _) = self.enter("Host.Show", request)?;
        let certificate = self.certificate.to_string();
        call.run(async { Ok(HostInfo { certificate, ..host_info(call.read(HostShow {}).await?.0) }) }).await
    }

    async fn rest(&self, request: Request<RestHostRequest>) -> Answer<RestHostResponse> {
        let (call, _) = self.enter("Host.Rest", request)?;
        call.run(async {
            let (_, []) = call.act(HostRest {}).await?;
            Ok(RestHostResponse {})
        })
        .await
    }

    type LogStream = Answers<ServiceLogChunk>;

    async fn log(&self, request: Request<ServiceLogRequest>) -> Answer<Answers<ServiceLogChunk>> {
        let (call, request) = self.enter("Host.Log", request)?;
        call.run(async {
            let service = ServiceName::ALL.into_iter().find(|service| service.word() == request.service);
            let all = || ServiceName::ALL.map(ServiceName::word).join(", ");
            let why = || convert::not(format_args!("one of {} is expected", all()), &request.service);
            let wrong = || convert::invalid("log", "service", why());
            let ask = HostLog { service: service.ok_or_else(wrong)?, follow: request.follow };
            let since = request.since.map(|time| convert::nanoseconds("log", "since", &time)).transpose()?;
            let wanted = Wanted { tail: request.tail, since, follow: request.follow };
            let place = call.peer.log_place(request.follow)?;
            let opened = call.read(ask).await?;
            logs::stream(call.clone(), place, opened, logs::Order::Moves, &wanted, |data| ServiceLogChunk { data })
        })
        .await
    }

    async fn create_token(&self, request: Request<CreateTokenRequest>) -> Answer<CreateTokenResponse> {
        let (call, request) = self.enter("Host.CreateToken", request)?;
        call.run(async {
            let name = convert::named("token", "name", &request.name)?;
            let user = convert::maybe_named("token", "user", &request.user)?;
            let seconds = request.lifetime.map_or(Ok(0), access::seconds)?;
            let (made, []) = call.act(TokenCreate { name, user, seconds }).await?;
            let expire_time = convert::time(made.expires_ns);
            Ok(CreateTokenResponse { token: made.token.to_string(), user: made.user.to_string(), expire_time })
        })
        .await
    }

    async fn list_tokens(&self, request: Request<ListTokensRequest>) -> Answer<ListTokensResponse> {
        let (call, request) = self.enter("Host.ListTokens", request)?;
        call.run(async {
            let user = convert::maybe_named("token", "user", &request.user)?;
            let page = call.pages(
                "token",
                request.page_size,
                &request.page_token,
                |after| TokenList { user: user.clone(), after },
                |page| page.tokens,
                |v| &v.key,
            );
            let (got, next_page_token) = page.await?;
            Ok(ListTokensResponse { tokens: got.into_iter().map(access::token).collect(), next_page_token })
        })
        .await
    }

    async fn delete_token(&self, request: Request<DeleteTokenRequest>) -> Answer<()> {
        let (call, request) = self.enter("Host.DeleteToken", request)?;
        call.run(async {
            let name = convert::named("token", "name", &request.name)?;
            let user = convert::maybe_named("token", "user", &request.user)?;
            call.act(TokenDelete { name, user }).await.map(drop)
        })
        .await
    }
}
