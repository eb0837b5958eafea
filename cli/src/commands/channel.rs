//! `skep vm channel`: standard input and output as the host's end of a channel.

use super::Ctx;
use super::console::keyboard;
use crate::error::Failure;
use serde_json::json;
use skep_api::v1::{ChannelAttach, ChannelInput, channel_input};
use skep_proto::Reason;
use std::io::Write;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

fn input(kind: channel_input::Kind) -> ChannelInput {
    ChannelInput { kind: Some(kind) }
}

/// Talks until the channel ends, so many lines have come, or ^C.
pub async fn run(
    ctx: &Ctx, machine: String, channel: String, lines: Option<u64>, timeout: Option<Duration>,
) -> Result<u8, Failure> {
    let object = format!("channel {channel} of machine {machine}");
    let talk = async {
        tokio::select! {
            result = talk(ctx, &object, machine, channel, lines) => result,
            _ = tokio::signal::ctrl_c() => Ok(0),
        }
    };
    let Some(timeout) = timeout else { return talk.await };
    let late = || Failure::new(Reason::Timeout, &object, "what is waited for did not come");
    tokio::time::timeout(timeout, talk).await.unwrap_or_else(|_| Err(late()))
}

async fn talk(ctx: &Ctx, object: &str, machine: String, channel: String, lines: Option<u64>) -> Result<u8, Failure> {
    let (to, inputs) = mpsc::channel(8);
    let attach = input(channel_input::Kind::Attach(ChannelAttach { machine, channel }));
    to.send(attach).await.map_err(|_| Failure::new(Reason::Unavailable, object, "it ended at once"))?;
    let mut from = ctx.api.machines().channel(ReceiverStream::new(inputs)).await?.into_inner();
    let mut typed = keyboard();
    let (mut reading, mut came) = (true, 0);
    loop {
        tokio::select! {
            message = from.message() => {
                let Some(message) = message? else {
                    let early = Failure::new(Reason::WrongState, object, format_args!("it ended after {came} lines"));
                    return if lines.is_some() { Err(early) } else { Ok(0) };
                };
                print(ctx, &message.data)?;
                came += message.data.iter().filter(|byte| **byte == b'\n').count() as u64;
                if lines.is_some_and(|lines| came >= lines) {
                    return Ok(0);
                }
            }
            // The end of the input is no end of the channel: the guest has yet to answer.
            data = typed.recv(), if reading => reading = match data {
                Some(data) => to.send(input(channel_input::Kind::Data(data.into()))).await.is_ok(),
                None => false,
            },
        }
    }
}

/// Bytes as they came: whoever asked for a channel wants them so.
fn print(ctx: &Ctx, data: &[u8]) -> Result<(), Failure> {
    if ctx.output.json {
        ctx.output.line(json!({"data": String::from_utf8_lossy(data)}));
        return Ok(());
    }
    let mut out = std::io::stdout();
    out.write_all(data).and_then(|()| out.flush()).map_err(|e| Failure::io("standard output", "write", &e))
}
