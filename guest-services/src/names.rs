//! Names of the switch's machines.

use std::collections::BTreeMap;
use std::net::IpAddr;

/// A name that DNS does not know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("labels of 1 to 63 letters, digits, '-' and '_', 200 bytes in all, are expected")]
pub struct BadName;

/// Whether it can be a name.
pub fn check(name: &str) -> Result<(), BadName> {
    let letter = |c: u8| c.is_ascii_alphanumeric() || c == b'-' || c == b'_';
    let label = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(letter);
    if name.len() <= 200 && name.split('.').all(label) { Ok(()) } else { Err(BadName) }
}

/// Who has which name and address. A name may have several (a machine with two NICs on one switch).
#[derive(Debug, Default)]
pub struct Names {
    by_host: BTreeMap<String, Vec<IpAddr>>,
    by_address: BTreeMap<IpAddr, String>,
}

impl Names {
    /// Of these hosts, whose names are valid.
    pub fn new<'a>(hosts: impl Iterator<Item = (&'a str, impl Into<IpAddr>)>) -> Self {
        let mut names = Self::default();
        for (host, address) in hosts {
            let (host, address) = (host.to_ascii_lowercase(), address.into());
            names.by_host.entry(host.clone()).or_default().push(address);
            names.by_address.insert(address, host);
        }
        names
    }

    /// Addresses of a host, by its name in lower case.
    pub fn addresses(&self, host: &str) -> Option<&[IpAddr]> {
        self.by_host.get(host).map(Vec::as_slice)
    }

    /// Whose an address is.
    pub fn host(&self, address: IpAddr) -> Option<&str> {
        self.by_address.get(&address).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_dns() {
        for good in ["web1", "a.b-c._d", &"x".repeat(63)] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in ["", ".", "a..b", "a.", "ü", "a b", &"x".repeat(64), &"a.".repeat(101)] {
            assert_eq!(check(bad), Err(BadName), "{bad}");
        }
    }
}
