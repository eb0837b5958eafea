//! Events.

use super::{Answer, Answers, Api};
use crate::convert::{self, event};
use skep_api::v1::events_server::Events;
use skep_api::v1::{Event, WatchEventsRequest};
use skep_ipc::aio::Port;
use skep_proto::broker::{EventView, EventWatch};
use skep_proto::{Reason, Refusal, wire};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Request;

const OBJECTS: [&str; 8] = ["", "machine", "disk", "switch", "nic", "operation", "user", "group"];

#[tonic::async_trait]
impl Events for Api {
    type WatchStream = Answers<Event>;

    async fn watch(&self, request: Request<WatchEventsRequest>) -> Answer<Answers<Event>> {
        let (call, request) = self.enter("Events.Watch", request)?;
        call.run(async {
            if !OBJECTS.contains(&request.object.as_str()) {
                return Err(convert::invalid(
                    "event",
                    "object",
                    "machine, disk, switch, nic, operation, user or group is expected",
                ));
            }
            let place = call.peer.stream_place()?;
            let object = convert::value("event", "object", &request.object)?;
            let (_, [socket]) = call.read(EventWatch { after: request.after, object }).await?;
            let port = Port::new(socket).map_err(|e| Refusal::io("event", "watch", &e))?;
            let (to, answers) = mpsc::channel(16);
            let call = call.clone();
            tokio::spawn(async move {
                let _place = place;
                let why = loop {
                    let record = tokio::select! {
                        () = to.closed() => return,
                        record = port.recv() => record,
                    };
                    let next = record.map_err(|e| e.to_string());
                    match next.and_then(|r| wire::decode::<EventView>(&r.bytes).map_err(|e| e.to_string())) {
                        Ok(view) => {
                            if to.send(Ok(event::event(view))).await.is_err() {
                                return;
                            }
                        }
                        Err(why) => break why,
                    }
                };
                let refusal = Refusal::new(Reason::Unavailable, "event").note(format_args!("{why}; go on after the last token"));
                let _ = to.send(Err(call.refused(&refusal))).await;
            });
            Ok(Box::pin(ReceiverStream::new(answers)) as Answers<Event>)
        })
        .await
    }
}
