//! The gRPC API, package `skep.v1`, compiled from `proto/skep/v1`. The comments there are its documentation.
#![forbid(unsafe_code)]

mod bounds;

pub use bounds::{Bounded, Exceeded};

/// Messages, servers and clients.
#[allow(missing_docs, clippy::all, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
pub mod v1 {
    tonic::include_proto!("skep.v1");
}

/// Every file of the package and what it imports, encoded: what gRPC reflection answers with.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/skep.v1.bin"));

/// Most bytes of one message, either way.
pub const MAX_MESSAGE: usize = 4 << 20;
/// Bytes of data in one message of a stream: small enough to cancel soon, large enough to be fast.
pub const CHUNK: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use prost::Message as _;

    #[test]
    fn every_service_is_described() {
        let set = prost_types::FileDescriptorSet::decode(super::DESCRIPTORS).expect("a descriptor set");
        let names: Vec<_> = set.file.iter().flat_map(|f| &f.service).map(|s| s.name().to_owned()).collect();
        assert_eq!(names.len(), 10);
    }
}
