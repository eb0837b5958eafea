//! `skep log`: the logs of the suite's processes, merged by time.

use crate::args::LogArgs;
use crate::error::Failure;
use crate::output::{Output, harmless};
use crate::places::Places;
use serde_json::json;
use skep_proto::Reason;
use std::fs;
use std::path::Path;

/// The processes that have a log.
pub const SERVICES: [&str; 6] = ["up", "broker", "api-frontend", "storage-helper", "net-helper", "vm-runner"];
/// Bytes read from the end of a log, at most.
const TAIL: u64 = 4 << 20;

/// Prints them.
pub fn run(places: &Places, args: &LogArgs, output: Output) -> Result<u8, Failure> {
    let dir = places.state.join("logs");
    let wanted: Vec<&str> = match &args.service {
        None => SERVICES.to_vec(),
        Some(name) => {
            let name = name.strip_prefix("skep-").unwrap_or(name);
            let known = SERVICES.iter().find(|s| **s == name).copied();
            let unknown =
                || Failure::new(Reason::NotFound, format_args!("log {name}"), format_args!("there are {}", SERVICES.join(", ")));
            vec![known.ok_or_else(unknown)?]
        }
    };
    if !dir.is_dir() {
        let failure =
            Failure::new(Reason::NotFound, format_args!("directory {}", dir.display()), "the suite was never started there");
        return Err(failure.advice("say where its state is with --state"));
    }
    let since = args.since.map(|age| {
        let ns = i64::try_from(age.as_nanos()).unwrap_or(i64::MAX);
        skep_service::iso8601(skep_service::now_ns().saturating_sub(ns))
    });
    let mut lines = Vec::new();
    for service in wanted {
        let mut text = String::new();
        // The one before the present, first.
        for name in [format!("{service}.1.log"), format!("{service}.log")] {
            let path = dir.join(name);
            if path.exists() {
                text += &tail(&path).map_err(|e| Failure::io(path.display(), "read", &e))?;
            }
        }
        let mut time = String::new();
        for line in text.lines() {
            // A line without a time (a panic's, say) belongs to the one before.
            if let Some(first) = line.split(' ').next().filter(|t| t.len() == 27 && t.ends_with('Z')) {
                first.clone_into(&mut time);
            }
            lines.push((time.clone(), service, line.to_owned()));
        }
    }
    let keep = |(time, _, line): &(String, &str, String)| {
        since.as_ref().is_none_or(|since| time >= since) && args.trace.as_ref().is_none_or(|trace| line.contains(trace.as_str()))
    };
    lines.retain(keep);
    lines.sort_by(|a, b| a.0.cmp(&b.0));
    let from = lines.len().saturating_sub(args.lines);
    for (time, service, line) in lines.iter().skip(from) {
        if output.json {
            output.line(json!({"time": time, "service": service, "line": line}));
        } else {
            output.line(harmless(line));
        }
    }
    Ok(0)
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
