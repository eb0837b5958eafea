//! What is recorded of those who have shown nothing that counts: some of it, from wherever they come, so that they cannot push what others
//! did out of the record. How much was left out is recorded in its place.

use skep_proto::broker::{Broker, CallTold};
use skep_proto::{Helper, Op, Text};
use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Lines that may come at once, and the time in which there is room for one more.
struct Room(u32, Duration);

/// From one place.
const ONE: Room = Room(20, Duration::from_secs(30));
/// From everywhere.
const ALL: Room = Room(200, Duration::from_secs(5));
/// Places that are told apart; all others are one.
const KEPT: usize = 256;
const OTHERS: &str = "others";

impl Room {
    /// Whether there is room for another, which then takes it. `full`: when there will be all of it again.
    fn take(&self, full: &mut Instant, now: Instant) -> bool {
        let after = (*full).max(now) + self.1;
        let has = after.duration_since(now) <= self.1 * self.0;
        if has {
            *full = after;
        }
        has
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Strangers {
    all: Option<Instant>,
    places: HashMap<String, Instant>,
    left_out: u64,
}

impl Strangers {
    /// Whether a line about somebody at `place` is to be written; otherwise it is counted.
    pub fn take(&mut self, place: &str, now: Instant) -> bool {
        let mut place = network(place);
        if self.places.len() >= KEPT && !self.places.contains_key(&place) {
            self.places.retain(|_, full| *full > now);
            if self.places.len() >= KEPT {
                place = OTHERS.to_owned();
            }
        }
        let has = ONE.take(self.places.entry(place).or_insert(now), now) && ALL.take(self.all.get_or_insert(now), now);
        if !has {
            self.leave_out(1);
        }
        has
    }

    /// Counts what nobody told one by one.
    pub fn leave_out(&mut self, count: u64) {
        self.left_out = self.left_out.saturating_add(count);
    }

    /// How much was left out, if there is room for a line that says so.
    pub fn due(&mut self, now: Instant) -> Option<u64> {
        let due = self.left_out > 0 && ALL.take(self.all.get_or_insert(now), now);
        due.then(|| std::mem::take(&mut self.left_out))
    }
}

/// One address of IPv6 is as good as all of its network.
pub fn network(place: &str) -> String {
    match place.parse::<IpAddr>() {
        Ok(IpAddr::V6(address)) => {
            let [a, b, c, d, ..] = address.segments();
            format!("{a:x}:{b:x}:{c:x}:{d:x}::/64")
        }
        _ => place.to_owned(),
    }
}

/// As what a line stands in the record that says how much was left out.
pub fn op() -> &'static Op {
    let nothing = CallTold { method: Text::default(), from: Text::default(), reason: None, note: Text::default(), untold: 0 };
    Broker::op(&nothing.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_leaves_room_for_others_and_is_counted() {
        let (mut strangers, start) = (Strangers::default(), Instant::now());
        let listed =
            |strangers: &mut Strangers, place: &str, now, count: usize| (0..count).filter(|_| strangers.take(place, now)).count();
        assert_eq!(strangers.due(start), None);
        assert_eq!(listed(&mut strangers, "192.0.2.1", start, 1000), 20);
        // All addresses of a network are one, and another's are not.
        assert_eq!(listed(&mut strangers, "2001:db8::1", start, 15), 15);
        assert_eq!(listed(&mut strangers, "2001:db8::2:1", start, 15), 5);
        assert_eq!(listed(&mut strangers, "2001:db8:0:1::1", start, 15), 15);
        assert_eq!(strangers.due(start), Some(990));
        assert_eq!(strangers.due(start), None);
        strangers.leave_out(7);
        // From everywhere at once.
        let many: usize = (0..10_000).map(|n| listed(&mut strangers, &format!("place {n}"), start, 1)).sum();
        assert_eq!(many, 200 - 20 - 20 - 15 - 1);
        assert!(strangers.places.len() <= KEPT + 1);
        assert_eq!(strangers.due(start), None, "there is no room to say it");
        let later = start + ALL.1;
        assert_eq!(strangers.due(later), Some(10_000 - 144 + 7));
        // A day of it.
        let day = (0..24 * 3600).map(|second| listed(&mut strangers, "192.0.2.1", start + Duration::from_secs(second), 10));
        assert!(day.sum::<usize>() < 24 * 3600 / 30 + 20);
    }
}
