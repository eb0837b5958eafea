//! What stands around every message, and the reasons of refusals.

use super::{Golden, origin, parse};
use skep_proto::wire::{Hello, ReplyHead, VersionRefused, Welcome};
use skep_proto::{Reason, Refusal};

#[test]
fn bytes_of_headers_and_refusals_never_change() {
    let mut golden = Golden::new("wire");
    golden.value("Hello", &Hello { protocol: parse("storage-helper"), version: 1 });
    golden.value("Welcome good", &Welcome::Ok(1));
    golden.value("Welcome refused", &Welcome::Err(VersionRefused { protocol: parse("runner"), oldest: 1, newest: 3 }));
    golden.value("Origin", &origin());
    golden.value("ReplyHead", &ReplyHead { seq: 300, op: 4 });
    golden.value("Refusal", &Refusal::new(Reason::NoSpace, "disk web1").field("size").note("1 GiB").errno(28));
    for reason in Reason::ALL {
        golden.value(&format!("Reason {reason:?}"), reason);
    }
    golden.check();
}
