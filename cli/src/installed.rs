//! The installed suite: the one that rc.d or systemd run. Where it lives stands in one file, which the service manager's scripts and
//! this command read alike.

use nix::unistd::User;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Where it lives, and as whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// STATE.
    pub state: PathBuf,
    /// RUN.
    pub run: PathBuf,
    /// The first uid of machines.
    pub machines: u32,
    /// The remote API's address, if it is served.
    pub listen: Option<SocketAddr>,
    /// Where metrics are served, if they are.
    pub metrics: Option<SocketAddr>,
    /// The host's interfaces that switches may have as uplinks, between commas, as they stand there.
    pub uplinks: Option<String>,
    /// Networks inside that images may be fetched from, likewise.
    pub fetch_from: Option<String>,
    /// Networks that portals of iSCSI targets may be in, likewise.
    pub iscsi_portals: Option<String>,
    /// Directories that machines may share, with their names, between commas, as they stand there.
    pub shares: Option<String>,
    /// The dataset below which ZFS volumes are kept (FreeBSD).
    pub dataset: Option<String>,
}

/// Root's suite lives here unless the file says otherwise.
pub const RUN: &str = "/var/run/skep";
/// The first of the uids of machines, unless the file says otherwise.
const MACHINES: u32 = 72_000;

/// What the file lets one choose.
const NAMES: [&str; 10] =
    ["state", "run", "machines", "listen", "metrics", "uplinks", "fetch_from", "iscsi_portals", "shares", "dataset"];

/// What is wrong with the file, or with the users of the services.
#[derive(Debug, thiserror::Error)]
pub enum ConfError {
    /// It is there and cannot be read.
    #[error("read {}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A line of it.
    #[error("{}: line {line}: {why}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line's number.
        line: usize,
        /// What is wrong.
        why: String,
    },
    /// A user that the services need.
    #[error("user {name}: {why}")]
    User {
        /// Its name.
        name: String,
        /// What is wrong.
        why: String,
    },
}

impl Installed {
    /// From the file that `SKEP_CONF` names, else from where packages put it. `None`: there is no such file, so nothing is installed.
    pub fn read() -> Result<Option<Self>, ConfError> {
        let given = std::env::var_os("SKEP_CONF").filter(|v| !v.is_empty());
        let path = given.map_or_else(|| PathBuf::from(crate::platform::CONF), PathBuf::from);
        match std::fs::read_to_string(&path) {
            Ok(text) => Self::parse(&text).map(Some).map_err(|(line, why)| ConfError::Line { path, line, why }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(ConfError::Read { path, error }),
        }
    }

    /// `NAME = VALUE` a line; `#` begins a remark.
    pub(crate) fn parse(text: &str) -> Result<Self, (usize, String)> {
        let mut given = BTreeMap::new();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            let (name, value) = line.split_once('=').ok_or_else(|| (number, format!("`{line}`: NAME = VALUE is expected")))?;
            let (name, value) = (name.trim(), value.trim());
            if !NAMES.contains(&name) {
                return Err((number, format!("`{name}`: none of {}", NAMES.join(", "))));
            }
            if given.insert(name.to_owned(), (number, value.to_owned())).is_some() {
                return Err((number, format!("`{name}` was given before")));
            }
        }
        let path = |name: &str, otherwise: &str| match given.get(name) {
            // The scripts of the service manager, jail.conf(5) and mount tables see them, too.
            Some((number, text)) => {
                let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
                let good = text.starts_with('/') && text.len() > 1 && text.chars().all(plain);
                let wrong = || (*number, format!("`{text}`: an absolute path of letters, digits and /._- is expected"));
                if good { Ok(PathBuf::from(text)) } else { Err(wrong()) }
            }
            None => Ok(PathBuf::from(otherwise)),
        };
        let (state, run) = (path("state", crate::platform::STATE)?, path("run", RUN)?);
        let machines = given.get("machines").map_or(Ok(MACHINES), |(number, text)| {
            let last = u32::MAX - skep_service::UIDS;
            let wrong = || (*number, format!("`{text}`: a uid from 1000 to {last} is expected"));
            text.parse().ok().filter(|uid| (1000..=last).contains(uid)).ok_or_else(wrong)
        })?;
        let address = |name: &str, such: &str| {
            let parse = |(number, text): &(usize, String)| {
                text.parse().map_err(|_| (*number, format!("`{text}`: ADDRESS:PORT is expected, such as {such}")))
            };
            given.get(name).map(parse).transpose()
        };
        let (listen, metrics) = (address("listen", "192.0.2.1:8443")?, address("metrics", "127.0.0.1:9177")?);
        let uplinks = given.get("uplinks").map(|(_, text)| text.clone());
        let fetch_from = given.get("fetch_from").map(|(_, text)| text.clone());
        let iscsi_portals = given.get("iscsi_portals").map(|(_, text)| text.clone());
        let shares = given.get("shares").map(|(_, text)| text.clone());
        let dataset = given.get("dataset").map(|(_, text)| text.clone());
        Ok(Self { state, run, machines, listen, metrics, uplinks, fetch_from, iscsi_portals, shares, dataset })
    }

    /// `--ids`: a system user for each service, and the machines' block.
    pub fn ids(&self, services: &[&str]) -> Result<String, ConfError> {
        let mut parts: Vec<String> = Vec::new();
        let mut seen = BTreeMap::new();
        for service in services {
            let name = user_of(service);
            let wrong = |why: String| ConfError::User { name: name.clone(), why };
            let user = User::from_name(&name).map_err(|e| wrong(e.to_string()))?;
            let user = user.ok_or_else(|| wrong(format!("there is none: {}", crate::platform::make_user(&name))))?;
            let (uid, gid) = (user.uid.as_raw(), user.gid.as_raw());
            if uid == 0 || gid == 0 {
                return Err(wrong("it may be neither root nor of root's group".into()));
            }
            if self.is_machines(uid) {
                return Err(wrong(format!("its uid {uid} is one of those of machines, from {}", self.machines)));
            }
            if let Some(other) = seen.insert(uid, name.clone()) {
                return Err(wrong(format!("it has the uid {uid} of {other}")));
            }
            parts.push(format!("{service}={uid}:{gid}"));
        }
        parts.push(format!("machines={}", self.machines));
        Ok(parts.join(","))
    }

    /// Whether a machine may get this uid.
    fn is_machines(&self, uid: u32) -> bool {
        uid.checked_sub(self.machines).is_some_and(|offset| offset < skep_service::UIDS)
    }

    /// Whether it lives there.
    pub fn lives_in(&self, state: &Path, run: &Path) -> bool {
        self.state == state && self.run == run
    }
}

/// The system user of a service has the name of its program.
fn user_of(service: &str) -> String {
    format!("skep-{service}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_means_the_defaults() {
        let installed = Installed::parse("# nothing\n\n").expect("valid");
        assert_eq!((installed.run.to_str(), installed.machines, installed.listen), (Some(RUN), MACHINES, None));
        assert_eq!(installed.state, Path::new(crate::platform::STATE));
    }

    #[test]
    fn the_sample_means_the_defaults() {
        let sample = include_str!("../../packaging/skep.conf");
        assert_eq!(Installed::parse(sample), Installed::parse(""));
        let on = sample.lines().filter_map(|line| line.strip_prefix('#')).filter(|line| !line.starts_with(' '));
        let on = on.collect::<Vec<_>>().join("\n");
        // Each setting that the sample shows can be switched on as it stands.
        let installed = Installed::parse(&on.replace("%%STATE%%", "/s")).expect("valid");
        assert!(installed.listen.is_some() && installed.state == Path::new("/s"), "{on}");
    }

    #[test]
    fn what_is_given_counts() {
        let text = "state = /data/skep # here\nrun=/tmp/r\nmachines = 90000\nlisten = [::1]:8443\nuplinks = em0, em1\nshares = src=/srv/a, out=/b\n";
        let installed = Installed::parse(text).expect("valid");
        assert!(installed.lives_in(Path::new("/data/skep"), Path::new("/tmp/r")));
        assert_eq!((installed.machines, installed.listen.map(|a| a.port())), (90_000, Some(8443)));
        assert_eq!(installed.uplinks.as_deref(), Some("em0, em1"));
        assert_eq!(installed.shares.as_deref(), Some("src=/srv/a, out=/b"));
        assert!(installed.is_machines(90_000) && installed.is_machines(93_999));
        assert!(!installed.is_machines(94_080) && installed.is_machines(94_079) && !installed.is_machines(89_999));
    }

    #[test]
    fn a_wrong_line_is_named_with_what_is_wrong() {
        for (text, line, why) in [
            ("\nstate\n", 2, "`state`: NAME = VALUE is expected"),
            (
                "stat = /x",
                1,
                "`stat`: none of state, run, machines, listen, metrics, uplinks, fetch_from, iscsi_portals, shares, dataset",
            ),
            ("run = /x\nrun = /y", 2, "`run` was given before"),
            ("state = x", 1, "`x`: an absolute path of letters, digits and /._- is expected"),
            ("state = /a b", 1, "`/a b`: an absolute path of letters, digits and /._- is expected"),
            ("run = /a;reboot", 1, "`/a;reboot`: an absolute path of letters, digits and /._- is expected"),
            ("run =", 1, "``: an absolute path of letters, digits and /._- is expected"),
            ("machines = 0", 1, "`0`: a uid from 1000 to 4294963215 is expected"),
            ("metrics = 9177", 1, "`9177`: ADDRESS:PORT is expected, such as 127.0.0.1:9177"),
            ("listen = 8443", 1, "`8443`: ADDRESS:PORT is expected, such as 192.0.2.1:8443"),
        ] {
            assert_eq!(Installed::parse(text), Err((line, why.to_owned())), "{text}");
        }
    }

    #[test]
    fn a_user_that_is_missing_is_named_with_the_command_that_makes_it() {
        let installed = Installed::parse("").expect("valid");
        let error = installed.ids(&["no-such"]).expect_err("no such user").to_string();
        assert!(error.starts_with("user skep-no-such: there is none: ") && error.contains("skep-no-such"), "{error}");
    }
}
