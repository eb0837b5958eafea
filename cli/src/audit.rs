//! `skep audit`: asks the kernel, never the suite.

use crate::args::{AuditArgs, AuditCommand};
use crate::error::Failure;
use crate::output::{Output, harmless};
use crate::places::Places;
use serde_json::json;
use skep_audit::{Error, Options};
use skep_proto::Reason;

/// Exit code when something differs from what is declared.
const DIFFERS: u8 = 1;

/// Prints the audit, or the record of privileged acts.
pub fn run(places: &Places, args: &AuditArgs, output: Output) -> Result<u8, Failure> {
    if let Some(AuditCommand::Log { trace, lines }) = &args.command {
        return acts(places, trace.as_deref(), *lines, output);
    }
    let report = Options::of(&places.state, &places.run, args.only.clone()).and_then(|options| skep_audit::run(&options))?;
    if output.json {
        let lines = report.json_lines().map_err(|e| Failure::new(Reason::Internal, "audit", e))?;
        lines.iter().for_each(|line| output.line(line));
    } else {
        output.line(report.to_string().trim_end());
    }
    Ok(if report.is_clean() { 0 } else { DIFFERS })
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let (reason, advice) = match &error {
            Error::Kernel { .. } => (Reason::PermissionDenied, "run it as root, or as the user that started the suite"),
            Error::NoSuite(_) => (Reason::NotFound, "start the suite with `skep up`, or say where it is with --state"),
            Error::NotFound(_) => (Reason::NotFound, "`skep audit` shows all of them"),
            Error::Declared(..) => (Reason::InvalidValue, "it is written by `skep up`"),
        };
        Failure::new(reason, "audit", error).advice(advice)
    }
}

fn acts(places: &Places, trace: Option<&str>, last: Option<usize>, output: Output) -> Result<u8, Failure> {
    let dir = places.state.join("logs");
    let read = skep_audit::acts::read(&dir).map_err(|e| Failure::io(dir.display(), "read", &e))?;
    let acts: Vec<_> = read.acts.iter().filter(|act| trace.is_none_or(|t| act.trace == t)).collect();
    for act in acts.iter().skip(acts.len().saturating_sub(last.unwrap_or(usize::MAX))) {
        if output.json {
            output.line(json!(act));
        } else {
            let line = format!(
                "{} {}[{}] {} {} {} {} {}",
                act.time, act.service, act.pid, act.trace, act.user, act.operation, act.result, act.detail
            );
            output.line(harmless(line.trim_end()));
        }
    }
    if read.bad_lines > 0 {
        output.warning(format_args!("{} lines in {}/audit-*.log are no records", read.bad_lines, dir.display()));
    }
    Ok(0)
}
