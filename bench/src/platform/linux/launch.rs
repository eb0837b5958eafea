//! From an image that is there to the first byte on a new machine's serial line, against the bare hypervisor on an overlay of the same image.

use super::hand::{Hypervisor, accelerator, has};
use crate::api::Api;
use crate::report::{Outcome, Row};
use crate::stats::{Samples, ratio};
use crate::suite;
use anyhow::{Context, Result, ensure};
use std::process::Command;
use std::time::Instant;

/// Launches of each kind, in turn.
const PAIRS: usize = 10;
const LIMIT: f64 = 1.3;
/// Debian's firmware, which skep gives its machines, too.
const CODE: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";
const VARS: &str = "/usr/share/OVMF/OVMF_VARS_4M.fd";

pub fn run() -> Result<Outcome> {
    if !skep_tests::is_root() {
        return Ok(Outcome::Skipped("switches need root".into()));
    }
    if !has("qemu-img") {
        return Ok(Outcome::Skipped("qemu-img (Debian: qemu-utils) is not installed".into()));
    }
    let image = skep_tests::guest()?.join("disk.img");
    let image = image.to_str().context("a path")?;
    let suite = suite::start()?;
    suite.ok(&["image", "import", "guest", image])?;
    let mut api = Api::connect(&suite.run.join("api.sock"))?;
    let (overlay, vars) = (suite.dir().join("overlay.qcow2"), suite.dir().join("vars.fd"));
    let (mut ours, mut floor) = (Samples::default(), Samples::default());
    for turn in 0..=PAIRS {
        let name = format!("m{turn}");
        let from = Instant::now();
        api.launch("guest", &name)?;
        api.first_byte(&name)?;
        let took = from.elapsed();
        let accelerator = accelerator(&suite)?;
        api.kill(&name)?;
        suite.ok(&["vm", "delete", &name, "--disks"])?;

        // Made by hand before: only the start is the floor's.
        std::fs::copy(VARS, &vars).context(VARS)?;
        let made =
            Command::new("qemu-img").args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b", image]).arg(&overlay).status()?;
        ensure!(made.success(), "qemu-img: {made}");
        let more = [
            "-drive".to_owned(),
            format!("if=pflash,format=raw,readonly=on,file={CODE}"),
            "-drive".to_owned(),
            format!("if=pflash,format=raw,file={}", vars.display()),
            "-drive".to_owned(),
            format!("if=virtio,format=qcow2,file={}", overlay.display()),
        ];
        let from = Instant::now();
        let mut hypervisor = Hypervisor::start(&accelerator, "256", &more)?;
        hypervisor.first_byte()?;
        // The first of each warms up.
        if turn > 0 {
            floor.add(from.elapsed());
            ours.add(took);
        }
    }
    drop(api);
    suite::stop(suite)?;
    let value = ratio(ours.p50(), floor.p50());
    Ok(Outcome::Rows(vec![
        Row::ratio("from a present image to the first byte on the serial line", &ours, value, LIMIT),
        Row::floor("floor: exec of the hypervisor on an overlay that is there until the same", &floor),
    ]))
}
