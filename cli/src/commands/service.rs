//! What rc.d and systemd call: the same steps as `skep up`, one at a time.

use super::block_on;
use crate::args::{ReadyArgs, ServiceArgs};
use crate::client::Api;
use crate::error::Failure;
use crate::installed::Installed;
use crate::output::Output;
use crate::places::Places;
use crate::platform;
use crate::up::{self, Prepared};
use serde_json::json;
use skep_api::v1::ShowHostRequest;
use skep_proto::Reason;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};

/// Makes what the services need.
pub fn prepare(places: &Places, output: Output) -> Result<u8, Failure> {
    let prepared = up::prepare(places, &up::Options::default())?;
    if output.json {
        output.line(json!({"instance": prepared.instance.to_string(), "ids": prepared.ids}));
    }
    Ok(0)
}

/// Becomes a service; returns only if that failed.
pub fn become_it(places: &Places, args: &ServiceArgs) -> Result<u8, Failure> {
    let prepared = Prepared::load(places).map_err(|e| Failure::from(e).advice("`skep prepare` makes what is missing"))?;
    let installed = places.installed.as_ref();
    let address = |of: fn(&Installed) -> Option<SocketAddr>| installed.and_then(of).map(|address| address.to_string());
    let options = up::Options { listen: address(|i| i.listen), metrics: address(|i| i.metrics), ..up::Options::default() };
    let (program, flags) = prepared.command(places, &args.name, &options);
    if let Some(jail) = &args.jail {
        platform::enter_jail(jail).map_err(|e| Failure::io(format_args!("jail {jail}"), "enter it", &e))?;
    }
    let error = Command::new(&program).args(flags).env_clear().current_dir("/").exec();
    Err(Failure::io(program.display(), "start it", &error))
}

/// Waits until the broker answers through the frontend. Both may still be starting.
pub fn ready(places: &Places, args: &ReadyArgs, output: Output) -> Result<u8, Failure> {
    let until = Instant::now() + args.timeout;
    block_on(async {
        let mut pause = Duration::from_millis(10);
        loop {
            let asked = async {
                Api::connect(places).await?.host().show(ShowHostRequest {}).await?;
                Ok::<_, Failure>(())
            };
            match tokio::time::timeout_at(until.into(), asked).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(failure)) if !failure.is_unavailable() || Instant::now() + pause > until => return Err(failure),
                Err(_) => {
                    return Err(Failure::new(Reason::Unavailable, places.socket.display(), "it does not answer in time"));
                }
                // Nothing tells when a socket begins to be listened at.
                Ok(Err(_)) => tokio::time::sleep(pause).await,
            }
            pause = (pause * 2).min(Duration::from_secs(1));
        }
    })?;
    if output.json {
        output.line(json!({"ready": true}));
    }
    Ok(0)
}

/// Prints where the suite lives.
pub fn places(places: &Places, output: Output) -> Result<u8, Failure> {
    let address = |of: fn(&Installed) -> Option<SocketAddr>| places.installed.as_ref().and_then(of).map(|a| a.to_string());
    let (listen, metrics) = (address(|i| i.listen), address(|i| i.metrics));
    let dataset = up::dataset(places)?;
    if output.json {
        output.line(json!({
            "state": places.state, "run": places.run, "socket": places.socket, "listen": listen, "metrics": metrics,
            "dataset": dataset, "installed": places.installed.is_some(),
        }));
        return Ok(0);
    }
    let quoted = |text: String| format!("'{}'", text.replace('\'', "'\\''"));
    for (name, path) in [("state", &places.state), ("run", &places.run), ("socket", &places.socket)] {
        output.line(format_args!("{name}={}", quoted(path.display().to_string())));
    }
    output.line(format_args!("listen={}", quoted(listen.unwrap_or_default())));
    output.line(format_args!("metrics={}", quoted(metrics.unwrap_or_default())));
    output.line(format_args!("dataset={}", quoted(dataset.unwrap_or_default())));
    Ok(0)
}
