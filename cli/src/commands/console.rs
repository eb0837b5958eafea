//! `skep vm console`, `skep vm play`.

use super::Ctx;
use super::escape::{Escape, Wish};
use super::expect::{Next, Stage, Talk};
use super::plain::Plain;
use super::script;
use crate::args::{ConsoleArgs, PlayArgs, Step};
use crate::error::Failure;
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use serde_json::json;
use skep_api::v1::{ConsoleAttach, ConsoleAttached, ConsoleInput, ConsoleOutput, console_input, console_output};
use skep_proto::Reason;
use std::io::{IsTerminal, Read, Write};
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

/// How long a console that is being restarted is waited for.
const RESTART: Duration = Duration::from_secs(10);

/// An attached console.
pub struct Attached {
    /// What is typed.
    pub to: mpsc::Sender<ConsoleInput>,
    /// What comes.
    pub from: Streaming<ConsoleOutput>,
    /// What was given.
    pub given: ConsoleAttached,
}

/// Attaches; by a script, or by a person.
pub async fn run(ctx: Ctx, args: ConsoleArgs) -> Result<u8, Failure> {
    let ConsoleArgs { machine, port, steps, timeout, from_now, read_only, take } = args;
    let line = Line { machine, port, write: !read_only, take };
    let waits = steps.0.iter().map(|step| format!("`{}`", step.parts().1)).collect::<Vec<_>>().join(", ");
    let late = Failure::new(Reason::Timeout, line.name(), format_args!("{waits} did not come"));
    let stages: Vec<Stage> = steps.0.into_iter().map(Stage::from).collect();
    let work = async {
        if stages.is_empty() { interactive(&ctx, &line).await } else { scripted(&ctx, &line, stages, from_now, false).await }
    };
    within(timeout, late, work).await
}

/// Plays a script.
pub async fn play(ctx: Ctx, args: PlayArgs) -> Result<u8, Failure> {
    let PlayArgs { machine, script, port, timeout, from_now, take } = args;
    let stages = script::read(&script)?;
    let line = Line { machine, port, write: true, take };
    let late = Failure::new(Reason::Timeout, line.name(), format_args!("script {} did not come to its end", script.display()));
    within(timeout, late, scripted(&ctx, &line, stages, from_now, true)).await
}

async fn within(
    timeout: Option<Duration>, late: Failure, work: impl Future<Output = Result<u8, Failure>>,
) -> Result<u8, Failure> {
    let Some(timeout) = timeout else { return work.await };
    tokio::time::timeout(timeout, work).await.unwrap_or(Err(late))
}

/// A serial line that is to be joined.
pub struct Line {
    /// Whose it is.
    pub machine: String,
    /// Its number, from 1 on.
    pub port: u32,
    /// Whether something is to be typed.
    pub write: bool,
    /// Whether whoever has the keyboard loses it.
    pub take: bool,
}

impl Line {
    /// What messages call it.
    pub fn name(&self) -> String {
        let port = if self.port > 1 { format!(" port {}", self.port) } else { String::new() };
        format!("console {}{port}", self.machine)
    }
}

/// Joins it; one that is being restarted is waited for.
pub async fn attach(ctx: &Ctx, args: &Line) -> Result<Attached, Failure> {
    let until = Instant::now() + RESTART;
    let mut pause = Duration::from_millis(20);
    loop {
        match attach_once(ctx, args).await {
            // Its console-proxy, or another process, is being restarted.
            Err(failure) if failure.is_unavailable() && Instant::now() + pause < until => tokio::time::sleep(pause).await,
            result => return result,
        }
        pause = (pause * 2).min(Duration::from_secs(1));
    }
}

async fn attach_once(ctx: &Ctx, args: &Line) -> Result<Attached, Failure> {
    let (to, inputs) = mpsc::channel(8);
    let attach = ConsoleAttach { machine: args.machine.clone(), write: args.write, take: args.take, port: args.port };
    let first = ConsoleInput { kind: Some(console_input::Kind::Attach(attach)) };
    let ended = || Failure::new(Reason::Unavailable, args.name(), "it ended at once");
    to.send(first).await.map_err(|_| ended())?;
    let mut from = ctx.api.machines().console(ReceiverStream::new(inputs)).await?.into_inner();
    match from.message().await?.and_then(|m| m.kind) {
        Some(console_output::Kind::Attached(given)) => Ok(Attached { to, from, given }),
        _ => Err(ended()),
    }
}

/// Prints what the guest wrote.
fn print(ctx: &Ctx, data: &[u8]) -> Result<(), Failure> {
    if ctx.output.json {
        ctx.output.line(json!({"data": String::from_utf8_lossy(data)}));
        return Ok(());
    }
    let mut out = std::io::stdout();
    out.write_all(data).and_then(|()| out.flush()).map_err(|e| Failure::io("standard output", "write", &e))
}

/// As it is sent.
pub fn typed(data: Vec<u8>) -> ConsoleInput {
    ConsoleInput { kind: Some(console_input::Kind::Data(data.into())) }
}

/// Where a step stands in its script.
pub fn place(stage: &Stage) -> String {
    stage.line.map_or_else(String::new, |line| format!(", line {line}"))
}

/// `steps`: what is done is printed, too, where the output is JSON.
async fn scripted(ctx: &Ctx, args: &Line, stages: Vec<Stage>, from_now: bool, steps: bool) -> Result<u8, Failure> {
    let object = args.name();
    let Attached { to, mut from, given } = attach(ctx, args).await?;
    let sends = stages.iter().any(|stage| !matches!(stage.step, Step::Expect(_)));
    if sends && !given.writer {
        let failure = Failure::new(Reason::InUse, object, "somebody else has the keyboard");
        return Err(failure.advice("wait for him, or take it over with --take"));
    }
    // A program that reads this gets all bytes.
    let mut plain = (std::io::stdout().is_terminal() && !ctx.output.json).then(Plain::default);
    let mut talk = Talk::new(stages.clone(), usize::try_from(given.scrollback).unwrap_or(0), from_now);
    // Steps that were said to be done, and until when the one at work may take.
    let (mut said, mut at_work): (usize, Option<(usize, Option<Instant>)>) = (0, None);
    loop {
        let next = talk.next();
        let done = stages.len() - talk.at().map_or(0, |(_, after)| after + 1);
        for stage in stages.get(said..done).unwrap_or_default().iter().filter(|_| steps && ctx.output.json) {
            let (word, text) = stage.step.parts();
            ctx.output.line(json!({"line": stage.line, "step": word, "text": text}));
        }
        said = done;
        match next {
            Next::Done => return Ok(0),
            Next::Type(data) => {
                // If it cannot be sent, the stream has ended, as the next line finds.
                let _ = to.send(typed(data)).await;
                continue;
            }
            Next::Read => {}
        }
        let Some((stage, _)) = talk.at() else { return Ok(0) };
        if at_work.is_none_or(|(step, _)| step != done) {
            at_work = Some((done, stage.limit.map(|limit| Instant::now() + limit)));
        }
        let (place, text) = (place(stage), stage.step.parts().1);
        let message = match at_work.and_then(|(_, until)| until) {
            None => from.message().await?,
            Some(until) => {
                let late = || {
                    let limit = stage.limit.unwrap_or_default();
                    Failure::new(
                        Reason::Timeout,
                        format_args!("{object}{place}"),
                        format_args!("`{text}` did not come in {limit:?}"),
                    )
                };
                tokio::time::timeout_at(until.into(), from.message()).await.map_err(|_| late())??
            }
        };
        let Some(message) = message else {
            let note = format!("it ended before `{text}` came");
            return Err(Failure::new(Reason::WrongState, format_args!("{object}{place}"), note));
        };
        if let Some(console_output::Kind::Data(data)) = message.kind {
            match &mut plain {
                Some(plain) => print(ctx, &plain.of(&data))?,
                None => print(ctx, &data)?,
            }
            talk.came(&data);
        }
    }
}

/// A terminal that passes every key on; as it was again when this is dropped.
struct Raw(Termios);

impl Raw {
    fn enter() -> Option<Self> {
        let before = tcgetattr(std::io::stdin()).ok()?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(std::io::stdin(), SetArg::TCSADRAIN, &raw).ok()?;
        Some(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = tcsetattr(std::io::stdin(), SetArg::TCSADRAIN, &self.0);
    }
}

async fn interactive(ctx: &Ctx, args: &Line) -> Result<u8, Failure> {
    let Attached { to, mut from, given } = attach(ctx, args).await?;
    let terminal = std::io::stdin().is_terminal();
    let note = match (given.writer, !args.write) {
        (true, _) => "`~.` leaves, `~?` helps",
        (false, true) => "watching; `~.` leaves",
        (false, false) => "watching, since somebody else has the keyboard (--take takes it over); `~.` leaves",
    };
    if terminal {
        ctx.output.warning(format_args!("{}: {note}", args.name()));
    }
    let raw = terminal.then(Raw::enter).flatten();
    let mut keys = keyboard();
    let mut to = Some(to);
    let mut escape = Escape::default();
    let failed = |e: std::io::Error| Failure::io("skep", "watch signals", &e);
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(failed)?;
    loop {
        tokio::select! {
            message = from.message() => match message? {
                Some(ConsoleOutput { kind: Some(console_output::Kind::Data(data)) }) => print(ctx, &data)?,
                Some(_) => {}
                None => break,
            },
            key = keys.recv(), if to.is_some() => {
                let Some(data) = key else {
                    // No more input; what the guest writes is still printed.
                    to = None;
                    continue;
                };
                let (through, wish) = if terminal { escape.feed(&data) } else { (data, None) };
                if let Some(to) = &to && !through.is_empty() && to.send(typed(through)).await.is_err() {
                    break;
                }
                match wish {
                    Some(Wish::Detach) => break,
                    Some(Wish::Help) => print(ctx, b"\r\n~.  leave\r\n~~  type ~\r\n~?  this\r\n")?,
                    None => {}
                }
            }
            _ = terminate.recv() => break,
            _ = hangup.recv() => break,
        }
    }
    drop(raw);
    if terminal {
        ctx.output.warning(format_args!("{}: left", args.name()));
    }
    Ok(0)
}

/// Standard input, read by a thread: it may be a terminal, a pipe or a file.
pub fn keyboard() -> mpsc::Receiver<Vec<u8>> {
    let (to, keys) = mpsc::channel(8);
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        let mut input = std::io::stdin().lock();
        loop {
            match input.read(&mut buffer) {
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Ok(0) | Err(_) => return,
                Ok(got) => {
                    if to.blocking_send(buffer.get(..got).unwrap_or_default().to_vec()).is_err() {
                        return;
                    }
                }
            }
        }
    });
    keys
}
