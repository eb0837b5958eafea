//! The table, for people and for docs/performance.md, and the verdict.

use crate::platform;
use crate::stats::Samples;
use anyhow::{Context, Result};
use std::path::Path;
use std::time::Duration;

/// What a measurement gives.
#[derive(Debug)]
pub enum Outcome {
    /// Rows of the table.
    Rows(Vec<Row>),
    /// This machine cannot do it, and why.
    Skipped(String),
}

impl Outcome {
    /// Whether no limit is exceeded.
    pub fn is_met(&self) -> bool {
        match self {
            Outcome::Rows(rows) => rows.iter().all(|row| row.limit.is_none_or(|(value, limit)| value <= limit)),
            Outcome::Skipped(_) => true,
        }
    }
}

/// One line.
#[derive(Debug)]
pub struct Row {
    what: String,
    cells: [String; 4],
    /// What is limited, and its limit.
    limit: Option<(f64, f64)>,
    unit: &'static str,
}

impl Row {
    /// Times without a limit: a floor.
    pub fn floor(what: impl Into<String>, samples: &Samples) -> Self {
        let many = samples.count() >= 100;
        let cells = [samples.quantile(0.0), samples.p50(), samples.quantile(if many { 0.99 } else { 1.0 })].map(human);
        let [min, median, most] = cells;
        Self { what: what.into(), cells: [samples.count().to_string(), min, median, most], limit: None, unit: "×" }
    }
    /// Times that are `ratio` of their floor, and may be `limit` of it.
    pub fn ratio(what: impl Into<String>, samples: &Samples, ratio: f64, limit: f64) -> Self {
        Self { limit: Some((ratio, limit)), ..Self::floor(what, samples) }
    }
    /// MiB of memory, with or without a limit.
    pub fn size(what: impl Into<String>, mib: f64, limit: Option<f64>) -> Self {
        let cells = ["1".to_owned(), String::new(), format!("{mib:.1} MiB"), String::new()];
        Self { what: what.into(), cells, limit: limit.map(|limit| (mib, limit)), unit: " MiB" }
    }
    /// Something to say instead.
    pub fn remark(what: impl Into<String>) -> Self {
        Self { what: what.into(), cells: std::array::from_fn(|_| String::new()), limit: None, unit: "" }
    }
    /// The same, the median of so many.
    pub fn of(mut self, count: usize) -> Self {
        self.cells[0] = count.to_string();
        self
    }
}

/// A time with three digits or so.
fn human(time: Duration) -> String {
    let us = time.as_secs_f64() * 1e6;
    match us {
        _ if us < 100.0 => format!("{us:.1} µs"),
        _ if us < 10_000.0 => format!("{us:.0} µs"),
        _ if us < 1e6 => format!("{:.1} ms", us / 1e3),
        _ => format!("{:.2} s", us / 1e6),
    }
}

/// The machine's facts and a table in Markdown.
pub fn table(outcomes: &[(&str, Outcome)]) -> String {
    let mut lines = vec![
        ["measure", "what", "samples", "min", "median", "p99 or max", "value", "limit", "verdict"].map(str::to_owned),
        ["---", "---", "--:", "--:", "--:", "--:", "--:", "--:", "---"].map(str::to_owned),
    ];
    for (name, outcome) in outcomes {
        let rows = match outcome {
            Outcome::Rows(rows) => rows,
            Outcome::Skipped(why) => {
                let mut line = std::array::from_fn(|_| String::new());
                line[..2].clone_from_slice(&[(*name).to_owned(), format!("skipped: {why}")]);
                lines.push(line);
                continue;
            }
        };
        for Row { what, cells: [count, min, median, most], limit, unit } in rows {
            let [value, limit, verdict] = match limit {
                None => [String::new(), String::new(), String::new()],
                Some((value, limit)) => {
                    let verdict = if value <= limit { "ok" } else { "ABOVE" };
                    [format!("{value:.2}{unit}"), format!("{}{unit}", (limit * 100.0).round() / 100.0), verdict.to_owned()]
                }
            };
            let [name, what, count] = [*name, what.as_str(), count.as_str()].map(str::to_owned);
            lines.push([name, what, count, min.clone(), median.clone(), most.clone(), value, limit, verdict]);
        }
    }
    let widths: [usize; 9] = std::array::from_fn(|i| lines.iter().map(|line| line[i].chars().count()).max().unwrap_or(0));
    let mut text = format!("{}\n\n", platform::facts());
    for line in lines {
        let cells: Vec<String> = line.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text += &format!("| {} |\n", cells.join(" | "));
    }
    text
}

const BEGIN: &str = "<!-- begin: written by skep-bench -->\n";
const END: &str = "<!-- end -->\n";

/// Puts the table between the marks of a file.
pub fn write(file: &Path, table: &str) -> Result<()> {
    let text = std::fs::read_to_string(file)?;
    let (before, rest) = text.split_once(BEGIN).with_context(|| format!("no line {BEGIN}"))?;
    let (_, after) = rest.split_once(END).with_context(|| format!("no line {END}"))?;
    Ok(std::fs::write(file, format!("{before}{BEGIN}{table}{END}{after}"))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_above_its_limit_is_not_met() {
        let outcome = |value| Outcome::Rows(vec![Row::size("memory", value, Some(3.0))]);
        assert!(outcome(3.0).is_met() && !outcome(3.01).is_met());
        assert!(table(&[("size", outcome(3.01))]).contains("ABOVE"));
    }

    #[test]
    fn the_table_is_written_between_its_marks() -> Result<()> {
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(&file, format!("a\n{BEGIN}old\n{END}b\n"))?;
        write(file.path(), "new\n")?;
        assert_eq!(std::fs::read_to_string(&file)?, format!("a\n{BEGIN}new\n{END}b\n"));
        Ok(())
    }
}
