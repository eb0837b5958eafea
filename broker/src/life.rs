//! The life of a machine, pure: `(life, input) -> (life, effects)`. Nothing here asks or tells anybody.
//!
//! ```text
//!             Start             Made                Stop, Reboot              Ended
//!   Stopped ─────────► Starting ─────► Running ───────────────► Stopping ───────────► (clearing) ─► Stopped | Failed
//!      ▲                  │              │  ▲                      │  too late                         │
//!      │                  │        Pause ▼  │ Resume               └────────► Running                  │ Reboot
//!      │                  │             Paused                                                         ▼
//!      └──────────────────┴── every failure, Kill and the end of the runner lead through clearing ─── Starting
//! ```
//! While its cell is cleared away a machine is `Stopping` and `ending` says what comes after. An act that was accepted ends with
//! exactly one `Finish`, and only when nothing half-made is left.

use skep_proto::broker::{Act, MachineState};
use skep_proto::runner::{End, Phase};
use skep_proto::{Reason, Refusal};

/// What comes when the cell has been cleared away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// `Failed` rather than `Stopped`.
    pub failed: bool,
    /// Why the act at work fails; none: it depends on the act.
    pub refusal: Option<Refusal>,
}

/// All that the broker knows about the life of one machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Life {
    /// What users see.
    pub state: MachineState,
    /// Why it failed, or how it ended last.
    pub note: String,
    /// Something of it may be on the host: its slot is taken.
    pub cell: bool,
    /// False after the broker's start, until the host was asked.
    pub known: bool,
    /// The act at work.
    pub busy: Option<Act>,
    /// The runner has obeyed the act at work; only its phase has not said so yet.
    pub told: bool,
    /// Its guest began paused, and nobody has let it run: what its runner said before its start had ended.
    pub paused: bool,
    /// The stop at work ends the hypervisor: its guest's time is over, or it cannot hear its button.
    pub forced: bool,
    /// Its cell is being cleared away.
    pub ending: Option<Ending>,
}

/// What the host shows of a machine when the broker starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Nothing, or nothing alive.
    Nothing,
    /// A runner whose hypervisor was never started, or has not answered.
    Unready,
    /// A runner whose guest runs, or is paused.
    Alive(Phase),
    /// A runner whose hypervisor ended for good.
    Ended(End),
}

/// What happens to a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// A user asks.
    Ask(Act),
    /// The broker before was at this act, and this one goes on with it.
    Waits(Act),
    /// A user cancels the act at work.
    Cancel,
    /// The host was asked after the broker's start.
    Found(Found),
    /// `Make` has ended.
    Made(Result<(), Refusal>),
    /// `Tell` has ended.
    Told(Result<(), Refusal>),
    /// The runner reports a phase.
    Phase(Phase),
    /// The runner reports the end of a run.
    Ended(End),
    /// The runner is gone without a word.
    Lost,
    /// `Clear` has ended; refused: something is left on the host.
    Cleared(Result<(), Refusal>),
    /// The time for the act at work has passed.
    Late,
}

/// What the actor is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Give up what is being done at present; its result no longer counts.
    Drop,
    /// Make the cell and start the hypervisor.
    Make,
    /// Tell the runner (`Stop` and `Reboot`: press the power button) and expect the outcome in time.
    Tell(Act),
    /// Clear the cell away; `kill`: without asking the runner.
    Clear {
        /// See above.
        kill: bool,
    },
    /// The hypervisor was started anew by its runner.
    Restarted,
    /// The act at work has ended.
    Finish(Result<(), Refusal>),
}

/// How the end of a run reads, and whether it was against the machine's will.
pub fn describe(end: &End) -> (bool, String) {
    match end {
        End::PowerOff => (false, "powered off".into()),
        End::Reboot => (false, "rebooted".into()),
        End::Reset => (false, "reset".into()),
        End::Killed => (false, "killed".into()),
        End::Panic => (true, "the guest's kernel panicked".into()),
        End::Crash { code, words } => {
            let words = words.as_str().trim();
            let colon = if words.is_empty() { "" } else { ": " };
            (true, format!("the hypervisor ended with code {code}{colon}{words}"))
        }
        End::RebootLoop => (true, "five quick ends in a row; it was not started again".into()),
    }
}

impl Life {
    /// As the database has it. A machine of which nothing can be on the host needs no look at it.
    pub fn load(state: MachineState, note: String, cell: bool) -> Self {
        let known = !cell && matches!(state, MachineState::Stopped | MachineState::Failed);
        Self { state, note, cell, known, busy: None, told: false, paused: false, forced: false, ending: None }
    }

    /// What it is doing, for a refusal.
    pub fn doing(&self) -> String {
        match (self.known, self.busy) {
            (false, _) => "the broker is still finding out its state".into(),
            (_, Some(act)) => format!("{} is under way", word(act)),
            _ => format!("it is {}", self.state.word()),
        }
    }

    /// One step. Only `Ask` and `Cancel` are ever refused; the life is then as before.
    pub fn step(&mut self, input: Input) -> Result<Vec<Effect>, (Reason, String)> {
        match input {
            Input::Ask(act) => self.ask(act),
            Input::Waits(act) => {
                self.busy = Some(act);
                Ok(vec![])
            }
            Input::Cancel => self.cancel(),
            Input::Found(found) => Ok(self.found(found)),
            Input::Made(result) => Ok(self.made(result)),
            Input::Told(result) => Ok(self.told(result)),
            Input::Phase(phase) => Ok(self.phase(phase)),
            Input::Ended(end) => Ok(self.ended(&end)),
            Input::Lost if self.cell && self.known => Ok(self.end(true, "its runner was killed".into(), None, true)),
            Input::Lost => Ok(vec![]),
            Input::Cleared(result) => Ok(self.cleared(result)),
            Input::Late => Ok(self.late()),
        }
    }

    fn ask(&mut self, act: Act) -> Result<Vec<Effect>, (Reason, String)> {
        use MachineState::*;
        if !self.known {
            return Err((Reason::Unavailable, self.doing()));
        }
        if act == Act::Kill {
            return self.kill(act);
        }
        if let Act::Stop(stop) = act {
            let pressed = matches!(self.busy, Some(Act::Stop(_) | Act::Reboot)) && self.state == Stopping;
            if pressed && self.ending.is_none() && !self.forced {
                // What was asked last holds. The runner presses the button once a run.
                let overtaken = self.busy.replace(act).map(word).unwrap_or_default();
                let refusal = cancelled().note(format_args!("{overtaken} was overtaken by stop"));
                return Ok(vec![Effect::Drop, Effect::Finish(Err(refusal)), Effect::Tell(act)]);
            }
            if stop.force && !(self.state == Running && self.busy.is_none()) {
                return self.kill(act);
            }
        }
        if self.busy.is_some() || self.ending.is_some() {
            return Err((Reason::WrongState, self.doing()));
        }
        let effect = match (act, self.state) {
            // What an earlier clearing left goes first.
            (Act::Start, Stopped | Failed) if self.cell => Effect::Clear { kill: true },
            (Act::Start, Stopped | Failed) => Effect::Make,
            (Act::Stop(_) | Act::Reboot | Act::Reset | Act::Pause, Running) | (Act::Resume, Paused) => Effect::Tell(act),
            _ => return Err((Reason::WrongState, self.doing())),
        };
        match act {
            Act::Start => (self.state, self.cell, self.paused) = (Starting, true, false),
            Act::Stop(_) | Act::Reboot => self.state = Stopping,
            _ => {}
        }
        self.told = false;
        self.busy = Some(act);
        Ok(vec![effect])
    }

    /// `act` is to end it at once.
    fn kill(&mut self, act: Act) -> Result<Vec<Effect>, (Reason, String)> {
        if !self.cell {
            return Err((Reason::WrongState, self.doing()));
        }
        let mut effects = vec![Effect::Drop];
        if let Some(overtaken) = self.busy.replace(act) {
            let note = format_args!("{} was overtaken by {}", word(overtaken), word(act));
            effects.push(Effect::Finish(Err(cancelled().note(note))));
        }
        self.forced = act != Act::Kill;
        let runs = matches!(self.state, MachineState::Running | MachineState::Paused) && self.ending.is_none();
        self.state = MachineState::Stopping;
        if runs {
            effects.push(Effect::Tell(Act::Kill));
        } else {
            // Once it ended by itself, that stays the reason.
            if self.ending.is_none() {
                (self.ending, self.note) = (Some(Ending { failed: false, refusal: None }), "killed".into());
            }
            effects.push(Effect::Clear { kill: true });
        }
        Ok(effects)
    }

    fn cancel(&mut self) -> Result<Vec<Effect>, (Reason, String)> {
        match self.busy {
            Some(Act::Start | Act::Reboot) if self.state == MachineState::Starting => {
                Ok(self.end(false, "the start was cancelled".into(), Some(cancelled()), true))
            }
            // The button was pressed; what the guest makes of it is seen when it comes.
            Some(Act::Stop(_) | Act::Reboot) if self.ending.is_none() && !self.forced => {
                self.state = MachineState::Running;
                self.busy = None;
                Ok(vec![Effect::Drop, Effect::Finish(Err(cancelled()))])
            }
            _ => Err((Reason::WrongState, "it cannot be cancelled any more".into())),
        }
    }

    fn found(&mut self, found: Found) -> Vec<Effect> {
        if self.known {
            return vec![];
        }
        self.known = true;
        self.cell = true;
        match (found, self.busy) {
            // Its guest was asked to end, or is asked now.
            (Found::Alive(phase), Some(act @ Act::Stop(stop))) => {
                self.state = MachineState::Stopping;
                return match phase {
                    Phase::Paused if stop.force => self.force(),
                    Phase::Paused => {
                        self.state = MachineState::Paused;
                        self.finish(Err(Refusal::new(Reason::WrongState, "").note(self.doing())))
                    }
                    _ => vec![Effect::Tell(act)],
                };
            }
            (Found::Alive(Phase::Paused), _) => (self.state, self.note) = (MachineState::Paused, String::new()),
            (Found::Alive(_), _) => (self.state, self.note) = (MachineState::Running, String::new()),
            (Found::Ended(end), _) => {
                let (failed, note) = describe(&end);
                return self.end(failed, note, None, false);
            }
            (Found::Unready, _) => return self.end(false, "its start was interrupted".into(), None, true),
            (Found::Nothing, _) => {
                let ran = matches!(self.state, MachineState::Running | MachineState::Paused);
                let note = if ran { "it was gone when the broker came back".into() } else { self.note.clone() };
                return self.end(ran || self.state == MachineState::Failed, note, None, true);
            }
        }
        vec![]
    }

    fn made(&mut self, result: Result<(), Refusal>) -> Vec<Effect> {
        if self.state != MachineState::Starting || self.ending.is_some() {
            return vec![];
        }
        match result {
            Ok(()) => {
                let state = if self.paused { MachineState::Paused } else { MachineState::Running };
                (self.state, self.note) = (state, String::new());
                self.finish(Ok(()))
            }
            Err(refusal) => {
                let failed = refusal.reason == Reason::HypervisorFailed;
                self.end(failed, refusal.to_string(), Some(refusal), true)
            }
        }
    }

    fn told(&mut self, result: Result<(), Refusal>) -> Vec<Effect> {
        if self.ending.is_some() {
            return vec![];
        }
        match (self.busy, result) {
            // The end of the run is the outcome; it is reported.
            (Some(Act::Stop(_) | Act::Reboot | Act::Kill), Ok(())) | (None | Some(Act::Start), _) => vec![],
            (Some(Act::Kill), Err(_)) => self.end(false, "killed".into(), None, true),
            (Some(Act::Stop(_)), Err(_)) if self.forced => self.end(false, "killed".into(), None, true),
            // Its button cannot be pressed.
            (Some(Act::Stop(stop)), Err(_)) if stop.force => self.force(),
            (Some(Act::Stop(_) | Act::Reboot), Err(refusal)) => {
                self.state = MachineState::Running;
                self.finish(Err(refusal))
            }
            // The phase is the outcome; its report comes on another connection, before the reply or after it.
            (Some(act @ (Act::Pause | Act::Resume)), Ok(())) => {
                self.told = (act == Act::Pause) != (self.state == MachineState::Paused);
                if self.told { vec![] } else { self.finish(Ok(())) }
            }
            (Some(_), result) => self.finish(result),
        }
    }

    fn phase(&mut self, phase: Phase) -> Vec<Effect> {
        if self.state == MachineState::Starting {
            self.paused = phase == Phase::Paused;
            return vec![];
        }
        let (state, act) = match (self.state, phase) {
            (MachineState::Paused, Phase::Running) => (MachineState::Running, Act::Resume),
            (MachineState::Running, Phase::Paused) => (MachineState::Paused, Act::Pause),
            _ => return vec![],
        };
        self.state = state;
        if self.told && self.busy == Some(act) { self.finish(Ok(())) } else { vec![] }
    }

    fn ended(&mut self, end: &End) -> Vec<Effect> {
        if !self.known || !self.cell || self.ending.is_some() {
            return vec![];
        }
        if matches!(end, End::Reboot | End::Reset) {
            return vec![Effect::Restarted];
        }
        let (failed, note) = describe(end);
        let refusal = match self.busy {
            None | Some(Act::Kill) => None,
            Some(Act::Stop(_) | Act::Reboot) if !failed => None,
            Some(_) => Some((if failed { Reason::HypervisorFailed } else { Reason::WrongState }, &note)),
        };
        let refusal = refusal.map(|(reason, note)| Refusal::new(reason, "").note(note));
        self.end(failed, note, refusal, false)
    }

    fn end(&mut self, failed: bool, note: String, refusal: Option<Refusal>, kill: bool) -> Vec<Effect> {
        if self.ending.is_some() {
            return vec![];
        }
        self.state = MachineState::Stopping;
        let refusal = refusal.or_else(|| {
            let wanted = matches!(self.busy, None | Some(Act::Kill | Act::Stop(_) | Act::Reboot)) && !failed;
            let failed = || Refusal::new(Reason::HypervisorFailed, "").note(&note);
            (!wanted && self.busy != Some(Act::Kill)).then(failed)
        });
        let forced = self.forced && note == "killed";
        self.note = if forced { "ended by force".into() } else { note };
        self.ending = Some(Ending { failed, refusal });
        vec![Effect::Drop, Effect::Clear { kill }]
    }

    fn cleared(&mut self, result: Result<(), Refusal>) -> Vec<Effect> {
        if let Err(refusal) = result {
            self.state = MachineState::Failed;
            self.note = format!("something is left on the host: {refusal}");
            self.ending = None;
            return self.finish(Err(refusal));
        }
        let Some(Ending { failed, refusal }) = self.ending.take() else {
            // The remains of an earlier life are gone: now the start itself.
            return if self.state == MachineState::Starting { vec![Effect::Make] } else { vec![] };
        };
        if self.busy == Some(Act::Reboot) && refusal.is_none() {
            (self.state, self.paused) = (MachineState::Starting, false);
            return vec![Effect::Make];
        }
        self.cell = false;
        self.state = if failed { MachineState::Failed } else { MachineState::Stopped };
        self.finish(refusal.map_or(Ok(()), Err))
    }

    fn late(&mut self) -> Vec<Effect> {
        match self.busy {
            // Without a look at the host nothing can be ended; the clock begins again then.
            _ if self.ending.is_some() || !self.known => vec![],
            Some(Act::Stop(_)) if self.forced => self.end(false, "killed".into(), None, true),
            Some(Act::Stop(stop)) if stop.force && self.state == MachineState::Stopping => self.force(),
            Some(Act::Kill) => self.end(false, "killed".into(), None, true),
            Some(Act::Stop(_) | Act::Reboot) if self.state == MachineState::Stopping => {
                self.state = MachineState::Running;
                let note = "the guest did not power itself off in its time; `skep vm stop --force` or `skep vm kill` ends it";
                let finish = self.finish(Err(Refusal::new(Reason::Timeout, "").note(note)));
                [Effect::Drop].into_iter().chain(finish).collect()
            }
            _ => vec![],
        }
    }

    /// The stop at work ends the hypervisor.
    fn force(&mut self) -> Vec<Effect> {
        self.forced = true;
        self.note = "it does not power itself off: it is ended by force".into();
        vec![Effect::Drop, Effect::Tell(Act::Kill)]
    }

    fn finish(&mut self, result: Result<(), Refusal>) -> Vec<Effect> {
        (self.told, self.forced) = (false, false);
        self.busy.take().map(|_| Effect::Finish(result)).into_iter().collect()
    }
}

fn cancelled() -> Refusal {
    Refusal::new(Reason::Cancelled, "")
}

/// An act as operations and refusals call it.
pub const fn word(act: Act) -> &'static str {
    match act {
        Act::Start => "start",
        Act::Stop(_) => "stop",
        Act::Kill => "kill",
        Act::Reboot => "reboot",
        Act::Reset => "reset",
        Act::Pause => "pause",
        Act::Resume => "resume",
    }
}

#[cfg(test)]
#[path = "tests/life.rs"]
mod tests;
