//! Text of a guest's making, harmless on a terminal and in a log.

use std::fmt::Write;

/// Characters of a name that are shown; of a longer one the rest is told by a sum.
const LONGEST: usize = 128;

/// Letters and digits of all scripts, ASCII's signs and the space; anything else is escaped, the backslash included: two texts look
/// alike only if they are.
fn push(out: &mut String, c: char, plain: impl Fn(char) -> bool) {
    if plain(c) && c != '\\' {
        out.push(c);
    } else {
        // A String takes everything.
        let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
    }
}

fn decoded(units: impl Iterator<Item = u16>, plain: impl Fn(char) -> bool) -> String {
    let mut out = String::new();
    for c in char::decode_utf16(units) {
        match c {
            Ok(c) => push(&mut out, c, &plain),
            Err(alone) => drop(write!(out, "\\u{{{:x}}}", alone.unpaired_surrogate())),
        }
    }
    out
}

/// A variable's name; different names have different texts.
pub fn name(units: &[u16]) -> String {
    if units.is_empty() {
        return "\\u{0}".to_owned();
    }
    let shown = decoded(units.iter().copied().take(LONGEST), |c| c.is_ascii_graphic() || c == ' ');
    if units.len() <= LONGEST && shown.len() <= LONGEST + 64 {
        return shown;
    }
    let sum = units.iter().fold(0xcbf2_9ce4_8422_2325u64, |sum, unit| (sum ^ u64::from(*unit)).wrapping_mul(0x100_0000_01b3));
    let short: String = shown.chars().take(LONGEST).collect();
    format!("{short}\\{sum:016x}")
}

/// Whether a variable may be given this name: it is shown as it is.
pub fn is_plain(name: &str) -> bool {
    let plain = |c: char| (c.is_ascii_graphic() || c == ' ') && c != '\\';
    (1..=LONGEST).contains(&name.len()) && name.chars().all(plain)
}

/// A description.
pub fn description(units: impl Iterator<Item = u16>) -> String {
    decoded(units, |c| c.is_alphanumeric() || c.is_ascii_graphic() || c == ' ')
}

/// At most `most` bytes in hex.
pub fn hex(bytes: &[u8], most: usize) -> String {
    let mut out = String::new();
    for byte in bytes.iter().take(most) {
        // A String takes everything.
        let _ = write!(out, "{byte:02x}");
    }
    if bytes.len() > most {
        out.push('…');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_shown_without_harm_and_told_apart() {
        let wide = |text: &str| text.encode_utf16().collect::<Vec<_>>();
        assert_eq!(name(&wide("Boot0001")), "Boot0001");
        assert_eq!(name(&[0x1b, 0x5b, 0xd800, 0x41]), "\\u{1b}[\\u{d800}A");
        assert_ne!(name(&wide("\\u{1b}")), name(&[0x1b]));
        let (long, longer) = (name(&[0x41; 1000]), name(&[0x41; 1001]));
        assert!(long != longer && long.len() < 200, "{long}");
        assert!(is_plain("Boot0001") && !is_plain("") && !is_plain("a\\b") && !is_plain("é") && !is_plain(&"a".repeat(200)));
        assert_eq!(description(wide("Debian é\u{202e}\n").into_iter()), "Debian é\\u{202e}\\u{a}");
    }
}
