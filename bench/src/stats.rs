//! Samples and what is said of them.

use std::time::Duration;

/// Times of one thing, done over and over.
#[derive(Debug, Clone, Default)]
pub struct Samples(Vec<Duration>);

impl Samples {
    /// Adds one.
    pub fn add(&mut self, time: Duration) {
        self.0.push(time);
    }
    /// All of them, in nanoseconds: beside libvirt's.
    #[allow(dead_code, reason = "libvirt is Linux's")]
    pub fn nanos(&self) -> impl Iterator<Item = u128> {
        self.0.iter().map(Duration::as_nanos)
    }
    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }
    /// The time that this part of the samples, 0 to 1, does not exceed (nearest rank); 0 without samples.
    pub fn quantile(&self, part: f64) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let rank = (part * sorted.len() as f64).ceil() as usize;
        sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied().unwrap_or_default()
    }
    /// The median.
    pub fn p50(&self) -> Duration {
        self.quantile(0.5)
    }
}

impl FromIterator<u64> for Samples {
    fn from_iter<I: IntoIterator<Item = u64>>(nanos: I) -> Self {
        Self(nanos.into_iter().map(Duration::from_nanos).collect())
    }
}

/// How many times `floor` fits into `ours`.
pub fn ratio(ours: Duration, floor: Duration) -> f64 {
    ours.as_secs_f64() / floor.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_samples_by_nearest_rank() {
        let mut samples = Samples::default();
        for n in (1..=100).rev() {
            samples.add(Duration::from_micros(n));
        }
        assert_eq!([0.0, 0.5, 0.99, 1.0].map(|part| samples.quantile(part).as_micros()), [1, 50, 99, 100]);
        assert_eq!(Samples::default().p50(), Duration::ZERO);
    }
}
