//! acquire → limit → enter → serve.
#![forbid(unsafe_code)]

use skep_net_helper::platform::{Host, HostError};
use skep_net_helper::{Acquired, serve};
use skep_rights::net::TABLE;
use skep_sandbox::{EnterError, enter, limit};
use skep_service::{Role, Start, StartError};
use std::process::ExitCode;

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Host(#[from] HostError),
    #[error(transparent)]
    Sandbox(#[from] EnterError),
    #[error("poll: {0}")]
    Serve(#[from] std::io::Error),
}

fn start() -> Result<(), Error> {
    let start = Start::from_args(&[])?;
    let mut scene = start.scene(Role::Net);
    let acquired = Acquired {
        listener: start.bind(Role::Net, Role::Broker)?,
        host: Host::acquire(&mut scene.identity)?,
        journal: start.journal(TABLE.name)?,
    };
    let inside = enter(limit(acquired, &TABLE)?, &scene)?;
    Ok(serve(inside, start.instance, start.ids.is_some(), start.allowed(Role::Broker))?)
}

fn main() -> ExitCode {
    skep_service::run(TABLE.name, start)
}
