//! Lists of CPUs as people write them.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

/// The largest number of a CPU: the kernels' own sets of them hold no larger one.
const LAST: u16 = 1023;
/// Virtual CPUs that can be bound: as many as a machine has at most.
const VCPUS: u16 = 64;
/// Characters of a list, so that a machine with it fits a record.
const LONGEST: usize = 1000;

/// A list of CPUs that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadCpus {
    /// Of [`CpuList`].
    #[error("a list of CPUs is numbers from 0 to {LAST} and ranges of them: 0-1,3")]
    List,
    /// Too many gaps in one.
    #[error("a list of CPUs has at most {LONGEST} characters; use ranges")]
    Long,
    /// Of [`CpuPins`].
    #[error("bound CPUs are virtual ones with one of the host each, 0:2,1:3: 0 to {} and 0 to {LAST}, each virtual one once", VCPUS - 1)]
    Pins,
}

/// CPUs of a host: `0-1,3`; nothing: all of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CpuList(pub BTreeSet<u16>);

/// Virtual CPUs, each bound to one CPU of a host: `0:2,1:3`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CpuPins(pub BTreeMap<u16, u16>);

/// A number as the lists have it: digits only, and not too large.
fn number(text: &str, last: u16) -> Option<u16> {
    let digits = (1..=4).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|n| digits && *n <= last)
}

impl FromStr for CpuList {
    type Err = BadCpus;
    fn from_str(text: &str) -> Result<Self, BadCpus> {
        let mut all = BTreeSet::new();
        if text.is_empty() {
            return Ok(Self(all));
        }
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let range = number(first, LAST).zip(number(last, LAST)).filter(|(first, last)| first <= last);
            let (first, last) = range.ok_or(BadCpus::List)?;
            all.extend(first..=last);
        }
        let list = Self(all);
        if list.to_string().len() > LONGEST { Err(BadCpus::Long) } else { Ok(list) }
    }
}

impl fmt::Display for CpuList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut ranges: Vec<(u16, u16)> = Vec::new();
        for &cpu in &self.0 {
            match ranges.last_mut() {
                Some((_, last)) if last.checked_add(1) == Some(cpu) => *last = cpu,
                _ => ranges.push((cpu, cpu)),
            }
        }
        for (at, (first, last)) in ranges.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            if first == last { write!(f, "{comma}{first}")? } else { write!(f, "{comma}{first}-{last}")? }
        }
        Ok(())
    }
}

impl FromStr for CpuPins {
    type Err = BadCpus;
    fn from_str(text: &str) -> Result<Self, BadCpus> {
        let mut all = BTreeMap::new();
        if text.is_empty() {
            return Ok(Self(all));
        }
        for part in text.split(',') {
            let pair = part.split_once(':').and_then(|(vcpu, cpu)| number(vcpu, VCPUS - 1).zip(number(cpu, LAST)));
            let (vcpu, cpu) = pair.ok_or(BadCpus::Pins)?;
            if all.insert(vcpu, cpu).is_some() {
                return Err(BadCpus::Pins);
            }
        }
        Ok(Self(all))
    }
}

impl fmt::Display for CpuPins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (vcpu, cpu)) in self.0.iter().enumerate() {
            write!(f, "{}{vcpu}:{cpu}", if at == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

macro_rules! as_text {
    ($($name:ident)*) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                String::deserialize(d)?.parse().map_err(D::Error::custom)
            }
        }
    )*};
}
as_text!(CpuList CpuPins);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_and_written_as_people_do() {
        for (typed, written) in [("", ""), ("0", "0"), ("3,0-1", "0-1,3"), ("0,1,2,4", "0-2,4"), ("1023", "1023"), ("5-5,5", "5")]
        {
            assert_eq!(typed.parse::<CpuList>().map(|list| list.to_string()), Ok(written.to_owned()));
        }
        for wrong in [",", "0,", "1-0", "-1", "1-", "1024", "0-99999", "+1", "a", " 1", "0x1", "1:2"] {
            assert_eq!(wrong.parse::<CpuList>(), Err(BadCpus::List), "{wrong}");
        }
        let gaps = (0..1000u16).step_by(2).map(|cpu| cpu.to_string()).collect::<Vec<_>>().join(",");
        assert_eq!(gaps.parse::<CpuList>(), Err(BadCpus::Long));
        for (typed, written) in [("", ""), ("1:3,0:2", "0:2,1:3"), ("63:1023", "63:1023")] {
            assert_eq!(typed.parse::<CpuPins>().map(|pins| pins.to_string()), Ok(written.to_owned()));
        }
        for wrong in ["0", "0:", ":0", "0:1,0:2", "64:0", "0:1024", "0:1,", "0-1:2", "0:1:2"] {
            assert_eq!(wrong.parse::<CpuPins>(), Err(BadCpus::Pins), "{wrong}");
        }
    }

    #[test]
    fn a_list_is_checked_again_when_it_is_decoded() {
        let bytes = crate::wire::encode(&"0-1024".to_owned()).unwrap_or_default();
        assert!(crate::wire::decode::<CpuList>(&bytes).is_err());
        assert!(crate::wire::decode::<CpuPins>(&bytes).is_err());
    }
}
