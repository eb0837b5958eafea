//! Uploads and downloads whose connection breaks go on where they were, in a whole suite.

use anyhow::{Result, ensure};
use skep_tests::{Mode, Suite, is_root};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Passes connections on to the API; after so many bytes in all, either way, the one that carries them is cut, once.
struct Cutter {
    left: Arc<AtomicU64>,
}

impl Cutter {
    fn start(api: &Path, path: &Path, after: u64) -> Result<Self> {
        let listener = UnixListener::bind(path)?;
        let left = Arc::new(AtomicU64::new(after));
        let (api, count) = (api.to_owned(), left.clone());
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = UnixStream::connect(&api) else { continue };
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let (Ok(from), Ok(to)) = (from.try_clone(), to.try_clone()) else { continue };
                    let count = count.clone();
                    std::thread::spawn(move || pass(from, to, &count));
                }
            }
        });
        Ok(Self { left })
    }

    fn has_cut(&self) -> bool {
        self.left.load(Ordering::SeqCst) == u64::MAX
    }
}

fn pass(mut from: UnixStream, mut to: UnixStream, left: &AtomicU64) {
    let mut buffer = vec![0; 32 << 10];
    while let Ok(got @ 1..) = from.read(&mut buffer) {
        let take = |left: u64| if left == u64::MAX { None } else { Some(left.checked_sub(got as u64).unwrap_or(u64::MAX)) };
        let before = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take);
        if before.is_ok_and(|before| before < got as u64) || to.write_all(&buffer[..got]).is_err() {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}

#[test]
fn transfers_go_on_where_their_connection_broke() -> Result<()> {
    let suite = Suite::start(if is_root() { Mode::Root } else { Mode::User })?;
    let image: Vec<u8> = (0..12u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let (file, out) = (suite.dir().join("image"), suite.dir().join("out"));
    std::fs::write(&file, &image)?;
    let api = suite.api_socket();
    let text = |path: &Path| path.to_string_lossy().into_owned();

    // Not the suite's, which leaves none.
    let sockets = tempfile::tempdir_in("/tmp")?;
    std::fs::set_permissions(sockets.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let up = sockets.path().join("up.sock");
    let cutter = Cutter::start(&api, &up, 5 << 20)?;
    suite.ok(&["--socket", &text(&up), "disk", "import", "d", &text(&file), "--format", "raw"])?;
    ensure!(cutter.has_cut(), "the connection was never cut");
    let shown = suite.json(&["disk", "show", "d"])?;
    ensure!(shown[0]["size"] == 12 << 20, "{shown:?}");
    ensure!(suite.json(&["disk", "list"])?.len() == 1, "something was left");

    let down = sockets.path().join("down.sock");
    let cutter = Cutter::start(&api, &down, 5 << 20)?;
    let exported = suite.json(&["--socket", &text(&down), "disk", "export", "d", &text(&out)])?;
    ensure!(cutter.has_cut(), "the connection was never cut");
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
