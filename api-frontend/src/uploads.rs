//! Uploads that can be gone on with. The client of one may leave in the middle: the end of the pipe that storage-helper reads is kept here,
//! and storage-helper waits with what it has taken and the checksum so far. A later stream of the same user goes on at that byte.
//! Dropped without its end mark, here as everywhere, an upload is cancelled.

use crate::limits::Place;
use crate::relay::Sink;
use skep_proto::{OperationId, Reason, Refusal, RequestId, upload};
use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::sync::{MutexGuard, Notify};

/// How long an upload whose client has left is kept.
const KEPT: Duration = Duration::from_secs(600);
/// How long a stream that is overtaken by another may take to let go: its piece has to be passed on first.
const LETS_GO: Duration = Duration::from_secs(30);

/// Whose an upload is, as the client's connection shows it, and the id that the client gave it.
pub type Key = (String, RequestId);

/// What has been passed on of an upload.
pub struct Sent {
    sink: Sink,
    /// Bytes of the image that were passed on.
    pub bytes: u64,
    /// Raised by each stream that sends: whoever waits for the end of the time knows whether somebody came.
    turn: u64,
    _place: Place,
}

impl Sent {
    /// Nothing yet.
    pub fn new(sink: Sink, place: Place) -> Self {
        Self { sink, bytes: 0, turn: 0, _place: place }
    }

    /// Passes a piece on, whole.
    pub async fn piece(&mut self, data: &[u8]) -> io::Result<()> {
        let Some(header) = upload::header(data.len()) else { return Ok(()) };
        self.sink.write_all(&header).await?;
        self.sink.write_all(data).await?;
        self.bytes += data.len() as u64;
        Ok(())
    }

    /// All was sent.
    pub async fn end(&mut self) -> io::Result<()> {
        self.sink.write_all(&upload::END).await
    }
}

/// One upload.
pub struct Upload {
    /// What it makes.
    pub operation: OperationId,
    /// Everything else that its client said of it: it is said again by whoever goes on.
    pub said: String,
    sent: tokio::sync::Mutex<Sent>,
    overtaken: Notify,
}

impl Upload {
    /// One of which nothing was passed on yet.
    pub fn new(operation: OperationId, said: String, sent: Sent) -> Arc<Self> {
        Arc::new(Self { operation, said, sent: tokio::sync::Mutex::new(sent), overtaken: Notify::new() })
    }

    /// Takes it over, from a stream that may still be sending. Whoever holds what this gives passes on.
    pub async fn take(&self) -> Result<MutexGuard<'_, Sent>, Refusal> {
        let sent = match self.sent.try_lock() {
            Ok(sent) => sent,
            Err(_) => {
                self.overtaken.notify_one();
                let late = |_| Refusal::new(Reason::InUse, "upload").note("another stream is sending it");
                tokio::time::timeout(LETS_GO, self.sent.lock()).await.map_err(late)?
            }
        };
        // Whoever was told had let go already: it is not meant for this one.
        tokio::select! {
            biased;
            () = self.overtaken.notified() => {}
            () = std::future::ready(()) => {}
        }
        Ok(sent)
    }

    /// Ends when another stream wants to go on with it.
    pub async fn overtaken(&self) {
        self.overtaken.notified().await;
    }
}

/// Those that are under way or kept.
#[derive(Clone, Default)]
pub struct Uploads(Arc<Mutex<HashMap<Key, Arc<Upload>>>>);

impl Uploads {
    fn map(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Arc<Upload>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One that was begun.
    pub fn find(&self, key: &Key) -> Option<Arc<Upload>> {
        self.map().get(key).cloned()
    }

    /// One is begun.
    pub fn keep(&self, key: Key, upload: Arc<Upload>) {
        self.map().insert(key, upload);
    }

    /// One has come to its end.
    pub fn forget(&self, key: &Key, upload: &Arc<Upload>) {
        let mut map = self.map();
        if map.get(key).is_some_and(|kept| Arc::ptr_eq(kept, upload)) {
            map.remove(key);
        }
    }

    /// The operation of one was cancelled: nobody goes on with it.
    pub fn cancelled(&self, operation: OperationId) {
        self.map().retain(|_, upload| upload.operation != operation);
    }

    /// The client of one has left: it is kept for a while, and then cancelled unless another stream has come.
    pub fn leave(&self, key: Key, upload: &Arc<Upload>, sent: &mut Sent) {
        sent.turn += 1;
        // Not held: one that comes to its end meanwhile closes its pipe then.
        let (turn, uploads, upload) = (sent.turn, self.clone(), Arc::downgrade(upload));
        tokio::spawn(async move {
            tokio::time::sleep(KEPT).await;
            let Some(upload) = upload.upgrade() else { return };
            // Held by a stream: that one leaves again, or ends it.
            if upload.sent.try_lock().is_ok_and(|sent| sent.turn == turn) {
                uploads.forget(&key, &upload);
            }
        });
    }
}
