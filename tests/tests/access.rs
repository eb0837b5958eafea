//! Users, roles and groups over TLS, with the whole suite: who gets in, what each may do, and that no secret is where others see it.

use anyhow::{Context, Result, ensure};
use skep_tests::{Mode, Suite, is_root};
use std::io::Write;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

const ALICE: &str = "correct horse battery";
const BOB: &str = "an old secret of his";

/// A suite that listens, and somebody elsewhere who has nothing but its address.
struct Remote {
    suite: Suite,
    address: String,
    fingerprint: String,
}

impl Remote {
    fn start() -> Result<Self> {
        let suite = Suite::prepare(if is_root() { Mode::Root } else { Mode::User })?;
        // A port that was free a moment ago.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let address = format!("127.0.0.1:{port}");
        suite.ok(&["up", "--listen", &address])?;
        let host = suite.json(&["host", "show"])?;
        let fingerprint = host.first().and_then(|host| host["certificate"].as_str()).context("no certificate")?.to_owned();
        ensure!(fingerprint.len() == 95, "{fingerprint}");
        Ok(Self { suite, address, fingerprint })
    }

    /// `skep` as somebody elsewhere, with a directory of his own.
    fn skep(&self, who: &str, args: &[&str], input: &str) -> Result<Output> {
        let home = self.home(who);
        std::fs::create_dir_all(&home)?;
        let mut command = Command::new(skep_tests::programs().join("skep"));
        command.args(args).env_clear().env("HOME", &home).env("SKEP_REMOTE", &self.address).env("SKEP_CONF", home.join("none"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes())?;
        }
        Ok(child.wait_with_output()?)
    }

    fn home(&self, who: &str) -> PathBuf {
        self.suite.dir().join(format!("home-{who}"))
    }

    fn ok(&self, who: &str, args: &[&str], input: &str) -> Result<String> {
        let output = self.skep(who, args, input)?;
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "{who}: skep {}: {}\n{out}{err}\n{}", args.join(" "), output.status, self.suite.logs());
        Ok(out.into_owned())
    }

    /// It fails with this exit code and says all of this.
    fn refused(&self, who: &str, args: &[&str], input: &str, code: i32, says: &[&str]) -> Result<()> {
        let output = self.skep(who, args, input)?;
        let message = String::from_utf8_lossy(&output.stderr);
        let missing: Vec<_> = says.iter().filter(|s| !message.contains(**s)).collect();
        let got = output.status.code();
        ensure!(got == Some(code) && missing.is_empty(), "{who}: skep {}: {got:?}, lacks {missing:?}: {message}", args.join(" "));
        Ok(())
    }

    fn login(&self, who: &str, password: &str) -> Result<()> {
        let args = ["login", &self.address, "--user", who, "--fingerprint", &self.fingerprint];
        self.ok(who, &args, &format!("{password}\n")).map(drop)
    }

    /// On the host itself, with a line of standard input.
    fn here(&self, args: &[&str], input: &str) -> Result<()> {
        let mut child = self.suite.command(args).stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
        child.stdin.take().context("no input")?.write_all(input.as_bytes())?;
        ensure!(child.wait()?.success(), "skep {}", args.join(" "));
        Ok(())
    }
}

#[test]
fn users_log_in_over_tls_and_do_what_their_roles_say() -> Result<()> {
    let remote = Remote::start()?;
    let suite = &remote.suite;
    remote.here(&["user", "create", "alice"], &format!("{ALICE}\n"))?;
    remote.here(&["user", "create", "bob"], &format!("{BOB}\n"))?;
    suite.ok(&["group", "create", "shop", "--machines", "2", "--disk", "8M"])?;
    suite.ok(&["vm", "create", "mine"])?;
    // Nobody is in yet, and a certificate that was not pinned gets no password.
    remote.refused("alice", &["vm", "list"], "", 3, &["skep login"])?;
    remote.refused("alice", &["login", &remote.address, "-u", "alice"], ALICE, 6, &[&remote.fingerprint, "--fingerprint"])?;
    let other = "00:".repeat(31) + "00";
    let login = ["login", &remote.address, "-u", "alice", "--fingerprint", &other];
    remote.refused("alice", &login, ALICE, 6, &[&remote.fingerprint, "nothing was sent"])?;
    let login = ["login", &remote.address, "-u", "alice", "--fingerprint", &remote.fingerprint];
    remote.refused("alice", &login, "a wrong guess\n", 6, &["wrong"])?;
    remote.login("alice", ALICE)?;
    remote.login("bob", BOB)?;
    // Without a role: in, and nothing there.
    remote.refused("alice", &["vm", "list"], "", 6, &["no role"])?;
    suite.ok(&["role", "grant", "alice", "operator", "--group", "shop"])?;
    suite.ok(&["role", "grant", "bob", "viewer", "--group", "shop"])?;
    remote.ok("alice", &["vm", "create", "web", "--group", "shop"], "")?;
    remote.ok("alice", &["disk", "create", "web-root", "--size", "4M", "--group", "shop"], "")?;
    let list = remote.ok("bob", &["--json", "vm", "list"], "")?;
    ensure!(list.contains("\"web\"") && !list.contains("\"mine\""), "{list}");
    remote.refused("bob", &["vm", "rename", "web", "bobs"], "", 6, &["operator in group shop is needed"])?;
    remote.refused("bob", &["vm", "show", "mine"], "", 3, &["machine mine"])?;
    remote.refused("alice", &["vm", "create", "other"], "", 3, &["group default"])?;
    remote.refused("alice", &["disk", "create", "big", "--size", "8M", "--group", "shop"], "", 9, &["group shop", "disk"])?;
    remote.refused("alice", &["user", "list"], "", 6, &["admin on the host"])?;
    remote.refused("alice", &["token", "create", "x"], "", 6, &["log in with a password"])?;
    let show = remote.ok("alice", &["user", "show"], "")?;
    ensure!(show.contains("alice") && show.contains("operator"), "{show}");
    // An upload, over TLS.
    let image = suite.dir().join("image");
    std::fs::write(&image, vec![7u8; 1 << 20])?;
    remote.ok("alice", &["disk", "import", "image", &image.to_string_lossy(), "--group", "shop"], "")?;
    // A machine lives: started by one, watched by the other.
    suite.import_guest()?;
    suite.define("demo", &[])?;
    suite.ok(&["group", "quota", "shop", "--disk", "0"])?;
    suite.ok(&["group", "add", "shop", "demo"])?;
    remote.ok("alice", &["vm", "start", "demo"], "")?;
    remote.ok("alice", &["vm", "console", "demo", "--expect", "skep-guest ready", "--timeout", skep_tests::PATIENCE], "")?;
    remote.refused("bob", &["vm", "console", "demo", "--expect", "x", "--timeout", "5"], "", 6, &["operator"])?;
    remote.ok("bob", &["vm", "log", "demo"], "")?;
    remote.ok("alice", &["vm", "kill", "demo"], "")?;
    // A token is revoked, and a user is locked out.
    let tokens = suite.json(&["token", "list", "--user", "bob"])?;
    let token = tokens.first().and_then(|t| t["name"].as_str()).context("no token of bob's")?.to_owned();
    suite.ok(&["token", "delete", &token, "--user", "bob"])?;
    remote.refused("bob", &["vm", "list"], "", 6, &["no such token"])?;
    remote.login("bob", BOB)?;
    suite.ok(&["user", "disable", "bob"])?;
    remote.refused("bob", &["vm", "list"], "", 6, &["locked out"])?;
    // One who logs out is out, with his token.
    let logins = remote.home("alice").join(".config/skep/logins.json");
    let kept = std::fs::read_to_string(&logins)?;
    remote.ok("alice", &["logout"], "")?;
    remote.refused("alice", &["vm", "list"], "", 3, &["skep login"])?;
    ensure!(suite.json(&["token", "list", "--user", "alice"])?.is_empty());
    std::fs::write(&logins, kept)?;
    remote.refused("alice", &["vm", "list"], "", 6, &["no such token"])?;
    // Who can read it may use it, so nobody else may.
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(&logins, std::fs::Permissions::from_mode(0o644))?;
    remote.refused("alice", &["vm", "list"], "", 6, &["chmod 600"])?;
    remote.suite.finish()
}

#[test]
fn guessing_over_tls_is_told_when_to_come_again() -> Result<()> {
    let remote = Remote::start()?;
    remote.here(&["user", "create", "alice"], &format!("{ALICE}\n"))?;
    let login = ["--json", "login", &remote.address, "-u", "alice", "--fingerprint", &remote.fingerprint];
    let guess = || remote.skep("alice", &login, "a wrong guess\n");
    let mut last = String::new();
    // Before the guess that counted, and before the one that was not looked at.
    let mut before = [Instant::now(); 2];
    for _ in 0..9 {
        before = [before[1], Instant::now()];
        last = String::from_utf8_lossy(&guess()?.stderr).into_owned();
        if last.contains("TOO_MANY_TRIES") {
            break;
        }
    }
    let wait = last.split_once("again in ").and_then(|(_, rest)| rest.split(|c: char| !c.is_ascii_digit()).next());
    ensure!(last.contains("TOO_MANY_TRIES") && wait.is_some(), "{last}");
    // The right password gets in no earlier, however slow this host is.
    let wait = Duration::from_secs(wait.unwrap_or_default().parse()?);
    let right = remote.skep("alice", &login, &format!("{ALICE}\n"))?;
    let refused = right.status.code() == Some(9) && String::from_utf8_lossy(&right.stderr).contains("TOO_MANY_TRIES");
    ensure!(refused || right.status.success() && before[0].elapsed() >= wait, "{right:?} after {:?}", before[0].elapsed());
    remote.suite.finish()
}

#[test]
fn no_secret_is_in_a_log_a_record_or_an_argument() -> Result<()> {
    let remote = Remote::start()?;
    let suite = &remote.suite;
    // Held open while its arguments are looked at: it waits for the rest of its line.
    let mut command = suite.command(&["user", "create", "alice"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
    let mut stdin = child.stdin.take().context("no input")?;
    stdin.write_all(ALICE.as_bytes())?;
    no_argument_holds(&[ALICE])?;
    stdin.write_all(b"\n")?;
    drop(stdin);
    ensure!(child.wait()?.success());
    remote.login("alice", ALICE)?;
    let wrong = ["login", &remote.address, "-u", "alice", "--fingerprint", &remote.fingerprint];
    remote.refused("alice", &wrong, "a wrong guess\n", 6, &[])?;
    remote.ok("alice", &["user", "passwd"], &format!("{ALICE}\nanother good one\n"))?;
    let made = suite.ok(&["token", "create", "robot", "--user", "alice", "--lifetime", "never"])?;
    suite.ok(&["role", "grant", "alice", "viewer"])?;
    remote.ok("alice", &["vm", "list"], "")?;
    let kept = std::fs::read_to_string(remote.home("alice").join(".config/skep/logins.json"))?;
    let kept: serde_json::Value = serde_json::from_str(&kept)?;
    let token = kept["logins"][0]["token"].as_str().context("no token")?.to_owned();
    let secrets = [ALICE, "a wrong guess", "another good one", made.trim(), &token];
    no_argument_holds(&secrets)?;
    let mut files = 0;
    let mut dirs = vec![suite.state.clone(), suite.run.clone()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(&dir)?.flatten() {
            let kind = entry.file_type()?;
            if kind.is_dir() && !entry.path().ends_with("cell") {
                dirs.push(entry.path());
            } else if kind.is_file() {
                let bytes = std::fs::read(entry.path())?;
                files += 1;
                for secret in secrets {
                    let there = bytes.windows(secret.len()).any(|w| w == secret.as_bytes());
                    ensure!(!there, "{} holds a secret", entry.path().display());
                }
            }
        }
    }
    ensure!(files > 8, "only {files} files were looked at");
    // Who did what is in the record, with the user.
    let acts = suite.ok(&["audit", "log"])?;
    for line in
        ["alice OpenSession done Password of alice from 127.0.0.1", "alice MachineList done", "UserCreate done user alice"]
    {
        ensure!(acts.contains(line), "`{line}` is not in\n{acts}");
    }
    let clean = suite.skep(&["audit", "broker"])?;
    ensure!(clean.status.success(), "{}", String::from_utf8_lossy(&clean.stdout));
    remote.suite.finish()
}

/// Of no process of this host; where there is no /proc, ps(1) is asked.
fn no_argument_holds(secrets: &[&str]) -> Result<()> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        all.extend(std::fs::read(entry.path().join("cmdline")).unwrap_or_default());
        all.extend(std::fs::read(entry.path().join("environ")).unwrap_or_default());
    }
    if all.is_empty() {
        all = Command::new("ps").args(["-axeww", "-o", "command"]).output()?.stdout;
    }
    ensure!(all.len() > 100, "no arguments were read");
    for secret in secrets {
        ensure!(!all.windows(secret.len()).any(|w| w == secret.as_bytes()), "a process has a secret among its arguments");
    }
    Ok(())
}

#[test]
fn an_administrator_elsewhere_reads_the_suites_logs() -> Result<()> {
    let remote = Remote::start()?;
    let suite = &remote.suite;
    remote.here(&["user", "create", "alice"], &format!("{ALICE}\n"))?;
    remote.login("alice", ALICE)?;
    remote.refused("alice", &["log", "broker"], "", 6, &["admin on the host"])?;
    suite.ok(&["role", "grant", "alice", "viewer"])?;
    remote.refused("alice", &["log", "broker"], "", 6, &["admin on the host"])?;
    suite.ok(&["role", "grant", "alice", "admin"])?;
    suite.ok(&["vm", "create", "found-again"])?;
    let all = remote.ok("alice", &["log", "--since", "1h", "--tail", "10000"], "")?;
    ensure!(all.contains("Machines.Create") && all.contains("MachineCreate"), "{all}");
    let last = remote.ok("alice", &["--json", "log", "broker", "--tail", "2"], "")?;
    ensure!(last.lines().count() == 2, "{last}");
    for line in last.lines() {
        let line: serde_json::Value = serde_json::from_str(line)?;
        ensure!(line["service"] == "broker" && line["time"].as_str().is_some_and(|time| time.len() == 27), "{line}");
    }
    // It is what the host's own command shows, but for what was logged in between.
    let here = suite.ok(&["log", "broker", "--tail", "10000"])?;
    let there = remote.ok("alice", &["log", "broker", "--tail", "10000"], "")?;
    let missing: Vec<_> = here.lines().filter(|line| !there.contains(line)).collect();
    ensure!(missing.is_empty(), "{missing:?}");
    remote.refused("alice", &["log", "nobody"], "", 3, &["there are broker"])?;
    remote.suite.finish()
}
