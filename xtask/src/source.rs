//! The files of the tree, and Rust source without its comments and strings.

use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// One file.
#[derive(Debug)]
pub struct Source {
    /// From the top of the tree.
    pub path: PathBuf,
    /// What is in it.
    pub text: String,
    /// For Rust: comments and the insides of strings are blanks, so that a rule's own words do not break it.
    pub code: String,
}

impl Source {
    /// Whether it is Rust.
    pub fn is_rust(&self) -> bool {
        self.path.extension().is_some_and(|e| e == "rs")
    }
    /// `path:line`.
    pub fn at(&self, line: usize) -> String {
        format!("{}:{}", self.path.display(), line + 1)
    }
    /// Numbers of the lines of code that hold this word.
    pub fn lines_with<'a>(&'a self, word: &'a str) -> impl Iterator<Item = usize> + 'a {
        self.code.lines().enumerate().filter(move |(_, line)| has_word(line, word)).map(|(number, _)| number)
    }
}

/// Every text file but what is built, hidden or fetched.
pub fn read(root: &Path) -> Result<Vec<Source>> {
    let mut sources = Vec::new();
    let mut directories = vec![root.to_path_buf()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).with_context(|| directory.display().to_string())? {
            let path = entry?.path();
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            // Others may be writing here: what vanishes meanwhile is not of the tree.
            let Ok(meta) = fs::symlink_metadata(&path) else { continue };
            if meta.is_dir() && name != "target" && name != ".git" {
                directories.push(path);
            } else if meta.is_file()
                && let Ok(text) = fs::read_to_string(&path)
            {
                let path = path.strip_prefix(root).unwrap_or(&path).to_path_buf();
                let code = if path.extension().is_some_and(|e| e == "rs") { code(&text) } else { String::new() };
                sources.push(Source { path, text, code });
            }
        }
    }
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(sources)
}

/// Whether a word stands in a line, not as a part of another.
pub fn has_word(line: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line.get(..at).and_then(|text| text.chars().next_back());
        let after = line.get(at + word.len()..).and_then(|text| text.chars().next());
        !before.is_some_and(part) && !after.is_some_and(|c| part(c) && word.ends_with(part))
    })
}

/// Rust with blanks for comments and the insides of strings; lines keep their numbers.
fn code(text: &str) -> String {
    let characters: Vec<char> = text.chars().collect();
    let at = |index: usize| characters.get(index).copied().unwrap_or('\0');
    let mut out = String::with_capacity(text.len());
    let mut index = 0;
    while index < characters.len() {
        let end = match (at(index), at(index + 1)) {
            ('/', '/') => find(&characters, index, |i| at(i) == '\n'),
            ('/', '*') => block_comment(&characters, index),
            ('r', '"' | '#') if !out.ends_with(|c: char| c.is_alphanumeric() || c == '_') => raw_string(&characters, index),
            ('"', _) => string(&characters, index),
            // A character, not a lifetime.
            ('\'', '\\') => find(&characters, index + 3, |i| at(i) == '\'') + 1,
            ('\'', _) if at(index + 2) == '\'' => index + 3,
            _ => {
                out.push(at(index));
                index += 1;
                continue;
            }
        };
        let end = end.clamp(index + 1, characters.len());
        out.extend((index..end).map(|i| if at(i) == '\n' { '\n' } else { ' ' }));
        index = end;
    }
    out
}

fn find(characters: &[char], from: usize, wanted: impl Fn(usize) -> bool) -> usize {
    (from..characters.len()).find(|i| wanted(*i)).unwrap_or(characters.len())
}

fn block_comment(characters: &[char], from: usize) -> usize {
    find(characters, from + 2, |i| characters.get(i..i + 2) == Some(&['*', '/'])) + 2
}

fn string(characters: &[char], from: usize) -> usize {
    let mut escaped = false;
    for (index, c) in characters.iter().enumerate().skip(from + 1) {
        match c {
            '"' if !escaped => return index + 1,
            '\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    characters.len()
}

/// `r"…"`, `r#"…"#`; `from + 1` if it is none (`r#type`).
fn raw_string(characters: &[char], from: usize) -> usize {
    let hashes = characters.iter().skip(from + 1).take_while(|c| **c == '#').count();
    if characters.get(from + 1 + hashes) != Some(&'"') {
        return from + 1;
    }
    let mut end = vec!['"'];
    end.extend(std::iter::repeat_n('#', hashes));
    find(characters, from + 2 + hashes, |i| characters.get(i..i + end.len()) == Some(end.as_slice())) + end.len()
}

#[cfg(test)]
mod tests {
    use super::{code, has_word};

    #[test]
    fn comments_and_strings_are_not_code() {
        let text = "let a = \"unsafe \\\" dbg!\"; // unsafe\nlet r = r#\"unsafe\"#; /* unsafe\n */ let c = '\"'; unsafe {}\nfn f<'a>() {}";
        let code = code(text);
        assert_eq!(code.lines().count(), text.lines().count());
        assert_eq!(code.matches("unsafe").count(), 1, "{code}");
        assert!(code.contains("fn f<'a>() {}"));
    }

    #[test]
    fn a_word_is_not_a_part_of_one() {
        assert!(has_word("unsafe {", "unsafe"));
        assert!(!has_word("forbid(unsafe_code)", "unsafe"));
        assert!(has_word("    todo!()", "todo!"));
    }
}
