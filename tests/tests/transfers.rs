//! Uploads and downloads whose connection breaks go on where they were, in a whole suite.

use anyhow::{Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use skep_tests::platform::end;
use skep_tests::{Mode, Suite, is_root};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

/// What becomes of the connection that carries the last of so many bytes.
#[derive(Clone, Copy)]
enum Then {
    /// It is cut.
    Cut,
    /// This process is killed, and the connection ends.
    Kill(i32),
    /// Nothing more goes through it.
    Stall,
}

/// Passes connections on to the API; after so many bytes in all, either way, something happens to the one that carries them, once.
struct Cutter {
    left: Arc<AtomicU64>,
    happened: Receiver<()>,
}

impl Cutter {
    fn start(api: &Path, path: &Path, after: u64, then: Then) -> Result<Self> {
        let listener = UnixListener::bind(path)?;
        let left = Arc::new(AtomicU64::new(after));
        let (tell, happened) = channel();
        let (api, count) = (api.to_owned(), left.clone());
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = UnixStream::connect(&api) else { continue };
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let (Ok(from), Ok(to)) = (from.try_clone(), to.try_clone()) else { continue };
                    let (count, tell) = (count.clone(), tell.clone());
                    std::thread::spawn(move || pass(from, to, &count, then, &tell));
                }
            }
        });
        Ok(Self { left, happened })
    }

    fn has_happened(&self) -> bool {
        self.left.load(Ordering::SeqCst) == u64::MAX
    }
}

fn pass(mut from: UnixStream, mut to: UnixStream, left: &AtomicU64, then: Then, tell: &Sender<()>) {
    let mut buffer = vec![0; 32 << 10];
    while let Ok(got @ 1..) = from.read(&mut buffer) {
        let take = |left: u64| if left == u64::MAX { None } else { Some(left.checked_sub(got as u64).unwrap_or(u64::MAX)) };
        let before = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take);
        if before.is_ok_and(|before| before < got as u64) {
            match then {
                Then::Cut => break,
                Then::Kill(pid) => {
                    let killed = end(pid);
                    assert!(killed.is_ok(), "{killed:?}");
                    break;
                }
                Then::Stall => {
                    let _ = tell.send(());
                    loop {
                        std::thread::park();
                    }
                }
            }
        }
        if to.write_all(&buffer[..got]).is_err() {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}

/// A directory for sockets: not the suite's, which leaves none.
fn sockets() -> Result<tempfile::TempDir> {
    let sockets = tempfile::tempdir_in("/tmp")?;
    std::fs::set_permissions(sockets.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    Ok(sockets)
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn image() -> Vec<u8> {
    (0..12u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

#[test]
fn transfers_go_on_where_their_connection_broke() -> Result<()> {
    let suite = Suite::start(if is_root() { Mode::Root } else { Mode::User })?;
    let image = image();
    let (file, out) = (suite.dir().join("image"), suite.dir().join("out"));
    std::fs::write(&file, &image)?;
    let api = suite.api_socket();
    let sockets = sockets()?;
    let up = sockets.path().join("up.sock");
    let cutter = Cutter::start(&api, &up, 5 << 20, Then::Cut)?;
    suite.ok(&["--socket", &text(&up), "disk", "import", "d", &text(&file), "--format", "raw"])?;
    ensure!(cutter.has_happened(), "the connection was never cut");
    let shown = suite.json(&["disk", "show", "d"])?;
    ensure!(shown[0]["size"] == 12 << 20, "{shown:?}");
    ensure!(suite.json(&["disk", "list"])?.len() == 1, "something was left");

    let down = sockets.path().join("down.sock");
    let cutter = Cutter::start(&api, &down, 5 << 20, Then::Cut)?;
    let exported = suite.json(&["--socket", &text(&down), "disk", "export", "d", &text(&out)])?;
    ensure!(cutter.has_happened(), "the connection was never cut");
    // Of all that came in pieces, and of all that went so: the same.
    ensure!(exported[0]["exported_sha256"] == shown[0]["sha256"], "{exported:?}");
    ensure!(std::fs::read(&out)? == image, "it is not what was imported");
    // What came of one that never came to its end is gone on with by the next command.
    let part = suite.dir().join("again.part");
    std::fs::write(&part, &image[..3 << 20])?;
    suite.ok(&["disk", "export", "d", &text(&suite.dir().join("again"))])?;
    ensure!(std::fs::read(suite.dir().join("again"))? == image && !part.exists(), "it was not gone on with");
    // And what is of another disk does not pass for it.
    std::fs::write(&part, vec![7; 3 << 20])?;
    std::fs::remove_file(suite.dir().join("again"))?;
    let (_, message) = suite.fails(&["disk", "export", "d", &text(&suite.dir().join("again"))])?;
    ensure!(message.contains("SHA-256") && !part.exists(), "{message}");
    let (_, message) = suite.fails(&["disk", "export", "d", &text(&out)])?;
    ensure!(message.contains("already"), "{message}");
    suite.finish()
}

/// More than fits into the window of a stream whose bytes nobody takes: once it went through, api-frontend knows of the upload.
const TAKEN: u64 = 5 << 20;

#[test]
fn an_upload_whose_keeper_is_killed_is_sent_anew_and_one_that_is_given_up_leaves_nothing() -> Result<()> {
    let suite = Suite::start(if is_root() { Mode::Root } else { Mode::User })?;
    let image = image();
    let file = suite.dir().join("image");
    std::fs::write(&file, &image)?;
    let (api, sockets) = (suite.api_socket(), sockets()?);
    let kept = || -> Result<usize> { Ok(std::fs::read_dir(suite.state.join("disks"))?.count()) };
    let before = kept()?;

    let path = sockets.path().join("kill.sock");
    let frontend = suite.pids("api-frontend")?[0];
    let cutter = Cutter::start(&api, &path, TAKEN, Then::Kill(frontend))?;
    let said = suite.ok(&["--socket", &text(&path), "disk", "import", "d", &text(&file), "--format", "raw"])?;
    ensure!(cutter.has_happened() && said.contains("once more"), "{said}");
    ensure!(suite.json(&["disk", "list"])?.len() == 1 && kept()? == before + 1, "something was left");
    let out = suite.dir().join("out");
    suite.ok(&["disk", "export", "d", &text(&out)])?;
    ensure!(std::fs::read(&out)? == image, "it is not what was imported");

    // Nobody goes on with what a command gave up, so it is not kept for him.
    let gone = |what: &str| -> Result<()> {
        let left = suite.json(&["disk", "list"])?;
        ensure!(left.len() == 1 && kept()? == before + 1, "{what}: {left:?}");
        let imports = suite.json(&["op", "list"])?;
        ensure!(imports.iter().all(|op| op["state"] != "running"), "{what}: {imports:?}");
        Ok(())
    };
    let path = sockets.path().join("late.sock");
    let cutter = Cutter::start(&api, &path, TAKEN, Then::Stall)?;
    let late = ["--request-timeout", "2s", "--socket", &text(&path), "disk", "import", "e", &text(&file), "--format", "raw"];
    let (code, message) = suite.fails(&late)?;
    ensure!(code == 10 && message.contains("took too long") && cutter.has_happened(), "{code} {message}");
    gone("its time was over")?;

    let path = sockets.path().join("stop.sock");
    let cutter = Cutter::start(&api, &path, TAKEN, Then::Stall)?;
    let mut import = suite.command(&["--socket", &text(&path), "disk", "import", "f", &text(&file), "--format", "raw"]);
    let import = import.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    cutter.happened.recv()?;
    kill(Pid::from_raw(i32::try_from(import.id())?), Signal::SIGINT)?;
    let output = import.wait_with_output()?;
    ensure!(output.status.code() == Some(130), "{output:?}");
    gone("it was interrupted")?;
    suite.finish()
}

#[test]
fn a_command_waits_no_longer_than_it_was_told() -> Result<()> {
    let suite = Suite::start(if is_root() { Mode::Root } else { Mode::User })?;
    // Nothing is to come; the frontend says when it was enough.
    let (code, message) = suite.fails(&["--request-timeout", "1s", "events"])?;
    ensure!(code == 10 && message.contains("its deadline of 1s has passed; the stream ends"), "{code} {message}");
    // No time at all: nothing is done.
    let (code, message) = suite.fails(&["--json", "--request-timeout", "0", "vm", "create", "m"])?;
    let failure: serde_json::Value = serde_json::from_str(&message)?;
    ensure!(code == 10 && failure["error"]["reason"] == "TIMEOUT", "{code} {message}");
    ensure!(suite.json(&["--request-timeout", "5m", "vm", "list"])?.is_empty(), "it was made all the same");
    let late = suite.command(&["vm", "list"]).env("SKEP_REQUEST_TIMEOUT", "0").output()?;
    ensure!(late.status.code() == Some(10), "{late:?}");
    suite.ok(&["--request-timeout", "99999999999d", "vm", "list"])?;
    let (code, message) = suite.fails(&["--request-timeout", "soon", "vm", "list"])?;
    ensure!(code == 2 && message.contains("`soon` is no time"), "{code} {message}");
    suite.finish()
}
