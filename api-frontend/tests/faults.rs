//! What the frontend makes of a broker that dies, lies or is away, and of clients that go. Faults only: that methods work is shown
//! by the whole suite.

#![allow(clippy::expect_used, clippy::indexing_slicing)]

mod support;

use skep_api::v1::disks_client::DisksClient;
use skep_api::v1::events_client::EventsClient;
use skep_api::v1::import_disk_request::Kind;
use skep_api::v1::machines_client::MachinesClient;
use skep_api::v1::switches_client::SwitchesClient;
use skep_api::v1::{
    CreateDiskRequest, CreateSwitchRequest, DeleteSwitchRequest, GetMachineRequest, GetUploadRequest, ImportDiskEnd,
    ImportDiskHeader, ImportDiskRequest, ListSwitchesRequest, WatchEventsRequest,
};
use skep_proto::broker::{
    BrokerRequest, DiskImport, Done, EventView, EventWatch, MachineGet, OperationGet, OperationState, OperationView, RequestKey,
    SwitchCreate, SwitchDelete, SwitchKind, SwitchList, SwitchPage, SwitchView,
};
use skep_proto::{OperationId, Reason, Refusal, RequestId, SwitchId, Text, TraceId};
use skep_sys::sock;
use std::io::Read;
use std::os::fd::AsFd;
use support::{Frontend, Session};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request};
use tonic_types::StatusExt;

fn list() -> ListSwitchesRequest {
    ListSwitchesRequest::default()
}

fn empty_list(session: &mut Session) {
    let (origin, request, _) = session.request();
    assert!(matches!(request, BrokerRequest::SwitchList(_)), "{request:?}");
    session.answer::<SwitchList>(&origin, Ok(SwitchPage { switches: vec![] }), vec![]);
}

#[tokio::test]
async fn a_read_is_asked_again_when_the_broker_dies_within_it() {
    let frontend = Frontend::start();
    let seen = frontend.broker(vec![Box::new(|session| drop(session.request())), Box::new(empty_list)]);
    let mut client = SwitchesClient::new(frontend.client().await);
    let answer = client.list(list()).await.expect("answered by the next broker");
    assert!(answer.into_inner().switches.is_empty());
    assert_eq!(seen.iter().count(), 2);
}

#[tokio::test]
async fn an_act_is_never_asked_twice() {
    let frontend = Frontend::start();
    let seen = frontend.broker(vec![
        Box::new(|session| assert!(matches!(session.request().1, BrokerRequest::SwitchDelete(_)))),
        Box::new(empty_list),
    ]);
    let mut client = SwitchesClient::new(frontend.client().await);
    let status = client.delete(DeleteSwitchRequest { switch: "lan".into() }).await.expect_err("nobody knows");
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.get_error_details().retry_info().is_some());
    // The second connection serves the next call, not the same one.
    client.list(list()).await.expect("the next broker answers");
    assert_eq!(seen.iter().count(), 2);
}

#[tokio::test]
async fn a_create_with_an_id_is_asked_again_with_the_same() {
    let frontend = Frontend::start();
    let id = RequestId::random();
    let keyed = move |session: &mut Session| {
        let (origin, request, _) = session.request();
        assert_eq!(request, RequestKey { id }.into());
        session.answer::<RequestKey>(&origin, Ok(Done {}), vec![]);
        let (origin, request, _) = session.request();
        assert!(matches!(request, BrokerRequest::SwitchCreate(_)), "{request:?}");
        origin
    };
    let seen = frontend.broker(vec![
        Box::new(move |session| drop(keyed(session))),
        Box::new(move |session| {
            let origin = keyed(session);
            session.answer::<SwitchCreate>(&origin, Err(Refusal::new(Reason::InUse, "as a test")), vec![]);
        }),
    ]);
    let mut client = SwitchesClient::new(frontend.client().await);
    let request = |request_id: String| CreateSwitchRequest { name: "lan".into(), request_id, ..Default::default() };
    let status = client.create(request(id.to_string().to_uppercase())).await.expect_err("no id");
    assert_eq!((status.code(), violation(&status).as_str()), (Code::InvalidArgument, "request_id"));
    let status = client.create(request(id.to_string())).await.expect_err("what the second broker says");
    assert!(status.message().contains("as a test"), "{status}");
    assert_eq!(seen.iter().count(), 2);
}

fn violation(status: &tonic::Status) -> String {
    let violations = status.get_error_details().bad_request().expect("BadRequest").field_violations.clone();
    violations.first().expect("one").field.clone()
}

#[tokio::test]
async fn a_session_that_died_while_idle_costs_nobody_a_call() {
    let frontend = Frontend::start();
    let delete = |session: &mut Session| {
        let (origin, ..) = session.request();
        session.answer::<SwitchDelete>(&origin, Ok(Done {}), vec![]);
    };
    let seen = frontend.broker(vec![Box::new(empty_list), Box::new(delete)]);
    let mut client = SwitchesClient::new(frontend.client().await);
    client.list(list()).await.expect("answered");
    seen.recv().expect("the first broker has ended");
    client.delete(DeleteSwitchRequest { switch: "lan".into() }).await.expect("what could not be sent is sent to the next");
}

#[tokio::test]
async fn garbage_wrong_replies_and_unasked_descriptors_are_unavailable_and_harm_nobody() {
    let garbage = |session: &mut Session| {
        session.request();
        session.send(&[0xff; 100], vec![]);
    };
    let another_reply = |session: &mut Session| {
        let (origin, ..) = session.request();
        session.answer::<SwitchDelete>(&origin, Ok(Done {}), vec![]);
    };
    let descriptors = |session: &mut Session| {
        let (origin, ..) = session.request();
        let (one, _) = sock::stream_pair().expect("a pair");
        session.answer::<SwitchList>(&origin, Ok(SwitchPage { switches: vec![] }), vec![one]);
    };
    let frontend = Frontend::start();
    // Each is a read, so each is asked again, and gets the same.
    let seen = frontend.broker(vec![
        Box::new(garbage),
        Box::new(garbage),
        Box::new(another_reply),
        Box::new(another_reply),
        Box::new(descriptors),
        Box::new(descriptors),
        Box::new(empty_list),
    ]);
    let mut client = SwitchesClient::new(frontend.client().await);
    for _ in 0..3 {
        let status = client.list(list()).await.expect_err("no good answer");
        assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    }
    client.list(list()).await.expect("the frontend lives");
    assert_eq!(seen.iter().count(), 7);
}

#[tokio::test]
async fn wrong_values_are_refused_with_their_field_before_the_broker_is_asked() {
    let frontend = Frontend::start();
    let mut client = DisksClient::new(frontend.client().await);
    let request = CreateDiskRequest { name: "../../etc/passwd".into(), size_bytes: 512, ..Default::default() };
    let status = client.create(request).await.expect_err("refused");
    assert_eq!(status.code(), Code::InvalidArgument);
    let details = status.get_error_details();
    assert_eq!(details.bad_request().expect("BadRequest").field_violations[0].field, "name");
    assert_eq!(details.error_info().expect("ErrorInfo").reason, "INVALID_VALUE");
}

#[tokio::test]
async fn a_refusal_arrives_whole_and_the_trace_is_the_clients() {
    let frontend = Frontend::start();
    let seen = frontend.broker(vec![Box::new(|session| {
        let (origin, ..) = session.request();
        let refusal = Refusal::new(Reason::NotFound, "machine web1").note("it was deleted");
        session.answer::<MachineGet>(&origin, Err(refusal), vec![]);
        (origin.trace, origin.user.to_string())
    })]);
    let mut client = MachinesClient::new(frontend.client().await);
    let mut request = Request::new(GetMachineRequest { machine: "web1".into() });
    request.metadata_mut().insert("skep-trace", "00000000deadbeef".parse().expect("ascii"));
    let status = client.get(request).await.expect_err("refused");
    assert_eq!(status.code(), Code::NotFound);
    assert_eq!(status.metadata().get("skep-trace").expect("trace"), "00000000deadbeef");
    assert_eq!(status.get_error_details().resource_info().expect("ResourceInfo").resource_name, "web1");
    assert_eq!(seen.recv().expect("asked"), (TraceId(0xdead_beef), "uid test".to_owned()));
}

fn running(id: OperationId) -> OperationView {
    OperationView {
        id,
        kind: Text::lossy("import"),
        object: Text::lossy("disk d"),
        user: Text::lossy("uid test"),
        trace: TraceId(1),
        state: OperationState::Running,
        progress: (0, 0),
        started_ns: 1,
        ended_ns: 0,
    }
}

#[tokio::test]
async fn an_import_whose_client_goes_ends_without_its_end_mark() {
    let frontend = Frontend::start();
    let (begun, mut has_begun) = tokio::sync::mpsc::channel(1);
    let seen = frontend.broker(vec![Box::new(move |session| {
        let (origin, ..) = session.request();
        let (ours, theirs) = sock::stream_pair().expect("a pair");
        session.answer::<DiskImport>(&origin, Ok(running(OperationId::from_u128(7))), vec![theirs]);
        let mut image = std::os::unix::net::UnixStream::from(ours);
        let mut got = vec![0; 9];
        image.read_exact(&mut got).expect("the image's beginning");
        begun.blocking_send(()).expect("the test waits");
        image.read_to_end(&mut got).expect("its end");
        got
    })]);
    let mut client = DisksClient::new(frontend.client().await);
    let (to, parts) = tokio::sync::mpsc::channel(3);
    let header = ImportDiskHeader { name: "d".into(), ..Default::default() };
    to.send(ImportDiskRequest { kind: Some(Kind::Header(header)) }).await.expect("sent");
    // A piece without bytes would read as the end.
    for data in [&b""[..], b"begin"] {
        to.send(ImportDiskRequest { kind: Some(Kind::Data(data.to_vec().into())) }).await.expect("sent");
    }
    let call = tokio::spawn(async move { client.import(ReceiverStream::new(parts)).await });
    has_begun.recv().await.expect("the stream was opened");
    call.abort();
    let got = tokio::task::spawn_blocking(move || seen.recv()).await.expect("joined").expect("the stream ended");
    assert_eq!(got, b"\0\0\0\x05begin");
}

#[tokio::test]
async fn an_import_whose_client_goes_is_kept_and_gone_on_with() {
    let frontend = Frontend::start();
    let (begun, mut has_begun) = tokio::sync::mpsc::channel(1);
    let seen = frontend.broker(vec![Box::new(move |session| {
        let (origin, ..) = session.request();
        session.answer::<RequestKey>(&origin, Ok(Done {}), vec![]);
        let (origin, ..) = session.request();
        let (ours, theirs) = sock::stream_pair().expect("a pair");
        let id = OperationId::from_u128(7);
        session.answer::<DiskImport>(&origin, Ok(running(id)), vec![theirs]);
        let mut image = std::os::unix::net::UnixStream::from(ours);
        let mut got = vec![0; 9];
        image.read_exact(&mut got).expect("the image's beginning");
        begun.blocking_send(()).expect("the test waits");
        // The offset is asked for.
        let (origin, ..) = session.request();
        session.answer::<OperationGet>(&origin, Ok(running(id)), vec![]);
        image.read_to_end(&mut got).expect("its end");
        let (origin, ..) = session.request();
        session.answer::<OperationGet>(&origin, Ok(running(id)), vec![]);
        got
    })]);
    let mut client = DisksClient::new(frontend.client().await);
    let request_id = "00000000-0000-4000-8000-000000000001".to_owned();
    let header = ImportDiskHeader { name: "d".into(), request_id: request_id.clone(), resumable: true, ..Default::default() };
    let (to, parts) = tokio::sync::mpsc::channel(3);
    to.send(ImportDiskRequest { kind: Some(Kind::Header(header.clone())) }).await.expect("sent");
    to.send(ImportDiskRequest { kind: Some(Kind::Data(b"begin".to_vec().into())) }).await.expect("sent");
    let mut first = client.clone();
    let call = tokio::spawn(async move { first.import(ReceiverStream::new(parts)).await });
    has_begun.recv().await.expect("the stream was opened");
    call.abort();
    let upload = client.get_upload(GetUploadRequest { request_id: request_id.clone() }).await.expect("kept").into_inner();
    assert_eq!(upload.offset_bytes, 5);
    // Somewhere else, or as something else, it does not go on; and another one is not found.
    for (wrong, code, field) in [
        (ImportDiskHeader { offset_bytes: 4, ..header.clone() }, Code::InvalidArgument, "header.offset_bytes"),
        (ImportDiskHeader { offset_bytes: 5, name: "e".into(), ..header.clone() }, Code::AlreadyExists, ""),
        (ImportDiskHeader { offset_bytes: 5, request_id: String::new(), resumable: false, ..header.clone() }, Code::NotFound, ""),
    ] {
        let parts = vec![ImportDiskRequest { kind: Some(Kind::Header(wrong)) }];
        let status = client.import(tokio_stream::iter(parts)).await.expect_err("refused");
        assert_eq!(status.code(), code, "{status:?}");
        let violations = status.get_error_details().bad_request().map(|bad| bad.field_violations.clone()).unwrap_or_default();
        assert!(field.is_empty() || violations[0].field == field, "{status:?}");
    }
    let header = ImportDiskHeader { offset_bytes: 5, ..header };
    let parts = [Kind::Header(header), Kind::Data(b"ning".to_vec().into()), Kind::End(ImportDiskEnd {})];
    let parts = parts.map(|kind| ImportDiskRequest { kind: Some(kind) });
    client.import(tokio_stream::iter(parts)).await.expect("whole");
    let got = tokio::task::spawn_blocking(move || seen.recv()).await.expect("joined").expect("the stream ended");
    assert_eq!(got, b"\0\0\0\x05begin\0\0\0\x04ning\0\0\0\0");
    let gone = client.get_upload(GetUploadRequest { request_id }).await.expect_err("it has ended");
    assert_eq!(gone.code(), Code::NotFound);
}

#[tokio::test]
async fn what_is_too_long_or_missing_never_reaches_the_broker() {
    let frontend = Frontend::start();
    let mut client = MachinesClient::new(frontend.client().await);
    for (machine, says) in [(String::new(), "1 to 63 bytes"), ("m".repeat(64), "64 bytes; at most 63")] {
        let status = client.get(GetMachineRequest { machine }).await.expect_err("refused");
        assert_eq!(status.code(), Code::InvalidArgument);
        let details = status.get_error_details();
        let violation = &details.bad_request().expect("BadRequest").field_violations[0];
        assert!(violation.field == "machine" && violation.description.contains(says), "{violation:?}");
    }
    // In a stream, too, whichever message it is.
    let mut client = DisksClient::new(frontend.client().await);
    let header = ImportDiskHeader { name: "d".repeat(64), ..Default::default() };
    let status = client.import(tokio_stream::iter([ImportDiskRequest { kind: Some(Kind::Header(header)) }])).await;
    let status = status.expect_err("refused");
    assert_eq!(status.get_error_details().bad_request().expect("BadRequest").field_violations[0].field, "header.name");
}

#[tokio::test]
async fn a_watch_that_gets_garbage_or_loses_its_broker_says_how_to_go_on() {
    let frontend = Frontend::start();
    let _seen = frontend.broker(vec![Box::new(|session: &mut Session| {
        let (origin, ..) = session.request();
        let (ours, theirs) = sock::seqpacket_pair().expect("a pair");
        session.answer::<EventWatch>(&origin, Ok(Done {}), vec![theirs]);
        skep_sys::msg::send(ours.as_fd(), &[0xff; 3], &[], None).expect("sent");
    })]);
    let mut client = EventsClient::new(frontend.client().await);
    let mut stream = client.watch(WatchEventsRequest::default()).await.expect("watched").into_inner();
    let status = stream.message().await.expect_err("garbage is no event");
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("last token"), "{status:?}");
}

fn switch(name: &str) -> SwitchView {
    SwitchView {
        id: SwitchId::from_u128(1),
        name: name.parse().expect("a name"),
        bridge: Text::default(),
        uplink: Text::default(),
        nics: 0,
        created_ns: 1,
        open: false,
        groups: vec![],
        description: Text::default(),
        kind: SwitchKind::Plain,
        subnet: None,
        tunnel: None,
        subnet6: None,
    }
}

#[tokio::test]
async fn a_list_comes_in_pages_as_large_as_they_are_wanted() {
    let frontend = Frontend::start();
    // It has five, and three of them fit a record.
    let five = |session: &mut Session| {
        let mut asked = Vec::new();
        while let Some((origin, request, _)) = session.another() {
            let BrokerRequest::SwitchList(SwitchList { after }) = request else { panic!("{request:?}") };
            let after = after.map(|name| name.to_string()).unwrap_or_default();
            let switches = ["a", "b", "c", "d", "e"].into_iter().filter(|name| *name > after.as_str()).take(3).map(switch);
            session.answer::<SwitchList>(&origin, Ok(SwitchPage { switches: switches.collect() }), vec![]);
            asked.push(after);
        }
        asked
    };
    let seen = frontend.broker(vec![Box::new(five)]);
    let mut client = SwitchesClient::new(frontend.client().await);
    let mut ask = async |page_size, page_token: &str| {
        let answer = client.list(ListSwitchesRequest { page_size, page_token: page_token.into() }).await?.into_inner();
        let names = answer.switches.into_iter().map(|switch| switch.name).collect::<String>();
        Ok::<_, tonic::Status>((names, answer.next_page_token))
    };
    let page = |names: &str, token: &str| (names.to_owned(), token.to_owned());
    assert_eq!(ask(2, "").await.expect("a page"), page("ab", "b"));
    assert_eq!(ask(2, "b").await.expect("a page"), page("cd", "d"));
    assert_eq!(ask(2, "d").await.expect("a page"), page("e", ""));
    assert_eq!(ask(0, "b").await.expect("the rest"), page("cde", ""));
    assert_eq!(ask(0, "").await.expect("all"), page("abcde", ""));
    assert_eq!(ask(1000, "").await.expect("all"), page("abcde", ""));
    for size in [1001, u32::MAX] {
        let status = ask(size, "").await.expect_err("too many");
        assert_eq!((status.code(), violation(&status).as_str()), (Code::InvalidArgument, "page_size"));
        assert!(status.message().contains(&format!("{size} is not 1 to 1000")), "{status:?}");
    }
    for token in ["../b", "-"] {
        let status = ask(2, token).await.expect_err("no token");
        assert_eq!((status.code(), violation(&status).as_str()), (Code::InvalidArgument, "page_token"));
        assert!(status.message().contains(&format!("not \"{token}\"")), "{status:?}");
    }
    drop(client);
    let asked = tokio::task::spawn_blocking(move || seen.recv()).await.expect("joined").expect("the frontend has left");
    // A page that is full is not looked behind; one that is not is.
    assert_eq!(asked, ["", "b", "d", "e", "b", "e", "", "c", "e", "", "c", "e"]);
}

/// A request with a deadline, as gRPC writes it.
fn within<T>(timeout: &'static str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("grpc-timeout", tonic::metadata::MetadataValue::from_static(timeout));
    request
}

/// What is said of a deadline that has passed.
fn assert_late(status: &tonic::Status, says: &str) {
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    let details = status.get_error_details();
    let info = details.error_info().expect("ErrorInfo");
    assert_eq!((info.reason.as_str(), info.domain.as_str()), ("TIMEOUT", skep_api_frontend::status::DOMAIN));
    assert_eq!(status.metadata().get("skep-trace").expect("a trace"), info.metadata["trace"].as_str());
    assert!(status.message().contains(says), "{status:?}");
}

#[tokio::test]
async fn a_call_ends_at_its_deadline_and_its_request_is_dropped() {
    let frontend = Frontend::start();
    let asked = |session: &mut Session| std::iter::from_fn(|| session.another()).map(|(_, request, _)| request).collect();
    let seen = frontend.broker::<Vec<BrokerRequest>>(vec![Box::new(asked), Box::new(asked)]);
    let (client, origin) = frontend.patient().await;
    let mut client = SwitchesClient::with_origin(client, origin);
    let mut request = within("200m", DeleteSwitchRequest { switch: "lan".into() });
    request.metadata_mut().insert("skep-trace", "00000000deadbeef".parse().expect("ascii"));
    let status = client.delete(request).await.expect_err("nobody answers");
    assert_late(&status, "deadline of 200ms has passed; what was asked may be done all the same");
    assert_eq!(status.metadata().get("skep-trace").expect("a trace"), "00000000deadbeef");
    let requests = tokio::task::spawn_blocking(move || seen.recv()).await.expect("joined").expect("the frontend has left");
    assert!(requests.iter().all(|request| matches!(request, BrokerRequest::SwitchDelete(_))), "{requests:?}");
    // One without a trace has one all the same.
    assert_late(&client.list(within("200000u", list())).await.expect_err("nobody answers"), "200ms");
}

#[tokio::test]
async fn what_has_no_time_or_no_such_time_asks_nobody() {
    let frontend = Frontend::start();
    let seen = frontend.broker(vec![Box::new(empty_list)]);
    let (client, origin) = frontend.patient().await;
    let mut client = SwitchesClient::with_origin(client, origin);
    assert_late(&client.list(within("0S", list())).await.expect_err("no time"), "nothing was begun");
    for wrong in ["", "5", "-1S", "1x", "123456789S"] {
        let status = client.list(within(wrong, list())).await.expect_err("refused");
        assert_eq!((status.code(), violation(&status).as_str()), (Code::InvalidArgument, "grpc-timeout"), "{wrong}");
        assert!(status.message().contains(&format!("\"{wrong}\" is not 1 to 8 digits")), "{status:?}");
    }
    client.list(within("99999999H", list())).await.expect("long enough");
    assert_eq!(seen.iter().count(), 1, "asked once, and that was the first request");
}

#[tokio::test]
async fn a_watch_ends_at_its_deadline_however_much_comes() {
    let event = EventView {
        token: 1,
        time_ns: 1,
        object: Text::lossy("machine"),
        id: Text::lossy("1"),
        name: Text::lossy("web1"),
        what: Text::lossy("started"),
        user: Text::lossy("uid test"),
        trace: TraceId(1),
        detail: Text::default(),
    };
    let event = skep_proto::wire::encode(&event).expect("encodes");
    for pieces in [0, 1, usize::MAX] {
        let (frontend, event) = (Frontend::start(), event.clone());
        let seen = frontend.broker(vec![Box::new(move |session: &mut Session| {
            let (ours, theirs) = sock::seqpacket_pair().expect("a pair");
            if let Some((origin, ..)) = session.another() {
                session.answer::<EventWatch>(&origin, Ok(Done {}), vec![theirs]);
            }
            (0..pieces).take_while(|_| skep_sys::msg::send(ours.as_fd(), &event, &[], None).is_ok()).count();
            // Its end.
            skep_sys::msg::recv(ours.as_fd(), 1, 0, None).is_err()
        })]);
        let (client, origin) = frontend.patient().await;
        let mut client = EventsClient::with_origin(client, origin);
        let status = match client.watch(within("500m", WatchEventsRequest::default())).await {
            Ok(answer) => {
                let mut stream = answer.into_inner();
                loop {
                    match stream.message().await {
                        Ok(event) => assert!(event.is_some(), "an end without a reason"),
                        Err(status) => break status,
                    }
                }
            }
            // A host that is so busy that it was not even begun.
            Err(status) => status,
        };
        assert_late(&status, "its deadline of 500ms has passed");
        assert!(tokio::task::spawn_blocking(move || seen.recv()).await.expect("joined").expect("the stream was closed"));
    }
}

#[tokio::test]
async fn an_import_ends_at_its_deadline_though_its_client_sends_on() {
    let frontend = Frontend::start();
    let seen = frontend.broker(vec![Box::new(move |session| {
        let mut got = Vec::new();
        if let Some((origin, ..)) = session.another() {
            let (ours, theirs) = sock::stream_pair().expect("a pair");
            session.answer::<DiskImport>(&origin, Ok(running(OperationId::from_u128(7))), vec![theirs]);
            std::os::unix::net::UnixStream::from(ours).read_to_end(&mut got).expect("its end");
        }
        got
    })]);
    let (client, origin) = frontend.patient().await;
    let mut client = DisksClient::with_origin(client, origin);
    let (to, parts) = tokio::sync::mpsc::channel(3);
    let header = ImportDiskHeader { name: "d".into(), ..Default::default() };
    for kind in [Kind::Header(header), Kind::Data(b"begin".to_vec().into())] {
        to.send(ImportDiskRequest { kind: Some(kind) }).await.expect("sent");
    }
    let status = client.import(within("500m", ReceiverStream::new(parts))).await.expect_err("it has no end");
    assert_late(&status, "its deadline of 500ms has passed");
    let got = tokio::task::spawn_blocking(move || seen.recv()).await.expect("joined").expect("the stream ended");
    assert!(b"\0\0\0\x05begin".starts_with(&got), "without its end mark: {got:?}");
    drop(to);
}
