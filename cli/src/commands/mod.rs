//! The commands, one module for each noun. Each gives its exit code.

mod access;
mod channel;
mod console;
mod devices;
mod disk;
mod doctor;
mod escape;
mod events;
mod expect;
mod export;
mod fetch;
mod firmware;
mod host;
mod image;
mod install;
mod iso;
mod launch;
mod login;
mod logs;
mod manual;
mod nic;
mod op;
mod pages;
mod plain;
mod relay;
mod rfb;
pub mod script;
mod service;
mod sound;
mod starting;
mod stats;
mod stopping;
mod suite;
mod switch;
mod template;
mod vm;
mod vnc;
mod whole;

use crate::args::{self, Args, Command};
use crate::client::Api;
use crate::error::Failure;
use crate::operation::{self, Interrupt};
use crate::output::Output;
use crate::places::Places;
use crate::remote::{self, Address};
use crate::{audit, up, view};
use clap::CommandFactory;
use serde_json::json;
use skep_api::v1::Operation;
use skep_proto::RequestId;
use std::future::Future;
use std::time::{Duration, Instant};

/// How long a suite that has stopped answering is asked again.
const AGAIN: Duration = Duration::from_secs(10);

/// What most commands need.
pub struct Ctx {
    /// The API.
    pub api: Api,
    /// How to print.
    pub output: Output,
}

impl Ctx {
    /// Waits for an operation and says how it ended.
    async fn finish(&self, begun: Operation, wait: args::WaitArgs) -> Result<Operation, Failure> {
        let ended =
            if wait.no_wait { begun } else { operation::finish(&self.api, self.output, begun, Interrupt::Leaves).await? };
        if self.output.json {
            self.output.line(view::operation(&ended));
        } else if wait.no_wait {
            self.output.line(&ended.id);
        } else {
            self.output.remark(format_args!("{}: {}: done", ended.object, ended.kind));
        }
        Ok(ended)
    }

    /// Asks for something to be made: `ask` gets the API and the id that the request has each time. Asked again when the connection
    /// broke: the suite knows by the id what it has made already.
    async fn make<T, F>(&self, ask: impl Fn(Api, String) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    {
        let (id, until) = (RequestId::random().to_string(), Instant::now() + AGAIN);
        let mut api = self.api.clone();
        loop {
            let failure = match ask(api.clone(), id.clone()).await {
                Ok(made) => return Ok(made.into_inner()),
                Err(status) => Failure::from(status),
            };
            if !failure.is_unavailable() || Instant::now() > until {
                return Err(failure);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            api = api.again().await?;
        }
    }

    /// Prints an object that was made or changed: all of it for programs, a line for people.
    fn made(&self, value: &serde_json::Value, what: &str, did: &str) {
        if self.output.json {
            self.output.line(value);
        } else {
            let name = value.get("name").and_then(|n| n.as_str()).unwrap_or_default();
            self.output.remark(format_args!("{what} {name}: {did}"));
        }
    }

    /// The same for one that is gone.
    fn gone(&self, what: &str, name: &str) {
        if self.output.json {
            self.output.line(json!({"deleted": {"kind": what, "name": name}}));
        } else {
            self.output.remark(format_args!("{what} {name}: deleted"));
        }
    }
}

/// Runs one future on a runtime of one thread.
pub fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| Failure::io("skep", "start the event loop", &e))?;
    let result = runtime.block_on(work);
    // A thread may still wait for standard input, for ever.
    runtime.shutdown_background();
    result
}

/// Which suite a command is for.
struct At {
    places: Places,
    remote: Option<Address>,
    /// How long each call may take.
    within: Option<Duration>,
}

/// Connects, and does what a command does.
fn with_api<F: Future<Output = Result<u8, Failure>>>(
    at: &At, output: Output, work: impl FnOnce(Ctx) -> F,
) -> Result<u8, Failure> {
    let login = remote::choose(at.remote.as_ref(), &at.places)?;
    block_on(async { work(Ctx { api: Api::connect_to(&at.places, login, at.within).await?, output }).await })
}

/// Runs a command.
pub fn run(args: Args, output: Output) -> Result<u8, Failure> {
    let global = args.global;
    let places = Places::new(global.state, global.run, global.socket).map_err(up::UpError::from)?;
    let at = At { places: places.clone(), remote: global.remote, within: global.request_timeout };
    match args.command {
        Command::Up(args) => suite::up(&places, &args, output),
        Command::Down(args) => suite::down(&places, &args, output),
        Command::Prepare => service::prepare(&places, output),
        Command::Service(args) => service::become_it(&places, &args),
        Command::Ready(args) => service::ready(&places, &args, output),
        Command::Places => service::places(&places, output),
        Command::Doctor(_) => doctor::run(&places, output),
        Command::Audit(args) => audit::run(&places, &args, output),
        Command::Log(args) => logs::run(&at, args, output),
        Command::Host(command) => with_api(&at, output, |ctx| host::run(ctx, command)),
        Command::Launch(args) => with_api(&at, output, |ctx| launch::run(ctx, *args)),
        Command::Install(args) => with_api(&at, output, |ctx| install::run(ctx, *args)),
        Command::Vm(command) => with_api(&at, output, |ctx| vm::run(ctx, *command)),
        Command::Disk(command) => with_api(&at, output, |ctx| disk::run(ctx, command)),
        Command::Image(command) => with_api(&at, output, |ctx| image::run(ctx, command)),
        Command::Template(command) => template::run(output, command),
        Command::Iso(command) => with_api(&at, output, |ctx| iso::run(ctx, command)),
        Command::Switch(command) => with_api(&at, output, |ctx| switch::run(ctx, command)),
        Command::Nic(command) => with_api(&at, output, |ctx| nic::run(ctx, command)),
        Command::Events(args) => with_api(&at, output, |ctx| events::run(ctx, args)),
        Command::Op(command) => with_api(&at, output, |ctx| op::run(ctx, command)),
        Command::Login(args) => login::login(&args, at.within, output),
        Command::Logout(args) => login::logout(args.address.or(at.remote), at.within, output),
        Command::User(command) => with_api(&at, output, |ctx| access::user(ctx, command)),
        Command::Token(command) => with_api(&at, output, |ctx| access::token(ctx, command)),
        Command::Group(command) => with_api(&at, output, |ctx| access::group(ctx, command)),
        Command::Role(command) => with_api(&at, output, |ctx| access::role(ctx, command)),
        Command::Version => {
            output.object(&json!({"version": env!("CARGO_PKG_VERSION")}));
            Ok(0)
        }
        Command::ExitCodes => manual::exit_codes(output),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Args::command(), "skep", &mut std::io::stdout());
            Ok(0)
        }
        Command::Man { dir } => manual::man(&dir, output),
    }
}

/// What takes something away is typed as `none`, and is an empty text in the API.
fn or_none(text: String) -> String {
    if text == "none" { String::new() } else { text }
}
