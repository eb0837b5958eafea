//! Logins, in a file of the user's that nobody else may read.

use super::Address;
use crate::error::Failure;
use serde_json::{Value, json};
use skep_proto::Reason;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::PathBuf;
use zeroize::Zeroizing;

/// One login.
#[derive(Clone)]
pub struct Login {
    /// Where.
    pub address: Address,
    /// SHA-256 of the certificate there.
    pub fingerprint: String,
    /// As whom.
    pub user: String,
    /// The token's name.
    pub name: String,
    /// The token.
    pub token: Zeroizing<String>,
    /// When it ends.
    pub expires: String,
}

/// All of them.
pub struct Logins {
    path: PathBuf,
    all: Vec<Login>,
}

impl Logins {
    /// Reads `~/.config/skep/logins.json`; without it there are none.
    pub fn read() -> Result<Self, Failure> {
        let path = path()?;
        let failed = |what: &str, e: &io::Error| Failure::io(path.display(), what, e);
        let text = match OpenOptions::new().read(true).custom_flags(nix::fcntl::OFlag::O_NOFOLLOW.bits()).open(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Self { path, all: Vec::new() }),
            Err(e) => return Err(failed("open", &e)),
            Ok(file) => {
                let meta = file.metadata().map_err(|e| failed("look at", &e))?;
                if meta.mode() & 0o077 != 0 || meta.uid() != nix::unistd::geteuid().as_raw() {
                    let note = format!("others may read or write it (mode {:o}, uid {})", meta.mode() & 0o777, meta.uid());
                    let failure = Failure::new(Reason::PermissionDenied, path.display(), note);
                    return Err(failure.advice(format_args!("`chmod 600 {}`, and log in again", path.display())));
                }
                Zeroizing::new(io::read_to_string(file).map_err(|e| failed("read", &e))?)
            }
        };
        let all = parse(&text).ok_or_else(|| {
            let failure = Failure::new(Reason::InvalidValue, path.display(), "it is not what `skep login` writes");
            failure.advice("delete it, and log in again")
        })?;
        Ok(Self { path, all })
    }

    /// The one for an address.
    pub fn of(&self, address: &Address) -> Option<&Login> {
        self.all.iter().find(|login| login.address == *address)
    }

    /// The only one there is.
    pub fn only(&self) -> Option<&Login> {
        match self.all.as_slice() {
            [login] => Some(login),
            _ => None,
        }
    }

    /// Keeps one in place of the one for its address.
    pub fn keep(mut self, login: Login) -> Result<(), Failure> {
        self.all.retain(|other| other.address != login.address);
        self.all.push(login);
        self.write()
    }

    /// Forgets the one for an address.
    pub fn forget(mut self, address: &Address) -> Result<(), Failure> {
        self.all.retain(|other| other.address != *address);
        self.write()
    }

    fn write(&self) -> Result<(), Failure> {
        let all: Vec<Value> = self.all.iter().map(of_login).collect();
        let text = Zeroizing::new(format!("{:#}\n", json!({"logins": all})));
        self.replace(&text).map_err(|e| Failure::io(self.path.display(), "write", &e))
    }

    fn replace(&self, text: &str) -> io::Result<()> {
        if let Some(dir) = self.path.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        }
        let beside = self.path.with_extension(format!("new{}", std::process::id()));
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
        let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
        let written = written.and_then(|()| fs::rename(&beside, &self.path));
        if written.is_err() {
            let _ = fs::remove_file(&beside);
        }
        written
    }
}

fn path() -> Result<PathBuf, Failure> {
    let env = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let config = env("XDG_CONFIG_HOME").or_else(|| env("HOME").map(|home| home.join(".config")));
    let config = config.filter(|path| path.is_absolute());
    let nowhere = || Failure::new(Reason::NotFound, "logins", "neither XDG_CONFIG_HOME nor HOME says where they are");
    Ok(config.ok_or_else(nowhere)?.join("skep/logins.json"))
}

fn of_login(login: &Login) -> Value {
    json!({
        "address": login.address.to_string(),
        "fingerprint": login.fingerprint,
        "user": login.user,
        "name": login.name,
        "token": *login.token,
        "expires": login.expires,
    })
}

fn parse(text: &str) -> Option<Vec<Login>> {
    let value: Value = serde_json::from_str(text).ok()?;
    let one = |value: &Value| {
        let text = |name: &str| Some(value.get(name)?.as_str()?.to_owned());
        Some(Login {
            address: text("address")?.parse().ok()?,
            fingerprint: text("fingerprint")?,
            user: text("user")?,
            name: text("name")?,
            token: text("token")?.into(),
            expires: text("expires")?,
        })
    };
    value.get("logins")?.as_array()?.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_login_is_kept_for_its_user_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("skep/logins.json");
        let login = |host: &str, token: &str| Login {
            address: host.parse().expect("an address"),
            fingerprint: "aa".into(),
            user: "alice".into(),
            name: "n".into(),
            token: token.to_owned().into(),
            expires: String::new(),
        };
        let empty = || Logins { path: path.clone(), all: Vec::new() };
        empty().keep(login("a", "one")).expect("written");
        let mode = fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let all = parse(&fs::read_to_string(&path).expect("readable")).expect("whole");
        let logins = Logins { path: path.clone(), all };
        assert_eq!(logins.only().map(|login| login.token.as_str()), Some("one"));
        logins.keep(login("b", "two")).expect("written");
        let all = parse(&fs::read_to_string(&path).expect("readable")).expect("whole");
        let logins = Logins { path: path.clone(), all };
        assert!(logins.only().is_none() && logins.of(&"b".parse().expect("an address")).is_some());
        logins.forget(&"a".parse().expect("an address")).expect("written");
        assert_eq!(fs::read_dir(dir.path().join("skep")).expect("there").count(), 1, "nothing else stays");
        for wrong in ["", "{}", "{\"logins\": [{}]}", "{\"logins\": 1}"] {
            assert!(parse(wrong).is_none(), "{wrong}");
        }
    }
}
