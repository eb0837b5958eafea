//! Counters of machines, as the command and Prometheus read them, with the whole suite.

use anyhow::{Context, Result, ensure};
use skep_tests::{Mode, Suite, is_root, platform};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Stdio;

/// What an HTTP server says to these bytes: its head and its body.
fn http(address: &str, request: &str) -> Result<(String, String)> {
    let mut socket = TcpStream::connect(address)?;
    socket.write_all(request.as_bytes())?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").with_context(|| format!("no head: {answer}"))?;
    Ok((head.to_owned(), body.to_owned()))
}

/// The value of a sample whose line begins like this.
fn sample(page: &str, begin: &str) -> Result<f64> {
    let line = page.lines().find(|line| line.starts_with(begin)).with_context(|| format!("no {begin} in\n{page}"))?;
    Ok(line.rsplit(' ').next().unwrap_or_default().parse()?)
}

/// Bytes that a cell takes beside its guest's memory, at most.
const BESIDE: f64 = 512.0 * 1048576.0;

/// A page that was made after this was called: the last one may be a second old.
fn later_page(address: &str) -> Result<String> {
    std::thread::sleep(std::time::Duration::from_millis(1100));
    Ok(http(address, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")?.1)
}

#[test]
fn counters_are_watched_and_scraped() -> Result<()> {
    let suite = Suite::prepare(if is_root() { Mode::Root } else { Mode::User })?;
    // A port that was free a moment ago.
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let address = format!("127.0.0.1:{port}");
    suite.ok(&["up", "--metrics", &address])?;
    suite.import_guest()?;
    match platform::WRITE {
        Some(_) => {
            suite.ok(&["disk", "create", "data", "--size", "8M"])?;
            suite.define("web1", &["--disk", "data"])?;
        }
        None => suite.define("web1", &[])?,
    }
    if is_root() {
        suite.ok(&["switch", "create", "lan"])?;
        suite.ok(&["nic", "create", "web1-0", "--switch", "lan", "--machine", "web1"])?;
    }
    let get = "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";
    let (head, page) = http(&address, get)?;
    ensure!(head.starts_with("HTTP/1.1 200") && head.contains("text/plain; version=0.0.4"), "{head}");
    ensure!(page.contains(r#"skep_machine_state{machine="web1",group="default",state="stopped"} 1"#), "{page}");
    ensure!(!page.contains("skep_machine_cpu_seconds_total{"), "{page}");

    suite.boot("web1")?;
    // Two readings, and the end of the machine ends the watch.
    let mut command = suite.command(&["--json", "vm", "stats", "web1", "--watch", "--interval", "1s"]);
    let mut watch = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut lines = BufReader::new(watch.stdout.take().context("no output")?).lines();
    let mut reading = || -> Result<serde_json::Value> { Ok(serde_json::from_str(&lines.next().context("it ended")??)?) };
    let (first, second) = (reading()?, reading()?);
    ensure!(second["cpu_ns"].as_u64() > Some(0) && first["time"] != second["time"], "{first} {second}");
    if is_root() {
        ensure!(second["nics"][0]["name"] == "web1-0", "{second}");
    }
    let table = suite.ok(&["vm", "stats", "web1"])?;
    ensure!(table.starts_with("OF") && table.contains("cpu"), "{table}");
    let before = later_page(&address)?;
    // Somebody asks for an address that nobody has, and a disk is written to.
    if is_root() {
        suite.guest_runs("web1", &platform::set_address("10.9.9.1/24"), "set-0")?;
        suite.guest_runs("web1", &platform::ask_for("10.9.9.2"), "asked-42")?;
    }
    if let Some(write) = platform::WRITE {
        suite.guest_runs("web1", write, "wrote-0")?;
    }
    let page = later_page(&address)?;
    let of = |page: &str, what: &str, last: &str| {
        sample(page, &format!(r#"skep_machine_{what}{{machine="web1",group="default"{last}}}"#))
    };
    let risen = |what: &str, last: &str| -> Result<f64> { Ok(of(&page, what, last)? - of(&before, what, last)?) };
    if is_root() {
        // Frames of at least 42 bytes: who has this address?
        let nic = r#",nic="web1-0""#;
        ensure!(
            risen("network_transmit_bytes_total", nic)? >= 42.0 && risen("network_transmit_packets_total", nic)? >= 1.0,
            "{page}"
        );
    }
    // FreeBSD counts it where its administrator says so.
    if is_root() && (platform::WRITE.is_some() || page.contains("skep_machine_memory_used_bytes{")) {
        // What its guest has, and what hypervisor and runner need beside.
        let (used, has) = (of(&page, "memory_used_bytes", "")?, of(&page, "memory_size_bytes", "")?);
        ensure!(used > has / 8.0 && used < has + BESIDE, "{used} bytes are used, the guest has {has}");
    }
    if platform::WRITE.is_some() {
        let disk = r#",slot="0""#;
        ensure!(risen("disk_written_bytes_total", disk)? >= 1048576.0 && risen("disk_writes_total", disk)? >= 1.0, "{page}");
    }
    ensure!(sample(&page, r#"skep_machine_cpu_seconds_total{machine="web1""#)? > 0.0);
    ensure!((sample(&page, r#"skep_machine_memory_size_bytes{machine="web1""#)? / 1048576.0).fract() == 0.0);
    if is_root() {
        sample(&page, r#"skep_machine_network_receive_bytes_total{machine="web1",group="default",nic="web1-0"}"#)?;
    }
    // What else somebody may try.
    for (request, status) in [
        ("GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), "404"),
        ("POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".to_owned(), "405"),
        (format!("GET /metrics HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "a".repeat(20_000)), "431"),
        ("\u{1}\u{2}\r\n\r\n".to_owned(), "400"),
    ] {
        let (head, _) = http(&address, &request)?;
        ensure!(head.starts_with(&format!("HTTP/1.1 {status}")), "{head}");
    }
    let audit = suite.skep(&["audit"])?;
    ensure!(audit.status.success(), "{}", String::from_utf8_lossy(&audit.stdout));
    suite.ok(&["vm", "kill", "web1"])?;
    let output = watch.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(!output.status.success() && said.contains("WRONG_STATE"), "{said}");
    suite.finish()
}
