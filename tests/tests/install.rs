//! A system is installed from an ISO image by a file with answers, and ends in a template of its own.
#![cfg(target_os = "linux")]

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use skep_tests::{Mode, Suite, installer, is_root, platform, skip};
use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Stdio};

/// A suite, its templates, the installer's ISO image, and answers.
struct Scene {
    suite: Suite,
    templates: PathBuf,
    iso: PathBuf,
}

const SCRIPT: &str = "timeout 300s\nexpect \"Erase the disk? \"\nsend \"yes\"\n";

impl Scene {
    fn set() -> Result<Self> {
        let suite = Suite::start(Mode::Root)?;
        let (templates, iso) = (suite.dir().join("templates"), suite.dir().join("installer.iso"));
        std::fs::create_dir(&templates)?;
        installer::iso(&skep_tests::guest()?, &iso)?;
        Ok(Self { suite, templates, iso })
    }

    /// A template whose answers are on a volume, or in the initial RAM disk.
    fn template(&self, name: &str, volume: &str, script: &str) -> Result<()> {
        let text = format!(
            "description = \"Of the tests\"\nos = \"Ours 1\"\nuser = \"root\"\nmin_memory = \"192M\"\n[machine]\nfirmware = \"uefi\"\n\
             [install]\nkernel = \"/boot/kernel\"\ninitrd = \"/boot/initrd\"\ncmdline = \"console=ttyS0 quiet skep.exec=/installer\"\n\
             answers = \"answers.cfg\"\nvolume = \"{volume}\"\ndisk = \"64M\"\nmemory = \"256M\"\n\
             failed = [\"no such text\", \"Installation failed-42\"]\nscript = '''\n{script}'''\n"
        );
        Ok(std::fs::write(self.templates.join(format!("{name}.toml")), text)?)
    }

    fn answers(&self, text: &str) -> Result<String> {
        let path = self.suite.dir().join("answers");
        std::fs::write(&path, text)?;
        Ok(path.to_string_lossy().into_owned())
    }

    /// `skep install`, begun.
    fn begin(&self, args: &[&str]) -> Result<Child> {
        let mut command = self.suite.command(&[&["install"], args].concat());
        command.env("SKEP_TEMPLATES", &self.templates).stdout(Stdio::piped()).stderr(Stdio::piped());
        Ok(command.spawn()?)
    }

    /// The same to its end: whether it was good, and all that it said.
    fn install(&self, args: &[&str]) -> Result<(bool, String)> {
        let output = self.begin(args)?.wait_with_output()?;
        Ok((output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()))
    }

    /// Nothing of an installation is there but the ISO image.
    fn is_clean(&self) -> Result<()> {
        let (disks, machines) = (self.suite.json(&["disk", "list"])?, self.suite.json(&["vm", "list"])?);
        ensure!(disks.iter().all(|disk| disk["iso"] == true) && machines.is_empty(), "{disks:?} {machines:?}");
        let hidden =
            std::fs::read_dir(&self.templates)?.flatten().any(|file| file.file_name().to_string_lossy().starts_with('.'));
        ensure!(!hidden, "half a template");
        Ok(())
    }
}

/// Waits until the command has printed this.
fn said(child: &mut Child, text: &str) -> Result<()> {
    let out = child.stdout.as_mut().context("no output")?;
    let (mut all, mut byte) = (Vec::new(), [0]);
    while !all.ends_with(text.as_bytes()) {
        ensure!(out.read(&mut byte)? == 1, "it ended: {}", String::from_utf8_lossy(&all));
        all.extend(byte);
    }
    Ok(())
}

#[test]
fn a_system_is_installed_by_its_answers_and_launched_from_its_own_template() -> Result<()> {
    if !is_root() {
        skip!("switches need root");
    }
    let scene = Scene::set()?;
    let iso = scene.iso.to_string_lossy().into_owned();
    scene.template("vendor", "ANSWERS", &format!("{SCRIPT}expect \"installed-42\"\n"))?;
    let answers = scene.answers("name=golden\n")?;
    let (good, said) = scene.install(&["vendor", "golden", "--answers", &answers, "--iso", &iso])?;
    ensure!(good, "{said}");
    // What the installer said is there, and moves nobody's cursor.
    ensure!(said.contains("The installer of golden") && said.contains("step 3 of 3"), "{said}");
    ensure!(!said.chars().any(|c| c.is_control() && c != '\n' && c != '\t'), "{said:?}");
    let suite = &scene.suite;
    ensure!(suite.json(&["vm", "list"])?.is_empty());
    let image = suite.json(&["image", "show", "golden"])?;
    ensure!(image[0]["image"]["os"] == "Ours 1" && image[0]["size"] == 64 << 20, "{image:?}");
    let (good, said) = scene.install(&["vendor", "golden", "--answers", &answers, "--iso", "installer.iso"])?;
    ensure!(!good && said.contains("already"), "{said}");

    // Its template says what boots it: the disk that was installed, with what the answers said.
    let launch = suite.command(&["launch", "golden", "web1"]).env("SKEP_TEMPLATES", &scene.templates).output()?;
    ensure!(launch.status.success(), "{}", String::from_utf8_lossy(&launch.stderr));
    suite.expect("web1", "skep-guest ready")?;
    suite.guest_runs("web1", "mount -t vfat -o iocharset=ascii /dev/vda1 /mnt; cat /mnt/told", "of-golden")?;
    suite.ok(&["vm", "kill", "web1"])?;
    suite.ok(&["vm", "delete", "web1", "--disks"])?;
    suite.ok(&["image", "delete", "golden"])?;
    scene.is_clean()?;
    scene.suite.finish()
}

#[test]
fn an_installation_that_is_broken_off_leaves_nothing_or_is_gone_on_with() -> Result<()> {
    if !is_root() {
        skip!("switches need root");
    }
    let scene = Scene::set()?;
    let suite = &scene.suite;
    suite.ok(&["iso", "import", "ours", &scene.iso.to_string_lossy()])?;
    scene.template("vendor", "", SCRIPT)?;
    scene.template("deaf", "", "expect 1s \"never\"\n")?;
    let args = |template, answers| [template, "made", "--answers", answers, "--iso", "ours"];

    // It installs itself again, or does not ask what it should: not for ever.
    let answers = scene.answers("name=x\nmode=reboot\n")?;
    for (template, why) in [("vendor", "its guest rebooted"), ("deaf", "`never` did not come in 1s")] {
        let (good, said) = scene.install(&args(template, &answers))?;
        ensure!(!good && said.contains(why), "{said}");
        scene.is_clean()?;
    }
    // It says that it failed, as it waits for somebody to read it.
    let failing = scene.answers("name=x\nmode=fail\n")?;
    let (good, message) = scene.install(&args("vendor", &failing))?;
    ensure!(!good && message.contains("its installer said `Installation failed-42`"), "{message}");
    scene.is_clean()?;
    // ^C.
    let answers = scene.answers("name=x\nmode=wait\n")?;
    let mut child = scene.begin(&args("vendor", &answers))?;
    said(&mut child, "waits-42")?;
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGINT)?;
    ensure!(child.wait()?.code() == Some(130));
    scene.is_clean()?;
    // Killed before it has said all: begun anew, if that is wanted.
    scene.template("deaf", "", "expect \"never\"\n")?;
    let mut child = scene.begin(&args("deaf", &answers))?;
    said(&mut child, "Erase the disk? ")?;
    child.kill()?;
    child.wait()?;
    let (good, message) = scene.install(&args("vendor", &answers))?;
    ensure!(!good && message.contains("--anew"), "{message}");
    let mut child = scene.begin(&[&args("vendor", &answers)[..], &["--anew"]].concat())?;
    said(&mut child, "waits-42")?;
    // Killed when the installer goes on by itself: so it does.
    let alone = ["vm", "show", "install-made"];
    let now = || -> Result<bool> { Ok(suite.json(&alone)?[0]["description"] == "skep install made: at work by itself") };
    ensure!(now()?, "{:?}", suite.json(&alone)?);
    child.kill()?;
    child.wait()?;
    let mut child = scene.begin(&args("vendor", &answers))?;
    said(&mut child, "waits-42")?;
    // Whatever else ends meanwhile is started again, and joined again.
    for process in ["console-proxy", "api-frontend", "broker"] {
        let pids = suite.pids(process)?;
        ensure!(!pids.is_empty(), "no {process}");
        pids.into_iter().try_for_each(platform::end)?;
    }
    // Its terminal echoes; by then the broker has found the machine.
    suite.guest_runs("install-made", "echoed", "echoed")?;
    suite.ok(&["vm", "stop", "install-made"])?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    ensure!(suite.json(&["vm", "list"])?.is_empty() && scene.templates.join("made.toml").exists());
    suite.ok(&["image", "delete", "made"])?;
    scene.is_clean()?;
    scene.suite.finish()
}

#[test]
fn an_iso_image_boots_by_uefi_and_its_shell_is_typed_into() -> Result<()> {
    if !is_root() {
        skip!("needs root");
    }
    let scene = Scene::set()?;
    let suite = &scene.suite;
    installer::live(&skep_tests::guest()?, &scene.iso)?;
    let script = "timeout 300s\nexpect \"skep-guest ready\"\nexpect \"# \"\nsend \"mount -t vfat -o ro,iocharset=ascii /dev/vdb /mnt && \
                  dd if=/mnt/answers.cfg of=/dev/vda conv=fsync && poweroff -f\"\n";
    let text = format!(
        "description = \"Of the tests\"\nos = \"Ours 1\"\n[install]\nanswers = \"answers.cfg\"\nvolume = \"ANSWERS\"\ndisk = \"1M\"\nmemory = \"256M\"\n\
         script = '''\n{script}'''\n"
    );
    std::fs::write(scene.templates.join("live.toml"), text)?;
    let answers = scene.answers("of-the-answers\n")?;
    let (good, said) = scene.install(&["live", "made", "--answers", &answers, "--iso", &scene.iso.to_string_lossy()])?;
    ensure!(good, "{said}");
    let out = suite.dir().join("out");
    suite.ok(&["image", "export", "made", &out.to_string_lossy()])?;
    ensure!(std::fs::read(&out)?.starts_with(b"of-the-answers\n"));
    let made = std::fs::read_to_string(scene.templates.join("made.toml"))?;
    ensure!(made.contains("firmware = \"uefi\"") && made.contains("seed = \"none\""), "{made}");
    suite.ok(&["image", "delete", "made"])?;
    scene.is_clean()?;
    scene.suite.finish()
}
