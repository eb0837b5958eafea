//! A conversation with a guest, step by step: what was typed with `--expect` and `--send`, or a script.

use crate::args::Step;
use std::collections::VecDeque;
use std::time::Duration;

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// Read on.
    Read,
    /// Type this.
    Type(Vec<u8>),
    /// All steps are done.
    Done,
}

/// A step, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// The step.
    pub step: Step,
    /// Its line in a script.
    pub line: Option<u32>,
    /// How long it may take.
    pub limit: Option<Duration>,
}

impl From<Step> for Stage {
    fn from(step: Step) -> Self {
        Self { step, line: None, limit: None }
    }
}

/// Where a conversation is.
#[derive(Debug)]
pub struct Talk {
    steps: VecDeque<Stage>,
    /// What came and was not yet searched to the end.
    seen: Vec<u8>,
    /// Bytes of scroll-back that are still to come: they answer to nothing that is sent now.
    scrollback: usize,
    /// Bytes of it that are not searched.
    ignored: usize,
}

impl Talk {
    /// A conversation that begins with so many bytes of scroll-back. `from_now`: nothing in them is what is waited for.
    pub fn new(steps: Vec<Stage>, scrollback: usize, from_now: bool) -> Self {
        Self { steps: steps.into(), seen: Vec::new(), scrollback, ignored: if from_now { scrollback } else { 0 } }
    }

    /// The step at work, if one is, and how many come after it.
    pub fn at(&self) -> Option<(&Stage, usize)> {
        self.steps.front().map(|stage| (stage, self.steps.len() - 1))
    }

    /// Takes what came.
    pub fn came(&mut self, data: &[u8]) {
        self.scrollback = self.scrollback.saturating_sub(data.len());
        let ignored = self.ignored.min(data.len());
        self.ignored -= ignored;
        self.seen.extend_from_slice(data.get(ignored..).unwrap_or_default());
    }

    /// What to do now; to be asked until it is [`Next::Read`] or [`Next::Done`].
    pub fn next(&mut self) -> Next {
        match self.steps.front().map(|stage| &stage.step) {
            None => Next::Done,
            Some(Step::Send(_) | Step::Type(_)) if self.scrollback > 0 => Next::Read,
            Some(step @ (Step::Send(text) | Step::Type(text))) => {
                let enter: &[u8] = if matches!(step, Step::Send(_)) { b"\r" } else { b"" };
                let typed = [text.as_bytes(), enter].concat();
                self.steps.pop_front();
                self.seen.clear();
                Next::Type(typed)
            }
            Some(Step::Expect(text)) => {
                let wanted = text.as_bytes();
                let Some(at) = find(&self.seen, wanted) else {
                    // Only as much as could be the beginning of it is looked at again.
                    let keep = self.seen.len().min(wanted.len().saturating_sub(1));
                    self.seen.drain(..self.seen.len() - keep);
                    return Next::Read;
                };
                self.seen.drain(..at + wanted.len());
                self.steps.pop_front();
                self.next()
            }
        }
    }
}

fn find(all: &[u8], wanted: &[u8]) -> Option<usize> {
    if wanted.is_empty() { Some(0) } else { all.windows(wanted.len()).position(|w| w == wanted) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(list: &[(&str, &str)]) -> Vec<Stage> {
        let step = |(kind, text): &(&str, &str)| {
            let text = (*text).to_owned();
            Stage::from(match *kind {
                "send" => Step::Send(text),
                "type" => Step::Type(text),
                _ => Step::Expect(text),
            })
        };
        list.iter().map(step).collect()
    }

    #[test]
    fn a_text_is_found_across_pieces() {
        let mut talk = Talk::new(steps(&[("expect", "login:"), ("send", "root")]), 0, false);
        talk.came(b"welcome\r\nlog");
        assert_eq!(talk.next(), Next::Read);
        talk.came(b"in: ");
        assert_eq!(talk.next(), Next::Type(b"root\r".to_vec()));
        assert_eq!(talk.next(), Next::Done);
    }

    #[test]
    fn what_is_typed_has_no_enter() {
        let mut talk = Talk::new(steps(&[("type", "y"), ("send", "")]), 0, false);
        assert_eq!((talk.next(), talk.next(), talk.next()), (Next::Type(b"y".to_vec()), Next::Type(b"\r".to_vec()), Next::Done));
    }

    #[test]
    fn what_was_there_before_is_no_answer() {
        let mut talk = Talk::new(steps(&[("send", "echo x"), ("expect", "ready")]), 8, false);
        assert_eq!(talk.next(), Next::Read);
        talk.came(b"ready...");
        assert_eq!(talk.next(), Next::Type(b"echo x\r".to_vec()));
        assert_eq!(talk.next(), Next::Read);
        talk.came(b"ready");
        assert_eq!(talk.next(), Next::Done);
    }

    #[test]
    fn scroll_back_is_searched_by_what_is_expected_first() {
        let mut talk = Talk::new(steps(&[("expect", "ready")]), 8, false);
        talk.came(b"ready...");
        assert_eq!(talk.next(), Next::Done);
    }
}
