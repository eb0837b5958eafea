//! What binds a request to its helper, its reply and its descriptors.

use serde::{Serialize, de::DeserializeOwned};
use std::os::fd::OwnedFd;

/// One protocol: who serves it and what may be asked.
pub trait Helper: 'static {
    /// Name in the hello, in logs and of the socket (`RUN/<name>.sock`).
    const NAME: &'static str;
    /// Version in the hello. Peers inside the suite must match exactly.
    const VERSION: u16;
    /// The oldest version that is still served (machines outlive upgrades, so the runner's differs).
    const OLDEST: u16;
    /// Every operation, in the order of the request enum.
    const OPS: &'static [Op];
    /// All requests of the protocol.
    type Request: Serialize + DeserializeOwned + Send + 'static;
    /// A request's line in the table.
    fn op(request: &Self::Request) -> &'static Op;
}

/// One operation as a line of a table: the rights table, the audit and the tests are held against it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Op {
    /// Variant number in the request enum.
    pub number: u8,
    /// Name of the request's type.
    pub name: &'static str,
    /// Descriptors sent with the request.
    pub sends: FdCount,
    /// Descriptors that come with a good reply.
    pub returns: FdCount,
}

/// How many descriptors travel with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FdCount {
    /// At least.
    pub min: usize,
    /// At most.
    pub max: usize,
}

/// One request: who answers it, with what.
pub trait Call: Into<<Self::Helper as Helper>::Request> {
    /// The protocol it belongs to.
    type Helper: Helper;
    /// What a good answer holds.
    type Reply: Serialize + DeserializeOwned + Send + 'static;
    /// Descriptors sent with it.
    type SendFds: Fds;
    /// Descriptors of a good answer.
    type ReplyFds: Fds;
    /// Variant number in the request enum; repeated in the reply's header.
    const OP: u8;
}

/// Descriptors of one record, with their number in the type.
pub trait Fds: Sized {
    /// The number.
    const COUNT: FdCount;
    /// Takes what arrived; gives it back (to be closed) if the number is wrong.
    fn from_vec(fds: Vec<OwnedFd>) -> Result<Self, Vec<OwnedFd>>;
    /// In sending order.
    fn into_vec(self) -> Vec<OwnedFd>;
}

impl<const N: usize> Fds for [OwnedFd; N] {
    const COUNT: FdCount = FdCount { min: N, max: N };
    fn from_vec(fds: Vec<OwnedFd>) -> Result<Self, Vec<OwnedFd>> {
        fds.try_into()
    }
    fn into_vec(self) -> Vec<OwnedFd> {
        self.into()
    }
}

/// Up to `N` descriptors, where the body of the message says what each is for.
#[derive(Debug)]
pub struct UpTo<const N: usize>(pub Vec<OwnedFd>);

impl<const N: usize> Fds for UpTo<N> {
    const COUNT: FdCount = FdCount { min: 0, max: N };
    fn from_vec(fds: Vec<OwnedFd>) -> Result<Self, Vec<OwnedFd>> {
        if fds.len() <= N { Ok(UpTo(fds)) } else { Err(fds) }
    }
    fn into_vec(self) -> Vec<OwnedFd> {
        self.0
    }
}

/// No descriptors.
pub type NoFds = [OwnedFd; 0];
/// Exactly one.
pub type OneFd = [OwnedFd; 1];

/// A protocol as one table: `number Request [descriptors sent] => Reply [descriptors returned];`
macro_rules! protocol {
    ($(#[$doc:meta])* $helper:ident = $name:literal, version $version:literal, oldest $oldest:literal, $request:ident {
        $($number:literal $call:ident [$send:ty] => $reply:ty [$back:ty];)*
    }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy)]
        pub enum $helper {}

        #[doc = concat!("Every request to ", $name, ".")]
        #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
        #[allow(missing_docs, clippy::large_enum_variant)]
        pub enum $request { $($call($call),)* }

        impl $crate::Helper for $helper {
            const NAME: &'static str = $name;
            const VERSION: u16 = $version;
            const OLDEST: u16 = $oldest;
            const OPS: &'static [$crate::Op] = &[$($crate::Op {
                number: $number,
                name: stringify!($call),
                sends: <$send as $crate::Fds>::COUNT,
                returns: <$back as $crate::Fds>::COUNT,
            },)*];
            type Request = $request;
            // In a constant: a number out of range does not compile.
            #[allow(clippy::indexing_slicing)]
            fn op(request: &$request) -> &'static $crate::Op {
                match request { $($request::$call(_) => {
                    const OP: $crate::Op = <$helper as $crate::Helper>::OPS[$number];
                    &OP
                })* }
            }
        }

        $(
            impl From<$call> for $request {
                fn from(call: $call) -> Self { $request::$call(call) }
            }
            impl $crate::Call for $call {
                type Helper = $helper;
                type Reply = $reply;
                type SendFds = $send;
                type ReplyFds = $back;
                const OP: u8 = $number;
            }
        )*
    };
}
pub(crate) use protocol;
