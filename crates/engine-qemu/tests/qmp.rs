//! What QEMU may say, and what is made of it. The sound lines are those of QEMU 7.2.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use proptest::prelude::*;
use serde_json::json;
use skep_engine_qemu::qmp::*;
use skep_engine_qemu::{Ended, Exit, History};

fn event(name: &str, data: serde_json::Value) -> Event {
    let line = json!({"timestamp": {"seconds": 1, "microseconds": 2}, "event": name, "data": data}).to_string();
    match parse(line.as_bytes()).unwrap() {
        Line::Event(event) => event,
        other => panic!("{other:?}"),
    }
}

#[test]
fn greeting_replies_and_events_are_told_apart() {
    let greeting =
        br#"{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": "Debian"}, "capabilities": ["oob"]}}"#;
    assert_eq!(parse(greeting), Ok(Line::Greeting(7, 2, 22)));
    assert_eq!(parse(br#"{"return": {}, "id": 4}"#), Ok(Line::Reply(4, Reply::Done(json!({})))));
    let refused = br#"{"id": 5, "error": {"class": "GenericError", "desc": "There is no\u001b[0m console"}}"#;
    assert_eq!(parse(refused), Ok(Line::Reply(5, Reply::Refused("There is no [0m console".into()))));
    assert_eq!(event("STOP", json!(null)), Event::Stopped);
    assert_eq!(event("RESUME", json!(null)), Event::Running);
    assert_eq!(event("POWERDOWN", json!(null)), Event::PowerButton);
    assert_eq!(event("GUEST_PANICKED", json!({"action": "poweroff"})), Event::Panicked);
    assert_eq!(event("RTC_CHANGE", json!({"offset": -1})), Event::Other);
    let error = |device| event("BLOCK_IO_ERROR", json!({"device": device, "operation": "write", "action": "report"}));
    assert_eq!(error("disk3"), Event::DiskError(Some(3)));
    assert_eq!(error("fw-vars"), Event::DiskError(None));
}

#[test]
fn every_way_to_end_is_told_apart() {
    let shutdown = |reason: &str| event("SHUTDOWN", json!({"guest": reason.starts_with("guest"), "reason": reason}));
    let panicked = event("GUEST_PANICKED", json!({"action": "poweroff"}));
    let zero = Exit::Code(0);
    let cases = [
        (vec![shutdown("guest-reset")], zero, Ended::GuestReboot),
        (vec![event("POWERDOWN", json!(null)), shutdown("guest-shutdown")], zero, Ended::GuestPowerOff),
        (vec![panicked, shutdown("guest-panic")], zero, Ended::Panic),
        (vec![panicked, shutdown("guest-reset")], zero, Ended::Panic),
        (vec![shutdown("host-qmp-system-reset")], zero, Ended::Reset),
        (vec![shutdown("host-qmp-quit")], zero, Ended::HostStop),
        (vec![shutdown("host-signal")], zero, Ended::HostStop),
        (vec![shutdown("guest-shutdown"), shutdown("host-qmp-quit")], Exit::Signal(9), Ended::GuestPowerOff),
        (vec![shutdown("host-error")], Exit::Code(1), Ended::Crash(Exit::Code(1))),
        (vec![], zero, Ended::Crash(zero)),
        (vec![], Exit::Code(1), Ended::Crash(Exit::Code(1))),
        (vec![], Exit::Signal(11), Ended::Crash(Exit::Signal(11))),
        (vec![event("POWERDOWN", json!(null))], Exit::Signal(31), Ended::Crash(Exit::Signal(31))),
    ];
    for (events, exit, want) in cases {
        let mut history = History::default();
        events.iter().for_each(|&e| history.note(e));
        assert_eq!(history.ended(exit), want, "{events:?} {exit:?}");
    }
}

#[test]
fn commands_are_one_line_each_with_their_id() {
    assert_eq!(cont(7), "{\"execute\":\"cont\",\"id\":7}\n");
    let lines = [
        capabilities(1),
        cont(1),
        stop(1),
        system_reset(1),
        system_powerdown(1),
        quit(1),
        query_status(1),
        query_block_stats(1),
        getfd(1, "a\"\n"),
        add_vnc_client(1, "vnc"),
        replace_serial(1, 0, "s"),
    ];
    for line in lines {
        assert_eq!(line.matches('\n').count(), 1, "{line}");
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["id"], 1);
    }
}

#[test]
fn counters_are_read_by_slot_and_strangers_left_out() {
    let stats = json!({"rd_bytes": 512, "wr_bytes": 1024, "rd_operations": 1, "wr_operations": 2});
    let answer = json!([
        {"device": "disk2", "stats": stats}, {"device": "disk0", "stats": {}}, {"device": "fw-code", "stats": stats},
        {"device": "disk99", "stats": stats}, {"device": "disk+1", "stats": stats}, {"device": 3}, null
    ]);
    let want = BlockStats { slot: 2, read_bytes: 512, write_bytes: 1024, read_ops: 1, write_ops: 2 };
    assert_eq!(block_stats(&answer), [BlockStats::default(), want]);
    assert!(block_stats(&json!({"disk0": 1})).is_empty());
}

#[test]
fn what_is_no_qmp_is_refused() {
    for line in ["", "x", "[]", "1", "null", "\"event\"", "{\"event\":\"A\"", "{}x"] {
        assert_eq!(parse(line.as_bytes()), Err(Bad::NotJson), "{line}");
    }
    for line in [
        "{}",
        r#"{"return":1}"#,
        r#"{"return":1,"id":-1}"#,
        r#"{"return":1,"id":"1"}"#,
        r#"{"error":{},"id":1}"#,
        r#"{"QMP":{"version":{"qemu":{"major":700}}}}"#,
    ] {
        assert_eq!(parse(line.as_bytes()), Err(Bad::Unknown), "{line}");
    }
    assert_eq!(parse(&vec![b' '; LONGEST_LINE + 1]), Err(Bad::TooLong));
    assert_eq!(parse("[".repeat(60_000).as_bytes()), Err(Bad::NotJson), "nesting is bounded");
    assert_eq!(parse(format!("{{\"event\":{}", "[".repeat(60_000)).as_bytes()), Err(Bad::NotJson));
}

#[test]
fn a_line_without_end_is_not_kept() {
    let mut reader = Reader::default();
    let mut fed = 0;
    let ended = loop {
        match reader.feed(&[b'x'; 1000], |_| {}) {
            Ok(()) => fed += 1000,
            Err(bad) => break bad,
        }
    };
    assert_eq!(ended, Bad::TooLong);
    assert!(fed <= LONGEST_LINE);
}

proptest! {
    #[test]
    fn no_bytes_do_harm(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = parse(&bytes);
        let _ = Reader::default().feed(&bytes, |_| {});
    }
    #[test]
    fn it_does_not_matter_how_the_stream_is_cut(cut in proptest::collection::vec(0usize..200, 0..8)) {
        let stream = b"{\"event\":\"STOP\"}\r\n\r\n{\"return\":{\"a\":[1]},\"id\":1}\r\n{\"event\":\"RESUME\"}\r\n{\"eve";
        let whole = lines(&[stream]);
        let mut at: Vec<_> = cut.into_iter().map(|c| c.min(stream.len())).collect();
        at.sort_unstable();
        let mut pieces = Vec::new();
        let mut from = 0;
        for to in at.into_iter().chain([stream.len()]) {
            pieces.push(&stream[from..to]);
            from = to;
        }
        prop_assert_eq!(lines(&pieces), whole);
    }
}

fn lines(pieces: &[&[u8]]) -> Vec<Line> {
    let (mut reader, mut all) = (Reader::default(), Vec::new());
    for piece in pieces {
        reader.feed(piece, |line| all.push(line)).unwrap();
    }
    assert_eq!(all.len(), 3);
    all
}
