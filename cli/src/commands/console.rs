//! `skep vm console`.

use super::Ctx;
use super::escape::{Escape, Wish};
use super::expect::{Next, Talk};
use super::plain::Plain;
use crate::args::{ConsoleArgs, Step};
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
struct Attached {
    to: mpsc::Sender<ConsoleInput>,
    from: Streaming<ConsoleOutput>,
    given: ConsoleAttached,
}

/// Attaches; by a script, or by a person.
pub async fn run(ctx: Ctx, args: ConsoleArgs) -> Result<u8, Failure> {
    let timeout = args.timeout;
    let machine = args.machine.clone();
    let waits = args.steps.0.iter().map(|(Step::Expect(t) | Step::Send(t))| format!("`{t}`")).collect::<Vec<_>>().join(", ");
    let work = async { if args.steps.0.is_empty() { interactive(&ctx, &args).await } else { scripted(&ctx, &args).await } };
    let Some(timeout) = timeout else { return work.await };
    let late = || Failure::new(Reason::Timeout, format_args!("console {machine}"), format_args!("{waits} did not come"));
    tokio::time::timeout(timeout, work).await.unwrap_or_else(|_| Err(late()))
}

async fn attach(ctx: &Ctx, args: &ConsoleArgs) -> Result<Attached, Failure> {
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

async fn attach_once(ctx: &Ctx, args: &ConsoleArgs) -> Result<Attached, Failure> {
    let (to, inputs) = mpsc::channel(8);
    let attach = ConsoleAttach { machine: args.machine.clone(), write: !args.read_only, take: args.take };
    let first = ConsoleInput { kind: Some(console_input::Kind::Attach(attach)) };
    let ended = || Failure::new(Reason::Unavailable, format_args!("console {}", args.machine), "it ended at once");
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

fn typed(data: Vec<u8>) -> ConsoleInput {
    ConsoleInput { kind: Some(console_input::Kind::Data(data.into())) }
}

async fn scripted(ctx: &Ctx, args: &ConsoleArgs) -> Result<u8, Failure> {
    let object = format!("console {}", args.machine);
    let Attached { to, mut from, given } = attach(ctx, args).await?;
    let sends = args.steps.0.iter().any(|s| matches!(s, Step::Send(_)));
    if sends && !given.writer {
        let failure = Failure::new(Reason::InUse, object, "somebody else has the keyboard");
        return Err(failure.advice("wait for him, or take it over with --take"));
    }
    // A program that reads this gets all bytes.
    let mut plain = (std::io::stdout().is_terminal() && !ctx.output.json).then(Plain::default);
    let mut talk = Talk::new(args.steps.0.clone(), usize::try_from(given.scrollback).unwrap_or(0), args.from_now);
    loop {
        match talk.next() {
            Next::Done => return Ok(0),
            Next::Type(data) => {
                // If it cannot be sent, the stream has ended, as the next line finds.
                let _ = to.send(typed(data)).await;
                continue;
            }
            Next::Read => {}
        }
        let message = from.message().await?;
        let Some(message) = message else {
            let note = format!("it ended before `{}` came", talk.waits_for().unwrap_or_default());
            return Err(Failure::new(Reason::WrongState, object, note));
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

async fn interactive(ctx: &Ctx, args: &ConsoleArgs) -> Result<u8, Failure> {
    let Attached { to, mut from, given } = attach(ctx, args).await?;
    let terminal = std::io::stdin().is_terminal();
    let note = match (given.writer, args.read_only) {
        (true, _) => "`~.` leaves, `~?` helps",
        (false, true) => "watching; `~.` leaves",
        (false, false) => "watching, since somebody else has the keyboard (--take takes it over); `~.` leaves",
    };
    if terminal {
        ctx.output.warning(format_args!("console {}: {note}", args.machine));
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
        ctx.output.warning(format_args!("console {}: left", args.machine));
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
