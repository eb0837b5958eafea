//! Sizes and times as they are typed.

use std::time::Duration;

const UNITS: [(char, u32); 4] = [('K', 10), ('M', 20), ('G', 30), ('T', 40)];

/// `10G`, `512M`, `4096`: bytes, with units of 1024.
pub fn bytes(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is no size: a number with K, M, G or T is expected");
    let upper = text.trim_end_matches("iB").to_ascii_uppercase();
    let unit = UNITS.iter().find(|(letter, _)| upper.ends_with(*letter));
    let (digits, shift) = unit.map_or((upper.as_str(), 0), |(_, shift)| (upper.get(..upper.len() - 1).unwrap_or(""), *shift));
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(wrong());
    }
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    number.checked_mul(1 << shift).ok_or_else(|| format!("`{text}` is more than 16 EiB"))
}

/// The same in whole MiB.
pub fn mib(text: &str) -> Result<u64, String> {
    let bytes = bytes(text)?;
    if bytes % (1 << 20) == 0 { Ok(bytes >> 20) } else { Err(format!("`{text}` is not a whole number of MiB")) }
}

/// `10M`, `64000`: bits per second, with units of 1000, as networks have them.
pub fn bits(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is no rate: bits per second are expected, a number with K, M or G");
    let upper = text.to_ascii_uppercase();
    let units = [("K", 1_000), ("M", 1_000_000), ("G", 1_000_000_000)];
    let unit = units.iter().find_map(|(letter, factor)| upper.strip_suffix(letter).map(|digits| (digits, *factor)));
    let (digits, factor) = unit.unwrap_or((&upper, 1u64));
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(wrong());
    }
    digits.parse::<u64>().ok().and_then(|number| number.checked_mul(factor)).ok_or_else(wrong)
}

/// `30`, `30s`, `10m`, `2h`, `1d`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no time: a number with s, m, h or d is expected");
    let (digits, factor) = match text.chars().last() {
        Some('s') => (text.get(..text.len() - 1), 1),
        Some('m') => (text.get(..text.len() - 1), 60),
        Some('h') => (text.get(..text.len() - 1), 3600),
        Some('d') => (text.get(..text.len() - 1), 86_400),
        _ => (Some(text), 1),
    };
    let number: u64 = digits.and_then(|d| d.parse().ok()).ok_or_else(wrong)?;
    number.checked_mul(factor).map(Duration::from_secs).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(bytes("10G"), Ok(10 << 30));
        assert_eq!(bytes("512MiB"), Ok(512 << 20));
        assert_eq!(bytes("4096"), Ok(4096));
        assert_eq!(mib("1g"), Ok(1024));
        for wrong in ["", "G", "-1", "1.5G", "99999999999G", "1X", "é"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
        assert!(mib("1K").is_err());
    }

    #[test]
    fn rates() {
        assert_eq!((bits("10M"), bits("64000"), bits("1g")), (Ok(10_000_000), Ok(64_000), Ok(1_000_000_000)));
        for wrong in ["", "M", "-1", "1.5M", "99999999999999G", "1X", "é"] {
            assert!(bits(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn times() {
        assert_eq!(duration("30"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("2h"), Ok(Duration::from_secs(7200)));
        assert!(duration("x").is_err() && duration("").is_err());
    }
}
