//! `skep events`.

use super::Ctx;
use crate::args::EventsArgs;
use crate::error::Failure;
use crate::view;
use skep_api::v1::{Event, WatchEventsRequest};
use skep_proto::Reason;
use std::time::{Duration, Instant};

/// How long a suite that has stopped answering is asked again.
const PATIENCE: Duration = Duration::from_secs(20);

/// Prints events until ^C, or until the one that is waited for.
pub async fn run(ctx: Ctx, args: EventsArgs) -> Result<u8, Failure> {
    let Some(timeout) = args.timeout else { return watch(ctx, args).await };
    let awaited = args.until.clone();
    let watched = tokio::time::timeout(timeout, watch(ctx, args)).await;
    watched.unwrap_or_else(|_| match awaited {
        Some(what) => Err(Failure::new(Reason::Timeout, "events", format_args!("`{what}` did not come"))),
        None => Ok(0),
    })
}

async fn watch(mut ctx: Ctx, args: EventsArgs) -> Result<u8, Failure> {
    let mut after = args.after;
    let mut until = Instant::now() + PATIENCE;
    loop {
        let seen = after;
        match follow(&ctx, &args, &mut after).await {
            Ok(()) => return Ok(0),
            Err(failure) if !failure.is_unavailable() || after.is_none() || Instant::now() > until => return Err(failure),
            Err(_) => {}
        }
        // A process of the suite was restarted: go on after the last event that was seen.
        if after != seen {
            until = Instant::now() + PATIENCE;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        ctx.api = ctx.api.again().await?;
    }
}

async fn follow(ctx: &Ctx, args: &EventsArgs, after: &mut Option<u64>) -> Result<(), Failure> {
    let request = WatchEventsRequest { after: *after, object: args.object.clone().unwrap_or_default() };
    let mut stream = ctx.api.events().watch(request).await?.into_inner();
    while let Some(event) = stream.message().await? {
        *after = Some(event.token);
        if ctx.output.json {
            ctx.output.line(view::event(&event))
        } else {
            ctx.output.line(line(&event))
        }
        let wanted = |text: &String| event.detail.contains(text.as_str()) || event.what == *text;
        if args.until.as_ref().is_some_and(wanted) {
            return Ok(());
        }
    }
    Err(Failure::new(Reason::Unavailable, "events", "the stream ended"))
}

fn line(event: &Event) -> String {
    let time = view::time(event.time.as_ref());
    let time = time.as_str().unwrap_or_default();
    let name = if event.name.is_empty() { &event.id } else { &event.name };
    let mut line = format!("{time} {} {} {name} {}", event.token, event.object, event.what);
    if !event.detail.is_empty() {
        line += &format!(": {}", event.detail);
    }
    line
}
