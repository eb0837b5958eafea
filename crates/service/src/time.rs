//! Time as it is written in logs and events.

use std::time::{SystemTime, UNIX_EPOCH};

/// Nanoseconds since 1970.
pub fn now_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// A time in UTC as RFC 3339 with microseconds: `2026-11-23T20:38:00.000001Z`.
pub fn iso8601(ns: i64) -> String {
    let (seconds, rest) = (ns.div_euclid(1_000_000_000), ns.rem_euclid(1_000_000_000));
    let (days, of_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Days to a civil date: years of 400 begin on 1 March, so that leap days come last.
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let (day, month) = (doy - (153 * mp + 2) / 5 + 1, if mp < 10 { mp + 3 } else { mp - 9 });
    let year = yoe + era * 400 + i64::from(month <= 2);
    let (h, m, s) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    // Three for each act that is recorded: by hand, the least code. What 64 bits hold has years of four digits.
    let mut text = String::with_capacity(27);
    for (number, digits, after) in
        [(year, 4, '-'), (month, 2, '-'), (day, 2, 'T'), (h, 2, ':'), (m, 2, ':'), (s, 2, '.'), (rest / 1000, 6, 'Z')]
    {
        for place in (0..digits).rev() {
            let digit = number / 10i64.pow(place) % 10;
            text.push(char::from(b'0' + u8::try_from(digit).unwrap_or(0)));
        }
        text.push(after);
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn known_moments() {
        assert_eq!(super::iso8601(0), "1970-01-01T00:00:00.000000Z");
        assert_eq!(super::iso8601(951_782_400_000_000_000), "2000-02-29T00:00:00.000000Z");
        assert_eq!(super::iso8601(1_795_466_280_000_001_000), "2026-11-23T20:38:00.000001Z");
        assert_eq!(super::iso8601(i64::MAX), "2262-04-11T23:47:16.854775Z");
        assert_eq!(super::iso8601(-1_000), "1969-12-31T23:59:59.999999Z");
    }
}
