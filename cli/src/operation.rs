//! Waiting for operations: by their stream, with a bar where one can be drawn.

use crate::client::Api;
use crate::error::Failure;
use crate::output::Output;
use indicatif::{ProgressBar, ProgressStyle};
use skep_api::v1::{CancelOperationRequest, Operation, OperationState, WaitOperationRequest};
use skep_proto::Reason;
use std::time::{Duration, Instant};

/// What ^C does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interrupt {
    /// The operation goes on, and the command says how to see it.
    Leaves,
    /// The operation is cancelled, and the command waits for that.
    Cancels,
}

/// How long a suite that has stopped answering is asked again.
const PATIENCE: Duration = Duration::from_secs(20);

/// A bar for `total` bytes or steps; 0: unknown.
pub fn bar(output: Output, what: String, total: u64) -> ProgressBar {
    if !output.draws() {
        return ProgressBar::hidden();
    }
    let bar = if total == 0 { ProgressBar::new_spinner() } else { ProgressBar::new(total) };
    style(&bar, if total == 0 { "{spinner} {msg} {bytes}" } else { BYTES });
    bar.with_message(what)
}

/// How a bar of bytes looks.
const BYTES: &str = "{msg} {wide_bar} {bytes}/{total_bytes} {eta}";

fn style(bar: &ProgressBar, template: &str) {
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
}

/// Waits until the operation has ended; its failure is the command's.
pub async fn finish(api: &Api, output: Output, begun: Operation, interrupt: Interrupt) -> Result<Operation, Failure> {
    let shown = bar(output, format!("{}: {}", begun.object, begun.kind), 0);
    // Most have nothing to count.
    style(&shown, "{spinner} {msg}");
    let mut api = api.clone();
    let mut last = begun;
    let mut until = Instant::now() + PATIENCE;
    let mut pause = Duration::from_millis(20);
    while last.state() == OperationState::Running {
        match follow(&api, &mut last, &shown, interrupt).await {
            Ok(()) => {}
            Err(failure) if failure.is_unavailable() && Instant::now() < until => {
                // A process of the suite was restarted: ask the next one.
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(1));
                api = api.again().await?;
                continue;
            }
            Err(failure) if failure.is_late() => return Err(failure.advice(goes_on(&last.id))),
            Err(failure) => return Err(failure),
        }
        until = Instant::now() + PATIENCE;
    }
    shown.finish_and_clear();
    if last.state() == OperationState::Done { Ok(last) } else { Err(last.into()) }
}

fn goes_on(id: &str) -> String {
    format!("it goes on: `skep op show {id}`, or `skep op cancel {id}`")
}

async fn follow(api: &Api, last: &mut Operation, shown: &ProgressBar, interrupt: Interrupt) -> Result<(), Failure> {
    let id = last.id.clone();
    let mut stream = api.operations().wait(WaitOperationRequest { operation: id.clone() }).await?.into_inner();
    loop {
        let next = tokio::select! {
            next = stream.message() => next?,
            _ = tokio::signal::ctrl_c() => match interrupt {
                Interrupt::Leaves => {
                    return Err(Failure::interrupted(goes_on(&id)));
                }
                Interrupt::Cancels => {
                    api.operations().cancel(CancelOperationRequest { operation: id.clone() }).await?;
                    continue;
                }
            },
        };
        let Some(next) = next else {
            let early = || Failure::new(Reason::Unavailable, "api-frontend", "the stream ended before the operation");
            return if last.state() == OperationState::Running { Err(early()) } else { Ok(()) };
        };
        if next.progress_total > 0 && shown.length() != Some(next.progress_total) {
            style(shown, BYTES);
            shown.set_length(next.progress_total);
        }
        shown.set_position(next.progress_done);
        *last = next;
    }
}
