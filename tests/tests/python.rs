//! The API as others see it: clients in Python that know nothing but what the suite's reflection says.

use anyhow::{Context, Result, ensure};
use skep_tests::{Mode, Suite, guest, is_root, programs, skip};
use std::path::{Path, PathBuf};
use std::process::Command;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A Python with gRPC, below the build's directory; or why there is none.
fn python() -> Result<Result<PathBuf, String>> {
    let dir = programs().parent().context("no directory above the programs")?.join("python");
    let script = repository().join("scripts/python");
    if !script.exists() {
        return Ok(Err("scripts/python is not here".to_owned()));
    }
    let made = Command::new(script).arg(&dir).output()?;
    if made.status.success() {
        return Ok(Ok(dir.join("bin/python")));
    }
    let why = String::from_utf8_lossy(&made.stderr).into_owned();
    Ok(Err(why.lines().last().unwrap_or("scripts/python failed").to_owned()))
}

/// Runs a script of tests/python, which must succeed; its output.
fn run(python: &Path, script: &str, args: &[&str]) -> Result<String> {
    let output = Command::new(python)
        .arg(repository().join("tests/python").join(script))
        .args(args)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{script} {}: {}\n{out}{err}", args.join(" "), output.status);
    Ok(out.into_owned())
}

fn start() -> Result<(Suite, String)> {
    let suite = Suite::start(if is_root() { Mode::Root } else { Mode::User })?;
    let address = format!("unix:{}", suite.run.join("api.sock").display());
    Ok((suite, address))
}

#[test]
fn a_python_client_generated_from_reflection_runs_a_whole_life() -> Result<()> {
    let python = match python()? {
        Ok(python) => python,
        Err(why) => skip!("no Python with gRPC: {why}"),
    };
    let guest = guest()?;
    let [kernel, initrd] = ["kernel", "initrd"].map(|name| guest.join(name).to_string_lossy().into_owned());
    let (suite, address) = start()?;
    let code = tempfile::tempdir()?;
    let code = code.path().to_string_lossy().into_owned();
    run(&python, "reflect.py", &[&address, "generate", &code])?;
    let said = run(&python, "life.py", &[&code, &address, &kernel, &initrd])?;
    ensure!(said.trim() == "a whole life", "{said}");
    suite.finish()
}

#[test]
fn a_generic_reflection_client_lists_and_creates() -> Result<()> {
    let python = match python()? {
        Ok(python) => python,
        Err(why) => skip!("no Python with gRPC: {why}"),
    };
    let (suite, address) = start()?;
    let services = run(&python, "reflect.py", &[&address, "list"])?;
    for wanted in ["skep.v1.Machines", "  WatchStats", "skep.v1.Host", "  Log"] {
        ensure!(services.lines().any(|line| line == wanted), "{wanted} is missing in\n{services}");
    }
    let call = |method: &str, request: &str| -> Result<serde_json::Value> {
        Ok(serde_json::from_str(&run(&python, "reflect.py", &[&address, "call", method, request])?)?)
    };
    let made = call("skep.v1.Machines/Create", r#"{"name": "generic", "settings": {"cpus": 2, "memoryMib": "64"}}"#)?;
    ensure!(made["name"] == "generic" && made["state"] == "MACHINE_STATE_STOPPED", "{made}");
    let list = call("skep.v1.Machines/List", "{}")?;
    ensure!(list["machines"][0]["id"] == made["id"] && list["machines"][0]["settings"]["cpus"] == 2, "{list}");
    // A refusal is that of the API.
    let refused = run(&python, "reflect.py", &[&address, "call", "skep.v1.Machines/Get", r#"{"machine": "none"}"#]);
    let why = refused.map(|out| anyhow::anyhow!("{out}")).unwrap_or_else(|error| error).to_string();
    ensure!(why.contains("NOT_FOUND"), "{why}");
    suite.ok(&["vm", "delete", "generic"])?;
    suite.finish()
}
