//! What holds the frames to a guest to a rate, as messages to rtnetlink(7): a token bucket in front of the tap (tc-tbf(8)). Pure.
//!
//! Frames from a guest cannot wait anywhere, since the host is who receives them: rules drop what is too much ([`super::rules::rate`]).

use netlink_packet_core::DefaultNla;
use netlink_packet_route::tc::{TcAttribute, TcHandle, TcMessage, TcOption};
use skep_proto::Rate;

/// The least that goes at once, in bytes: some frames.
const LEAST_BURST: u64 = 16 << 10;
/// The least that waits.
const LEAST_QUEUE: u64 = 128 << 10;

/// The queue of an interface that is ours to set.
pub fn root(index: u32) -> TcMessage {
    let mut message = TcMessage::with_index(index.cast_signed());
    message.header.parent = TcHandle::ROOT;
    message.attributes.push(TcAttribute::Kind("tbf".to_owned()));
    message
}

/// The same, to let through so much: 50 ms of it at once, while 200 ms of it wait.
pub fn bucket(index: u32, rate: Rate) -> TcMessage {
    /// `TCA_TBF_PARMS`, `TCA_TBF_RATE64`, `TCA_TBF_BURST` (linux/pkt_sched.h).
    const PARMS: u16 = 1;
    const RATE64: u16 = 4;
    const BURST: u16 = 6;
    /// `TC_LINKLAYER_ETHERNET`: the kernel needs no table of ours.
    const ETHERNET: u8 = 1;
    let short = |bytes: u64| u32::try_from(bytes).unwrap_or(u32::MAX).to_ne_bytes();
    let bytes = rate.bytes();
    let (burst, queue) = ((bytes / 20).max(LEAST_BURST), (bytes / 5).max(LEAST_QUEUE));
    // `struct tc_tbf_qopt`: two `struct tc_ratespec`, the second one (a peak) of nothing; then limit, buffer, MTU.
    let rates = [&[0, ETHERNET, 0, 0, 0, 0, 0, 0][..], &short(bytes), &[0; 12]].concat();
    let parameters = [&rates[..], &short(queue), &[0; 8]].concat();
    let options = [(PARMS, parameters), (RATE64, bytes.to_ne_bytes().to_vec()), (BURST, short(burst).to_vec())];
    let mut message = root(index);
    message.attributes.push(TcAttribute::Options(
        options.into_iter().map(|(kind, value)| TcOption::Other(DefaultNla::new(kind, value))).collect(),
    ));
    message
}
