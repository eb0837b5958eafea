//! Events.

use super::{Answer, Answers, Api};
use crate::convert::{self, event};
use crate::relay;
use skep_api::v1::events_server::Events;
use skep_api::v1::{Event, WatchEventsRequest};
use skep_proto::broker::EventWatch;
use tonic::Request;

const OBJECTS: [&str; 8] = ["", "machine", "disk", "switch", "nic", "operation", "user", "group"];

#[tonic::async_trait]
impl Events for Api {
    type WatchStream = Answers<Event>;

    async fn watch(&self, request: Request<WatchEventsRequest>) -> Answer<Answers<Event>> {
        let (call, request) = self.enter("Events.Watch", request)?;
        call.run(async {
            if !OBJECTS.contains(&request.object.as_str()) {
                let why = "machine, disk, switch, nic, operation, user or group is expected";
                return Err(convert::invalid("event", "object", convert::not(why, &request.object)));
            }
            let place = call.peer.stream_place()?;
            let object = convert::value("event", "object", &request.object)?;
            let (_, [socket]) = call.read(EventWatch { after: request.after, object }).await?;
            relay::records(call.clone(), place, socket, "go on after the last token", |view| Ok(event::event(view)))
        })
        .await
    }
}
