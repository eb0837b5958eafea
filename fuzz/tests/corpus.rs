//! Replays the corpus, and every golden record cut, lengthened and with each of its bits turned.
#![forbid(unsafe_code)]

use skep_fuzz::TARGETS;
use std::path::Path;

fn hex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text.trim().bytes().collect();
    let pair = |p: &[u8]| u8::from_str_radix(std::str::from_utf8(p).ok()?, 16).ok();
    digits.len().is_multiple_of(2).then(|| digits.chunks(2).map(pair).collect()).flatten()
}

#[test]
fn the_corpus_ends_no_decoder() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for (name, target) in TARGETS {
        let mut files = 0;
        for entry in std::fs::read_dir(root.join(name)).expect("a corpus for each target").flatten() {
            target(&std::fs::read(entry.path()).expect("readable"));
            files += 1;
        }
        assert!(files > 0, "the corpus of {name} is empty");
    }
}

#[test]
fn golden_records_damaged_in_every_way_end_no_decoder() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/proto/tests/golden");
    let mut records = 0;
    for entry in std::fs::read_dir(dir).expect("golden records").flatten() {
        let text = std::fs::read_to_string(entry.path()).expect("text");
        let words = text.lines().filter_map(|line| line.split_whitespace().last());
        for record in words.filter_map(hex).filter(|r| r.len() > 1) {
            records += 1;
            for kind in 0..16 {
                let whole = [&[kind], &record[..]].concat();
                for length in 0..=whole.len() {
                    skep_fuzz::records(&whole[..length]);
                }
                skep_fuzz::records(&[&whole[..], &[0]].concat());
                for bit in 0..whole.len() * 8 {
                    let mut turned = whole.clone();
                    turned[bit / 8] ^= 1 << (bit % 8);
                    skep_fuzz::records(&turned);
                }
            }
        }
    }
    assert!(records >= 60, "only {records} golden records");
}
