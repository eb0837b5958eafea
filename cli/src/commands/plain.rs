//! A guest's words for somebody's terminal, in a scripted conversation: without what would move its cursor or clear it.

/// Takes control characters and escape sequences (ECMA-48) out of a stream that comes in pieces.
#[derive(Debug, Default)]
pub struct Plain(At);

/// Where in the stream it is.
#[derive(Debug, Default, Clone, Copy)]
enum At {
    /// In text.
    #[default]
    Text,
    /// After ESC.
    Escape,
    /// In `ESC [ …`, which ends with a letter or the like.
    Sequence,
    /// In a string such as `ESC ] …`, which ends with BEL or ESC \.
    String,
}

impl Plain {
    /// The text of the next piece.
    pub fn of(&mut self, piece: &[u8]) -> Vec<u8> {
        let mut text = Vec::with_capacity(piece.len());
        for &byte in piece {
            self.0 = match (self.0, byte) {
                (_, 0x1b) => At::Escape,
                (At::Escape, b'[') => At::Sequence,
                (At::Escape, b']' | b'P' | b'X' | b'^' | b'_') => At::String,
                // Intermediate bytes, as in `ESC ( B`.
                (At::Escape, b' '..=b'/') => At::Escape,
                (At::Sequence, b' '..=b'?') => At::Sequence,
                (At::String, 0x07) | (At::Escape | At::Sequence, _) => At::Text,
                (At::String, _) => At::String,
                (At::Text, _) => {
                    if !byte.is_ascii_control() || matches!(byte, b'\n' | b'\r' | b'\t') {
                        text.push(byte);
                    }
                    At::Text
                }
            };
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::Plain;

    #[test]
    fn a_guest_cannot_clear_the_terminal() {
        let mut plain = Plain::default();
        let pieces = ["a\x1b[2", "J\x1b[01;01H\x1b[=3hb\x07\r\n", "\x1b]0;title\x1b\\c\x1b(Bd\x1b", "cé"];
        let text: Vec<u8> = pieces.iter().flat_map(|piece| plain.of(piece.as_bytes())).collect();
        assert_eq!(String::from_utf8(text).unwrap(), "ab\r\ncdé");
    }
}
