//! `~.` and its like: what a person types to the command rather than to the guest.

/// What was typed to the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// Leave.
    Detach,
    /// Say what there is.
    Help,
}

/// Watches typed bytes. A `~` counts at the beginning of a line only.
#[derive(Debug)]
pub struct Escape {
    begins: bool,
    tilde: bool,
}

impl Default for Escape {
    fn default() -> Self {
        Self { begins: true, tilde: false }
    }
}

impl Escape {
    /// What of it is for the guest, and the first wish; what is typed after a wish is dropped.
    pub fn feed(&mut self, typed: &[u8]) -> (Vec<u8>, Option<Wish>) {
        let mut through = Vec::with_capacity(typed.len() + 1);
        for byte in typed {
            if std::mem::take(&mut self.tilde) {
                match byte {
                    b'.' => return (through, Some(Wish::Detach)),
                    b'?' => return (through, Some(Wish::Help)),
                    b'~' => {}
                    _ => through.push(b'~'),
                }
                self.begins = matches!(byte, b'\r' | b'\n');
                through.push(*byte);
            } else if self.begins && *byte == b'~' {
                self.tilde = true;
            } else {
                self.begins = matches!(byte, b'\r' | b'\n');
                through.push(*byte);
            }
        }
        (through, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tilde_counts_at_the_beginning_of_a_line() {
        let all: [(&[u8], &[u8], Option<Wish>); 7] = [
            (b"~.", b"", Some(Wish::Detach)),
            (b"ls\r~.", b"ls\r", Some(Wish::Detach)),
            (b"ls ~.", b"ls ~.", None),
            (b"~~.", b"~.", None),
            (b"~x", b"~x", None),
            (b"~?", b"", Some(Wish::Help)),
            (b"\n~\r~.", b"\n~\r", Some(Wish::Detach)),
        ];
        for (typed, through, wish) in all {
            assert_eq!(Escape::default().feed(typed), (through.to_vec(), wish));
        }
        let mut split = Escape::default();
        assert_eq!(split.feed(b"~"), (vec![], None));
        assert_eq!(split.feed(b"."), (vec![], Some(Wish::Detach)));
    }
}
