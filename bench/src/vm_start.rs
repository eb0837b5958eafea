//! The start of a machine, from the client's request until the guest runs, against a bare exec of the same hypervisor with the same
//! configuration in a cell that is made of the same parts and of nothing else.

use crate::api::Api;
use crate::platform::Bare;
use crate::report::{Outcome, Row};
use crate::stats::{Samples, ratio};
use crate::suite;
use anyhow::Result;
use skep_tests::guest;
use std::time::Instant;

/// Starts of each kind, in turn.
const PAIRS: usize = 30;
const LIMIT: f64 = 1.5;

pub fn run() -> Result<Outcome> {
    suite::single_threaded()?;
    let guest = guest()?;
    let suite = suite::start()?;
    suite.import_guest()?;
    suite.define("m", &[])?;
    let mut api = Api::connect(&suite.run.join("api.sock"))?;
    // Not counted: it warms up, and shows the command line and the configuration.
    api.start("m")?;
    let bare = Bare::like(&suite, &guest)?;
    api.kill("m")?;
    bare.start()?.end()?;

    let (mut ours, mut floor) = (Samples::default(), Samples::default());
    for _ in 0..PAIRS {
        let from = Instant::now();
        api.start("m")?;
        ours.add(from.elapsed());
        api.kill("m")?;
        let from = Instant::now();
        let hypervisor = bare.start()?;
        floor.add(from.elapsed());
        hypervisor.end()?;
    }
    drop(api);
    suite::stop(suite)?;
    let value = ratio(ours.p50(), floor.p50());
    Ok(Outcome::Rows(vec![
        Row::ratio("from the client's request until the guest runs", &ours, value, LIMIT),
        Row::floor("floor: exec of the same hypervisor in a bare cell until the guest runs", &floor),
    ]))
}
