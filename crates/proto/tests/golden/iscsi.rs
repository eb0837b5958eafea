//! iscsi-initiator.

use super::{Golden, every, parse};
use skep_proto::iscsi::*;

#[test]
fn bytes_of_iscsi_initiator_never_change() {
    let mut golden = Golden::new("iscsi-initiator");
    let order = LoginOrder {
        initiator: parse("iqn.2026-11.internal.skep:abcd"),
        isid: [0x80, 1, 2, 3, 4, 5],
        portal: parse("192.0.2.1:3260"),
        target: parse("iqn.2001-04.com.example:disk"),
        lun: 1,
        chap: Some(Chap { user: parse("joe"), secret: parse("secret") }),
    };
    golden.call(Attach { order, read_only: true }, Attached { size: 1 << 30, block: 512 });
    golden.call(Watch {}, Done {});
    golden.covers::<Initiator>();
    every!(golden, LinkEvent {
        Lost(_) => LinkEvent::Lost(parse("the target closed the connection"));
    });
    golden.check();
}
