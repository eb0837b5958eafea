//! What a test leaves that is killed: nothing.

use anyhow::{Context, Result, ensure};
use skep_tests::{Mode, Snapshot, Suite, is_root, platform};
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};

/// Set in the process that is killed.
const KILLED: &str = "SKEP_TEST_KILLED";

#[test]
fn a_killed_test_leaves_no_suite() -> Result<()> {
    if std::env::var_os(KILLED).is_some() {
        let suite = Suite::start(if is_root() { Mode::Root } else { Mode::User })?;
        println!("\n{}", suite.dir().display());
        // Until it is killed.
        std::io::stdin().read_to_end(&mut Vec::new())?;
        return Ok(());
    }
    if !is_root()
        && let Some(why) = platform::ORDINARY_USER
    {
        skep_tests::skip!("{why}");
    }
    let mut other = Command::new(std::env::current_exe()?)
        .args(["--exact", "a_killed_test_leaves_no_suite", "--nocapture"])
        .env(KILLED, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let (out, err) = (other.stdout.take().context("stdout")?, other.stderr.take().context("stderr")?);
    let lines = BufReader::new(out).lines().map_while(Result::ok);
    let dir = lines.into_iter().find(|line| line.starts_with("/tmp/")).context("it did not start")?;
    let dir = Path::new(&dir);
    let there = Snapshot::take(dir, None).things;
    // FreeBSD's sockstat(1) cuts names of sockets short.
    let broker = |thing: &String| ["broker.sock", "skep-broker "].iter().any(|part| thing.contains(part));
    ensure!(there.iter().any(broker), "no suite: {there:?}");
    other.kill()?;
    other.wait()?;
    // The guard has it open until it is done.
    let mut said = String::new();
    BufReader::new(err).read_to_string(&mut said)?;
    let left = Snapshot::take(dir, None).things;
    let left: Vec<_> = left.iter().filter(|thing| thing.contains(&*dir.to_string_lossy())).collect();
    ensure!(left.is_empty() && !dir.exists(), "left behind: {left:?}\n{said}");
    Ok(())
}
