//! The text files of `/proc/PID` (proc(5)). What does not parse is left out; a status without its fields is a process that ended.

use crate::facts::Mount;

/// What `status` says.
#[derive(Debug, Default)]
pub struct Status {
    pub name: String,
    pub parent: i32,
    pub uids: Vec<u32>,
    pub gids: Vec<u32>,
    pub groups: Vec<u32>,
    pub threads: u32,
    pub capabilities: [u64; 5],
    pub no_new_privs: bool,
    pub seccomp: u32,
    pub filters: u32,
}

/// The value of one line `Name:\tvalue`.
pub fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

/// `None`: cut short, or a zombie, which has nothing any more.
pub fn status(text: &str) -> Option<Status> {
    let numbers = |name: &str| -> Option<Vec<u32>> { field(text, name)?.split_whitespace().map(|n| n.parse().ok()).collect() };
    let set = |name: &str| u64::from_str_radix(field(text, name)?, 16).ok();
    let number = |name: &str| field(text, name)?.parse::<u32>().ok();
    if field(text, "State")?.starts_with(['Z', 'X']) {
        return None;
    }
    Some(Status {
        name: super::clean(field(text, "Name")?),
        parent: field(text, "PPid")?.parse().ok()?,
        uids: numbers("Uid")?,
        gids: numbers("Gid")?,
        groups: numbers("Groups")?,
        threads: number("Threads")?,
        capabilities: [set("CapInh")?, set("CapPrm")?, set("CapEff")?, set("CapBnd")?, set("CapAmb")?],
        no_new_privs: number("NoNewPrivs")? == 1,
        seccomp: number("Seccomp")?,
        // Linux 5.9; 5.19 is the floor.
        filters: number("Seccomp_filters")?,
    })
}

/// The number in `net:[4026531833]`.
pub fn bracketed(link: &str) -> Option<u64> {
    link.strip_suffix(']')?.rsplit_once('[')?.1.parse().ok()
}

/// `limits`: the soft limit of open files.
pub fn most_descriptors(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("Max open files"))?.split_whitespace().next()?.parse().ok()
}

/// `cgroup`: the paths, without the hierarchies' numbers.
pub fn cgroups(text: &str) -> Vec<String> {
    let mut paths: Vec<String> = text.lines().filter_map(|line| line.splitn(3, ':').nth(2)).map(super::clean).collect();
    paths.sort();
    paths.dedup();
    paths
}

/// `mountinfo`: `id parent major:minor root point options [optional…] - type source options`.
pub fn mounts(text: &str) -> Vec<Mount> {
    text.lines().filter_map(mount).collect()
}

fn mount(line: &str) -> Option<Mount> {
    let (mount, filesystem) = line.split_once(" - ")?;
    let mut mount = mount.split(' ').skip(3);
    let (root, point, options) = (mount.next()?, mount.next()?, mount.next()?);
    let mut filesystem = filesystem.split(' ');
    let (kind, _source, of_all) = (filesystem.next()?, filesystem.next()?, filesystem.next()?);
    let has = |options: &str, wanted: &str| options.split(',').any(|option| option == wanted);
    Some(Mount {
        root: super::clean(root),
        point: super::clean(point),
        filesystem: super::clean(kind),
        read_only: has(options, "ro") || has(of_all, "ro"),
        plain: ["nosuid", "nodev", "noexec"].iter().all(|option| has(options, option)),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    #[test]
    fn a_status_cut_anywhere_is_no_error() {
        let whole = std::fs::read_to_string("/proc/self/status").unwrap();
        assert!(super::status(&whole).is_some());
        for end in 0..whole.len() {
            if let Some(part) = whole.get(..end) {
                let _ = super::status(part);
            }
        }
        assert!(super::status("").is_none());
    }

    #[test]
    fn mounts_are_read() {
        let text =
            "24 1 8:1 / / rw,relatime shared:1 - ext4 /dev/root rw\n25 24 0:5 /null /dev/null ro,nosuid - devtmpfs dev rw\nbad\n";
        let mounts = super::mounts(text);
        assert_eq!(mounts.len(), 2);
        assert_eq!((mounts[1].root.as_str(), mounts[1].point.as_str(), mounts[1].read_only), ("/null", "/dev/null", true));
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_parsers_panic(text in "(?s).{0,200}") {
            let _ = (super::status(&text), super::mounts(&text), super::cgroups(&text), super::most_descriptors(&text));
            let _ = super::bracketed(&text);
        }
    }
}
