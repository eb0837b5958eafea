//! The connection to the API.

use crate::error::Failure;
use crate::places::Places;
use crate::remote::{self, Address, Login};
use crate::up;
use hyper_util::rt::TokioIo;
use skep_api::v1::{
    disks_client::DisksClient, events_client::EventsClient, firmware_client::FirmwareClient, groups_client::GroupsClient,
    host_client::HostClient, machines_client::MachinesClient, nics_client::NicsClient, operations_client::OperationsClient,
    switches_client::SwitchesClient, users_client::UsersClient,
};
use skep_proto::Reason;
use std::error::Error;
use std::io;
use std::time::{Duration, Instant};
use tokio::net::UnixStream;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use zeroize::Zeroizing;

/// How long a frontend that is being restarted is waited for.
const RESTART: Duration = Duration::from_secs(10);

/// gRPC writes at most eight digits, of hours here.
const LONGEST: Duration = Duration::from_secs(99_999_999 * 3600);

/// A connected client.
#[derive(Clone)]
pub struct Api {
    channel: Channel,
    bearing: Bearing,
    places: Places,
    login: Option<Login>,
}

/// What each call bears.
#[derive(Clone, Default)]
pub struct Bearing {
    token: Option<MetadataValue<Ascii>>,
    /// How long its answer may take.
    within: Option<Duration>,
}

impl Interceptor for Bearing {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.token {
            request.metadata_mut().insert("authorization", token.clone());
        }
        limit(&mut request, self.within);
        Ok(request)
    }
}

/// Gives a call its deadline.
pub fn limit<T>(request: &mut Request<T>, within: Option<Duration>) {
    if let Some(within) = within {
        request.set_timeout(within.min(LONGEST));
    }
}

type Authorised = InterceptedService<Channel, Bearing>;

macro_rules! services {
    ($($name:ident: $client:ident;)*) => {
        impl Api {
            $(#[doc = concat!("Client of the service of that name.")]
            pub fn $name(&self) -> $client<Authorised> {
                $client::with_interceptor(self.channel.clone(), self.bearing.clone()).max_decoding_message_size(2 * skep_api::MAX_MESSAGE)
            })*
        }
    };
}
services! {
    machines: MachinesClient;
    firmware: FirmwareClient;
    disks: DisksClient;
    switches: SwitchesClient;
    nics: NicsClient;
    operations: OperationsClient;
    events: EventsClient;
    host: HostClient;
    users: UsersClient;
    groups: GroupsClient;
}

impl Api {
    /// Connects to the suite here.
    pub async fn connect(places: &Places) -> Result<Self, Failure> {
        Self::connect_to(places, None, None).await
    }

    /// Connects to the suite of a login, or to the one here. A socket that does not answer while the suite is up is tried again
    /// for a moment: it is being restarted. Each call, and connecting, too, may take as long as `within` says; none: as it takes.
    pub async fn connect_to(places: &Places, login: Option<Login>, within: Option<Duration>) -> Result<Self, Failure> {
        let connected = Self::dial(places, login, within);
        match within {
            None => connected.await,
            Some(within) => tokio::time::timeout(within, connected).await.unwrap_or_else(|_| Err(Failure::late("connect"))),
        }
    }

    async fn dial(places: &Places, login: Option<Login>, within: Option<Duration>) -> Result<Self, Failure> {
        let until = Instant::now() + RESTART;
        let mut pause = Duration::from_millis(10);
        let bearing = Bearing { token: login.as_ref().map(token).transpose()?, within };
        loop {
            let dialled = match &login {
                Some(login) => dial_tls(&login.address, &login.fingerprint).await,
                None => dial(places).await,
            };
            match dialled {
                Ok(channel) => return Ok(Self { channel, bearing, places: places.clone(), login }),
                Err(failure) => {
                    let up = login.is_none() && failure.is_unavailable() && up::is_up(places);
                    if !up || Instant::now() + pause > until {
                        return Err(failure);
                    }
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(1));
        }
    }

    /// Connects anew, to the same.
    pub async fn again(&self) -> Result<Self, Failure> {
        Self::connect_to(&self.places, self.login.clone(), self.bearing.within).await
    }
}

fn token(login: &Login) -> Result<MetadataValue<Ascii>, Failure> {
    let wrong = |_| {
        Failure::new(Reason::InvalidValue, format_args!("login {}", login.address), "its token is none").advice("log in again")
    };
    let mut value: MetadataValue<Ascii> = Zeroizing::new(format!("Bearer {}", *login.token)).parse().map_err(wrong)?;
    value.set_sensitive(true);
    Ok(value)
}

fn endpoint() -> Result<Endpoint, tonic::transport::Error> {
    // TLS is the connector's, so it is HTTP for the rest.
    Endpoint::from_static("http://skep").user_agent(concat!("skep/", env!("CARGO_PKG_VERSION")))
}

async fn dial(places: &Places) -> Result<Channel, Failure> {
    let path = places.socket.clone();
    let connector = tower::service_fn(move |_| {
        let path = path.clone();
        async move { Ok::<_, io::Error>(TokioIo::new(UnixStream::connect(path).await?)) }
    });
    let connected = match endpoint() {
        Ok(endpoint) => endpoint.connect_with_connector(connector).await,
        Err(error) => Err(error),
    };
    connected.map_err(|error| refused(places, &error))
}

/// Connects to whom the certificate with this fingerprint belongs.
pub async fn dial_tls(address: &Address, fingerprint: &str) -> Result<Channel, Failure> {
    let (to, pinned) = (address.clone(), fingerprint.to_owned());
    let connector = tower::service_fn(move |_| {
        let (to, pinned) = (to.clone(), pinned.clone());
        async move { Ok::<_, io::Error>(TokioIo::new(remote::connect(&to, &pinned).await?)) }
    });
    let connected = match endpoint() {
        Ok(endpoint) => endpoint.connect_with_connector(connector).await,
        Err(error) => Err(error),
    };
    connected.map_err(|error| {
        let io = io_cause(&error);
        if io.and_then(io::Error::get_ref).is_some_and(|inner| inner.is::<remote::Changed>()) {
            let failure = Failure::new(Reason::Unauthenticated, address, io.map(ToString::to_string).unwrap_or_default());
            return failure.advice("ask its administrator, then `skep login --fingerprint` with the right one; nothing was sent");
        }
        let why = io.map_or_else(|| error.to_string(), ToString::to_string);
        Failure::new(Reason::Unavailable, address, format_args!("connect: {why}"))
            .advice("see whether the suite there is up, with `listen`")
    })
}

fn io_cause(error: &tonic::transport::Error) -> Option<&io::Error> {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(this) = cause {
        if let Some(io) = this.downcast_ref::<io::Error>() {
            return Some(io);
        }
        cause = this.source();
    }
    None
}

fn refused(places: &Places, error: &tonic::transport::Error) -> Failure {
    let Some(io) = io_cause(error) else { return Failure::new(Reason::Unavailable, places.socket.display(), error) };
    let reason = match io.kind() {
        io::ErrorKind::PermissionDenied => Reason::PermissionDenied,
        _ => Reason::Unavailable,
    };
    let failure = Failure::new(reason, places.socket.display(), format_args!("connect: {io}"));
    match io.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            failure.advice("start the suite with `skep up`, or say where it is with --socket")
        }
        _ => failure,
    }
}
