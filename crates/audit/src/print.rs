//! The report for people: a block for each process, what differs last and loud.

use crate::report::{Line, Process, Report, Verdict};
use std::fmt;

/// What stands in the last column.
fn word(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Confirmed => "confirmed".into(),
        Verdict::Declared { proved_by } => format!("declared; shown by the test {proved_by}"),
        Verdict::Weaker { .. } => "weaker, see below".into(),
        Verdict::Differs { what } => format!("DIFFERS: {what}"),
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for process in &self.processes {
            writeln!(f, "{process}")?;
        }
        let totals = self.totals();
        writeln!(
            f,
            "{}. Lines: {} confirmed by the kernel, {} declared (not readable, shown by tests), {} weaker, {} differ.",
            if totals.processes == 1 { "1 process".into() } else { format!("{} processes", totals.processes) },
            totals.confirmed,
            totals.declared,
            totals.weaker,
            totals.differs
        )?;
        self.weaker(f)?;
        self.differences(f)
    }
}

impl Report {
    /// The same reason mostly holds for many processes: each once.
    fn weaker(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut reasons: Vec<(String, Vec<String>)> = Vec::new();
        for process in &self.processes {
            for line in &process.lines {
                let Verdict::Weaker { why } = &line.verdict else { continue };
                let reason = format!("{}: {why}", line.line);
                match reasons.iter_mut().find(|(known, _)| *known == reason) {
                    Some((_, of)) => of.push(process.name.clone()),
                    None => reasons.push((reason, vec![process.name.clone()])),
                }
            }
        }
        if !reasons.is_empty() {
            writeln!(f, "\nWeaker, as declared:")?;
        }
        for (reason, mut of) in reasons {
            of.dedup();
            writeln!(f, "  {reason} ({})", of.join(", "))?;
        }
        Ok(())
    }

    fn differences(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_clean() {
            return writeln!(f, "\nNothing differs from what is declared.");
        }
        writeln!(f, "\nDIFFERENT FROM WHAT IS DECLARED:")?;
        for process in &self.processes {
            for line in &process.lines {
                if let Verdict::Differs { what } = &line.verdict {
                    let pid = process.pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default();
                    writeln!(f, "  {}{pid}: {}: {what}", process.title(), line.line)?;
                }
            }
        }
        Ok(())
    }
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pid {
            Some(pid) => writeln!(f, "{}  pid {pid}  {}", self.title(), self.program)?,
            None => writeln!(f, "{}  not running", self.title())?,
        }
        for line in self.lines.iter().filter(|line| !is_detail(line)) {
            writeln!(f, "  {:<14} {:<60} {}", line.line, shown(line), word(&line.verdict))?;
        }
        let operations = self.lines.iter().filter(|line| line.line.starts_with("operation ")).count();
        if operations > 0 {
            writeln!(f, "  {:<14} {operations:<60} declared; shown by a test each (docs/rights.md)", "operations")?;
        }
        for open in &self.descriptors {
            let rights = open.rights.as_ref().map(|rights| format!(" [{}]", rights.join(" "))).unwrap_or_default();
            let line = open.line.as_deref().unwrap_or("NOT IN THE TABLE");
            let line = open.unconfirmed.map_or_else(|| line.to_owned(), |why| format!("{line}; declared, not confirmed: {why}"));
            writeln!(f, "  {:>14} {:<60} {line}", open.number, format!("{}{rights}", open.shown))?;
        }
        Ok(())
    }
}

/// Lines that the list of open descriptors, or a sum, stands for.
fn is_detail(line: &Line) -> bool {
    (line.line.starts_with("descriptor ") || line.line.starts_with("operation ")) && !line.verdict.differs()
}

fn shown(line: &Line) -> &str {
    if line.found.is_empty() { &line.declared } else { &line.found }
}
