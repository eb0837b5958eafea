//! `skep vm vnc`: a socket for a real viewer. `skep vm gdb`: one for gdb.

use super::Ctx;
use super::relay::{Gdb, Screen, announce, one, open, over_unix};
use crate::error::Failure;
use skep_api::v1::{GdbStub, GetMachineRequest, MachineState};
use skep_proto::Reason;
use std::net::SocketAddr;
use std::path::PathBuf;
use tokio::net::TcpListener;

/// Offers the screen to one viewer after the other, until ^C.
pub async fn run(ctx: Ctx, machine: String, listen: SocketAddr, path: Option<PathBuf>) -> Result<u8, Failure> {
    // Asked at once, so that a machine without a screen is said before a viewer comes.
    drop(open::<Screen>(&ctx.api, &machine).await?);
    let served = async {
        match path {
            Some(path) => over_unix::<Screen>(&ctx, &machine, path).await,
            None => over_tcp(&ctx, &machine, listen).await,
        }
    };
    tokio::select! {
        result = served => result,
        _ = tokio::signal::ctrl_c() => Ok(0),
    }
}

/// Offers the machine to one debugger after the other, until ^C.
pub async fn gdb(ctx: Ctx, machine: String, path: Option<PathBuf>) -> Result<u8, Failure> {
    // Looked up only: to join would stop the guest before gdb is there.
    let found = ctx.api.machines().get(GetMachineRequest { machine: machine.clone() }).await?.into_inner();
    let object = format!("machine {machine}");
    if found.settings.as_ref().is_none_or(|settings| matches!(settings.gdb(), GdbStub::Unspecified | GdbStub::Off)) {
        let failure = Failure::new(Reason::WrongState, object, "gdb is off");
        return Err(failure.advice(format!("skep vm set {machine} --gdb on; it applies at the guest's next reboot")));
    }
    if !matches!(found.state(), MachineState::Running | MachineState::Paused) {
        return Err(Failure::new(Reason::WrongState, object, "it does not run"));
    }
    let path = path.unwrap_or_else(|| PathBuf::from(format!("{}.gdb", found.name)));
    tokio::select! {
        result = over_unix::<Gdb>(&ctx, &machine, path) => result,
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
    announce::<Screen>(ctx, machine, &address.to_string());
    loop {
        let (viewer, _) = listener.accept().await.map_err(failed)?;
        let _ = viewer.set_nodelay(true);
        one::<Screen, _>(ctx, machine, viewer).await;
    }
}
