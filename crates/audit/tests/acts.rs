//! The records of privileged acts, read back.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use skep_ipc::Observer;
use skep_proto::wire::Origin;
use skep_proto::{Helper, Reason, Refusal, TraceId, storage::Storage};
use std::io::Write;

#[test]
fn what_a_service_records_is_read_back_and_bad_lines_are_counted() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit-storage-helper.log");
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(&path).unwrap();
    let mut journal = skep_service::Journal::new(
        "storage-helper",
        Some(skep_service::Kept::of(file.try_clone().unwrap(), tempfile::tempfile().unwrap())),
    );
    let origin = Origin { seq: 1, trace: TraceId(0xabc), user: "uid 0".parse().unwrap() };
    let op = &Storage::OPS[0];
    journal.begin(&origin, op, &"a request\twith a tab");
    journal.end(&origin, op, Err(&Refusal::new(Reason::NoSpace, "disk d")));
    file.write_all(b"no record\n\xff\xfe\n").unwrap();
    file.write_all(&vec![b'x'; 100_000]).unwrap();
    file.write_all(b"\n").unwrap();
    journal.end(&origin, op, Ok(()));
    file.write_all(b"cut short").unwrap();
    std::fs::write(directory.path().join("storage-helper.log"), "not a record of acts\n").unwrap();

    let found = skep_audit::acts::read(directory.path()).unwrap();
    let results: Vec<_> = found.acts.iter().map(|act| act.result.as_str()).collect();
    assert_eq!(results, ["begin", "NO_SPACE", "done"]);
    let first = &found.acts[0];
    assert_eq!(
        (first.service.as_str(), first.user.as_str(), first.trace.as_str()),
        ("storage-helper", "uid 0", "0000000000000abc")
    );
    assert_eq!((first.operation.as_str(), first.pid), ("CreateDisk", std::process::id()));
    assert_eq!(found.bad_lines, 4);
}
