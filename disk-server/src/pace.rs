//! A disk that is held to rates: how long a request has to wait.

use skep_proto::DiskRates;
use std::time::{Duration, Instant};

/// What goes at once, if nothing went before.
const BURST: Duration = Duration::from_millis(100);

/// One rate.
#[derive(Debug)]
struct Rate {
    /// In a second; 0: any.
    each_second: u64,
    /// When what has passed so far had passed at this rate.
    due: Instant,
}

impl Rate {
    /// How long something that comes `now` has to wait.
    fn wait(&self, now: Instant) -> Duration {
        if self.each_second == 0 { Duration::ZERO } else { self.due.saturating_duration_since(now) }
    }

    /// So much passes `now`.
    fn pass(&mut self, now: Instant, amount: u64) {
        if self.each_second == 0 {
            return;
        }
        let nanos = u128::from(amount) * 1_000_000_000 / u128::from(self.each_second);
        let took = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let from = now.checked_sub(BURST).map_or(self.due, |earliest| self.due.max(earliest));
        self.due = from.checked_add(took).unwrap_or(from);
    }
}

/// See the module.
#[derive(Debug)]
pub struct Pace {
    /// Bytes and requests.
    reads: [Rate; 2],
    writes: [Rate; 2],
}

impl Pace {
    /// Held to these from `now` on.
    pub fn new(rates: DiskRates, now: Instant) -> Self {
        let rate = |each_second| Rate { each_second, due: now };
        Self { reads: [rate(rates.read_bps), rate(rates.read_iops)], writes: [rate(rates.write_bps), rate(rates.write_iops)] }
    }

    /// How long a request of `bytes` that comes `now` has to wait; it is counted as passing then.
    pub fn wait(&mut self, writes: bool, bytes: u64, now: Instant) -> Duration {
        let rates = if writes { &mut self.writes } else { &mut self.reads };
        let wait = rates.iter().map(|rate| rate.wait(now)).max().unwrap_or_default();
        let passes = now.checked_add(wait).unwrap_or(now);
        for (rate, amount) in rates.iter_mut().zip([bytes, 1]) {
            rate.pass(passes, amount);
        }
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_passes_what_the_rates_allow_and_each_way_by_itself() {
        let begun = Instant::now();
        let rates = DiskRates { read_bps: 1 << 20, write_bps: 0, read_iops: 0, write_iops: 100 };
        let mut pace = Pace::new(rates, begun);
        let mut now = begun;
        for _ in 0..64 {
            now += pace.wait(false, 65536, now);
        }
        // 4 MiB at 1 MiB a second, of which a tenth and the last request do not wait.
        let took = now - begun;
        assert!((3_700..4_000).contains(&took.as_millis()), "{took:?}");
        for _ in 0..300 {
            now += pace.wait(true, 1 << 20, now);
        }
        let took = now - begun - took;
        assert!((2_850..3_000).contains(&took.as_millis()), "{took:?}");
        let mut free = Pace::new(DiskRates::default(), begun);
        assert_eq!(free.wait(true, u64::MAX, begun), Duration::ZERO);
        assert_eq!(free.wait(false, u64::MAX, begun), Duration::ZERO);
    }
}
