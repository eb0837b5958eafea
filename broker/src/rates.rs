//! How often one user may call one method: a bucket each, which fills again all the time. root, and who started the suite, are not bounded.

use crate::policy::Proof;
use skep_proto::{Op, Refusal, Text};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Calls of one method that may come at once.
const BURST: u32 = 1000;
/// Time in which one more is allowed.
const EACH: Duration = Duration::from_millis(5);
/// Buckets that are kept; beyond that the fullest goes.
const KEPT: usize = 4096;

/// All buckets: when each will be full again.
#[derive(Debug, Default)]
pub struct Rates(HashMap<(Text<64>, u8), Instant>);

impl Rates {
    /// Takes a call out of its bucket. Refused: empty; says when there is one again.
    pub fn take(&mut self, proof: &Proof, user: &Text<64>, op: &Op, now: Instant) -> Result<(), Refusal> {
        if matches!(proof, Proof::Owner(_)) {
            return Ok(());
        }
        let key = (user.clone(), op.number);
        if self.0.len() >= KEPT && !self.0.contains_key(&key) {
            self.0.retain(|_, full| *full > now);
            if self.0.len() >= KEPT {
                let fullest = self.0.iter().min_by_key(|(_, full)| **full).map(|(key, _)| key.clone());
                fullest.map(|key| self.0.remove(&key));
            }
        }
        let full = self.0.entry(key).or_insert(now);
        let after = (*full).max(now) + EACH;
        let debt = after.duration_since(now);
        if let Some(wait) = debt.checked_sub(EACH * BURST).filter(|wait| !wait.is_zero()) {
            return Err(Refusal::later(format_args!("{} by {user}", op.name), wait));
        }
        *full = after;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use skep_proto::broker::{Broker, HostShow, MachineList};
    use skep_proto::{Helper, UserId};

    #[test]
    fn one_user_and_method_cannot_flood() {
        let (mut rates, start) = (Rates::default(), Instant::now());
        let (list, show) = (Broker::op(&MachineList { after: None }.into()), Broker::op(&HostShow {}.into()));
        let proof = Proof::Password(UserId::random());
        let (alice, bob) = (Text::lossy("alice"), Text::lossy("bob"));
        for _ in 0..BURST {
            rates.take(&proof, &alice, list, start).expect("allowed");
        }
        let refusal = rates.take(&proof, &alice, list, start).expect_err("too many");
        assert_eq!(refusal.wait(), Some(Duration::from_secs(1)));
        rates.take(&proof, &alice, show, start).expect("another method");
        rates.take(&proof, &bob, list, start).expect("another user");
        rates.take(&Proof::Owner(0), &alice, list, start).expect("root");
        let later = start + EACH;
        rates.take(&proof, &alice, list, later).expect("one again");
        rates.take(&proof, &alice, list, later).expect_err("and no more");
        let (mut allowed, second) = (0, start + Duration::from_secs(1));
        while rates.take(&proof, &alice, list, second).is_ok() {
            allowed += 1;
        }
        assert_eq!(allowed, 199);
        for n in 0..2 * KEPT {
            rates.take(&proof, &Text::lossy(&format!("u{n}")), list, start).expect("allowed");
        }
        assert!(rates.0.len() <= KEPT);
        rates.take(&proof, &alice, list, second).expect_err("a bucket that is empty is kept");
    }
}
