//! A stream of a machine's, offered on a local socket to whatever program speaks its language: a VNC viewer, gdb.

use super::Ctx;
use crate::client::Api;
use crate::error::Failure;
use serde_json::json;
use skep_api::v1::{GdbInput, GdbOutput, ScreenInput, ScreenOutput, gdb_input, screen_input};
use skep_proto::Reason;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

/// Bytes read at a time from a client.
const PIECE: usize = 16 << 10;

/// A kind of stream: its first message names the machine, all others are bytes.
pub trait Kind {
    /// What it is called, in what is printed and in failures.
    const NAME: &'static str;
    /// To the machine.
    type In: Send + 'static;
    /// From it.
    type Out;
    /// The first message.
    fn first(machine: String) -> Self::In;
    /// Any other.
    fn data(bytes: Vec<u8>) -> Self::In;
    /// Bytes that came.
    fn bytes(out: &Self::Out) -> &[u8];
    /// Opens it.
    async fn open(api: &Api, inputs: ReceiverStream<Self::In>) -> Result<Streaming<Self::Out>, Status>;
}

/// RFB.
pub enum Screen {}

impl Kind for Screen {
    const NAME: &'static str = "vnc";
    type In = ScreenInput;
    type Out = ScreenOutput;
    fn first(machine: String) -> ScreenInput {
        ScreenInput { kind: Some(screen_input::Kind::Machine(machine)) }
    }
    fn data(bytes: Vec<u8>) -> ScreenInput {
        ScreenInput { kind: Some(screen_input::Kind::Data(bytes.into())) }
    }
    fn bytes(out: &ScreenOutput) -> &[u8] {
        &out.data
    }
    async fn open(api: &Api, inputs: ReceiverStream<ScreenInput>) -> Result<Streaming<ScreenOutput>, Status> {
        Ok(api.machines().screen(inputs).await?.into_inner())
    }
}

/// gdb's remote protocol.
pub enum Gdb {}

impl Kind for Gdb {
    const NAME: &'static str = "gdb";
    type In = GdbInput;
    type Out = GdbOutput;
    fn first(machine: String) -> GdbInput {
        GdbInput { kind: Some(gdb_input::Kind::Machine(machine)) }
    }
    fn data(bytes: Vec<u8>) -> GdbInput {
        GdbInput { kind: Some(gdb_input::Kind::Data(bytes.into())) }
    }
    fn bytes(out: &GdbOutput) -> &[u8] {
        &out.data
    }
    async fn open(api: &Api, inputs: ReceiverStream<GdbInput>) -> Result<Streaming<GdbOutput>, Status> {
        Ok(api.machines().gdb(inputs).await?.into_inner())
    }
}

/// Offers it on a UNIX socket of the caller's own, to one client after the other, for ever.
pub async fn over_unix<K: Kind>(ctx: &Ctx, machine: &str, path: PathBuf) -> Result<u8, Failure> {
    let failed = |e: std::io::Error| Failure::io(path.display(), "listen", &e);
    let listener = UnixListener::bind(&path).map_err(failed)?;
    let _remove = Remove(path.clone());
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    announce::<K>(ctx, machine, &path.to_string_lossy());
    loop {
        let (client, _) = listener.accept().await.map_err(failed)?;
        one::<K, _>(ctx, machine, client).await;
    }
}

struct Remove(PathBuf);
impl Drop for Remove {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Says where it is offered.
pub fn announce<K: Kind>(ctx: &Ctx, machine: &str, place: &str) {
    if ctx.output.json {
        ctx.output.line(json!({"machine": machine, K::NAME: place}));
    } else {
        ctx.output.line(place);
    }
}

/// One client; why its connection ended is a remark, and the next may come.
pub async fn one<K: Kind, V: AsyncRead + AsyncWrite>(ctx: &Ctx, machine: &str, client: V) {
    let relayed = match ctx.api.again().await {
        Ok(api) => relay::<K, V>(&api, machine, client).await,
        Err(failure) => Err(failure),
    };
    if let Err(failure) = relayed {
        ctx.output.warning(failure);
    }
}

/// Both ways of an open stream.
pub type Ends<K> = (mpsc::Sender<<K as Kind>::In>, Streaming<<K as Kind>::Out>);

/// Opens it.
pub async fn open<K: Kind>(api: &Api, machine: &str) -> Result<Ends<K>, Failure> {
    let (to, inputs) = mpsc::channel(8);
    let gone = |_| Failure::new(Reason::Unavailable, format_args!("{} {machine}", K::NAME), "it ended at once");
    to.send(K::first(machine.to_owned())).await.map_err(gone)?;
    let from = K::open(api, ReceiverStream::new(inputs)).await?;
    Ok((to, from))
}

async fn relay<K: Kind, V: AsyncRead + AsyncWrite>(api: &Api, machine: &str, client: V) -> Result<(), Failure> {
    let (to, mut from) = open::<K>(api, machine).await?;
    let (mut reader, mut writer) = tokio::io::split(client);
    let up = async {
        let mut buffer = vec![0; PIECE];
        while let Ok(got @ 1..) = reader.read(&mut buffer).await {
            if to.send(K::data(buffer.get(..got).unwrap_or_default().to_vec())).await.is_err() {
                return;
            }
        }
    };
    let down = async {
        while let Some(message) = from.message().await? {
            if writer.write_all(K::bytes(&message)).await.is_err() {
                break;
            }
        }
        Ok(())
    };
    tokio::select! {
        () = up => Ok(()),
        result = down => result,
    }
}
