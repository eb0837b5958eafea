//! What a real guest plays on its sound card is heard by who listens to the machine.
#![cfg(target_os = "linux")]

use anyhow::{Context, Result, ensure};
use skep_tests::{Mode, Suite, guest, is_root, skip};
use std::fs;

#[test]
fn a_machine_is_heard() -> Result<()> {
    let dir = guest()?.join("shares");
    if !dir.join("initrd").exists() {
        skip!("no guest with a sound card: scripts/guest OUTDIR shares");
    }
    let mode = if is_root() { Mode::Root } else { Mode::User };
    let suite = Suite::start(mode)?;
    for name in ["kernel", "initrd"] {
        suite.ok(&["disk", "import", name, &dir.join(name).to_string_lossy()])?;
    }
    let create = |name: &str, more: &[&str]| {
        let args = ["vm", "create", name, "--memory", "256M", "--kernel", "kernel", "--initrd", "initrd"];
        suite.ok(&[&args[..], &["--cmdline", "console=ttyS0 quiet"], more].concat()).map(drop)
    };
    // Without a picture, too.
    create("m", &["--sound", "on", "--screen", "off"])?;
    suite.boot("m")?;
    let file = suite.dir().join("m.wav");
    let listen = ["vm", "sound", "m", "--duration", "1s", "--timeout", "120s", "--output", &file.to_string_lossy()];
    let mut listener = suite.command(&listen).spawn()?;
    // 8000 samples of 8 bits a second, each pattern eight samples that rise.
    suite.guest_runs("m", "while :; do printf ABCDEFGH; done > /dev/dsp & echo plays-$((1+1))", "plays-2")?;
    ensure!(listener.wait()?.success(), "skep vm sound ended with a failure");
    let wav = fs::read(&file)?;
    let sound = wav.get(44..).context("no sound")?;
    ensure!(
        wav.starts_with(b"RIFF") && wav[40..44] == u32::try_from(sound.len())?.to_le_bytes() && sound.len() == 176_400,
        "{}",
        sound.len()
    );
    // Silence until the guest plays, then between A and H, which are that far below the middle; both channels alike.
    let samples: Vec<_> =
        sound.chunks_exact(4).map(|s| (i16::from_le_bytes([s[0], s[1]]), i16::from_le_bytes([s[2], s[3]]))).collect();
    let low = |text: u8| (i16::from(text) - 128) << 8;
    let played = samples.iter().filter(|(left, right)| left == right && (low(b'A')..=low(b'H')).contains(left)).count();
    ensure!(played > 100 && samples.windows(2).filter(|w| w[1].0 > w[0].0 && w[0].0 >= low(b'A')).count() > 50, "{samples:?}");

    // A file that cannot be made, a machine without a card, and a device of the host: refused, with what to do.
    let (code, message) = suite.fails(&["vm", "sound", "m", "--output", "/nowhere/m.wav"])?;
    ensure!(code != 0 && message.contains("/nowhere/m.wav"), "{code} {message}");
    create("quiet", &[])?;
    let (_, message) = suite.fails(&["vm", "sound", "quiet", "--output", &file.to_string_lossy()])?;
    ensure!(message.contains("no sound card") && message.contains("--sound on"), "{message}");
    suite.ok(&["vm", "set", "quiet", "--sound", "on", "--sound-out", "dsp0"])?;
    let (_, message) = suite.fails(&["vm", "start", "quiet"])?;
    ensure!(message.contains("sound_out") && message.contains("skep vm sound"), "{message}");
    let (_, message) = suite.fails(&["vm", "set", "quiet", "--sound-in", "../mem"])?;
    ensure!(message.contains("sound_in") && message.contains("like dsp0"), "{message}");
    suite.ok(&["vm", "set", "quiet", "--sound-out", "none"])?;
    ensure!(suite.json(&["vm", "show", "quiet"])?[0]["sound_out"] == "");
    Ok(())
}
