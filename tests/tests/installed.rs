//! The suite as a service manager runs it: one program at a time, with system users, and found by whoever asks.

use anyhow::{Context, Result, ensure};
use skep_tests::{Mode, Suite, is_root, programs, skip};
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};

/// uids of the services' users, and gids that differ from them.
const USERS: &str = "\
skep-broker:x:71300:71400::/nonexistent:/usr/sbin/nologin
skep-api-frontend:x:71301:71401::/nonexistent:/usr/sbin/nologin
skep-storage-helper:x:71302:71402::/nonexistent:/usr/sbin/nologin
skep-net-helper:x:71303:71403::/nonexistent:/usr/sbin/nologin
skep-vm-runner:x:71304:71404::/nonexistent:/usr/sbin/nologin
";

/// In mount namespaces of its own, where /etc/passwd has the users. The services end with it.
const SCRIPT: &str = r#"
mount --make-rprivate /
mount --bind "$dir/passwd" /etc/passwd
"$skep" prepare
pids=
for service in storage-helper net-helper vm-runner broker api-frontend; do
	"$skep" service $service >>"$dir/s/logs/$service.log" 2>&1 </dev/null &
	pids="$pids $!"
done
"$skep" ready
echo ready
read answer || :
kill $pids
wait || :
# The other way to run them takes over where this one ended, and leaves nothing.
"$skep" up
"$skep" down
"#;

/// A suite whose places stand in a file, and the shell that runs its services.
fn installed(suite: &Suite) -> Result<Child> {
    let passwd = fs::read_to_string("/etc/passwd")?;
    fs::write(suite.dir().join("passwd"), passwd + USERS)?;
    let conf = format!("state = {}\nrun = {}\nmachines = 71500\n", suite.state.display(), suite.run.display());
    fs::write(suite.dir().join("skep.conf"), conf)?;
    let mut shell = Command::new("unshare");
    shell.args(["--mount", "sh", "-euc", SCRIPT]).env("dir", suite.dir()).env("skep", programs().join("skep"));
    shell.env("SKEP_CONF", suite.dir().join("skep.conf")).stdin(Stdio::piped()).stdout(Stdio::piped());
    for name in ["SKEP_STATE", "SKEP_RUN", "SKEP_SOCKET"] {
        shell.env_remove(name);
    }
    let mut child = shell.spawn().context("unshare")?;
    // One byte at a time, and never closed: what comes after this line goes nowhere, but may be written.
    let mut line = String::new();
    let mut output = BufReader::with_capacity(1, child.stdout.take().context("no output")?);
    output.read_line(&mut line)?;
    child.stdout = Some(output.into_inner());
    ensure!(line == "ready\n", "the services are not ready: {line}{}", suite.logs());
    Ok(child)
}

/// Asks as somebody who names no place: only the file says where the suite is.
fn ask(suite: &Suite, args: &[&str]) -> Result<String> {
    let mut command = suite.command(args);
    command.env("SKEP_CONF", suite.dir().join("skep.conf")).env_remove("SKEP_STATE").env_remove("SKEP_RUN");
    let output = command.output()?;
    let all = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "skep {}: {}\n{all}", args.join(" "), output.status);
    Ok(all)
}

#[test]
fn services_run_one_by_one_as_system_users_and_are_found_by_their_file() -> Result<()> {
    if !is_root() {
        skip!("system users need root");
    }
    if !Command::new("unshare").args(["--mount", "true"]).status().is_ok_and(|status| status.success()) {
        skip!("the users are made in a mount namespace");
    }
    let suite = Suite::prepare(Mode::Root)?;
    let mut shell = installed(&suite)?;
    ensure!(ask(&suite, &["vm", "list"])?.is_empty());
    let places = ask(&suite, &["places"])?;
    ensure!(places.contains(&format!("state='{}'\n", suite.state.display())), "{places}");
    ensure!(places.contains("\ndataset=''\n"), "{places}");
    let audit = ask(&suite, &["audit"])?;
    ensure!(audit.contains("uid 71300, gid 71400"), "{audit}");
    // A user who has no suite of his own is led there, and turned away by the broker.
    let mut stranger = suite.command(&["vm", "list"]);
    stranger.env("SKEP_CONF", suite.dir().join("skep.conf")).env_remove("SKEP_STATE").env_remove("SKEP_RUN");
    std::os::unix::process::CommandExt::uid(&mut stranger, 61_234);
    let output = stranger.env("HOME", "/nonexistent").output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(!output.status.success() && said.contains("only root, who started skep"), "{said}");

    suite.import_guest()?;
    suite.define("m", &[])?;
    suite.boot("m")?;
    for (args, says) in [(["up"], "runs already"), (["down"], "not started by `skep up`")] {
        let mut command = suite.command(&args);
        let output = command.env("SKEP_CONF", suite.dir().join("skep.conf")).output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(!output.status.success() && said.contains(says), "skep {}: {said}", args[0]);
        if args == ["down"] {
            ensure!(ask(&suite, &["vm", "stop", "--all", "--force", "--timeout", "60s"])?.contains("machine m: stopped"));
        } else {
            ensure!(suite.state_of("m")? == "running", "it was disturbed");
        }
    }
    drop(shell.stdin.take());
    ensure!(shell.wait()?.success(), "skep up and skep down, afterwards");
    suite.finish()
}

#[test]
fn a_missing_user_and_a_wrong_line_are_named() -> Result<()> {
    if !is_root() {
        skip!("system users need root");
    }
    let suite = Suite::prepare(Mode::Root)?;
    let conf = suite.dir().join("skep.conf");
    let prepare = |text: String| -> Result<String> {
        fs::write(&conf, text)?;
        fs::set_permissions(&conf, fs::Permissions::from_mode(0o644))?;
        let output = suite.command(&["prepare"]).env("SKEP_CONF", &conf).output()?;
        ensure!(!output.status.success(), "it should fail");
        Ok(String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let said = prepare(format!("state = {}\nrun = {}\n", suite.state.display(), suite.run.display()))?;
    ensure!(said.contains("user skep-storage-helper: there is none"), "{said}");
    let said = prepare("state = here\n".into())?;
    ensure!(said.contains("skep.conf: line 1: `here`: an absolute path"), "{said}");
    suite.finish()
}
