//! `skep vm sound`: what a machine plays, as a WAV file.

use super::Ctx;
use super::relay::{Kind, Screen, open};
use super::rfb::{BYTES_A_SECOND, Listener, Step, wav};
use crate::args::SoundArgs;
use crate::error::Failure;
use skep_api::v1::GetMachineRequest;
use skep_proto::Reason;
use std::fs::File;
use std::io::{IsTerminal, Seek, Write};
use std::time::Duration;

/// Where it goes.
enum To {
    File(File),
    Stdout(std::io::Stdout),
}

impl Write for To {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::File(file) => file.write(bytes),
            Self::Stdout(out) => out.write(bytes),
        }
    }
    fn flush(&mut self) -> std::io::Result<()> {
        match self {
            Self::File(file) => file.flush(),
            Self::Stdout(out) => out.flush(),
        }
    }
}

/// Listens until enough has come, the machine ends, or ^C.
pub async fn run(ctx: Ctx, args: SoundArgs) -> Result<u8, Failure> {
    let object = format!("sound of {}", args.machine);
    let failed = |e: std::io::Error| Failure::io(&object, "write", &e);
    // A screen without a card answers, too.
    let found = ctx.api.machines().get(GetMachineRequest { machine: args.machine.clone() }).await?.into_inner();
    if found.settings.as_ref().is_none_or(|settings| !settings.sound()) {
        let failure = Failure::new(Reason::WrongState, format!("machine {}", args.machine), "it has no sound card");
        return Err(failure.advice(format!("skep vm set {} --sound on", args.machine)));
    }
    let mut to = match &args.output {
        Some(path) => To::File(File::create(path).map_err(|e| Failure::io(path.display(), "create", &e))?),
        None if std::io::stdout().is_terminal() => {
            let failure = Failure::new(Reason::InvalidValue, &object, "a terminal plays no sound");
            return Err(failure.advice("give a file by --output, or a player: skep vm sound NAME | aplay"));
        }
        None => To::Stdout(std::io::stdout()),
    };
    let most = args.duration.map_or(u64::MAX, bytes_of);
    let mut written = 0;
    to.write_all(&wav(None)).and_then(|()| to.flush()).map_err(failed)?;
    let result = tokio::select! {
        result = listen(&ctx, &args.machine, &mut to, most, &mut written) => result,
        _ = tokio::signal::ctrl_c() => Ok(()),
        () = late(args.timeout) => Err(Failure::new(Reason::Timeout, &object, "so much sound did not come")),
    };
    // A file can say in the end how long it has become; what was heard until something failed is kept, too.
    if let To::File(file) = &mut to {
        file.rewind().and_then(|()| file.write_all(&wav(Some(u32::try_from(written).unwrap_or(u32::MAX))))).map_err(failed)?;
    }
    result.map(|()| 0)
}

fn bytes_of(duration: Duration) -> u64 {
    // Whole samples.
    u64::try_from(duration.as_millis() * u128::from(BYTES_A_SECOND) / 4000 * 4).unwrap_or(u64::MAX)
}

async fn late(timeout: Option<Duration>) {
    match timeout {
        Some(timeout) => tokio::time::sleep(timeout).await,
        None => std::future::pending().await,
    }
}

async fn listen(ctx: &Ctx, machine: &str, to: &mut To, most: u64, written: &mut u64) -> Result<(), Failure> {
    let object = format!("sound of {machine}");
    let (server, mut from) = open::<Screen>(&ctx.api, machine).await?;
    let mut listener = Listener::default();
    while let Some(message) = from.message().await? {
        listener.came(Screen::bytes(&message));
        loop {
            match listener.next().map_err(|wrong| Failure::new(Reason::Unsupported, &object, wrong))? {
                Step::More => break,
                // If it cannot be sent, the stream has ended, as the next message finds.
                Step::Send(bytes) => drop(server.send(Screen::data(bytes)).await),
                Step::Sound(bytes) => {
                    let left = usize::try_from(most - *written).unwrap_or(usize::MAX);
                    let bytes = bytes.get(..left.min(bytes.len())).unwrap_or_default();
                    match to.write_all(bytes).and_then(|()| to.flush()) {
                        Ok(()) => *written += bytes.len() as u64,
                        // The player was closed.
                        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => return Ok(()),
                        Err(e) => return Err(Failure::io(&object, "write", &e)),
                    }
                    if *written >= most {
                        return Ok(());
                    }
                }
            }
        }
    }
    Ok(())
}
