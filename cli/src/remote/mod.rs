//! The API of a suite elsewhere: over TLS with a certificate that was pinned at the login, and a token.

mod logins;
mod tls;

pub use logins::{Login, Logins};
pub use tls::{Changed, connect, first_look};

use crate::error::Failure;
use crate::places::Places;
use skep_proto::Reason;
use std::fmt;
use std::str::FromStr;

/// The port that the sample of `skep.conf` names.
const PORT: u16 = 8443;

/// Where a suite's API is served over TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
}

impl FromStr for Address {
    type Err = String;

    /// `HOST`, `HOST:PORT`, `[ADDRESS]:PORT`.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no address: HOST or HOST:PORT is expected");
        let (host, port) = match text.strip_prefix('[').map(|rest| rest.split_once(']').ok_or_else(wrong)).transpose()? {
            Some((host, "")) => (host, None),
            Some((host, rest)) => (host, Some(rest.strip_prefix(':').ok_or_else(wrong)?)),
            // An address of IPv6 without a port.
            None if text.matches(':').count() > 1 => (text, None),
            None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
        };
        let port = match port {
            Some(port) => port.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)?,
            None => PORT,
        };
        let good = !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-:%_".contains(&b));
        if good { Ok(Self { host: host.to_owned(), port }) } else { Err(wrong()) }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

/// The login that a command uses: the one that was asked for; without a suite here and nothing else said, the only one there is.
pub fn choose(asked: Option<&Address>, places: &Places) -> Result<Option<Login>, Failure> {
    let elsewhere = |address: &Address| {
        let failure = Failure::new(Reason::NotFound, format_args!("login {address}"), "nobody has logged in there");
        failure.advice(format_args!("`skep login {address}`"))
    };
    match asked {
        Some(address) => Logins::read()?.of(address).map(|login| Some(login.clone())).ok_or_else(|| elsewhere(address)),
        None if places.chosen || places.socket.exists() => Ok(None),
        // Without a suite here, that is what is worth saying.
        None => Ok(Logins::read().ok().and_then(|logins| logins.only().cloned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let text = |text: &str| text.parse::<Address>().map(|address| address.to_string());
        assert_eq!(text("hive.example"), Ok("hive.example:8443".into()));
        assert_eq!(text("192.0.2.1:9"), Ok("192.0.2.1:9".into()));
        assert_eq!(text("[2001:db8::1]:9"), Ok("[2001:db8::1]:9".into()));
        assert_eq!(text("2001:db8::1"), Ok("[2001:db8::1]:8443".into()));
        for wrong in ["", ":", "a:", "a:0", "a:65536", "a:b", "[::1", "[::1]9", "a/b:1", "a b"] {
            assert!(text(wrong).is_err(), "{wrong}: {:?}", text(wrong));
        }
    }
}
