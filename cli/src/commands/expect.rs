//! A conversation with a guest: what was typed with `--expect` and `--send`, step by step.

use crate::args::Step;
use std::collections::VecDeque;

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

/// Where a conversation is.
#[derive(Debug)]
pub struct Talk {
    steps: VecDeque<Step>,
    /// What came and was not yet searched to the end.
    seen: Vec<u8>,
    /// Bytes of scroll-back that are still to come: they answer to nothing that is sent now.
    scrollback: usize,
    /// Bytes of it that are not searched.
    ignored: usize,
}

impl Talk {
    /// A conversation that begins with so many bytes of scroll-back. `from_now`: nothing in them is what is waited for.
    pub fn new(steps: Vec<Step>, scrollback: usize, from_now: bool) -> Self {
        Self { steps: steps.into(), seen: Vec::new(), scrollback, ignored: if from_now { scrollback } else { 0 } }
    }

    /// The text that is waited for, if one is.
    pub fn waits_for(&self) -> Option<&str> {
        match self.steps.front() {
            Some(Step::Expect(text) | Step::Send(text)) => Some(text),
            None => None,
        }
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
        match self.steps.front() {
            None => Next::Done,
            Some(Step::Send(_)) if self.scrollback > 0 => Next::Read,
            Some(Step::Send(text)) => {
                let typed = [text.as_bytes(), b"\r"].concat();
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

    fn steps(list: &[(&str, &str)]) -> Vec<Step> {
        let step =
            |(kind, text): &(&str, &str)| if *kind == "send" { Step::Send((*text).into()) } else { Step::Expect((*text).into()) };
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
