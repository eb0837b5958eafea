//! The API's definition, held against buf's standard rules ([`lint`]) and against what clients were built with ([`breaking`]).

mod breaking;
mod lint;

use anyhow::{Context, Result};
use prost_types::{DescriptorProto, FileDescriptorProto};
use std::path::Path;

/// Where the definition is.
const DIRECTORY: &str = "crates/api/proto";
/// What clients were built with, a line each; beside the definition.
const BASELINE: &str = "baseline.txt";

/// What is broken, a line each.
pub fn problems(root: &Path) -> Result<Vec<String>> {
    let directory = root.join(DIRECTORY);
    let files = compile(&directory)?;
    let mut problems = lint::check(&files);
    let baseline = std::fs::read_to_string(directory.join(BASELINE)).unwrap_or_default();
    problems.extend(breaking::check(&baseline, &files));
    Ok(problems)
}

/// Adds what is new to the baseline. Refused while something is broken: the baseline never forgets.
pub fn write(root: &Path) -> Result<()> {
    let path = root.join(DIRECTORY).join(BASELINE);
    let files = compile(&root.join(DIRECTORY))?;
    let baseline = std::fs::read_to_string(&path).unwrap_or_default();
    let broken: Vec<String> =
        breaking::check(&baseline, &files).into_iter().filter(|problem| !breaking::is_new(problem)).collect();
    anyhow::ensure!(broken.is_empty(), "clients would break:\n{}", broken.join("\n"));
    std::fs::write(&path, breaking::text(&files)).with_context(|| path.display().to_string())
}

/// Every file of the package below a directory, compiled with its comments.
fn compile(directory: &Path) -> Result<Vec<FileDescriptorProto>> {
    let mut names = Vec::new();
    find(directory, Path::new(""), &mut names)?;
    names.sort();
    let mut compiler = protox::Compiler::new([directory])?;
    compiler.include_source_info(true).open_files(&names)?;
    let files = compiler.file_descriptor_set().file;
    Ok(files.into_iter().filter(|file| names.iter().any(|name| name == file.name())).collect())
}

fn find(directory: &Path, below: &Path, names: &mut Vec<String>) -> Result<()> {
    for entry in std::fs::read_dir(directory.join(below))? {
        let entry = entry?;
        let path = below.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            find(directory, &path, names)?;
        } else if path.extension().is_some_and(|end| end == "proto") {
            names.push(path.to_string_lossy().into_owned());
        }
    }
    Ok(())
}

/// Every message of a file, those within others too, with its full name and its place in the source information.
fn messages(file: &FileDescriptorProto) -> Vec<(String, Vec<i32>, &DescriptorProto)> {
    fn walk<'a>(
        prefix: &str, place: &[i32], message: &'a DescriptorProto, all: &mut Vec<(String, Vec<i32>, &'a DescriptorProto)>,
    ) {
        let name = format!("{prefix}.{}", message.name());
        for (number, inner) in (0..).zip(&message.nested_type) {
            walk(&name, &[place, &[3, number]].concat(), inner, all);
        }
        all.push((name, place.to_vec(), message));
    }
    let mut all = Vec::new();
    for (number, message) in (0..).zip(&file.message_type) {
        walk(file.package(), &[4, number], message, &mut all);
    }
    all
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use super::*;

    pub const GOOD: &str = r#"syntax = "proto3";
package skep.v1;
// Things.
service Things {
  // Makes one.
  rpc Create(CreateThingRequest) returns (Thing);
}
// How it is.
enum ThingState {
  // Not used.
  THING_STATE_UNSPECIFIED = 0;
  // Good.
  THING_STATE_GOOD = 1;
}
// A thing.
message Thing {
  reserved 7;
  // Its name.
  string name = 1;
  // How it is.
  ThingState state = 2;
  // One of them.
  oneof kind {
    // Small.
    bool small = 3;
  }
  // Others.
  repeated Thing parts = 4;
}
// See Things.Create.
message CreateThingRequest {
  // Its name.
  string name = 1;
  // Known again by it.
  string request_id = 2;
}
"#;

    /// The definition with one thing changed.
    pub fn changed(from: &str, to: &str) -> Vec<FileDescriptorProto> {
        assert!(GOOD.contains(from), "{from}");
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("skep/v1")).unwrap();
        std::fs::write(dir.path().join("skep/v1/things.proto"), GOOD.replacen(from, to, 1)).unwrap();
        compile(dir.path()).unwrap()
    }

    #[test]
    fn the_api_is_linted_and_breaks_no_client() {
        let problems = problems(&crate::root()).unwrap();
        assert!(problems.is_empty(), "\n{}", problems.join("\n"));
    }
}
