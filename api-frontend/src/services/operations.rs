//! Operations.

use super::{Answer, Answers, Api, Call};
use crate::convert::{self, event};
use skep_api::v1::operations_server::Operations;
use skep_api::v1::{
    CancelOperationRequest, GetOperationRequest, ListOperationsRequest, ListOperationsResponse, Operation, WaitOperationRequest,
};
use skep_ipc::aio::Port;
use skep_proto::broker::{EventView, EventWatch, OperationCancel, OperationGet, OperationList, OperationState, OperationView};
use skep_proto::{OperationId, Refusal, Text, wire};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status};

#[tonic::async_trait]
impl Operations for Api {
    async fn get(&self, request: Request<GetOperationRequest>) -> Answer<Operation> {
        let (call, request) = self.enter("Operations.Get", request)?;
        call.run(async {
            let id = convert::value("operation", "operation", &request.operation)?;
            Ok(event::operation(call.read(OperationGet { id, wait: false }).await?.0))
        })
        .await
    }

    async fn list(&self, request: Request<ListOperationsRequest>) -> Answer<ListOperationsResponse> {
        let (call, request) = self.enter("Operations.List", request)?;
        call.run(async {
            let page = call.pages(
                "operation",
                request.page_size,
                &request.page_token,
                |after| OperationList { after },
                |page| page.operations,
                |v| &v.id,
            );
            let (got, next_page_token) = page.await?;
            Ok(ListOperationsResponse { operations: got.into_iter().map(event::operation).collect(), next_page_token })
        })
        .await
    }

    async fn cancel(&self, request: Request<CancelOperationRequest>) -> Answer<Operation> {
        let (call, request) = self.enter("Operations.Cancel", request)?;
        call.run(async {
            let id = convert::value("operation", "operation", &request.operation)?;
            let (cancelled, []) = call.act(OperationCancel { id }).await?;
            call.api.uploads.cancelled(id);
            Ok(event::operation(cancelled))
        })
        .await
    }

    type WaitStream = Answers<Operation>;

    async fn wait(&self, request: Request<WaitOperationRequest>) -> Answer<Answers<Operation>> {
        let (call, request) = self.enter("Operations.Wait", request)?;
        call.run(async {
            let id = convert::value("operation", "operation", &request.operation)?;
            let place = call.peer.stream_place()?;
            // Watched before it is looked at, so that no change is missed.
            let (_, [events]) = call.read(EventWatch { after: None, object: Text::lossy("operation") }).await?;
            let events = Port::new(events).map_err(|e| Refusal::io("operation", "watch", &e))?;
            let (first, []) = call.read(OperationGet { id, wait: false }).await?;
            let (to, answers) = mpsc::channel(4);
            let call = call.clone();
            tokio::spawn(async move {
                let _place = place;
                // A client that went away needs no last word.
                if let Err(refusal) = follow(&call, id, first, events, &to).await {
                    let _ = to.send(Err(call.refused(&refusal))).await;
                }
            });
            Ok(Box::pin(ReceiverStream::new(answers)) as Answers<Operation>)
        })
        .await
    }
}

/// Sends the operation whenever an event says that it has changed, until it has ended or the client is gone.
async fn follow(
    call: &Call, id: OperationId, first: OperationView, events: Port, to: &mpsc::Sender<Result<Operation, Status>>,
) -> Result<(), Refusal> {
    let mut seen = first.clone();
    let ended = |view: &OperationView| view.state != OperationState::Running;
    if to.send(Ok(event::operation(first))).await.is_err() || ended(&seen) {
        return Ok(());
    }
    let mut end = std::pin::pin!(call.ended(id));
    let mut events = Some(events);
    loop {
        let next = tokio::select! {
            () = to.closed() => return Ok(()),
            view = &mut end => view?,
            changed = about(&mut events, id) => {
                if !changed {
                    events = None;
                    continue;
                }
                call.read(OperationGet { id, wait: false }).await?.0
            }
        };
        // The last view is sent by whoever sees it first.
        if next != seen && to.send(Ok(event::operation(next.clone()))).await.is_err() || ended(&next) {
            return Ok(());
        }
        seen = next;
    }
}

/// Waits for an event about this operation; false when there will be no more.
async fn about(events: &mut Option<Port>, id: OperationId) -> bool {
    let Some(port) = events else { return std::future::pending().await };
    let id = id.to_string();
    loop {
        let Ok(record) = port.recv().await else { return false };
        match wire::decode::<EventView>(&record.bytes) {
            Ok(event) if event.id.as_str() == id => return true,
            Ok(_) => {}
            Err(_) => return false,
        }
    }
}
