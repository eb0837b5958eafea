//! Connections to servers on the net, for image-fetcher: out, and never in. And to portals of iSCSI targets, for iscsi-initiator: where the
//! host's administrator said, and nowhere else.

use super::{Place, unlisted};
use crate::platform::{HostError, NetHost};
use nix::errno::Errno;
use skep_proto::net::ConnectServer;
use skep_proto::{OneFd, Reason, Refusal, Transport};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::str::FromStr;

/// A network that the administrator lets images come from: `192.0.2.0/24`, or one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    first: IpAddr,
    prefix: u8,
}

impl FromStr for Network {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
        let first: IpAddr = address.parse().map_err(|e| format!("{text}: {e}"))?;
        let most = if first.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Some(most), |prefix| prefix.parse().ok().filter(|prefix| *prefix <= most));
        Ok(Self { first, prefix: prefix.ok_or_else(|| format!("{text}: a prefix of 0 to {most} bits is expected"))? })
    }
}

impl Network {
    fn has(&self, address: IpAddr) -> bool {
        let bits = |address: IpAddr| match address {
            IpAddr::V4(four) => (u128::from(four.to_bits()) << 96, true),
            IpAddr::V6(six) => (six.to_bits(), false),
        };
        let ((a, four), (b, also)) = (bits(self.first), bits(address));
        let mask = u128::MAX.checked_shl(128 - u32::from(self.prefix)).unwrap_or(0);
        four == also && a & mask == b & mask
    }
}

/// Why no image comes from there, if none does.
pub fn inside(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(four) => inside4(four),
        IpAddr::V6(six) => inside6(six),
    }
}

fn inside4(address: Ipv4Addr) -> Option<&'static str> {
    let [a, b, c, _] = address.octets();
    match (a, b, c) {
        (0, ..) => Some("it names this host"),
        (127, ..) => Some("it is the loopback"),
        (169, 254, _) => Some("it is link-local"),
        (10, ..) | (172, 16..=31, _) | (192, 168, _) => Some("it is private"),
        (100, 64..=127, _) => Some("it is a provider's own"),
        (192, 0, 0) | (192, 0, 2) | (198, 18..=19, _) | (198, 51, 100) | (203, 0, 113) => Some("it is reserved"),
        (224.., ..) => Some("it is no host's"),
        _ => None,
    }
}

fn inside6(address: Ipv6Addr) -> Option<&'static str> {
    let [a, b, .., g, h] = address.segments();
    let four = |high: u16, low: u16| inside4(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)));
    match (a, b) {
        _ if address.is_unspecified() => Some("it names this host"),
        _ if address.is_loopback() => Some("it is the loopback"),
        (0xfe80..=0xfebf, _) => Some("it is link-local"),
        (0xfc00..=0xfdff, _) | (0xfec0..=0xfeff, _) => Some("it is private"),
        (0xff00.., _) => Some("it is no host's"),
        (0x2001, 0xdb8) => Some("it is reserved"),
        // Addresses of IPv4 in those of IPv6: NAT64, 6to4.
        (0x64, 0xff9b) => four(g, h),
        (0x2002, _) => {
            let [_, high, low, ..] = address.segments();
            four(high, low)
        }
        (0x2000..=0x3fff, _) => None,
        _ => Some("it is not public"),
    }
}

/// Whether the host itself has the address: by it, it would reach itself. Nothing is sent.
fn is_own(host: &mut dyn NetHost, address: IpAddr) -> Result<bool, HostError> {
    let socket = UdpSocket::from(host.connect(Transport::Udp, SocketAddr::new(address, 9))?);
    let from = socket.local_addr().map_err(HostError::step("look for a way"))?;
    Ok(from.ip() == address)
}

/// [`ConnectServer`]. `images` and `portals`: what the administrator named; of that, only the suite's own networks are refused.
pub fn connect(
    (host, instance): Place<'_>, images: &[Network], portals: &[Network], call: &ConnectServer,
) -> Result<OneFd, Refusal> {
    let address = call.address.to_canonical();
    let what = if call.portal { "portal" } else { "server" };
    let object = format!("{what} {}", SocketAddr::new(address, call.port));
    let refused = |why: &str| {
        let refusal = Refusal::new(Reason::PermissionDenied, &object).field(if call.portal { "portal" } else { "url" });
        Err(refusal.note(if call.portal {
            format!("{address}: {why}; the host's administrator names those that there may be (skep up --iscsi-portals)")
        } else {
            format!(
                "{address}: {why}, and images come from public addresses; the host's administrator may name others (skep up --fetch-from)"
            )
        }))
    };
    let failed = |e: HostError| match e.error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENETUNREACH | Errno::EHOSTUNREACH | Errno::EADDRNOTAVAIL | Errno::EAFNOSUPPORT) => {
            Refusal::new(Reason::Unavailable, &object).note(format_args!("this host has no way there: {}", e.error))
        }
        _ => Refusal::io(&object, e.step, &e.error),
    };
    let allowed = if call.portal { portals } else { images };
    if !allowed.iter().any(|network| network.has(address)) {
        if call.portal {
            return refused("it is no portal that disks may be reached by");
        }
        if let Some(why) = inside(address) {
            return refused(why);
        }
        if is_own(host, address).map_err(failed)? {
            return refused("it is this host's own");
        }
    }
    if let IpAddr::V4(four) = address {
        let links = host.links().map_err(unlisted)?;
        let own =
            |route: &crate::platform::Route| links.iter().any(|link| link.index == route.index && link.name.is_of(instance));
        let through = |route: &crate::platform::Route| skep_proto::overlap((route.net, route.prefix), (four, 32));
        if host.routes().map_err(unlisted)?.iter().any(|route| through(route) && own(route)) {
            return refused("it is one of the suite's own machines");
        }
    }
    Ok([host.connect(Transport::Tcp, SocketAddr::new(address, call.port)).map_err(failed)?])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_inside_is_known() {
        for text in [
            "0.0.0.0",
            "127.0.0.1",
            "127.255.0.9",
            "10.1.2.3",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "240.0.0.1",
            "::",
            "::1",
            "fe80::1",
            "fd00::1",
            "fec0::1",
            "ff02::1",
            "64:ff9b::7f00:1",
            "64:ff9b::a9fe:a9fe",
            "2002:7f00:1::",
            "2002:a00:1::",
            "2001:db8::1",
            "::7f00:1",
            "100::1",
        ] {
            assert!(inside(text.parse().unwrap()).is_some(), "{text}");
        }
        for text in
            ["1.1.1.1", "172.32.0.1", "100.128.0.1", "192.169.0.1", "2606:4700::1111", "2002:101:101::", "64:ff9b::101:101"]
        {
            assert_eq!(inside(text.parse().unwrap()), None, "{text}");
        }
        // Written otherwise, it is the same.
        assert!(inside("::ffff:127.0.0.1".parse::<IpAddr>().unwrap().to_canonical()).is_some());
    }

    #[test]
    fn networks_are_what_they_say() {
        let network = |text: &str| text.parse::<Network>();
        assert!(network("127.0.0.1").unwrap().has("127.0.0.1".parse().unwrap()));
        assert!(!network("127.0.0.1").unwrap().has("127.0.0.2".parse().unwrap()));
        assert!(network("10.0.0.0/8").unwrap().has("10.9.8.7".parse().unwrap()));
        assert!(!network("10.0.0.0/8").unwrap().has("11.0.0.0".parse().unwrap()));
        assert!(network("::/0").unwrap().has("2001::1".parse().unwrap()));
        assert!(!network("::/0").unwrap().has("1.2.3.4".parse().unwrap()));
        for wrong in ["", "x", "10.0.0.0/33", "::/129", "10.0.0.0/", "10.0.0.0/-1"] {
            assert!(network(wrong).is_err(), "{wrong}");
        }
    }
}
