//! API messages from and to the broker's. What comes in is validated by the types of skep-proto; a wrong value is refused with the
//! name of its field.

pub mod access;
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
use std::str::FromStr;

/// A refusal of the value of a field of a request about a `what`.
pub fn invalid(what: &str, field: &str, why: impl fmt::Display) -> Refusal {
    Refusal::new(Reason::InvalidValue, what).field(field).note(why)
}

/// A value of a type that validates.
pub fn value<T: FromStr>(what: &str, field: &str, text: &str) -> Result<T, Refusal>
where
    T::Err: fmt::Display,
{
    text.parse().map_err(|e| invalid(what, field, e))
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
pub fn known<E: TryFrom<i32>>(what: &str, field: &str, number: i32) -> Result<E, Refusal> {
    E::try_from(number).map_err(|_| invalid(what, field, format_args!("{number} is none of its values")))
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
    ns.filter(|ns| *ns >= 0).ok_or_else(|| invalid(what, field, "a time from 1970 to 2262 is expected"))
}

/// Texts as strings.
pub fn strings<const N: usize>(texts: &[Text<N>]) -> Vec<String> {
    texts.iter().map(ToString::to_string).collect()
}
