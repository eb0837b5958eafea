//! The few facts of a 64-bit ELF file that decide what it needs (elf(5)). Every offset of the file is checked: it may be anything.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// What an ELF file asks for.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// `PT_INTERP`: the run-time linker; none for libraries and static programs.
    pub interpreter: Option<PathBuf>,
    /// `DT_NEEDED`: names of libraries.
    pub libraries: Vec<String>,
    /// `DT_RUNPATH` or `DT_RPATH`: where it looks first; `$ORIGIN` not yet replaced.
    pub run_path: Vec<String>,
}

const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const PT_INTERP: u32 = 3;
const DT_NEEDED: u64 = 1;
const DT_STRTAB: u64 = 5;
const DT_RPATH: u64 = 15;
const DT_RUNPATH: u64 = 29;
/// More entries than any real file has; a bound for hostile ones.
const MOST: usize = 4096;

struct Segment {
    kind: u32,
    offset: u64,
    address: u64,
    size: u64,
}

fn number<const N: usize>(file: &[u8], at: u64) -> Option<[u8; N]> {
    let at = usize::try_from(at).ok()?;
    file.get(at..at.checked_add(N)?)?.try_into().ok()
}
fn u16_at(file: &[u8], at: u64) -> Option<u64> {
    number(file, at).map(|b| u64::from(u16::from_le_bytes(b)))
}
fn u64_at(file: &[u8], at: u64) -> Option<u64> {
    number(file, at).map(u64::from_le_bytes)
}
fn text_at(file: &[u8], at: u64) -> Option<&[u8]> {
    let rest = file.get(usize::try_from(at).ok()?..)?;
    rest.iter().take(MOST).position(|b| *b == 0).and_then(|end| rest.get(..end))
}

fn segments(file: &[u8]) -> Option<Vec<Segment>> {
    let (table, size, count) = (u64_at(file, 32)?, u16_at(file, 54)?, u16_at(file, 56)?);
    let one = |n: u64| {
        let at = table.checked_add(n.checked_mul(size)?)?;
        Some(Segment {
            kind: u32::from_le_bytes(number(file, at)?),
            offset: u64_at(file, at.checked_add(8)?)?,
            address: u64_at(file, at.checked_add(16)?)?,
            size: u64_at(file, at.checked_add(32)?)?,
        })
    };
    (0..count).map(one).collect()
}

/// Reads them. `None`: not a whole 64-bit little-endian ELF file.
pub fn needs(file: &[u8]) -> Option<Needs> {
    if file.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let segments = segments(file)?;
    let mut needs = Needs::default();
    if let Some(interp) = segments.iter().find(|s| s.kind == PT_INTERP) {
        needs.interpreter = Some(PathBuf::from(OsStr::from_bytes(text_at(file, interp.offset)?)));
    }
    let Some(dynamic) = segments.iter().find(|s| s.kind == PT_DYNAMIC) else { return Some(needs) };
    let mut entries = Vec::new();
    for n in 0..(dynamic.size / 16).min(MOST as u64) {
        let at = dynamic.offset.checked_add(n * 16)?;
        match u64_at(file, at)? {
            0 => break,
            tag => entries.push((tag, u64_at(file, at.checked_add(8)?)?)),
        }
    }
    let strings = entries.iter().find(|(tag, _)| *tag == DT_STRTAB)?.1;
    let load = segments.iter().find(|s| s.kind == PT_LOAD && s.address <= strings && strings - s.address < s.size)?;
    let strings = load.offset.checked_add(strings - load.address)?;
    for (tag, value) in entries {
        let text = || String::from_utf8(text_at(file, strings.checked_add(value)?)?.to_vec()).ok();
        match tag {
            DT_NEEDED => needs.libraries.push(text()?),
            DT_RUNPATH | DT_RPATH => needs.run_path.extend(text()?.split(':').map(str::to_owned)),
            _ => {}
        }
    }
    Some(needs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_test_needs_the_c_library_and_a_linker() {
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let needs = needs(&own).unwrap();
        assert!(needs.libraries.iter().any(|l| l.starts_with("libc.so")), "{needs:?}");
        assert!(needs.interpreter.is_some());
    }

    #[test]
    fn broken_files_are_refused_without_harm() {
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        for cut in [0, 3, 6, 40, 63, 64, 100, 500] {
            assert_eq!(needs(&own[..cut]), None);
        }
        // Every byte of the header and of the program headers, made as wrong as can be: an answer or none, no panic.
        for at in 6..1000 {
            let mut bad = own.clone();
            bad[at] = 0xff;
            let _ = needs(&bad);
        }
    }
}
