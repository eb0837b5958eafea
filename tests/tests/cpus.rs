//! Virtual CPUs, as many and arranged as was said, with a real guest.

use anyhow::{Result, ensure};
use skep_tests::{Mode, Suite, is_root, platform, skip};

#[test]
fn a_guest_has_the_cpus_that_were_said_arranged_as_was_said() -> Result<()> {
    if !is_root()
        && let Some(why) = platform::ORDINARY_USER
    {
        skip!("{why}");
    }
    let suite = Suite::start(if is_root() { Mode::Root } else { Mode::User })?;
    suite.import_guest()?;
    suite.define("m", &["--cpus", "3"])?;
    suite.boot("m")?;
    suite.guest_runs("m", platform::COUNT_CPUS, "3 in 3 cores")?;
    suite.ok(&["vm", "kill", "m"])?;

    let said = suite.ok(&["vm", "set", "m", "--topology", "cores=2,threads=2"])?;
    ensure!(said.contains("topology") && said.contains("cpus"), "{said}");
    let shown = &suite.json(&["vm", "show", "m"])?[0];
    ensure!(shown["cpus"] == 4, "{shown}");
    ensure!(shown["topology"] == serde_json::json!({"sockets": 1, "cores": 2, "threads": 2}), "{shown}");
    suite.boot("m")?;
    suite.guest_runs("m", platform::COUNT_CPUS, "4 in 2 cores")?;
    suite.ok(&["vm", "kill", "m"])?;

    let (code, said) = suite.fails(&["vm", "set", "m", "--cpus", "3"])?;
    ensure!(code == 8 && said.contains("1 sockets x 2 cores x 2 threads") && said.contains("3 CPUs"), "{code} {said}");
    let (code, said) = suite.fails(&["vm", "set", "m", "--cpus", "4", "--topology", "sockets=3"])?;
    ensure!(code == 8 && said.contains("topology"), "{code} {said}");
    suite.ok(&["vm", "set", "m", "--topology", "none", "--cpus", "2"])?;
    let shown = &suite.json(&["vm", "show", "m"])?[0];
    ensure!(shown["cpus"] == 2 && shown["topology"].is_null(), "{shown}");
    suite.finish()
}
