//! The gRPC server.

use crate::acquire::{Acquired, tell_ready};
use crate::deadline;
use crate::incoming::Incoming;
use crate::limits::Shares;
use crate::metrics::Metrics;
use crate::services::Api;
use crate::session::BrokerAt;
use crate::status::TRACE;
use crate::told::Teller;
use skep_api::v1::{
    disks_server::DisksServer, events_server::EventsServer, firmware_server::FirmwareServer, groups_server::GroupsServer,
    host_server::HostServer, machines_server::MachinesServer, nics_server::NicsServer, operations_server::OperationsServer,
    switches_server::SwitchesServer, users_server::UsersServer,
};
use skep_api::{DESCRIPTORS, MAX_MESSAGE};
use skep_sandbox::Sandboxed;
use skep_service::Journal;
use std::convert::Infallible;
use std::error::Error;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::{TcpListener, UnixListener};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::NamedService;

use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic_health::ServingStatus;

type Failed = Box<dyn Error>;
type Request = http::Request<Body>;
type Response = http::Response<Body>;

/// Calls of one connection at a time.
const CALLS: usize = 32;
/// Calls and streams of one connection at a time.
const STREAMS: u32 = 64;

/// Serves until the process is ended. Fails only when the kernel refuses the event loop or the listening sockets.
pub fn serve(inside: Sandboxed<Acquired>) -> Result<(), Failed> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let Acquired { local, remote, metrics, broker, ready, mut journal } = inside.into_inner();
    runtime.block_on(async move {
        let (broker, shares) = (Arc::new(broker), Arc::new(Shares::default()));
        skep_sys::fd::set_nonblocking(local.as_fd(), true)?;
        let local = UnixListener::from_std(local.into())?;
        if let Some((_, identity)) = &remote {
            journal.info(None, format_args!("certificate SHA-256 {}", identity.fingerprint));
        }
        journal.info(None, format_args!("serves"));
        let fingerprint = remote.as_ref().map_or("", |(_, identity)| identity.fingerprint.as_str());
        let journal = Arc::new(Mutex::new(journal));
        if let Some(socket) = metrics {
            let metrics = Metrics::new(broker.clone(), &shares, journal.clone()).map_err(|refusal| refusal.to_string())?;
            tokio::spawn(metrics.serve(TcpListener::from_std(socket)?));
        }
        let services = Services::new(journal, fingerprint, Some(Teller::new(broker.clone()))).await?;
        let over_tls = match remote {
            None => None,
            Some((socket, identity)) => {
                let tls = ServerTlsConfig::new()
                    .identity(Identity::from_pem(&identity.certificate, &identity.key))
                    .timeout(Duration::from_secs(10));
                let incoming = Incoming::new(TcpListener::from_std(socket)?, shares.clone(), broker.clone());
                Some(limited(Server::builder().tls_config(tls)?).serve_with_incoming(services.clone(), incoming))
            }
        };
        let over_local = limited(Server::builder()).serve_with_incoming(services, Incoming::new(local, shares, broker));
        if let Some(ready) = ready {
            tell_ready(ready)?;
        }
        match over_tls {
            None => over_local.await?,
            Some(over_tls) => drop(tokio::try_join!(over_local, over_tls)?),
        }
        Ok(())
    })
}

/// Serves one listening UNIX socket without a sandbox: for tests. The broker is told of no call that it has not seen.
pub async fn over_local(socket: std::os::unix::net::UnixListener, broker: BrokerAt, journal: Journal) -> Result<(), Failed> {
    socket.set_nonblocking(true)?;
    let incoming = Incoming::new(UnixListener::from_std(socket)?, Arc::new(Shares::default()), Arc::new(broker));
    let services = Services::new(Arc::new(Mutex::new(journal)), "", None).await?;
    Ok(limited(Server::builder()).serve_with_incoming(services, incoming).await?)
}

fn limited(server: Server) -> Server {
    server
        .concurrency_limit_per_connection(CALLS)
        .max_concurrent_streams(STREAMS)
        .http2_max_header_list_size(16 << 10)
        .http2_max_pending_accept_reset_streams(Some(20))
        .http2_keepalive_interval(Some(Duration::from_secs(60)))
        .http2_keepalive_timeout(Some(Duration::from_secs(20)))
}

type Route = Box<dyn Fn(Request) -> BoxFuture<Response, Infallible> + Send + Sync>;

/// All services, chosen by the first part of the path.
#[derive(Clone)]
struct Services {
    routes: Arc<Vec<(&'static str, Route)>>,
    /// How many of them are the API's, the first ones.
    own: usize,
    journal: Arc<Mutex<Journal>>,
    teller: Option<Teller>,
}

impl Services {
    async fn new(journal: Arc<Mutex<Journal>>, certificate: &str, teller: Option<Teller>) -> Result<Self, Failed> {
        let api = Arc::new(Api::new(journal.clone(), certificate));
        let (reporter, health) = tonic_health::server::health_reporter();
        let mut routes = vec![
            route(MachinesServer::from_arc(api.clone()).max_decoding_message_size(MAX_MESSAGE)),
            route(FirmwareServer::from_arc(api.clone()).max_decoding_message_size(MAX_MESSAGE)),
            route(DisksServer::from_arc(api.clone()).max_decoding_message_size(MAX_MESSAGE)),
            route(SwitchesServer::from_arc(api.clone()).max_decoding_message_size(MAX_MESSAGE)),
            route(NicsServer::from_arc(api.clone()).max_decoding_message_size(MAX_MESSAGE)),
            route(OperationsServer::from_arc(api.clone()).max_decoding_message_size(MAX_MESSAGE)),
            route(EventsServer::from_arc(api.clone()).max_decoding_message_size(MAX_MESSAGE)),
            route(UsersServer::from_arc(api.clone()).max_decoding_message_size(MAX_MESSAGE)),
            route(GroupsServer::from_arc(api.clone()).max_decoding_message_size(MAX_MESSAGE)),
            route(HostServer::from_arc(api).max_decoding_message_size(MAX_MESSAGE)),
        ];
        for (name, _) in &routes {
            reporter.set_service_status(*name, ServingStatus::Serving).await;
        }
        let own = routes.len();
        let reflection = || tonic_reflection::server::Builder::configure().register_encoded_file_descriptor_set(DESCRIPTORS);
        routes.push(route(health));
        routes.push(route(reflection().build_v1()?));
        // Python's client and older grpcurl know no other.
        routes.push(route(reflection().build_v1alpha()?));
        Ok(Self { routes: Arc::new(routes), own, journal, teller })
    }
}

fn route<S>(service: S) -> (&'static str, Route)
where
    S: Service<Request, Response = Response, Error = Infallible, Future = BoxFuture<Response, Infallible>>,
    S: NamedService + Clone + Send + Sync + 'static,
{
    (S::NAME, Box::new(move |request| service.clone().call(request)))
}

impl Service<Request> for Services {
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let mut request = request;
        let wanted = request.uri().path().split('/').nth(1).unwrap_or_default();
        let route = self.routes.iter().position(|(name, _)| *name == wanted);
        // What tonic brings along tells everybody the same.
        let is_own = route.is_none_or(|number| number < self.own);
        let trace = crate::services::trace(request.headers().get(TRACE).and_then(|value| value.to_str().ok()));
        // From here on it is this one, whoever answers.
        if let Ok(value) = http::HeaderValue::try_from(trace.to_string()) {
            request.headers_mut().insert(TRACE, value);
        }
        let watched = self.teller.as_ref().filter(|_| is_own).and_then(|teller| teller.watch(&mut request, trace));
        let answer: BoxFuture<Response, Infallible> = match route.and_then(|number| self.routes.get(number)) {
            Some((_, route)) => deadline::keep(request, &self.journal, route),
            None => Box::pin(async { Ok(Status::unimplemented("there is no such service").into_http()) }),
        };
        let Some(watched) = watched else { return answer };
        Box::pin(async move {
            let response = answer.await?;
            if let Some(ended) = watched.ends(&response) {
                watched.tell(ended).await;
            }
            Ok(response)
        })
    }
}
