//! The report.

use serde::Serialize;

/// What became of one declared line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "verdict")]
pub enum Verdict {
    /// The kernel says so.
    Confirmed,
    /// No kernel lets this be read; a test shows it.
    Declared {
        /// The test's name.
        proved_by: String,
    },
    /// Declared for a suite started by root, and known to be less here.
    Weaker {
        /// Why.
        why: String,
    },
    /// The kernel says something else.
    Differs {
        /// What.
        what: String,
    },
}

impl Verdict {
    /// From a list of differences: none of them is a confirmation.
    pub fn of(differences: Vec<String>) -> Self {
        if differences.is_empty() { Verdict::Confirmed } else { Verdict::Differs { what: differences.join("; ") } }
    }
    /// Whether it differs.
    pub fn differs(&self) -> bool {
        matches!(self, Verdict::Differs { .. })
    }
}

/// One line of a table, and what was found.
#[derive(Debug, Clone, Serialize)]
pub struct Line {
    /// Which: `uid`, `capabilities`, `descriptor listener`.
    pub line: String,
    /// What is declared.
    pub declared: String,
    /// What the kernel shows.
    pub found: String,
    /// What that means.
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// One open descriptor.
#[derive(Debug, Clone, Serialize)]
pub struct Descriptor {
    /// Its number.
    pub number: i32,
    /// What the kernel shows.
    pub shown: String,
    /// Its line in the table; none: it fits no line, or is one too many.
    pub line: Option<String>,
    /// Why the kernel does not confirm that it is of that line: it is declared, no more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unconfirmed: Option<&'static str>,
    /// Capsicum rights (FreeBSD).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rights: Option<Vec<String>>,
}

/// One process.
#[derive(Debug, Clone, Serialize)]
pub struct Process {
    /// Its name in the table.
    #[serde(rename = "process")]
    pub name: String,
    /// Its machine's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub machine: Option<String>,
    /// Its process id; none: it was not found.
    pub pid: Option<i32>,
    /// The program that it runs.
    pub program: String,
    /// Real, effective, saved, file-system uid.
    pub uids: Vec<u32>,
    /// The same of groups.
    pub gids: Vec<u32>,
    /// Further groups.
    pub groups: Vec<u32>,
    /// The lines of its table.
    pub lines: Vec<Line>,
    /// Its open descriptors.
    pub descriptors: Vec<Descriptor>,
}

impl Process {
    /// Name for people: `broker`, `runner of 0e6f…`.
    pub fn title(&self) -> String {
        match &self.machine {
            Some(machine) => format!("{} of {machine}", self.name),
            None => self.name.clone(),
        }
    }
}

/// All of them.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The suite.
    pub instance: String,
    /// Its processes, in the order of the tables, machines last.
    pub processes: Vec<Process>,
}

/// How many lines there are of each verdict.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Processes.
    pub processes: usize,
    /// See [`Verdict`].
    pub confirmed: usize,
    /// See [`Verdict`].
    pub declared: usize,
    /// See [`Verdict`].
    pub weaker: usize,
    /// See [`Verdict`].
    pub differs: usize,
}

impl Report {
    /// Counts verdicts.
    pub fn totals(&self) -> Totals {
        let mut totals = Totals { processes: self.processes.len(), ..Totals::default() };
        for line in self.processes.iter().flat_map(|process| &process.lines) {
            match line.verdict {
                Verdict::Confirmed => totals.confirmed += 1,
                Verdict::Declared { .. } => totals.declared += 1,
                Verdict::Weaker { .. } => totals.weaker += 1,
                Verdict::Differs { .. } => totals.differs += 1,
            }
        }
        totals
    }

    /// Whether nothing differs: exit code 0.
    pub fn is_clean(&self) -> bool {
        self.totals().differs == 0
    }

    /// For programs: one JSON object a line, a process each, the totals last.
    pub fn json_lines(&self) -> Result<Vec<String>, serde_json::Error> {
        let mut lines: Vec<String> = self.processes.iter().map(serde_json::to_string).collect::<Result<_, _>>()?;
        lines.push(serde_json::to_string(&self.totals())?);
        Ok(lines)
    }
}
