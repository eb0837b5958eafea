//! Every message has its row in the table of rights, its test, and its golden bytes.

use super::text_of;
use crate::source::{Source, has_word};
use skep_proto::{
    Helper, Op, broker::Broker, cell::Cell, console::Console, net::Net, runner::Runner, services::Services, storage::Storage,
};
use skep_rights::Process;

fn protocols() -> [(&'static str, &'static [Op], &'static Process); 7] {
    fn of<H: Helper>(table: &'static Process) -> (&'static str, &'static [Op], &'static Process) {
        (H::NAME, H::OPS, table)
    }
    [
        of::<Broker>(&skep_rights::broker::TABLE),
        of::<Storage>(&skep_rights::storage::TABLE),
        of::<Net>(&skep_rights::net::TABLE),
        of::<Cell>(&skep_rights::vm_runner::TABLE),
        of::<Runner>(&skep_rights::runner::TABLE),
        of::<Console>(&skep_rights::console::TABLE),
        of::<Services>(&skep_rights::services::TABLE),
    ]
}

pub fn check(sources: &[Source], problems: &mut Vec<String>) {
    for (name, ops, table) in protocols() {
        let golden = text_of(sources, &format!("crates/proto/tests/golden/{name}.txt"));
        for op in ops {
            match table.operations.iter().filter(|row| row.name == op.name).count() {
                1 => {}
                0 => problems.push(format!("crates/rights: {}: no row for the operation {}", table.name, op.name)),
                rows => problems.push(format!("crates/rights: {}: {rows} rows for the operation {}", table.name, op.name)),
            }
            for what in ["request", "reply"] {
                if !golden.lines().any(|line| line.starts_with(&format!("{what} {} ", op.name))) {
                    problems.push(format!("crates/proto/tests/golden/{name}.txt: no bytes of {what} {}", op.name));
                }
            }
        }
        for row in table.operations.iter().filter(|row| !ops.iter().any(|op| op.name == row.name)) {
            problems.push(format!("crates/rights: {}: a row for {}, which is no operation of {name}", table.name, row.name));
        }
    }
    let rows = skep_rights::ALL.iter().flat_map(|table| table.operations.iter().map(move |row| (table.name, row.test)));
    for (of, test) in rows.chain(skep_audit::PROOFS.iter().map(|test| ("audit", *test))) {
        if !sources.iter().filter(|source| source.is_rust()).any(|source| has_test(source, test)) {
            problems.push(format!("{of}: the test {test} that it names does not exist"));
        }
    }
}

/// Whether a function of this name stands right below a `#[test]`.
pub(super) fn has_test(source: &Source, name: &str) -> bool {
    let lines: Vec<&str> = source.code.lines().collect();
    let is_test = |line: usize| {
        let above = lines.get(line.saturating_sub(4)..line).unwrap_or_default();
        above.iter().any(|line| line.contains("#[test]") || line.contains("::test]") || line.contains("::test("))
    };
    lines.iter().enumerate().any(|(number, line)| has_word(line, "fn") && has_word(line, name) && is_test(number))
}
