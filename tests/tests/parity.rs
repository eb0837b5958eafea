//! What the former manager's calls did to its objects, done around a guest that runs (docs/parity.md).

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use skep_tests::{Mode, Suite, is_root, platform, skip};

fn one(suite: &Suite, args: &[&str]) -> Result<Value> {
    suite.json(args)?.into_iter().next().with_context(|| format!("skep {}: nothing", args.join(" ")))
}

fn names(suite: &Suite, args: &[&str]) -> Result<Vec<String>> {
    Ok(suite.json(args)?.iter().map(|one| one["name"].as_str().unwrap_or_default().to_owned()).collect())
}

/// It is refused, for this reason, and this is named.
fn refused(suite: &Suite, args: &[&str], code: i32, says: &str) -> Result<()> {
    let (got, message) = suite.fails(args)?;
    ensure!(got == code && message.contains(says), "skep {}: {got} {message}", args.join(" "));
    Ok(())
}

#[test]
fn every_object_is_looked_up_changed_cloned_and_deleted_around_a_guest_that_runs() -> Result<()> {
    if !is_root() {
        skip!("only root makes switches");
    }
    let suite = Suite::start(Mode::Root)?;
    suite.import_guest()?;
    ensure!(one(&suite, &["host", "show"])?["version"] == env!("CARGO_PKG_VERSION"));
    suite.ok(&["switch", "create", "lan"])?;
    suite.ok(&["disk", "create", "data", "--size", "1M"])?;
    suite.define("m", &["--disk", "data"])?;
    suite.ok(&["nic", "create", "m-0", "--switch", "lan", "--machine", "m", "--mac", "02:00:5e:10:00:01"])?;
    suite.boot("m")?;

    // Of the machine: lists, by name and by id, and other words for it while its guest runs.
    let shown = one(&suite, &["vm", "show", "m"])?;
    let id = shown["id"].as_str().context("no id")?;
    ensure!(shown["state"] == "running" && one(&suite, &["vm", "show", id])? == shown, "{shown}");
    ensure!(names(&suite, &["vm", "list"])? == ["m"]);
    suite.ok(&["vm", "set", "m", "--description", "a web server"])?;
    suite.ok(&["vm", "rename", "m", "web"])?;
    let shown = one(&suite, &["vm", "show", id])?;
    ensure!(shown["name"] == "web" && shown["description"] == "a web server" && shown["state"] == "running", "{shown}");
    suite.guest_runs("web", "echo still-$((6*7))", "still-42")?;

    // Of its disk, switch and NIC.
    let disk = one(&suite, &["disk", "show", "data"])?;
    ensure!(disk["machines"] == serde_json::json!(["web"]) && disk["size"] == 1 << 20, "{disk}");
    suite.ok(&["disk", "set", "data", "--description", "its data"])?;
    suite.ok(&["disk", "rename", "data", "store"])?;
    ensure!(one(&suite, &["disk", "show", "store"])?["description"] == "its data");
    suite.ok(&["switch", "set", "lan", "--description", "of the house"])?;
    suite.ok(&["switch", "rename", "lan", "house"])?;
    let switch = one(&suite, &["switch", "show", "house"])?;
    ensure!(
        switch["description"] == "of the house" && names(&suite, &["switch", "list"])?.contains(&"house".to_owned()),
        "{switch}"
    );
    suite.ok(&["nic", "set", "m-0", "--description", "to the house"])?;
    suite.ok(&["nic", "rename", "m-0", "web-0"])?;
    let nic = one(&suite, &["nic", "show", "web-0"])?;
    ensure!(nic["machine"] == "web" && nic["switch"] == "house" && nic["description"] == "to the house", "{nic}");
    ensure!(nic["mac"] == "02:00:5e:10:00:01" && nic["model"] == "virtio_net", "{nic}");
    suite.guest_runs("web", platform::ADDRESSES, "02:00:5e:10:00:01")?;

    // A NIC outlives its machine, and has copies with addresses of their own.
    suite.ok(&["nic", "clone", "web-0", "spare"])?;
    let spare = one(&suite, &["nic", "show", "spare"])?;
    ensure!(spare["machine"] == "" && spare["switch"] == "house" && spare["mac"] != nic["mac"], "{spare}");
    ensure!(names(&suite, &["nic", "list"])? == ["spare", "web-0"]);
    refused(&suite, &["nic", "attach", "spare", "web"], 5, "web")?;
    refused(&suite, &["nic", "detach", "web-0"], 5, "web")?;
    refused(&suite, &["nic", "delete", "web-0"], 5, "web")?;
    refused(&suite, &["switch", "delete", "house"], 5, "house")?;
    refused(&suite, &["disk", "delete", "store"], 5, "store")?;
    refused(&suite, &["vm", "delete", "web"], 5, "web")?;
    suite.guest_runs("web", "echo still-$((6*7))", "still-42")?;

    suite.ok(&["vm", "stop", "web"])?;
    suite.ok(&["nic", "attach", "spare", "web"])?;
    let of = |shown: &Value| shown["nics"].as_array().map_or(0, Vec::len);
    let shown = one(&suite, &["vm", "show", "web"])?;
    ensure!(of(&shown) == 2 && shown["nics"][1]["nic"] == "spare", "{shown}");
    suite.boot("web")?;
    let mac = spare["mac"].as_str().context("no address")?;
    suite.guest_runs("web", platform::ADDRESSES, mac)?;
    suite.ok(&["vm", "kill", "web"])?;
    suite.ok(&["nic", "detach", "spare"])?;
    ensure!(of(&one(&suite, &["vm", "show", "web"])?) == 1);
    suite.ok(&["nic", "delete", "spare"])?;
    suite.ok(&["vm", "delete", "web", "--disks"])?;
    ensure!(names(&suite, &["vm", "list"])?.is_empty() && !names(&suite, &["disk", "list"])?.contains(&"store".to_owned()));
    ensure!(one(&suite, &["nic", "show", "web-0"])?["machine"] == "", "a NIC goes with its machine");
    suite.ok(&["nic", "delete", "web-0"])?;
    suite.ok(&["switch", "delete", "house"])?;
    suite.finish()
}
