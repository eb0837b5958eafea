//! The source: where platform code and `unsafe` may stand, what may stand nowhere, how long a file may be.

use crate::source::Source;
use std::path::Path;

/// No file is longer.
const LONGEST: usize = 500;

pub fn check(sources: &[Source], problems: &mut Vec<String>) {
    for source in sources {
        if source.is_rust() {
            rust(source, problems);
        }
        let text =
            source.is_rust() || ["proto", "sql", "sh", "py"].iter().any(|e| source.path.extension().is_some_and(|x| x == *e));
        let lines = source.text.lines().count();
        if text && lines > LONGEST {
            problems.push(format!("{}: {lines} lines; {LONGEST} is the most", source.path.display()));
        }
        // Split, so that this line does not break its own rule.
        let outside = concat!("../", "shared");
        // Its fallback in continuous integration, for a library that the registry has dropped.
        if source.path == Path::new("scripts/freebsd-cross") {
            continue;
        }
        for (number, _) in source.text.lines().enumerate().filter(|(_, line)| line.contains(outside)) {
            problems.push(format!("{}: names something outside the tree", source.at(number)));
        }
    }
    roots(sources, problems);
}

fn rust(source: &Source, problems: &mut Vec<String>) {
    if !may_ask_for_the_platform(&source.path) {
        // A test of what only one system has says so at its top.
        let whole = |line: &usize| {
            let text = source.code.lines().nth(*line).unwrap_or_default();
            text.starts_with("#![cfg(") && source.path.iter().any(|part| part == "tests")
        };
        for line in source.lines_with("target_os").filter(|line| !whole(line)) {
            problems.push(format!("{}: `target_os` outside platform/mod.rs", source.at(line)));
        }
    }
    if !source.path.starts_with("crates/sys") {
        for line in source.lines_with("unsafe") {
            problems.push(format!("{}: `unsafe` outside crates/sys", source.at(line)));
        }
    }
    for word in ["todo!", "unimplemented!", "dbg!"] {
        for line in source.lines_with(word) {
            problems.push(format!("{}: {word}", source.at(line)));
        }
    }
    for (number, line) in source.code.lines().enumerate() {
        if line.replace(' ', "").contains("#[ignore]") {
            problems.push(format!("{}: a test that is ignored without a reason", source.at(number)));
        }
    }
}

fn may_ask_for_the_platform(path: &Path) -> bool {
    path.ends_with("platform/mod.rs") || path.starts_with("crates/sys") || path.starts_with("crates/sandbox")
}

/// Every crate forbids `unsafe`, but the one that is made for it.
fn roots(sources: &[Source], problems: &mut Vec<String>) {
    let manifests = sources.iter().filter(|source| source.path.ends_with("Cargo.toml"));
    for directory in
        manifests.filter_map(|manifest| manifest.path.parent()).filter(|directory| *directory != Path::new("crates/sys"))
    {
        let is_root = |path: &Path| {
            let Ok(below) = path.strip_prefix(directory) else { return false };
            below == Path::new("src/lib.rs") || below == Path::new("src/main.rs") || below.parent() == Some(Path::new("src/bin"))
        };
        for source in sources.iter().filter(|source| source.is_rust() && is_root(&source.path)) {
            if !source.code.contains("#![forbid(unsafe_code)]") {
                problems.push(format!("{}: no #![forbid(unsafe_code)]", source.path.display()));
            }
        }
    }
}
