//! A copy of an image, from the client's request until the operation is done: of a large one against a small one.

use crate::api::Api;
use crate::report::{Outcome, Row};
use crate::stats::{Samples, ratio};
use crate::suite;
use anyhow::{Context, Result};
use std::io::{Seek, SeekFrom, Write};
use std::time::Instant;

/// Copies of each, in turn.
const TIMES: usize = 30;
/// MiB.
const SMALL: u64 = 10;
const LARGE: u64 = 10 << 10;
/// Of the large one that hold data.
const DATA: u64 = 1 << 10;
const LIMIT: f64 = 1.2;

pub fn run() -> Result<Outcome> {
    let suite = suite::start()?;
    for (name, size) in [("small", SMALL), ("large", LARGE)] {
        let path = suite.dir().join(name);
        let mut file = std::fs::File::create(&path)?;
        file.set_len(size << 20)?;
        // Spread over the whole.
        let pieces = DATA.min(size);
        for at in 0..pieces {
            file.seek(SeekFrom::Start((at * (size / pieces)) << 20))?;
            file.write_all(&vec![at.to_le_bytes()[0] | 1; 1 << 20])?;
        }
        file.set_len(size << 20)?;
        suite.ok(&["image", "import", name, path.to_str().context("a path")?])?;
        std::fs::remove_file(path)?;
    }
    let mut api = Api::connect(&suite.run.join("api.sock"))?;
    let (mut large, mut small) = (Samples::default(), Samples::default());
    for turn in 0..TIMES {
        for (image, samples) in [("large", &mut large), ("small", &mut small)] {
            let copy = format!("{image}-{turn}");
            let from = Instant::now();
            api.clone_disk(image, &copy)?;
            samples.add(from.elapsed());
        }
    }
    drop(api);
    suite::stop(suite)?;
    let value = ratio(large.p50(), small.p50());
    Ok(Outcome::Rows(vec![
        Row::ratio("a copy of an image of 10 GiB; value: against 10 MiB", &large, value, LIMIT),
        Row::floor("a copy of an image of 10 MiB", &small),
    ]))
}
