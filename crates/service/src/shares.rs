//! The directories of the host that machines may share, as an administrator gives them: `NAME=DIR,NAME=DIR`.

use skep_proto::ShareName;
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

/// Most of them.
const MOST: usize = 64;

/// Reads the list; empty and `none` are none. Each directory is an absolute path without `.` and `..`, and neither in one of `ours` nor above
/// it. Whether it is there is seen when a machine uses it.
pub fn shares(text: &str, ours: &[&Path]) -> Result<BTreeMap<ShareName, PathBuf>, String> {
    let mut all = BTreeMap::new();
    for part in text.trim().split(',').map(str::trim).filter(|part| !part.is_empty() && *part != "none") {
        let (name, dir) = part.split_once('=').ok_or_else(|| format!("share `{part}`: NAME=DIR is expected"))?;
        let name: ShareName = name.trim().parse().map_err(|e| format!("share `{}`: {e}", name.escape_default()))?;
        let dir = directory(dir.trim(), ours).map_err(|why| format!("share {name}: `{}`: {why}", dir.trim().escape_default()))?;
        if all.insert(name.clone(), dir).is_some() {
            return Err(format!("share {name} is given twice; give each name one directory"));
        }
    }
    if all.len() > MOST { Err(format!("{} shares: at most {MOST} are expected", all.len())) } else { Ok(all) }
}

fn directory(text: &str, ours: &[&Path]) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    let plain = path.components().skip(1).all(|part| matches!(part, Component::Normal(_)));
    // What components pass over: `/a//b`, `/a/./b`, `/a/`.
    let whole = path.components().collect::<PathBuf>().as_os_str().len() == text.len();
    if !path.is_absolute() || !plain || !whole || text.len() > 1000 || text.chars().any(char::is_control) {
        return Err("an absolute path without `.`, `..`, `//` and a `/` at its end is expected".to_owned());
    }
    match ours.iter().find(|own| path.starts_with(own) || own.starts_with(&path)) {
        Some(own) => Err(format!("{} is the suite's own; share a directory that neither is in it nor holds it", own.display())),
        None => Ok(path),
    }
}

/// As [`shares`] reads them.
pub fn shares_text(shares: &BTreeMap<ShareName, PathBuf>) -> String {
    shares.iter().map(|(name, dir)| format!("{name}={}", dir.display())).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<String, String> {
        shares(text, &[Path::new("/var/lib/skep"), Path::new("/var/run/skep")]).map(|all| shares_text(&all))
    }

    #[test]
    fn what_is_written_is_read_again() {
        for none in ["", " ", "none", ",,"] {
            assert_eq!(read(none).as_deref(), Ok(""), "{none:?}");
        }
        assert_eq!(read(" src=/srv/a=b , out=/data ").as_deref(), Ok("out=/data,src=/srv/a=b"));
        assert_eq!(read("out=/data,src=/srv/a=b").as_deref(), Ok("out=/data,src=/srv/a=b"));
    }

    #[test]
    fn what_is_no_name_or_no_plain_directory_is_refused() {
        for wrong in [
            "src",
            "=/srv",
            "a/b=/srv",
            "../a=/srv",
            "-a=/srv",
            "a=",
            "a=srv",
            "a=/srv/../etc",
            "a=/srv/./x",
            "a=/srv/",
            "a=/srv//x",
            "a=//srv",
            "a=/srv\n/x",
            "a=/srv,a=/data",
            "a=/",
            "a=/var",
            "a=/var/lib/skep",
            "a=/var/run/skep/cells",
        ] {
            assert!(read(wrong).is_err(), "{wrong:?}");
        }
        assert!(read(&format!("{}=/srv", "a".repeat(32))).is_err());
        assert!(read(&(0..65).map(|n| format!("s{n}=/srv")).collect::<Vec<_>>().join(",")).is_err());
    }
}
