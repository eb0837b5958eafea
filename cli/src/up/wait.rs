//! Waiting until the suite answers.

use crate::client::Api;
use crate::commands::block_on;
use crate::error::Failure;
use crate::places::Places;
use skep_api::v1::ShowHostRequest;
use skep_proto::Reason;
use std::time::{Duration, Instant};

/// Longest that a suite may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Helpers that the broker must have.
const HELPERS: [&str; 3] = ["storage-helper", "net-helper", "vm-runner"];

/// Returns when the API answers and the broker has all its helpers. Services connect to each other with back-off, and so does this.
pub fn answers(places: &Places) -> Result<(), Failure> {
    block_on(async {
        let until = Instant::now() + PATIENCE;
        let mut pause = Duration::from_millis(10);
        loop {
            let missing = match ask(places).await {
                Ok(missing) if missing.is_empty() => return Ok(()),
                Ok(missing) => Failure::new(Reason::Unavailable, missing.join(", "), "no answer"),
                Err(failure) if failure.is_unavailable() => failure,
                Err(failure) => return Err(failure),
            };
            if Instant::now() + pause > until {
                return Err(missing.advice("see `skep log`"));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(500));
        }
    })
}

/// The helpers that do not answer.
async fn ask(places: &Places) -> Result<Vec<&'static str>, Failure> {
    let host = Api::connect(places).await?.host().show(ShowHostRequest {}).await?.into_inner();
    Ok(HELPERS.into_iter().filter(|name| !host.helpers.iter().any(|h| h == name)).collect())
}
