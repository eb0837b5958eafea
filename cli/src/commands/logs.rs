//! `skep log`: the logs of the suite's processes, merged by time; `skep vm log`.
//!
//! On the host itself they are files, which are there when nothing runs, too. Elsewhere, and to follow them, they come over the API.

use super::{At, Ctx, with_api};
use crate::args::LogArgs;
use crate::client::Bearing;
use crate::error::Failure;
use crate::output::{Output, harmless};
use crate::places::Places;
use crate::remote;
use prost_types::Timestamp;
use serde_json::json;
use skep_api::v1::host_client::HostClient;
use skep_api::v1::{MachineLog, MachineLogRequest, ServiceLogRequest};
use skep_proto::Reason;
use skep_proto::storage::ServiceName;
use std::fs;
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::time::Duration;
use tokio::sync::mpsc;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;

/// The processes, and kinds of processes, that have a log.
fn services() -> [&'static str; 10] {
    ServiceName::ALL.map(ServiceName::word)
}

/// Bytes read from the end of a log, at most.
const TAIL: u64 = 4 << 20;
/// Bytes of a line that is not ended yet.
const LINE: usize = 64 << 10;

/// A line: its time, the service, its text.
type Line = (String, &'static str, String);

/// Prints them.
pub fn run(at: &At, args: LogArgs, output: Output) -> Result<u8, Failure> {
    let wanted: Vec<&'static str> = match &args.service {
        None => services().to_vec(),
        Some(name) => {
            let name = name.strip_prefix("skep-").unwrap_or(name);
            let known = services().into_iter().find(|s| *s == name);
            let unknown = || {
                Failure::new(Reason::NotFound, format_args!("log {name}"), format_args!("there are {}", services().join(", ")))
            };
            vec![known.ok_or_else(unknown)?]
        }
    };
    if args.follow || remote::choose(at.remote.as_ref(), &at.places)?.is_some() {
        return with_api(at, output, |ctx| over_api(ctx, args, wanted));
    }
    let mut lines = Vec::new();
    for service in wanted {
        add(&mut lines, service, &on_host(&at.places, service)?);
    }
    let since = args.since.map(|age| skep_service::iso8601(ago(age)));
    lines.retain(|(time, ..)| since.as_ref().is_none_or(|since| time >= since));
    print(lines, &args, output);
    Ok(0)
}

/// When `--since` begins, in nanoseconds since 1970.
fn ago(age: Duration) -> i64 {
    skep_service::now_ns().saturating_sub(i64::try_from(age.as_nanos()).unwrap_or(i64::MAX)).max(0)
}

fn since(age: Duration) -> Timestamp {
    let ns = ago(age);
    Timestamp { seconds: ns / 1_000_000_000, nanos: i32::try_from(ns % 1_000_000_000).unwrap_or(0) }
}

/// Lines of a text. One without a time (a panic's, say) belongs to the one before.
fn add(lines: &mut Vec<Line>, service: &'static str, text: &str) {
    let mut time = String::new();
    for line in text.lines() {
        if let Some(first) = time_of(line) {
            first.clone_into(&mut time);
        }
        lines.push((time.clone(), service, line.to_owned()));
    }
}

fn time_of(line: &str) -> Option<&str> {
    line.split(' ').next().filter(|t| t.len() == 27 && t.ends_with('Z'))
}

fn print(mut lines: Vec<Line>, args: &LogArgs, output: Output) {
    lines.retain(|(_, _, line)| args.trace.as_ref().is_none_or(|trace| line.contains(trace.as_str())));
    lines.sort_by(|a, b| a.0.cmp(&b.0));
    let from = lines.len().saturating_sub(args.tail as usize);
    for (time, service, line) in lines.iter().skip(from) {
        say(output, time, service, line);
    }
}

fn say(output: Output, time: &str, service: &str, line: &str) {
    if output.json {
        output.line(json!({"time": time, "service": service, "line": line}));
    } else {
        output.line(harmless(line));
    }
}

fn on_host(places: &Places, service: &str) -> Result<String, Failure> {
    let dir = places.state.join("logs");
    if !dir.is_dir() {
        let failure =
            Failure::new(Reason::NotFound, format_args!("directory {}", dir.display()), "the suite was never started there");
        return Err(failure.advice("say where its state is with --state"));
    }
    let mut text = String::new();
    // The one before the present, first.
    for name in [format!("{service}.1.log"), format!("{service}.log")] {
        let path = dir.join(name);
        if path.exists() {
            text += &tail(&path).map_err(|e| Failure::io(path.display(), "read", &e))?;
        }
    }
    Ok(text)
}

async fn over_api(ctx: Ctx, args: LogArgs, wanted: Vec<&'static str>) -> Result<u8, Failure> {
    let since = args.since.map(since);
    let request = |service: &str, follow| ServiceLogRequest {
        service: service.into(),
        // With a trace, its lines are counted here.
        tail: args.trace.is_none().then_some(args.tail),
        since,
        follow,
    };
    if args.follow {
        return follow(&ctx, &args, &wanted, &request).await;
    }
    let mut lines = Vec::new();
    for service in &wanted {
        let mut stream = match ctx.api.host().log(request(service, false)).await {
            Ok(stream) => stream.into_inner(),
            Err(status) if is_elsewhere(&status, &wanted) => continue,
            Err(status) => return Err(status.into()),
        };
        let mut text = Vec::new();
        while let Some(chunk) = stream.message().await? {
            text.extend_from_slice(&chunk.data);
        }
        add(&mut lines, service, &String::from_utf8_lossy(&text));
    }
    print(lines, &args, ctx.output);
    Ok(0)
}

/// A service manager takes this log elsewhere; it is missed only by whoever asked for it alone.
fn is_elsewhere(status: &tonic::Status, wanted: &[&str]) -> bool {
    status.code() == tonic::Code::NotFound && wanted.len() > 1
}

/// Prints lines as they come, until the suite ends.
async fn follow(
    ctx: &Ctx, args: &LogArgs, wanted: &[&'static str], request: &impl Fn(&str, bool) -> ServiceLogRequest,
) -> Result<u8, Failure> {
    let (to, mut come) = mpsc::channel(64);
    for service in wanted {
        tokio::spawn(follow_one(ctx.api.host(), service, request(service, true), to.clone()));
    }
    drop(to);
    while let Some((service, line)) = come.recv().await {
        match line {
            Ok(line) if args.trace.as_ref().is_none_or(|trace| line.contains(trace.as_str())) => {
                say(ctx.output, time_of(&line).unwrap_or_default(), service, &line);
            }
            Ok(_) => {}
            Err(status) if is_elsewhere(&status, wanted) => {}
            Err(status) => return Err(status.into()),
        }
    }
    Ok(0)
}

type Host = HostClient<InterceptedService<Channel, Bearing>>;
type Came = (&'static str, Result<String, tonic::Status>);

async fn follow_one(mut host: Host, service: &'static str, mut request: ServiceLogRequest, to: mpsc::Sender<Came>) {
    loop {
        let mut lines = Lines::default();
        let ended = async {
            let mut stream = host.log(request.clone()).await?.into_inner();
            while let Some(chunk) = stream.message().await? {
                for line in lines.add(&chunk.data) {
                    if let Some(time) = time_of(&line).and_then(|time| time.parse::<Timestamp>().ok()) {
                        // After this one, if the log must be opened anew.
                        request.since = Some(Timestamp { nanos: (time.nanos + 1000).min(999_999_999), ..time });
                        request.tail = None;
                    }
                    let _ = to.send((service, Ok(line))).await;
                }
            }
            Ok(())
        };
        // Without an error it was put away as the former one: there is a new one.
        if let Err(status) = ended.await {
            let _ = to.send((service, Err(status))).await;
            return;
        }
        if to.is_closed() {
            return;
        }
    }
}

/// Bytes as they come, as lines.
#[derive(Default)]
struct Lines(Vec<u8>);

impl Lines {
    /// What is whole by now. One that grows beyond all bounds is cut.
    fn add(&mut self, bytes: &[u8]) -> Vec<String> {
        self.0.extend_from_slice(bytes);
        let end = match self.0.iter().rposition(|b| *b == b'\n') {
            Some(end) => end + 1,
            None if self.0.len() > LINE => self.0.len(),
            None => return Vec::new(),
        };
        let whole: Vec<u8> = self.0.drain(..end).collect();
        text(&whole).lines().map(str::to_owned).collect()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).replace("\r\n", "\n")
}

/// `skep vm log`: bytes as they are; on a terminal, and as JSON, lines of harmless text.
pub async fn machine(
    ctx: &Ctx, machine: String, port: Option<u32>, tail: Option<u32>, age: Option<Duration>, follow: bool,
) -> Result<(), Failure> {
    let log = match port {
        None => MachineLog::Hypervisor,
        Some(2) => MachineLog::Serial2,
        Some(3) => MachineLog::Serial3,
        Some(4) => MachineLog::Serial4,
        Some(_) => MachineLog::Serial,
    };
    let request = MachineLogRequest { machine, log: log.into(), tail, follow, since: age.map(since) };
    let mut stream = ctx.api.machines().log(request).await?.into_inner();
    let as_lines = ctx.output.json || std::io::stdout().is_terminal();
    let say = |line: &str| if ctx.output.json { ctx.output.line(json!({"line": line})) } else { ctx.output.line(harmless(line)) };
    let mut lines = Lines::default();
    while let Some(chunk) = stream.message().await? {
        if as_lines {
            lines.add(&chunk.data).iter().for_each(|line| say(line));
        } else {
            let mut out = std::io::stdout();
            if out.write_all(&chunk.data).and_then(|()| out.flush()).is_err() {
                return Ok(());
            }
        }
    }
    if !lines.0.is_empty() {
        say(&text(&lines.0));
    }
    Ok(())
}

fn tail(path: &Path) -> std::io::Result<String> {
    use std::io::{Read, Seek, SeekFrom};
    let mut file = fs::File::open(path)?;
    let length = file.metadata()?.len();
    let cut = length > TAIL;
    if cut {
        file.seek(SeekFrom::Start(length - TAIL))?;
    }
    let mut bytes = Vec::new();
    file.take(TAIL).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    // The first line was probably cut.
    Ok(if cut { text.split_once('\n').map(|(_, rest)| rest.to_owned()).unwrap_or_default() } else { text })
}
