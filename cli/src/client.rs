//! The connection to the API.

use crate::error::Failure;
use crate::places::Places;
use crate::up;
use hyper_util::rt::TokioIo;
use skep_api::v1::{
    disks_client::DisksClient, events_client::EventsClient, firmware_client::FirmwareClient, host_client::HostClient,
    machines_client::MachinesClient, nics_client::NicsClient, operations_client::OperationsClient,
    switches_client::SwitchesClient,
};
use skep_proto::Reason;
use std::error::Error;
use std::io;
use std::time::{Duration, Instant};
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};

/// How long a frontend that is being restarted is waited for.
const RESTART: Duration = Duration::from_secs(10);

/// A connected client.
#[derive(Debug, Clone)]
pub struct Api {
    channel: Channel,
    places: Places,
}

macro_rules! services {
    ($($name:ident: $client:ident;)*) => {
        impl Api {
            $(#[doc = concat!("Client of the service of that name.")]
            pub fn $name(&self) -> $client<Channel> {
                $client::new(self.channel.clone()).max_decoding_message_size(2 * skep_api::MAX_MESSAGE)
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
}

impl Api {
    /// Connects. A socket that does not answer while the suite is up is tried again for a moment: it is being restarted.
    pub async fn connect(places: &Places) -> Result<Self, Failure> {
        let until = Instant::now() + RESTART;
        let mut pause = Duration::from_millis(10);
        loop {
            match dial(places).await {
                Ok(channel) => return Ok(Self { channel, places: places.clone() }),
                Err(failure) => {
                    let up = failure.is_unavailable() && up::is_up(places);
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
        Self::connect(&self.places).await
    }
}

async fn dial(places: &Places) -> Result<Channel, Failure> {
    let path = places.socket.clone();
    let connector = tower::service_fn(move |_| {
        let path = path.clone();
        async move { Ok::<_, io::Error>(TokioIo::new(UnixStream::connect(path).await?)) }
    });
    let endpoint = Endpoint::from_static("http://skep").user_agent(concat!("skep/", env!("CARGO_PKG_VERSION")));
    let connected = match endpoint {
        Ok(endpoint) => endpoint.connect_with_connector(connector).await,
        Err(error) => Err(error),
    };
    connected.map_err(|error| refused(places, &error))
}

fn refused(places: &Places, error: &tonic::transport::Error) -> Failure {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(this) = cause {
        if let Some(io) = this.downcast_ref::<io::Error>() {
            let reason = match io.kind() {
                io::ErrorKind::PermissionDenied => Reason::PermissionDenied,
                _ => Reason::Unavailable,
            };
            let failure = Failure::new(reason, places.socket.display(), format_args!("connect: {io}"));
            return match io.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                    failure.advice("start the suite with `skep up`, or say where it is with --socket")
                }
                _ => failure,
            };
        }
        cause = this.source();
    }
    Failure::new(Reason::Unavailable, places.socket.display(), error)
}
