//! Serial ports of a machine, as they are typed, stored and told to whoever serves them.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use std::fmt;
use std::str::FromStr;

/// Speeds that a port can be held to, in bits a second.
pub const SPEEDS: [u32; 10] = [300, 600, 1200, 2400, 4800, 9600, 19_200, 38_400, 57_600, 115_200];

/// A serial port: `2`, `2,speed=9600`, `2,nolog`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SerialPort {
    port: u8,
    speed: u32,
    log: bool,
}

/// Not a serial port.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadPort {
    /// No such port.
    #[error("port {0} is not 1 to 4")]
    Port(String),
    /// No such speed.
    #[error("a speed of {0} is none of 0 (as fast as it goes), 300, 600, 1200, 2400, 4800, 9600, 19200, 38400, 57600 and 115200")]
    Speed(String),
    /// Something else.
    #[error("`{0}` is neither speed=N nor nolog")]
    Flag(String),
    /// More of them.
    #[error("port {0} is there twice")]
    Twice(u8),
}

impl SerialPort {
    /// The one that every machine has: as fast as it goes, and logged.
    pub const FIRST: Self = Self { port: 1, speed: 0, log: true };

    /// A port; speed 0: as fast as it goes.
    pub fn new(port: u32, speed: u32, log: bool) -> Result<Self, BadPort> {
        let bad = || BadPort::Port(port.to_string());
        let port = u8::try_from(port).ok().filter(|port| (1..=4).contains(port)).ok_or_else(bad)?;
        if speed != 0 && !SPEEDS.contains(&speed) {
            return Err(BadPort::Speed(speed.to_string()));
        }
        Ok(Self { port, speed, log })
    }
    /// Its number: 1 is COM1.
    pub fn port(self) -> u8 {
        self.port
    }
    /// Bits a second; 0: as fast as it goes.
    pub fn speed(self) -> u32 {
        self.speed
    }
    /// Whether what comes out of it is logged.
    pub fn log(self) -> bool {
        self.log
    }
    /// All ports of a machine to which these were given: each once, in order, the first always among them.
    pub fn complete(given: &[Self]) -> Result<Vec<Self>, BadPort> {
        let mut all = given.to_vec();
        all.sort_by_key(|port| port.port);
        if let Some(port) = all.windows(2).find_map(|two| two.first().filter(|a| two.last().is_some_and(|b| a.port == b.port))) {
            return Err(BadPort::Twice(port.port));
        }
        if all.first().is_none_or(|first| first.port != 1) {
            all.insert(0, Self::FIRST);
        }
        Ok(all)
    }
}

impl fmt::Display for SerialPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.port)?;
        if self.speed != 0 {
            write!(f, ",speed={}", self.speed)?;
        }
        if self.log { Ok(()) } else { f.write_str(",nolog") }
    }
}

impl FromStr for SerialPort {
    type Err = BadPort;
    fn from_str(text: &str) -> Result<Self, BadPort> {
        let short = |text: &str| text.chars().take(16).flat_map(char::escape_default).collect::<String>();
        let mut parts = text.split(',');
        let port = parts.next().unwrap_or_default();
        let port = port.parse().map_err(|_| BadPort::Port(short(port)))?;
        let (mut speed, mut log) = (0, true);
        for part in parts {
            match part.strip_prefix("speed=") {
                Some(number) => speed = number.parse().map_err(|_| BadPort::Speed(short(number)))?,
                None if part == "nolog" => log = false,
                None => return Err(BadPort::Flag(short(part))),
            }
        }
        Self::new(port, speed, log)
    }
}

impl Serialize for SerialPort {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        (self.port, self.speed, self.log).serialize(s)
    }
}

impl<'de> Deserialize<'de> for SerialPort {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let (port, speed, log) = <(u8, u32, bool)>::deserialize(d)?;
        Self::new(port.into(), speed, log).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_written_as_it_is_read() {
        for text in ["1", "2,speed=9600", "3,nolog", "4,speed=115200,nolog"] {
            assert_eq!(text.parse::<SerialPort>().unwrap().to_string(), text);
        }
        for (text, says) in [
            ("0", "port 0 is not 1 to 4"),
            ("5", "port 5 is not 1 to 4"),
            ("x", "port x is not 1 to 4"),
            ("2,speed=9601", "a speed of 9601 is none of"),
            ("2,speed=", "a speed of  is none of"),
            ("2,log", "`log` is neither speed=N nor nolog"),
        ] {
            let error = text.parse::<SerialPort>().unwrap_err().to_string();
            assert!(error.starts_with(says), "{text}: {error}");
        }
    }

    #[test]
    fn the_first_is_always_there() {
        let port = |text: &str| text.parse::<SerialPort>().unwrap();
        assert_eq!(SerialPort::complete(&[]), Ok(vec![SerialPort::FIRST]));
        assert_eq!(SerialPort::complete(&[port("4"), port("2")]), Ok(vec![SerialPort::FIRST, port("2"), port("4")]));
        assert_eq!(SerialPort::complete(&[port("1,nolog")]), Ok(vec![port("1,nolog")]));
        assert_eq!(SerialPort::complete(&[port("2"), port("3"), port("2,nolog")]), Err(BadPort::Twice(2)));
    }
}
