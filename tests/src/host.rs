//! What a suite may leave on the host: nothing. Compared around every test.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Everything of skep that the kernel knows: links, mounts, cgroups, sockets and processes of one instance or directory.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Snapshot {
    /// Lines, each with its kind first.
    pub things: BTreeSet<String>,
}

impl Snapshot {
    /// Looks at the host. `mark` is a part of every path of the suite under test.
    pub fn take(mark: &Path, instance: Option<&str>) -> Self {
        let mut things = BTreeSet::new();
        let mark = mark.to_string_lossy();
        let instance = instance.unwrap_or("no instance");
        if let Ok(links) = fs::read_dir("/sys/class/net") {
            for link in links.flatten() {
                let name = link.file_name().to_string_lossy().into_owned();
                if name.starts_with(&format!("sk{instance}")) {
                    things.insert(format!("link {name}"));
                }
            }
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        things.extend(mounts.lines().filter(|l| l.contains(&*mark)).map(|l| format!("mount {l}")));
        let sockets = fs::read_to_string("/proc/net/unix").unwrap_or_default();
        let bound = sockets.lines().filter_map(|l| l.split_whitespace().nth(7)).filter(|p| p.contains(&*mark));
        things.extend(bound.map(|p| format!("socket {p}")));
        cgroups(Path::new("/sys/fs/cgroup"), &format!("skep-{instance}"), 3, &mut things);
        if let Ok(processes) = fs::read_dir("/proc") {
            for entry in processes.flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                if !name.bytes().all(|c| c.is_ascii_digit()) {
                    continue;
                }
                let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
                let command = String::from_utf8_lossy(&command).replace('\0', " ");
                let program = fs::read_link(entry.path().join("exe")).unwrap_or_default();
                let ours = command.contains(&*mark) || program.to_string_lossy().contains(&*mark);
                // The command that the test itself runs is not the suite's.
                if ours && name != std::process::id().to_string() {
                    things.insert(format!("process {}", command.trim()));
                }
            }
        }
        Self { things }
    }

    /// What is there now and was not before.
    pub fn since(&self, before: &Snapshot) -> Vec<String> {
        self.things.difference(&before.things).cloned().collect()
    }
}

fn cgroups(dir: &Path, mark: &str, depth: u32, things: &mut BTreeSet<String>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir())) {
        let path = entry.path();
        if path.to_string_lossy().contains(mark) {
            things.insert(format!("cgroup {}", path.display()));
        }
        if depth > 0 {
            cgroups(&path, mark, depth - 1, things);
        }
    }
}
