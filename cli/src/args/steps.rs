//! `--expect` and `--send`, in the order in which they were typed.

use clap::{Arg, ArgAction, ArgMatches, Args, Command, Error, FromArgMatches};

/// One step of a conversation with a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Wait until this appears.
    Expect(String),
    /// Type this and Enter.
    Send(String),
    /// Type this (scripts).
    Type(String),
}

impl Step {
    /// Its word in a script, and its text.
    pub fn parts(&self) -> (&'static str, &str) {
        match self {
            Self::Expect(text) => ("expect", text),
            Self::Send(text) => ("send", text),
            Self::Type(text) => ("type", text),
        }
    }
}

/// All steps.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Steps(pub Vec<Step>);

impl FromArgMatches for Steps {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let mut steps: Vec<(usize, Step)> = Vec::new();
        for (name, step) in [("expect", Step::Expect as fn(String) -> Step), ("send", Step::Send)] {
            let texts = matches.get_many::<String>(name).unwrap_or_default().cloned().map(step);
            steps.extend(matches.indices_of(name).unwrap_or_default().zip(texts));
        }
        steps.sort_by_key(|(index, _)| *index);
        Ok(Self(steps.into_iter().map(|(_, step)| step).collect()))
    }
    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for Steps {
    fn augment_args(command: Command) -> Command {
        let arg = |name: &'static str| Arg::new(name).long(name).value_name("TEXT").action(ArgAction::Append);
        let hyphens = |arg: Arg| arg.allow_hyphen_values(true);
        command
            .arg(hyphens(arg("expect")).help("Print until TEXT appears, then go on; after the last step the command ends"))
            .arg(hyphens(arg("send")).help("Type TEXT and Enter; what is expected afterwards must come afterwards"))
    }
    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}
