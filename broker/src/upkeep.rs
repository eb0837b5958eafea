//! Whether a machine starts with its host, and again after an end that nobody asked for. Pure.

use skep_proto::broker::{MachineState, Restart, Upkeep, UpkeepDraft};
use skep_proto::{Reason, Refusal};
use std::time::Duration;

/// The first pause before a machine is started again; each further one is twice as long.
const FIRST: Duration = Duration::from_secs(1);
/// The longest pause.
const LONGEST: Duration = Duration::from_secs(300);
/// Whatever ran as long as this has started well: the next pause is the first again.
const WELL: Duration = Duration::from_secs(600);

/// As a draft changes it; refused with the field that is out of its bounds.
pub fn edited(now: Upkeep, draft: &UpkeepDraft, machine: &str) -> Result<Upkeep, Refusal> {
    let UpkeepDraft { autostart, order, delay_s, restart, stop_timeout_s } = *draft;
    for (field, given, most) in [("upkeep.order", order, 9_999), ("upkeep.delay", delay_s, 3_600)] {
        if let Some(given) = given.filter(|n| *n > most) {
            let refusal = Refusal::new(Reason::InvalidValue, format_args!("machine {machine}")).field(field);
            return Err(refusal.note(format_args!("{given} is more than {most}")));
        }
    }
    if let Some(given) = stop_timeout_s.filter(|n| !(1..=86_400).contains(n)) {
        let refusal = Refusal::new(Reason::InvalidValue, format_args!("machine {machine}")).field("upkeep.stop_timeout");
        return Err(refusal.note(format_args!("{given} is not 1 to 86400 seconds")));
    }
    Ok(Upkeep {
        autostart: autostart.unwrap_or(now.autostart),
        order: order.unwrap_or(now.order),
        delay_s: delay_s.unwrap_or(now.delay_s),
        restart: restart.unwrap_or(now.restart),
        stop_timeout_s: stop_timeout_s.unwrap_or(now.stop_timeout_s),
    })
}

/// Names of the fields that differ.
pub fn changed(old: Upkeep, new: Upkeep) -> impl Iterator<Item = &'static str> {
    let fields = [
        ("upkeep.autostart", old.autostart != new.autostart),
        ("upkeep.order", old.order != new.order),
        ("upkeep.delay", old.delay_s != new.delay_s),
        ("upkeep.restart", old.restart != new.restart),
        ("upkeep.stop_timeout", old.stop_timeout_s != new.stop_timeout_s),
    ];
    fields.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name)
}

/// Whether a machine that is at rest in this state, against its user's will, is started again.
pub fn again(restart: Restart, state: MachineState) -> bool {
    match restart {
        Restart::Never => false,
        Restart::OnFailure => state == MachineState::Failed,
        Restart::Always => matches!(state, MachineState::Failed | MachineState::Stopped),
    }
}

/// How often a machine was started again without having run well.
#[derive(Debug, Default)]
pub struct Pauses(u32);

impl Pauses {
    /// How long to wait before the next start of one that ran for `ran`.
    pub fn next(&mut self, ran: Duration) -> Duration {
        if ran >= WELL {
            self.0 = 0;
        }
        let pause = FIRST.saturating_mul(1 << self.0.min(16)).min(LONGEST);
        self.0 = self.0.saturating_add(1);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_begin_anew_after_a_good_run() {
        let mut pauses = Pauses::default();
        let short: Vec<u64> = (0..10).map(|_| pauses.next(Duration::from_secs(3)).as_secs()).collect();
        assert_eq!(short, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300]);
        assert!((0..100).all(|_| pauses.next(Duration::ZERO) == LONGEST));
        assert_eq!(pauses.next(WELL), FIRST);
        assert_eq!(pauses.next(Duration::ZERO), 2 * FIRST);
    }

    #[test]
    fn what_a_policy_starts_again() {
        use MachineState::{Failed, Running, Stopped};
        let started = |restart| [Failed, Stopped, Running].map(|state| again(restart, state));
        assert_eq!(started(Restart::Never), [false, false, false]);
        assert_eq!(started(Restart::OnFailure), [true, false, false]);
        assert_eq!(started(Restart::Always), [true, true, false]);
    }
}
