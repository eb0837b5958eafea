//! What a machine has where nothing was said: what the manual states, field by field.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use skep_tests::{Mode, Suite, is_root, root};
use std::collections::BTreeMap;

/// What is no setting.
const FACTS: &[&str] = &["name", "id", "state", "note", "pci", "pending", "revision", "created", "started"];

/// Fields with their values, those of objects with fields by their paths.
fn fields(shown: &Value) -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    for (name, value) in shown.as_object().into_iter().flatten().filter(|(name, _)| !FACTS.contains(&name.as_str())) {
        match value.as_object().filter(|object| !object.is_empty()) {
            Some(object) => all.extend(object.iter().map(|(below, value)| (format!("{name}.{below}"), value.clone()))),
            None => drop(all.insert(name.clone(), value.clone())),
        }
    }
    all
}

#[test]
fn each_field_has_the_default_that_is_stated() -> Result<()> {
    let manual = std::fs::read_to_string(root().join("docs/devices.md"))?;
    let (_, table) = manual.split_once("\n## Defaults\n").context("no defaults in devices.md")?;
    let rows = table.lines().skip_while(|line| !line.starts_with("|---")).skip(1).take_while(|line| line.starts_with('|'));
    let stated = rows.map(|row| {
        // | `field` | `value`, and what that means | … |
        let mut words = row.split('`').skip(1).step_by(2);
        let (field, value) = words.next().zip(words.next()).with_context(|| format!("no field with a value: {row}"))?;
        Ok((field.to_owned(), serde_json::from_str(value).with_context(|| row.to_owned())?))
    });
    let stated = stated.collect::<Result<BTreeMap<String, Value>>>()?;

    let suite = Suite::start(if is_root() { Mode::Root } else { Mode::User })?;
    suite.ok(&["vm", "create", "plain"])?;
    let shown = suite.json(&["vm", "show", "plain"])?;
    let shown = fields(shown.first().context("no machine")?);
    for (field, value) in &shown {
        let stated = stated.get(field).with_context(|| format!("devices.md states no default of {field}, which is {value}"))?;
        ensure!(stated == value, "{field} is {value}, and devices.md says {stated}");
    }
    ensure!(shown.len() == stated.len(), "devices.md has fields that no machine has: {stated:?}");
    suite.finish()
}
