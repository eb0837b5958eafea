//! `skep vm vnc`: a socket for a real viewer.

use super::Ctx;
use crate::client::Api;
use crate::error::Failure;
use serde_json::json;
use skep_api::v1::{ScreenInput, ScreenOutput, screen_input};
use skep_proto::Reason;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

/// Bytes read at a time from a viewer.
const PIECE: usize = 16 << 10;

/// Offers the screen to one viewer after the other, until ^C.
pub async fn run(ctx: Ctx, machine: String, listen: SocketAddr, path: Option<PathBuf>) -> Result<u8, Failure> {
    // Asked at once, so that a machine without a screen is said before a viewer comes.
    drop(screen(&ctx.api, &machine).await?);
    let served = async {
        match path {
            Some(path) => over_unix(&ctx, &machine, path).await,
            None => over_tcp(&ctx, &machine, listen).await,
        }
    };
    tokio::select! {
        result = served => result,
        _ = tokio::signal::ctrl_c() => Ok(0),
    }
}

async fn over_tcp(ctx: &Ctx, machine: &str, listen: SocketAddr) -> Result<u8, Failure> {
    if !listen.ip().is_loopback() {
        let note = "RFB has no encryption and no login here: only an address of the loopback is accepted";
        return Err(Failure::new(Reason::InvalidValue, listen, note).advice("forward the port with ssh -L"));
    }
    let failed = |e: std::io::Error| Failure::io(listen, "listen", &e);
    let listener = TcpListener::bind(listen).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    announce(ctx, machine, &address.to_string());
    loop {
        let (viewer, _) = listener.accept().await.map_err(failed)?;
        let _ = viewer.set_nodelay(true);
        one(ctx, machine, viewer).await;
    }
}

async fn over_unix(ctx: &Ctx, machine: &str, path: PathBuf) -> Result<u8, Failure> {
    let failed = |e: std::io::Error| Failure::io(path.display(), "listen", &e);
    let listener = UnixListener::bind(&path).map_err(failed)?;
    let _remove = Remove(path.clone());
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    announce(ctx, machine, &path.to_string_lossy());
    loop {
        let (viewer, _) = listener.accept().await.map_err(failed)?;
        one(ctx, machine, viewer).await;
    }
}

struct Remove(PathBuf);
impl Drop for Remove {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn announce(ctx: &Ctx, machine: &str, place: &str) {
    if ctx.output.json {
        ctx.output.line(json!({"machine": machine, "vnc": place}));
    } else {
        ctx.output.line(place);
    }
}

/// One viewer; why its connection ended is a remark, and the next may come.
async fn one<V: AsyncRead + AsyncWrite>(ctx: &Ctx, machine: &str, viewer: V) {
    let relayed = match ctx.api.again().await {
        Ok(api) => relay(&api, machine, viewer).await,
        Err(failure) => Err(failure),
    };
    if let Err(failure) = relayed {
        ctx.output.warning(failure);
    }
}

async fn screen(api: &Api, machine: &str) -> Result<(mpsc::Sender<ScreenInput>, Streaming<ScreenOutput>), Failure> {
    let (to, inputs) = mpsc::channel(8);
    let first = ScreenInput { kind: Some(screen_input::Kind::Machine(machine.to_owned())) };
    let gone = |_| Failure::new(Reason::Unavailable, format_args!("screen {machine}"), "it ended at once");
    to.send(first).await.map_err(gone)?;
    let from = api.machines().screen(ReceiverStream::new(inputs)).await?.into_inner();
    Ok((to, from))
}

async fn relay<V: AsyncRead + AsyncWrite>(api: &Api, machine: &str, viewer: V) -> Result<(), Failure> {
    let (to, mut from) = screen(api, machine).await?;
    let (mut reader, mut writer) = tokio::io::split(viewer);
    let up = async {
        let mut buffer = vec![0; PIECE];
        while let Ok(got @ 1..) = reader.read(&mut buffer).await {
            let data = buffer.get(..got).unwrap_or_default().to_vec().into();
            if to.send(ScreenInput { kind: Some(screen_input::Kind::Data(data)) }).await.is_err() {
                return;
            }
        }
    };
    let down = async {
        while let Some(message) = from.message().await? {
            if writer.write_all(&message.data).await.is_err() {
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
