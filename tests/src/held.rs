//! What the processes that live on hold: their descriptors by kind, and the files of the suite. A life of a machine leaves both as
//! they were.

use crate::Suite;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// The services that live as long as the suite.
pub const SERVICES: [&str; 5] = ["api-frontend", "broker", "storage-helper", "net-helper", "vm-runner"];

/// How long others may take to close what a client that has ended left open.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often, and how long each time, is looked for what is held at rest.
const LOOKS: usize = 3;
const SHORT: Duration = Duration::from_millis(300);

/// How many there are of each kind: of each process's descriptors, and of files.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Held {
    counts: BTreeMap<String, usize>,
}

impl Held {
    fn take(suite: &Suite, processes: &[(String, i32)]) -> Result<Self> {
        let mut held = Self::default();
        for (name, pid) in processes {
            let dir = format!("/proc/{pid}/fd");
            for entry in fs::read_dir(&dir).with_context(|| format!("{name}: {dir}"))? {
                // Gone since it was listed.
                let Ok(target) = fs::read_link(entry?.path()) else { continue };
                held.count(format!("{name}: {}", kind(&target.to_string_lossy())));
            }
        }
        for dir in [&suite.state, &suite.run] {
            held.files(dir, suite.dir())?;
        }
        Ok(held)
    }

    fn total(&self) -> usize {
        self.counts.values().sum()
    }

    fn count(&mut self, what: String) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// Files below `dir`, but for what only grows: the services' logs and the database.
    fn files(&mut self, dir: &Path, root: &Path) -> Result<()> {
        let Ok(entries) = fs::read_dir(dir) else { return Ok(()) };
        for entry in entries {
            let path = entry?.path();
            let name = path.strip_prefix(root)?.to_string_lossy().into_owned();
            if name == "s/db" || (name.starts_with("s/logs/") && path.is_file()) || name.starts_with("s/cell/") {
                continue;
            }
            self.count(format!("file {name}"));
            if path.is_dir() {
                self.files(&path, root)?;
            }
        }
        Ok(())
    }

    /// What there is more of here than in `before`, and less.
    fn differences(&self, before: &Self) -> Vec<String> {
        let all: std::collections::BTreeSet<_> = self.counts.keys().chain(before.counts.keys()).collect();
        let count = |held: &Self, what| held.counts.get(what).copied().unwrap_or(0);
        let both = all.into_iter().map(|what| (what, count(before, what), count(self, what)));
        both.filter(|(_, before, now)| before != now).map(|(what, b, n)| format!("{what}: {b} before, {n} now")).collect()
    }
}

/// What a descriptor leads to, without the number of this one.
fn kind(target: &str) -> String {
    // Its file system is shown no more when the mount namespace of the net-helper that opened it has ended.
    let target = if target.ends_with("/tun") { "/dev/net/tun" } else { target };
    match target.split_once(":[") {
        Some((kind, _)) if !target.starts_with("anon_inode") => kind.to_owned(),
        _ => target.to_owned(),
    }
}

/// The suite's lasting processes, which are to live on, and what they held.
pub struct Watched<'a> {
    suite: &'a Suite,
    processes: Vec<(String, i32)>,
    before: Held,
}

impl<'a> Watched<'a> {
    /// Looks at the suite, and at all processes that are called like one of `more`, too.
    pub fn begin(suite: &'a Suite, more: &[&str]) -> Result<Self> {
        let processes = processes(suite, more)?;
        let mut watched = Self { suite, processes, before: Held::default() };
        watched.before = watched.settled()?;
        Ok(watched)
    }

    /// Says that a process may be another one from now on, and holds what the one before it held.
    pub fn replaced(&mut self, name: &str, more: &[&str]) -> Result<()> {
        let now = processes(self.suite, more)?;
        for ((old, before), (new, after)) in self.processes.iter().zip(&now) {
            ensure!(old == new && (before == after) != (name == old), "{old}: {before}, then {new}: {after}");
        }
        self.processes = now;
        Ok(())
    }

    /// All is as it was.
    pub fn check(&self, after: &str) -> Result<()> {
        // The last client has ended, but nothing tells when others have seen that.
        let until = Instant::now() + PATIENCE;
        loop {
            let differ = Held::take(self.suite, &self.processes)?.differences(&self.before);
            if differ.is_empty() {
                return Ok(());
            }
            ensure!(Instant::now() < until, "after {after}: {differ:#?}");
            std::thread::yield_now();
        }
    }

    /// The least of what is held after some round trips: a connection more may be of a client that has just ended.
    fn settled(&self) -> Result<Held> {
        let mut least: Option<Held> = None;
        for _ in 0..LOOKS {
            self.suite.ok(&["host", "show"])?;
            let until = Instant::now() + SHORT;
            while Instant::now() < until {
                let now = Held::take(self.suite, &self.processes)?;
                least = Some(least.filter(|least| least.total() <= now.total()).unwrap_or(now));
                std::thread::yield_now();
            }
        }
        least.context("nothing was looked at")
    }
}

fn processes(suite: &Suite, more: &[&str]) -> Result<Vec<(String, i32)>> {
    let output = suite.skep(&["--json", "audit"])?;
    let mut found = vec![("supervisor".to_owned(), fs::read_to_string(suite.run.join("up.pid"))?.trim().parse()?)];
    let mut pids = BTreeMap::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let value: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
        if let (Some(name), Some(pid)) = (value["process"].as_str(), value["pid"].as_i64()) {
            pids.insert(name.to_owned(), i32::try_from(pid)?);
        }
    }
    for name in SERVICES.iter().chain(more) {
        let pid = pids.get(*name).with_context(|| format!("the audit knows no {name}"))?;
        found.push(((*name).to_owned(), *pid));
    }
    Ok(found)
}
