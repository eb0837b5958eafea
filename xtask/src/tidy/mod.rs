//! The rules of the tree.

mod operations;
mod parity;
mod sources;
mod tables;

use crate::source::{self, Source};
use crate::{errors, rights};
use anyhow::Result;
use std::path::Path;

/// What is broken, a line each.
pub fn problems(root: &Path) -> Result<Vec<String>> {
    let sources = source::read(root)?;
    let mut problems = Vec::new();
    operations::check(&sources, &mut problems);
    tables::check(&sources, &mut problems);
    parity::check(&sources, &mut problems);
    sources::check(&sources, &mut problems);
    for (name, page, command) in [("docs/rights.md", rights::page(), "rights"), ("docs/errors.md", errors::page(), "errors")] {
        if text_of(&sources, name) != page {
            problems.push(format!("{name}: not what is printed from the tables; write it with `cargo xtask {command} --write`"));
        }
    }
    problems.extend(crate::proto::problems(root)?);
    problems.sort();
    problems.dedup();
    Ok(problems)
}

/// A file's text; nothing if it is not there.
fn text_of<'a>(sources: &'a [Source], name: &str) -> &'a str {
    sources.iter().find(|source| source.path == Path::new(name)).map_or("", |source| source.text.as_str())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    #[test]
    fn the_tree_is_tidy() {
        let problems = super::problems(&crate::root()).unwrap();
        assert!(problems.is_empty(), "\n{}", problems.join("\n"));
    }
}
