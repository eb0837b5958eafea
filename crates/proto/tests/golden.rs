//! The bytes of every message. A line that is there never changes: an installed peer would read something else.
//!
//! `SKEP_GOLDEN=write cargo test -p skep-proto --test golden` adds lines for what is new, and only that: it changes none.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "golden/broker.rs"]
mod broker;
#[path = "golden/broker_machine.rs"]
mod broker_machine;
#[path = "golden/cell.rs"]
mod cell;
#[path = "golden/fetch.rs"]
mod fetch;
#[path = "golden/iscsi.rs"]
mod iscsi;
#[path = "golden/net.rs"]
mod net;
#[path = "golden/runner.rs"]
mod runner;
#[path = "golden/services.rs"]
mod services;
#[path = "golden/storage.rs"]
mod storage;
#[path = "golden/wire.rs"]
mod wire;

use serde::{Serialize, de::DeserializeOwned};
use skep_proto::wire::{Origin, decode, decode_reply, decode_request, encode, encode_reply, encode_request};
use skep_proto::{Call, Helper, TraceId};
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::PathBuf;

/// The lines of one file: what, and its bytes in hex.
struct Golden {
    file: &'static str,
    lines: Vec<(String, String)>,
}

fn origin() -> Origin {
    Origin { seq: 7, trace: TraceId(0x0123_4567_89ab_cdef), user: "uid 1000".parse().unwrap() }
}

/// Short text, name or id.
fn parse<T: std::str::FromStr<Err: Debug>>(text: &str) -> T {
    text.parse().unwrap()
}

impl Golden {
    fn new(file: &'static str) -> Self {
        Self { file, lines: Vec::new() }
    }

    fn push(&mut self, what: String, bytes: &[u8]) {
        assert!(!self.lines.iter().any(|(known, _)| *known == what), "{what} twice");
        self.lines.push((what, bytes.iter().map(|byte| format!("{byte:02x}")).collect()));
    }

    /// A request and its reply, with what stands before them.
    fn call<C: Call>(&mut self, call: C, reply: C::Reply)
    where
        C::Reply: PartialEq + Debug,
        <C::Helper as Helper>::Request: PartialEq + Debug,
    {
        let request: <C::Helper as Helper>::Request = call.into();
        let op = C::Helper::op(&request);
        assert_eq!(op.number, C::OP);
        let bytes = encode_request::<C::Helper>(&origin(), &request).unwrap();
        assert_eq!(decode_request::<C::Helper>(&bytes).unwrap(), (origin(), request));
        self.push(format!("request {}", op.name), &bytes);
        let bytes = encode_reply::<C>(7, &Ok(reply)).unwrap();
        let again = decode_reply::<C>(7, &bytes).unwrap();
        assert_eq!(encode_reply::<C>(7, &again).unwrap(), bytes);
        self.push(format!("reply {}", op.name), &bytes);
    }

    /// Something else that is sent.
    fn value<T: Serialize + DeserializeOwned + PartialEq + Debug>(&mut self, what: &str, value: &T) {
        let bytes = encode(value).unwrap();
        assert_eq!(decode::<T>(&bytes).unwrap(), *value);
        self.push(what.to_owned(), &bytes);
    }

    /// Every operation of a protocol must have had its example.
    fn covers<H: Helper>(&self) {
        for op in H::OPS {
            for what in ["request", "reply"] {
                let name = format!("{what} {}", op.name);
                assert!(self.lines.iter().any(|(known, _)| *known == name), "{}: no example of {name}", H::NAME);
            }
        }
    }

    /// Holds the lines against the file.
    fn check(self) {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/{}.txt", self.file));
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let mut known: BTreeMap<&str, &str> = text.lines().map(|line| line.rsplit_once(' ').unwrap()).collect();
        let mut new = String::new();
        for (what, bytes) in &self.lines {
            match known.remove(what.as_str()) {
                Some(golden) => assert_eq!(golden, bytes, "{}: the bytes of {what} have changed", self.file),
                None => new.push_str(&format!("{what} {bytes}\n")),
            }
        }
        assert!(known.is_empty(), "{}: no example any more of {:?}", self.file, known.keys());
        if std::env::var("SKEP_GOLDEN").as_deref() == Ok("write") {
            std::fs::write(&path, text + &new).unwrap();
        } else {
            assert!(new.is_empty(), "{}: new messages; add them with SKEP_GOLDEN=write:\n{new}", self.file);
        }
    }
}

/// Examples of each variant; a variant without one does not compile.
macro_rules! every {
    ($golden:ident, $kind:ident { $($name:ident $pattern:tt => $value:expr;)* }) => {
        let _ = |value: &$kind| match value { $($kind::$name $pattern => (),)* };
        $($golden.value(concat!(stringify!($kind), " ", stringify!($name)), &$value);)*
    };
}
use every;
