//! API messages from and to the broker's. What comes in is validated by the types of skep-proto; a wrong value is refused with the
//! name of its field.

pub mod access;
pub mod act;
pub mod devices;
pub mod disk;
pub mod event;
pub mod firmware;
pub mod machine;
pub mod network;
pub mod stats;

use prost_types::Timestamp;
use skep_proto::broker::Ref;
use skep_proto::{Reason, Refusal, Text};
use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// A refusal of the value of a field of a request about a `what`.
pub fn invalid(what: &str, field: &str, why: impl fmt::Display) -> Refusal {
    Refusal::new(Reason::InvalidValue, what).field(field).note(why)
}

/// What is wrong with a value, and the value, which is shortened and on one line.
pub fn not(why: impl fmt::Display, value: &str) -> String {
    let short: String = value.chars().take(40).flat_map(char::escape_debug).collect();
    let cut = if value.chars().count() > 40 { format!("… ({} bytes)", value.len()) } else { String::new() };
    format!("{why}, not \"{short}\"{cut}")
}

/// A number within its range.
pub fn within<T: PartialOrd + fmt::Display>(what: &str, field: &str, number: T, range: &RangeInclusive<T>) -> Result<T, Refusal> {
    if range.contains(&number) {
        return Ok(number);
    }
    Err(invalid(what, field, format_args!("{number} is not {} to {}", range.start(), range.end())))
}

/// Refuses a list with too many items.
pub fn at_most<T>(what: &str, field: &str, items: &[T], most: usize) -> Result<(), Refusal> {
    if items.len() <= most {
        return Ok(());
    }
    Err(invalid(what, field, format_args!("{} of them; at most {most} are permitted", items.len())))
}

/// A value of a type that validates.
pub fn value<T: FromStr>(what: &str, field: &str, text: &str) -> Result<T, Refusal>
where
    T::Err: fmt::Display,
{
    text.parse().map_err(|e| invalid(what, field, not(e, text)))
}

/// A value where an empty text means none.
pub fn optional<T: FromStr>(what: &str, field: &str, text: &str) -> Result<Option<T>, Refusal>
where
    T::Err: fmt::Display,
{
    if text.is_empty() { Ok(None) } else { value(what, field, text).map(Some) }
}

/// A name or id that must be there.
pub fn named(what: &str, field: &str, text: &str) -> Result<Ref, Refusal> {
    if text.is_empty() { Err(invalid(what, field, "a name or an id is expected")) } else { value(what, field, text) }
}

/// A name or id where an empty text means none.
pub fn maybe_named(what: &str, field: &str, text: &str) -> Result<Option<Ref>, Refusal> {
    optional(what, field, text)
}

/// A value that may be absent.
pub fn given<T: FromStr>(what: &str, field: &str, text: Option<&String>) -> Result<Option<T>, Refusal>
where
    T::Err: fmt::Display,
{
    text.map(|text| value(what, field, text)).transpose()
}

/// An enum's value; a number that it does not have is refused.
pub fn known<E: TryFrom<i32> + fmt::Debug>(what: &str, field: &str, number: i32) -> Result<E, Refusal> {
    E::try_from(number).map_err(|_| invalid(what, field, format_args!("{number} is none of {}", values::<E>())))
}

/// The values of an enum, but for the one that is not used, which is the first.
pub fn values<E: TryFrom<i32> + fmt::Debug>() -> String {
    let all = (1..=i32::from(u8::MAX)).filter_map(|number| Some(format!("{number} ({:?})", E::try_from(number).ok()?)));
    all.collect::<Vec<_>>().join(", ")
}

/// Nanoseconds since 1970 as a timestamp; 0: none.
pub fn time(ns: i64) -> Option<Timestamp> {
    let nanos = i32::try_from(ns.rem_euclid(1_000_000_000)).unwrap_or(0);
    (ns != 0).then(|| Timestamp { seconds: ns.div_euclid(1_000_000_000), nanos })
}

/// A timestamp as nanoseconds since 1970.
pub fn nanoseconds(what: &str, field: &str, time: &Timestamp) -> Result<i64, Refusal> {
    let nanos = u32::try_from(time.nanos).ok().filter(|nanos| *nanos < 1_000_000_000);
    let ns = nanos.and_then(|nanos| time.seconds.checked_mul(1_000_000_000)?.checked_add(nanos.into()));
    let wrong = || invalid(what, field, format_args!("{} s and {} ns is no time from 1970 to 2262", time.seconds, time.nanos));
    ns.filter(|ns| *ns >= 0).ok_or_else(wrong)
}

/// Texts as strings.
pub fn strings<const N: usize>(texts: &[Text<N>]) -> Vec<String> {
    texts.iter().map(ToString::to_string).collect()
}
