//! Addresses of things on the net: `https://HOST[:PORT]/PATH[?QUERY]`, and nothing else. Pure.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

/// Why something is no address that is fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadUrl {
    /// Another scheme.
    #[error("https:// is expected")]
    Scheme,
    /// A name and a password would stand in logs.
    #[error("a user in an address is not supported")]
    User,
    /// No host, or one with characters that no host has.
    #[error("a host's name or address is expected")]
    Host,
    /// No port.
    #[error("a port is a number from 1 to 65535")]
    Port,
    /// Spaces, controls or letters beyond ASCII.
    #[error("characters beyond printable ASCII are to be written as %XX")]
    Characters,
}

/// An address, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    /// A name in small letters, or an address (IPv6 without brackets).
    pub host: String,
    /// The port.
    pub port: u16,
    /// Path and query; begins with a slash.
    pub path: String,
}

impl Url {
    /// Reads one.
    pub fn parse(text: &str) -> Result<Self, BadUrl> {
        if !text.bytes().all(|c| c.is_ascii_graphic()) {
            return Err(BadUrl::Characters);
        }
        let scheme = text.get(..8).filter(|scheme| scheme.eq_ignore_ascii_case("https://"));
        let rest = scheme.and_then(|_| text.get(8..)).ok_or(BadUrl::Scheme)?;
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at_checked(end).ok_or(BadUrl::Host)?;
        if authority.contains('@') {
            return Err(BadUrl::User);
        }
        let (host, port) = match authority.strip_prefix('[') {
            Some(six) => {
                let (host, port) = six.split_once(']').ok_or(BadUrl::Host)?;
                host.parse::<Ipv6Addr>().map_err(|_| BadUrl::Host)?;
                (host, (!port.is_empty()).then(|| port.strip_prefix(':').unwrap_or("")))
            }
            None => authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port))),
        };
        let port = port.map_or(Ok(443), |port| port.parse().ok().filter(|port| *port != 0).ok_or(BadUrl::Port))?;
        let word = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'-' | b'_');
        let name = host.len() <= 253 && host.bytes().all(word) && host.starts_with(|c: char| c.is_ascii_alphanumeric());
        if !name && host.parse::<IpAddr>().is_err() {
            return Err(BadUrl::Host);
        }
        // What is behind # is never sent.
        let path = path.split('#').next().unwrap_or_default();
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Ok(Self { host: host.to_ascii_lowercase(), port, path })
    }

    /// Where a redirection from here leads.
    pub fn join(&self, location: &str) -> Result<Self, BadUrl> {
        let base = self.origin();
        let text = if location.starts_with("//") {
            format!("https:{location}")
        } else if location.starts_with('/') {
            format!("{base}{location}")
        } else if location.split(['/', '?', '#']).next().is_some_and(|first| first.contains(':')) {
            location.to_owned()
        } else if location.starts_with('?') {
            format!("{base}{}{location}", self.path.split('?').next().unwrap_or_default())
        } else {
            let path = self.path.split('?').next().unwrap_or_default();
            let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
            format!("{base}{directory}/{location}")
        };
        Self::parse(&text)
    }

    /// Scheme, host and port.
    fn origin(&self) -> String {
        format!("https://{}", self.authority())
    }

    /// Host and port as a request names them.
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == 443 { host } else { format!("{host}:{}", self.port) }
    }

    /// The file's name: what is behind the last slash of the path.
    pub fn file(&self) -> &str {
        let path = self.path.split('?').next().unwrap_or_default();
        path.rsplit('/').next().unwrap_or_default()
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.origin(), self.path)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn addresses_are_read_and_others_refused() {
        let url = Url::parse("HTTPS://Cloud.example.org/images/a.qcow2?x=1#part").unwrap();
        assert_eq!(
            (url.host.as_str(), url.port, url.path.as_str(), url.file()),
            ("cloud.example.org", 443, "/images/a.qcow2?x=1", "a.qcow2")
        );
        assert_eq!(Url::parse("https://[::1]:8443").unwrap().to_string(), "https://[::1]:8443/");
        for (text, why) in [
            ("http://a/", BadUrl::Scheme),
            ("file:///etc/passwd", BadUrl::Scheme),
            ("https://a@b/", BadUrl::User),
            ("https:///x", BadUrl::Host),
            ("https://a b/", BadUrl::Characters),
            ("https://a/\r\nX: y", BadUrl::Characters),
            ("https://a:0/", BadUrl::Port),
            ("https://a:99999/", BadUrl::Port),
            ("https://[::1]x/", BadUrl::Port),
            ("https://[zz]/", BadUrl::Host),
            ("https://ä/", BadUrl::Characters),
        ] {
            assert_eq!(Url::parse(text), Err(why), "{text}");
        }
    }

    #[test]
    fn redirections_lead_where_they_say_and_only_by_https() {
        let from = Url::parse("https://a.example/x/y.img?z").unwrap();
        for (location, to) in [
            ("https://b.example:444/q", "https://b.example:444/q"),
            ("//c.example/q", "https://c.example/q"),
            ("/q?r", "https://a.example/q?r"),
            ("q.img", "https://a.example/x/q.img"),
            ("?r", "https://a.example/x/y.img?r"),
        ] {
            assert_eq!(from.join(location).unwrap().to_string(), to);
        }
        assert_eq!(from.join("http://a.example/"), Err(BadUrl::Scheme));
        assert_eq!(from.join("ftp:x"), Err(BadUrl::Scheme));
    }

    proptest! {
        #[test]
        fn any_text_is_judged(text in ".{0,60}", location in ".{0,60}") {
            if let Ok(url) = Url::parse(&format!("https://{text}")) {
                prop_assert_eq!(Url::parse(&url.to_string()), Ok(url.clone()));
                let _ = url.join(&location);
            }
        }
    }
}
