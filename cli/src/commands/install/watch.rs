//! An installer at work: what it says on its serial port is printed, what it asks there is answered, until its machine is off.

use super::super::Ctx;
use super::super::console::{self, Attached, Line};
use super::super::expect::{Next, Stage, Talk};
use super::super::plain::Plain;
use crate::error::Failure;
use crate::output::harmless;
use crate::templates::install::FAILED;
use serde_json::json;
use skep_api::v1::{Event, GetMachineRequest, Machine, MachineState, WatchEventsRequest, console_output};
use skep_proto::Reason;
use std::io::Write;
use std::time::{Duration, Instant};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tonic::Streaming;

/// Bytes that came last, by which the place in the scroll-back is found again.
const TAIL: usize = 256;
/// How long a suite that has stopped answering is asked again, and how long what an ended machine said last may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long what an installer says after it said that it failed may take.
const REASONS: Duration = Duration::from_secs(2);

/// What ends the command early.
pub struct Signals([Signal; 3]);

impl Signals {
    /// From here on none of them ends the process by itself.
    pub fn listen() -> Result<Self, Failure> {
        let of = |kind| signal(kind).map_err(|e| Failure::io("skep", "watch signals", &e));
        Ok(Self([of(SignalKind::interrupt())?, of(SignalKind::terminate())?, of(SignalKind::hangup())?]))
    }

    async fn came(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }

    /// Does something else, unless one comes.
    pub async fn or<T>(&mut self, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        tokio::select! {
            done = work => done,
            () = self.came() => Err(Failure::interrupted("")),
        }
    }
}

/// What happens to machines.
pub struct News {
    stream: Streaming<Event>,
    last: Option<u64>,
}

impl News {
    /// From now on.
    pub async fn begin(ctx: &Ctx) -> Result<Self, Failure> {
        Ok(Self { stream: follow(ctx, None).await?, last: None })
    }

    /// The next one; none: the stream was begun anew, and some may have been missed.
    async fn next(&mut self, ctx: &Ctx) -> Result<Option<Event>, Failure> {
        let mut until = None;
        loop {
            let failure = match self.stream.message().await {
                Ok(Some(event)) => {
                    self.last = Some(event.token);
                    return Ok(Some(event));
                }
                Ok(None) => Failure::new(Reason::Unavailable, "events", "the stream ended"),
                Err(status) => status.into(),
            };
            let until = *until.get_or_insert_with(|| Instant::now() + PATIENCE);
            if !failure.is_unavailable() || Instant::now() > until {
                return Err(failure);
            }
            // A process of the suite is being restarted.
            tokio::time::sleep(Duration::from_millis(100)).await;
            let Ok(api) = ctx.api.again().await else { continue };
            if let Ok(stream) = follow(&Ctx { api, output: ctx.output }, self.last).await {
                self.stream = stream;
                return Ok(None);
            }
        }
    }
}

async fn follow(ctx: &Ctx, after: Option<u64>) -> Result<Streaming<Event>, Failure> {
    let request = WatchEventsRequest { after, object: "machine".into() };
    Ok(ctx.api.events().watch(request).await?.into_inner())
}

/// What an installer says and is told.
#[derive(Clone, Copy)]
pub struct Course<'a> {
    /// The script's steps.
    pub stages: &'a [Stage],
    /// Texts by which it says that it failed.
    pub failed: &'a [String],
    /// Whether it halts without powering off: the script's end is its end.
    pub halts: bool,
    /// Until when it may take.
    pub deadline: Instant,
}

/// The serial port, and where the script stands.
struct Talking<'a> {
    ctx: &'a Ctx,
    line: Line,
    attached: Attached,
    talk: Talk,
    stages: &'a [Stage],
    /// Steps that are done.
    done: usize,
    /// Until when the one at work may take.
    until: Option<Instant>,
    /// Bytes of scroll-back that are to come, after this one joined anew.
    again: Option<(usize, Vec<u8>)>,
    tail: Vec<u8>,
    plain: Plain,
    failed: &'a [String],
    /// What it said last, without what would move a cursor.
    said: Vec<u8>,
    /// The text by which it has said that it failed.
    failure: Option<&'a str>,
    /// Whether what was printed last ended its line.
    fresh: bool,
}

impl<'a> Talking<'a> {
    async fn begin(ctx: &'a Ctx, machine: &str, course: Course<'a>) -> Result<Self, Failure> {
        let Course { stages, failed, .. } = course;
        let types = !stages.is_empty();
        let line = Line { machine: machine.to_owned(), port: 1, write: types, take: false };
        let attached = console::attach(ctx, &line).await?;
        if types && !attached.given.writer {
            return Err(Failure::new(Reason::InUse, line.name(), "somebody else has the keyboard"));
        }
        let talk = Talk::new(stages.to_vec(), usize::try_from(attached.given.scrollback).unwrap_or(0), false);
        let mut new = Self {
            ctx,
            line,
            attached,
            talk,
            stages,
            done: 0,
            until: None,
            again: None,
            tail: Vec::new(),
            plain: Plain::default(),
            failed,
            said: Vec::new(),
            failure: None,
            fresh: true,
        };
        new.step().await;
        Ok(new)
    }

    /// Joins it anew.
    async fn join(&mut self) -> Result<(), Failure> {
        self.attached = console::attach(self.ctx, &self.line).await?;
        let scrollback = usize::try_from(self.attached.given.scrollback).unwrap_or(0);
        self.again = (scrollback > 0).then(|| (scrollback, Vec::new()));
        Ok(())
    }

    /// What came; none: the stream has ended.
    async fn read(&mut self) -> Option<Vec<u8>> {
        loop {
            match self.attached.from.message().await {
                Ok(Some(message)) => {
                    if let Some(console_output::Kind::Data(data)) = message.kind {
                        return Some(data.to_vec());
                    }
                }
                Ok(None) | Err(_) => return None,
            }
        }
    }

    /// Takes what came, once: what a new stream repeats is passed over.
    async fn came(&mut self, data: Vec<u8>) {
        let data = match self.again.take() {
            None => data,
            Some((scrollback, mut seen)) => {
                seen.extend(data);
                if seen.len() < scrollback {
                    self.again = Some((scrollback, seen));
                    return;
                }
                let tail = &self.tail;
                let known =
                    if tail.is_empty() { None } else { seen.windows(tail.len()).rposition(|part| part == tail.as_slice()) };
                seen.split_off(known.map_or(0, |at| at + tail.len()))
            }
        };
        self.tail.extend_from_slice(&data);
        self.tail.drain(..self.tail.len().saturating_sub(TAIL));
        let text = self.plain.of(&data);
        self.print(&data, &text);
        self.hear(&text);
        self.talk.came(&data);
        self.step().await;
    }

    /// Does the steps that can be done.
    async fn step(&mut self) {
        loop {
            let next = self.talk.next();
            let done = self.stages.len() - self.talk.at().map_or(0, |(_, after)| after + 1);
            for number in self.done..done {
                self.say(number);
            }
            if done > self.done || self.until.is_none() {
                self.until = self.talk.at().and_then(|(stage, _)| stage.limit).map(|limit| Instant::now() + limit);
            }
            self.done = done;
            match next {
                Next::Type(data) => {
                    // If it cannot be sent, the stream has ended, as its reader finds.
                    let _ = self.attached.to.send(console::typed(data)).await;
                }
                Next::Read | Next::Done => return,
            }
        }
    }

    /// Says that a step is done. Its text is a template's, or its user's.
    fn say(&mut self, number: usize) {
        let Some(stage) = self.stages.get(number) else { return };
        let (word, text) = stage.step.parts();
        let output = self.ctx.output;
        if output.json {
            return output.line(json!({"line": stage.line, "step": word, "text": text}));
        }
        if !self.fresh {
            output.remark("");
        }
        self.fresh = true;
        output.remark(format_args!("-- step {} of {}: {word} {}", number + 1, self.stages.len(), text.escape_debug()));
    }

    /// Looks whether it says that it failed.
    fn hear(&mut self, text: &[u8]) {
        self.said.extend_from_slice(text);
        let failed = self.failed;
        let says = |failed: &&String| self.said.windows(failed.len()).any(|part| part == failed.as_bytes());
        self.failure = self.failure.or_else(|| failed.iter().find(says).map(String::as_str));
        self.said.drain(..self.said.len().saturating_sub(FAILED));
    }

    /// What it says yet: until it is off, or for a little while.
    async fn rest(&mut self, patience: Duration) {
        let rest = async {
            while let Some(data) = self.read().await {
                self.came(data).await;
            }
        };
        let _ = tokio::time::timeout(patience, rest).await;
    }

    /// Prints what the guest wrote, which moves no cursor.
    fn print(&mut self, data: &[u8], text: &[u8]) {
        let output = self.ctx.output;
        if output.json {
            return output.line(json!({"data": String::from_utf8_lossy(data)}));
        }
        let text = harmless(&String::from_utf8_lossy(text).replace('\r', ""));
        if output.quiet || text.is_empty() {
            return;
        }
        self.fresh = text.ends_with('\n');
        let mut out = std::io::stdout();
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }

    /// The failure of a step that came too late.
    fn late(&self) -> Failure {
        let Some((stage, _)) = self.talk.at() else { return Failure::new(Reason::Timeout, self.line.name(), "it took too long") };
        let note = format!("`{}` did not come in {:?}", stage.step.parts().1.escape_debug(), stage.limit.unwrap_or_default());
        Failure::new(Reason::Timeout, format_args!("{}{}", self.line.name(), console::place(stage)), note)
    }
}

/// What it is doing; a suite that is being restarted is asked again.
async fn get(ctx: &Ctx, id: &str) -> Result<Machine, Failure> {
    let until = Instant::now() + PATIENCE;
    loop {
        let asked = async {
            let api = ctx.api.again().await?;
            Ok::<_, Failure>(api.machines().get(GetMachineRequest { machine: id.to_owned() }).await?.into_inner())
        };
        match asked.await {
            Err(failure) if failure.is_unavailable() && Instant::now() < until => {}
            got => return got,
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Whether it is off, or why that is none of an installation's end.
pub fn ended(machine: &Machine) -> Option<Result<(), Failure>> {
    let wrong = |note: &str| {
        let failure = Failure::new(Reason::WrongState, format_args!("machine {}", machine.name), note);
        Some(Err(failure.advice("what it said is above, and in `skep vm log`, if --keep leaves the machine")))
    };
    match machine.state() {
        MachineState::Stopped if machine.note == "powered off" => Some(Ok(())),
        MachineState::Stopped | MachineState::Failed => {
            wrong(&format!("it did not power itself off: {}", harmless(&machine.note)))
        }
        _ => None,
    }
}

/// Waits until then; without a time, for ever.
async fn at(until: Option<Instant>) {
    match until {
        Some(until) => tokio::time::sleep_until(until.into()).await,
        None => std::future::pending().await,
    }
}

/// Watches it to its end; one that `halts`, to the script's. `alone` is called once the script has nothing more to say.
pub async fn run(
    ctx: &Ctx, machine: &Machine, course: Course<'_>, news: &mut News, alone: impl AsyncFn() -> Result<(), Failure>,
) -> Result<(), Failure> {
    let Course { stages, halts, deadline, .. } = course;
    let mut talking = Talking::begin(ctx, &machine.name, course).await?;
    let mut said = false;
    loop {
        if !said && talking.done == stages.len() {
            alone().await?;
            if halts {
                return Ok(());
            }
            said = true;
        }
        let until = talking.until;
        tokio::select! {
            data = talking.read() => match data {
                Some(data) => {
                    talking.came(data).await;
                    if talking.failure.is_some() {
                        // Why, if it says so.
                        talking.rest(REASONS).await;
                        return unfinished(&talking, Ok(()));
                    }
                }
                None => {
                    // It is off, or a process of the suite is being restarted.
                    if let Some(how) = ended(&get(ctx, &machine.id).await?) {
                        return unfinished(&talking, how);
                    }
                    if let Err(failure) = talking.join().await {
                        return match ended(&get(ctx, &machine.id).await?) {
                            Some(how) => unfinished(&talking, how),
                            None => Err(failure),
                        };
                    }
                }
            },
            event = news.next(ctx) => {
                let event = event?;
                if event.as_ref().is_some_and(|event| event.id != machine.id || event.what != "state") {
                    continue;
                }
                if event.is_some_and(|event| event.detail == "rebooted") {
                    let failure = Failure::new(Reason::WrongState, format_args!("machine {}", machine.name), "its guest rebooted");
                    return Err(failure.advice("have the answers power it off at the end (docs/install.md): a reboot would only install it again"));
                }
                if let Some(how) = ended(&get(ctx, &machine.id).await?) {
                    // What it said last.
                    talking.rest(PATIENCE).await;
                    return unfinished(&talking, how);
                }
            }
            () = at(until) => return Err(talking.late()),
            () = at(Some(deadline)) => {
                let note = "it did not power itself off in time";
                return Err(Failure::new(Reason::Timeout, format_args!("machine {}", machine.name), note).advice("--timeout gives it more"));
            }
        }
    }
}

/// A machine that says that it failed, or is off before its script is at its end, did not do what it should.
fn unfinished(talking: &Talking<'_>, how: Result<(), Failure>) -> Result<(), Failure> {
    if let Some(text) = talking.failure {
        let failure = Failure::new(Reason::WrongState, talking.line.name(), format_args!("its installer said `{text}`"));
        return Err(failure.advice("what it said is above; --keep leaves the machine"));
    }
    let Some((stage, _)) = talking.talk.at().filter(|_| how.is_ok()) else { return how };
    let note = format!("it powered itself off before `{}` came", stage.step.parts().1.escape_debug());
    Err(Failure::new(Reason::WrongState, format_args!("{}{}", talking.line.name(), console::place(stage)), note))
}
