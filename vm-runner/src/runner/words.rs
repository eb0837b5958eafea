//! What a hypervisor writes to its standard error: into the log, and the end of it kept for whoever asks why it ended.

use skep_proto::Text;
use skep_service::{Timed, now_ns};
use std::os::fd::OwnedFd;

/// Bytes of text in the log before it begins anew.
const LOG: u64 = 1 << 20;
/// Bytes that are kept.
const KEPT: usize = 4096;

/// See the module.
#[derive(Debug, Default)]
pub struct Words {
    log: Option<Timed>,
    tail: Vec<u8>,
}

impl Words {
    /// Goes on in `log`, where it ends.
    pub fn new(log: Option<OwnedFd>) -> Self {
        Self { log: log.map(Timed::open), tail: Vec::new() }
    }

    /// Takes note of some.
    pub fn add(&mut self, bytes: &[u8]) {
        if let Some(log) = &mut self.log {
            if log.text() > LOG {
                log.restart();
            }
            // A full disk loses words, not machines.
            let _ = log.add(bytes, now_ns());
        }
        self.tail.extend_from_slice(bytes);
        let much = self.tail.len().saturating_sub(KEPT);
        self.tail.drain(..much);
    }

    /// The end of them.
    pub fn last(&self) -> Text<1024> {
        let text = String::from_utf8_lossy(&self.tail);
        let text = text.trim();
        let mut from = text.len().saturating_sub(1024);
        while !text.is_char_boundary(from) {
            from += 1;
        }
        Text::lossy(text.get(from..).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_kept_and_nothing_grows() {
        let mut words = Words::default();
        for _ in 0..10_000 {
            words.add("beginning ü\n".as_bytes());
        }
        words.add(b"\x1b[31mthe last\x07 line\n");
        assert!(words.tail.len() <= KEPT);
        assert!(words.last().as_str().ends_with("the last  line"), "{:?}", words.last());
    }
}
