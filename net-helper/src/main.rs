//! acquire → limit → enter → serve.
#![forbid(unsafe_code)]

use skep_net_helper::key::PrivateKey;
use skep_net_helper::platform::{Host, HostError, other_role};
use skep_net_helper::serve::Given;
use skep_net_helper::{Acquired, serve};
use skep_proto::IfName;
use skep_rights::net::TABLE;
use skep_sandbox::{EnterError, enter, limit};
use skep_service::{Role, Start, StartError};
use std::net::IpAddr;
use std::process::ExitCode;

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Host(#[from] HostError),
    #[error(transparent)]
    Sandbox(#[from] EnterError),
    #[error("{0}")]
    Serve(#[from] std::io::Error),
}

fn start() -> Result<(), Error> {
    let start = Start::from_args(&["uplinks", "resolvers", "fetch-from", "iscsi-portals"])?;
    let uplinks = uplinks(start.extra.get("uplinks").map_or("", String::as_str)).map_err(StartError::Flags)?;
    let resolvers = resolvers(start.extra.get("resolvers").map_or("", String::as_str)).map_err(StartError::Flags)?;
    let networks = |flag: &str| {
        let all = start.extra.get(flag).map_or("", String::as_str).split(',').filter(|network| !network.is_empty());
        let all = all.map(|network| network.parse().map_err(|e| format!("--{flag} {e}")));
        all.collect::<Result<_, _>>().map_err(StartError::Flags)
    };
    let (fetch_from, iscsi_portals) = (networks("fetch-from")?, networks("iscsi-portals")?);
    let mut scene = start.scene(Role::Net);
    let mut host = Host::acquire(&mut scene.identity)?;
    if start.ids.is_some() {
        host = host.with_outside(&std::env::current_exe()?, start.instance, &uplinks)?.with_key(PrivateKey::of(&start.state));
    }
    let acquired = Acquired { listener: start.bind(Role::Net, Role::Broker)?, host, journal: start.journal(TABLE.name)? };
    let inside = enter(limit(acquired, &TABLE)?, &scene)?;
    Ok(serve(
        inside,
        start.instance,
        start.ids.is_some(),
        Given { uplinks, resolvers, fetch_from, iscsi_portals },
        start.allowed(Role::Broker),
    )?)
}

/// The interfaces that this host's administrator gives to switches: names between commas.
fn uplinks(text: &str) -> Result<Vec<IfName>, String> {
    let names = text.split(',').filter(|name| !name.is_empty());
    names.map(|name| name.parse().map_err(|e| format!("--uplinks {name}: {e}"))).collect()
}

/// Whom names are asked of: addresses between commas.
fn resolvers(text: &str) -> Result<Vec<IpAddr>, String> {
    let addresses = text.split(',').filter(|address| !address.is_empty());
    addresses.map(|address| address.parse().map_err(|e| format!("--resolvers {address}: {e}"))).collect()
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some(ended) = other_role(&arguments) {
        return ended.map_or_else(
            |error| {
                eprintln!("{}: {error}", skep_rights::net::OUTSIDE.name);
                ExitCode::FAILURE
            },
            |()| ExitCode::SUCCESS,
        );
    }
    skep_service::run(TABLE.name, start)
}
