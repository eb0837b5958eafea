//! What guests send, as the corpus has it, damaged at random.
#![forbid(unsafe_code)]

use proptest::prelude::*;
use std::path::Path;

fn corpus() -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/guest");
    let mut paths: Vec<_> = std::fs::read_dir(dir).expect("a corpus").map(|entry| entry.expect("readable").path()).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).expect("readable")).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn no_damage_ends_guest_services(
        which in any::<prop::sample::Index>(), other in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0u8..4), 0..12),
    ) {
        let corpus = corpus();
        let mut bytes = [&corpus[which.index(corpus.len())][..], &corpus[other.index(corpus.len())]].concat();
        for (at, value, how) in changes {
            let at = at.index(bytes.len());
            match how {
                0 => bytes[at] ^= 1 << (value % 8),
                1 => bytes[at] = value,
                2 => bytes.insert(at, value),
                _ => drop(bytes.remove(at)),
            }
        }
        skep_fuzz::guest(&bytes);
    }
}
