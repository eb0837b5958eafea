//! Many machines defined: what the answers to one call cost when there are a hundred times as many, and the same calls of libvirt.

use crate::api::Api;
use crate::platform;
use crate::report::{Outcome, Row};
use crate::stats::{Samples, ratio};
use crate::suite;
use anyhow::{Result, ensure};
use std::time::Instant;

const FEW: usize = 100;
const MANY: usize = 10_000;
/// Of each call.
const CALLS: usize = 1_000;
/// Lists of all: they are long.
const LISTS: usize = 100;
/// The tolerance of "does not grow".
const LIMIT: f64 = 1.5;

/// The calls, as both do them.
#[derive(Debug, Clone, Default)]
pub struct Measured {
    /// All machines.
    pub list: Samples,
    /// One machine.
    pub show: Samples,
    /// A description is changed, and kept.
    pub edit: Samples,
    /// From then until whoever watches hears of it.
    pub event: Samples,
    /// MiB of the process that keeps them.
    pub mib: f64,
}

/// Whoever keeps machines.
pub trait Keeper {
    /// Defines machines up to this number.
    fn define(&mut self, from: usize, to: usize) -> Result<()>;
    /// Lists all; how many there are.
    fn list(&mut self) -> Result<usize>;
    /// Shows one.
    fn show(&mut self, name: &str) -> Result<()>;
    /// Changes what is said of one.
    fn edit(&mut self, name: &str, description: &str) -> Result<()>;
    /// Waits until the watch says that this one was changed.
    fn heard(&mut self, name: &str) -> Result<()>;
    /// MiB of the process that keeps them.
    fn mib(&mut self) -> Result<f64>;
}

/// The name of a machine.
pub fn name(number: usize) -> String {
    format!("machine-{number:05}")
}

pub fn run() -> Result<Outcome> {
    let suite = suite::start()?;
    let mut api = Api::connect(&suite.run.join("api.sock"))?;
    api.watch()?;
    let broker = platform::services(&suite)?.into_iter().find(|(_, name)| name.contains("broker")).map(|(pid, _)| pid);
    let mut ours = Ours { api, broker };
    let (few, many) = (measure(&mut ours, 0, FEW)?, measure(&mut ours, FEW, MANY)?);
    drop(ours);
    suite::stop(suite)?;
    let mut rows = Vec::new();
    rows.extend(listed(&few.list, &many.list));
    for (what, few, many) in [
        ("show one", &few.show, &many.show),
        ("edit one", &few.edit, &many.edit),
        ("edit until its event has come", &few.event, &many.event),
    ] {
        rows.extend(grown(what, few, many));
    }
    rows.push(Row::size(format!("broker, {FEW} machines"), few.mib, None));
    rows.push(Row::size(format!("broker, {MANY} machines"), many.mib, None));
    match platform::libvirt(FEW, MANY) {
        Ok((few, many)) => rows.extend(beside(&few, &many)),
        Err(why) => rows.push(Row::remark(format!("libvirt: skipped: {why:#}"))),
    }
    Ok(Outcome::Rows(rows))
}

/// The two that are judged, and which part of the samples they do not exceed.
const JUDGED: [(&str, f64); 2] = [("median", 0.5), ("p99", 0.99)];

/// A call whose answer is as large whatever there is beside: neither median nor p99 may grow.
fn grown(what: &str, few: &Samples, many: &Samples) -> Vec<Row> {
    let judged = JUDGED.map(|(called, part)| {
        let value = ratio(many.quantile(part), few.quantile(part));
        Row::ratio(format!("{what} of {MANY}; value: {called} against {FEW}"), many, value, LIMIT)
    });
    judged.into_iter().chain([Row::floor(format!("{what} of {FEW}"), few)]).collect()
}

/// Lists: of each machine that is in the answer.
fn listed(few: &Samples, many: &Samples) -> Vec<Row> {
    let judged = JUDGED.map(|(called, part)| {
        let value = ratio(many.quantile(part), few.quantile(part)) * FEW as f64 / MANY as f64;
        Row::ratio(format!("list, {MANY} machines; value: {called} per machine against {FEW}"), many, value, LIMIT)
    });
    judged.into_iter().chain([Row::floor(format!("list, {FEW} machines"), few)]).collect()
}

/// libvirt's rows.
fn beside(few: &Measured, many: &Measured) -> Vec<Row> {
    let mut rows = Vec::new();
    for (count, measured) in [(FEW, few), (MANY, many)] {
        for (what, samples) in [
            ("list", &measured.list),
            ("show one", &measured.show),
            ("edit one", &measured.edit),
            ("edit until its event has come", &measured.event),
        ] {
            rows.push(Row::floor(format!("libvirt: {what}, {count} domains"), samples));
        }
        rows.push(Row::size(format!("libvirt: libvirtd, {count} domains"), measured.mib, None));
    }
    rows
}

/// Defines machines, then times each call.
pub fn measure(keeper: &mut impl Keeper, from: usize, count: usize) -> Result<Measured> {
    keeper.define(from, count)?;
    let mut measured = Measured::default();
    for _ in 0..LISTS {
        let begun = Instant::now();
        let found = keeper.list()?;
        measured.list.add(begun.elapsed());
        ensure!(found == count, "{found} machines listed of {count}");
    }
    for call in 0..CALLS {
        // Every one as likely as any other, and the same in each run.
        let one = name(call.wrapping_mul(2_654_435_761) % count);
        let begun = Instant::now();
        keeper.show(&one)?;
        measured.show.add(begun.elapsed());
        let begun = Instant::now();
        keeper.edit(&one, &format!("call {call} of {count}"))?;
        measured.edit.add(begun.elapsed());
        keeper.heard(&one)?;
        measured.event.add(begun.elapsed());
    }
    measured.mib = keeper.mib()?;
    Ok(measured)
}

struct Ours {
    api: Api,
    broker: Option<i32>,
}

impl Keeper for Ours {
    fn define(&mut self, from: usize, to: usize) -> Result<()> {
        (from..to).try_for_each(|number| self.api.create(&name(number)))
    }
    fn list(&mut self) -> Result<usize> {
        self.api.list()
    }
    fn show(&mut self, name: &str) -> Result<()> {
        self.api.show(name)
    }
    fn edit(&mut self, name: &str, description: &str) -> Result<()> {
        self.api.describe(name, description)
    }
    fn heard(&mut self, name: &str) -> Result<()> {
        self.api.heard(name)
    }
    fn mib(&mut self) -> Result<f64> {
        let size = self.broker.map_or(Ok(0), platform::pss)?;
        Ok(size as f64 / f64::from(1 << 20))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Outcome;

    /// A thousand times of this many nanoseconds, twenty of which are longer.
    fn times(usual: u64, longest: u64) -> Samples {
        (0..1_000).map(|n| if n % 50 == 0 { longest } else { usual }).collect()
    }

    #[test]
    fn what_grows_only_at_its_slowest_is_not_met() {
        let met = |rows| Outcome::Rows(rows).is_met();
        let few = times(1_000, 2_000);
        assert!(met(grown("show one", &few, &times(1_000, 2_900))));
        assert!(!met(grown("show one", &few, &times(1_000, 3_100))));
        assert!(!met(grown("show one", &few, &times(1_600, 2_000))));
        // A hundred times as many machines take a hundred times as long.
        assert!(met(listed(&few, &times(100_000, 200_000))));
        assert!(!met(listed(&few, &times(100_000, 310_000))));
        assert!(!met(listed(&few, &times(160_000, 200_000))));
    }
}
