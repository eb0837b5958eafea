//! Connections to the helpers: one task each, which asks one thing after the other, and connects anew when its helper was restarted.
//!
//! When a connection dies within a call, nobody knows whether the act was done. A call that sends no descriptors is idempotent by
//! the design of the helpers' protocols, so it is repeated once; one that sends descriptors is refused as unavailable, and its caller
//! asks the host what became of it.

use crate::db::Who;
use crate::platform::RunDir;
use skep_ipc::CallError;
use skep_ipc::aio::Client;
use skep_proto::{Call, Fds, Helper, NoFds, Reason, Refusal};
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{sleep, timeout};

/// How long a call waits for a helper that is being restarted.
const GRACE: Duration = Duration::from_secs(5);
/// Between two starts of a process that does not stay, at first and at most.
pub const BACK_OFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
/// Between two tries to connect, at first and at most.
const CONNECT: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(2));
/// How long a helper may take for what it does at once.
pub const PATIENCE: Duration = Duration::from_secs(30);

type Work<'a> = Pin<Box<dyn Future<Output = bool> + 'a>>;
/// Makes one call; says whether the connection is of further use.
type Job<H> = Box<dyn for<'a> FnOnce(&'a mut Client<H>) -> Work<'a>>;

/// One helper.
pub struct Line<H: Helper> {
    jobs: mpsc::UnboundedSender<Job<H>>,
    up: watch::Receiver<u64>,
}

/// A good answer.
pub type Answer<C> = (<C as Call>::Reply, <C as Call>::ReplyFds);

impl<H: Helper> Line<H> {
    /// Begins to connect to `RUN/<name>.sock`, for ever.
    pub fn start(run: RunDir, note: impl Fn(String) + 'static) -> Self {
        let (jobs, queue) = mpsc::unbounded_channel();
        let (up_now, up) = watch::channel(0);
        tokio::task::spawn_local(attend::<H>(run, queue, up_now, note));
        Self { jobs, up }
    }

    /// Whether it is connected.
    pub fn is_up(&self) -> bool {
        *self.up.borrow() % 2 == 1
    }

    /// Follows it: an odd number means connected, each change raises it.
    pub fn follow(&self) -> watch::Receiver<u64> {
        self.up.clone()
    }

    /// Waits until it is connected.
    pub async fn wait(&self) {
        // The task lives as long as this; it never drops its end first.
        let _ = self.up.clone().wait_for(|n| n % 2 == 1).await;
    }

    /// Asks what can be asked twice.
    pub async fn call<C>(&self, who: &Who, call: C) -> Result<Answer<C>, Refusal>
    where
        C: Call<Helper = H, SendFds = NoFds> + Clone + 'static,
        C::ReplyFds: 'static,
    {
        self.call_in(who, call, PATIENCE).await
    }

    /// The same, with a patience of its own.
    pub async fn call_in<C>(&self, who: &Who, call: C, patience: Duration) -> Result<Answer<C>, Refusal>
    where
        C: Call<Helper = H, SendFds = NoFds> + Clone + 'static,
        C::ReplyFds: 'static,
    {
        match self.once(who, call.clone(), [], patience).await {
            Err(CallError::Gone { .. }) => self.once(who, call, [], patience).await.map_err(CallError::into_refusal),
            result => result.map_err(CallError::into_refusal),
        }
    }

    /// Asks what goes with descriptors, and therefore once.
    pub async fn call_with<C>(&self, who: &Who, call: C, fds: C::SendFds) -> Result<Answer<C>, Refusal>
    where
        C: Call<Helper = H> + 'static,
        C::SendFds: 'static,
        C::ReplyFds: 'static,
    {
        self.once(who, call, fds, PATIENCE).await.map_err(CallError::into_refusal)
    }

    async fn once<C>(&self, who: &Who, call: C, fds: C::SendFds, patience: Duration) -> Result<Answer<C>, CallError>
    where
        C: Call<Helper = H> + 'static,
        C::SendFds: Fds + 'static,
        C::ReplyFds: 'static,
    {
        let away = |note| CallError::Refused(Refusal::new(Reason::Unavailable, H::NAME).note(note));
        if timeout(GRACE, self.wait()).await.is_err() {
            return Err(away("it is not running"));
        }
        let (reply, answer) = oneshot::channel();
        let who = who.clone();
        let job: Job<H> = Box::new(move |client| {
            Box::pin(async move {
                if reply.is_closed() {
                    return true;
                }
                let result = client.call(who.trace, &who.user, call, fds, patience).await;
                let usable = matches!(&result, Ok(_) | Err(CallError::Refused(_)));
                let _ = reply.send(result);
                usable
            })
        });
        self.jobs.send(job).map_err(|_| away("it is not running"))?;
        // Dropped unanswered: the connection was lost before it was this call's turn, so nothing was done.
        answer.await.unwrap_or_else(|_| Err(away("it was restarted just now")))
    }
}

async fn attend<H: Helper>(
    run: RunDir, mut queue: mpsc::UnboundedReceiver<Job<H>>, up: watch::Sender<u64>, note: impl Fn(String),
) {
    let path = format!("{}.sock", H::NAME);
    let mut pause = CONNECT.0;
    let mut told = false;
    loop {
        let connected = match run.connect(&path) {
            Ok(socket) => Client::<H>::over(socket).await,
            Err(error) => Err(CallError::Connect { helper: H::NAME, error }),
        };
        let mut client = match connected {
            Ok(client) => client,
            Err(error) => {
                if !told {
                    note(format!("waiting for {error}"));
                    told = true;
                }
                sleep(pause).await;
                pause = (pause * 2).min(CONNECT.1);
                continue;
            }
        };
        (pause, told) = (CONNECT.0, false);
        note(format!("{} is connected", H::NAME));
        up.send_modify(|n| *n += 1);
        loop {
            let job = tokio::select! {
                biased;
                () = client.ended() => break,
                job = queue.recv() => job,
            };
            let Some(job) = job else { return };
            if !job(&mut client).await {
                break;
            }
        }
        up.send_modify(|n| *n += 1);
        note(format!("{} is gone", H::NAME));
        // What waited for this connection is told so, rather than kept for the next.
        while queue.try_recv().is_ok() {}
    }
}

/// Makes one call over a connection of its own: to a machine's runner or console-proxy.
pub async fn ask<C: Call>(
    run: &RunDir, path: &str, who: &Who, call: C, fds: C::SendFds, patience: Duration,
) -> Result<Answer<C>, Refusal> {
    Lent::<C::Helper>::connect(run, path).await?.ask(who, call, fds, patience).await
}

/// A connection of its own for some calls in a row.
pub struct Lent<H: Helper>(Client<H>);

impl<H: Helper> Lent<H> {
    /// Connects to a machine's runner or console-proxy.
    pub async fn connect(run: &RunDir, path: &str) -> Result<Self, Refusal> {
        let connected = async {
            let socket = run.connect(path).map_err(|error| CallError::Connect { helper: H::NAME, error })?;
            Client::over(socket).await
        };
        connected.await.map(Self).map_err(CallError::into_refusal)
    }

    /// Makes one call; after a failure that is no refusal every further one fails.
    pub async fn ask<C: Call<Helper = H>>(
        &mut self, who: &Who, call: C, fds: C::SendFds, patience: Duration,
    ) -> Result<Answer<C>, Refusal> {
        self.0.call(who.trace, &who.user, call, fds, patience).await.map_err(CallError::into_refusal)
    }
}
