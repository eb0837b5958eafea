//! The network in a process's reach: `/proc/PID/net`, which shows its own network namespace.

use super::clean;
use crate::facts::Reach;
use std::net::Ipv6Addr;

/// From `dev`, `fib_trie` (absent without IPv4 routes) and `if_inet6` (absent without IPv6).
pub fn reach(dev: &str, fib_trie: &str, if_inet6: &str) -> Reach {
    let interfaces = dev.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| clean(name.trim())).collect();
    let mut addresses = local_ipv4(fib_trie);
    addresses.extend(if_inet6.lines().filter_map(ipv6));
    Reach { interfaces: Some(interfaces), addresses }
}

/// A leaf `|-- ADDRESS` is an address of this host where `/32 host LOCAL` stands below it. Each stands in two tables.
fn local_ipv4(fib_trie: &str) -> Vec<String> {
    let mut addresses: Vec<String> = Vec::new();
    let mut leaf = None;
    for line in fib_trie.lines() {
        let line = line.trim();
        if let Some(address) = line.strip_prefix("|-- ") {
            leaf = Some(address);
        } else if line == "/32 host LOCAL"
            && let Some(address) = leaf
            && !addresses.iter().any(|known| known == address)
        {
            addresses.push(clean(address));
        }
    }
    addresses
}

/// `ADDRESS(32 hex) index prefix scope flags name`.
fn ipv6(line: &str) -> Option<String> {
    let bits = u128::from_str_radix(line.split_whitespace().next()?, 16).ok()?;
    Some(Ipv6Addr::from(bits).to_string())
}

#[cfg(test)]
mod tests {
    use super::reach;

    #[test]
    fn addresses_and_interfaces_are_found() {
        let dev = "Inter-|   Receive\n face |bytes\n    lo: 1 2\n  eth0: 3 4\n";
        let trie = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n     |-- 10.1.2.3\n        /32 host LOCAL\nLocal:\n     |-- 10.1.2.3\n        /32 host LOCAL\n";
        let reach = reach(dev, trie, "00000000000000000000000000000001 01 80 10 80       lo\n");
        assert_eq!(reach.interfaces, Some(vec!["lo".to_owned(), "eth0".to_owned()]));
        assert_eq!(reach.addresses, ["10.1.2.3", "::1"]);
    }
}
