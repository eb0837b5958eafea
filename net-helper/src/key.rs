//! This host's key of WireGuard: `STATE/wireguard.key`, in the form of `wg genkey`, so that an administrator may bring his own. It is read
//! while the helper still may, and nobody but the kernel is given it.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use nix::unistd::geteuid;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use zeroize::Zeroizing;

/// Name of its file.
const FILE: &str = "wireguard.key";

/// A private key.
#[derive(Clone)]
pub struct PrivateKey(Zeroizing<[u8; 32]>);

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey")
    }
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read or made.
    #[error("STATE/{FILE}: {0}")]
    Io(#[from] io::Error),
    /// Others could have read or written it.
    #[error("STATE/{FILE} must be a file of root's with mode 0600: nobody else may have read it")]
    Shared,
    /// It is not a key.
    #[error("STATE/{FILE} is not a key as `wg genkey` writes one; remove it, and another is made")]
    Text,
    /// The helper was not to have one.
    #[error("a helper without rights has no key of WireGuard")]
    None,
}

impl PrivateKey {
    /// Its bytes.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The one of this suite, made if there is none.
    pub fn of(state: &Path) -> Result<Self, KeyError> {
        let path = state.join(FILE);
        match Self::read(&path) {
            Err(KeyError::Io(e)) if e.kind() == io::ErrorKind::NotFound => Self::make(state, &path),
            result => result,
        }
    }

    fn read(path: &Path) -> Result<Self, KeyError> {
        let file = File::options().read(true).custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK).open(path)?;
        let about = file.metadata()?;
        if !about.is_file() || about.uid() != geteuid().as_raw() || about.mode() & 0o077 != 0 {
            return Err(KeyError::Shared);
        }
        let mut text = Zeroizing::new(Vec::with_capacity(64));
        file.take(64).read_to_end(&mut text)?;
        let bytes = Zeroizing::new(BASE64_STANDARD.decode(text.trim_ascii()).map_err(|_| KeyError::Text)?);
        let mut key = Zeroizing::new([0; 32]);
        if bytes.len() != key.len() {
            return Err(KeyError::Text);
        }
        key.copy_from_slice(&bytes);
        Ok(Self(key))
    }

    /// Whole or not at all: a helper may be killed at any time.
    fn make(state: &Path, path: &Path) -> Result<Self, KeyError> {
        let mut key = Zeroizing::new([0; 32]);
        File::open("/dev/urandom")?.read_exact(&mut *key)?;
        // As X25519 takes it (RFC 7748), and `wg genkey` writes it.
        let [first, .., last] = &mut *key;
        *first &= 248;
        *last = *last & 127 | 64;
        let new = state.join(format!("{FILE}.new"));
        match fs::remove_file(&new) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e.into()),
            _ => {}
        }
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&new)?;
        let text = Zeroizing::new(BASE64_STANDARD.encode(*key) + "\n");
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        Ok(Self(key))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn a_key_is_made_once_and_read_as_wg_writes_it() {
        let dir = tempfile::tempdir().unwrap();
        // What one that was killed left.
        fs::write(dir.path().join("wireguard.key.new"), "half").unwrap();
        let made = PrivateKey::of(dir.path()).unwrap();
        assert!(made.bytes()[0] & 7 == 0 && made.bytes()[31] & 0xc0 == 0x40);
        assert_eq!(PrivateKey::of(dir.path()).unwrap().bytes(), made.bytes());
        let path = dir.path().join(FILE);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert_eq!(format!("{made:?}"), "PrivateKey");
        // An administrator's.
        let text = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=\n";
        fs::write(&path, text).unwrap();
        assert_eq!(PrivateKey::of(dir.path()).unwrap().bytes()[..4], [0xc8, 0x09, 0xf3, 0xe5]);
        for wrong in ["", "x\n", &text[..40], "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=AAAA"] {
            fs::write(&path, wrong).unwrap();
            assert!(matches!(PrivateKey::of(dir.path()), Err(KeyError::Text)), "{wrong}");
        }
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(PrivateKey::of(dir.path()), Err(KeyError::Shared)));
        fs::remove_file(&path).unwrap();
        symlink("elsewhere", &path).unwrap();
        assert!(matches!(PrivateKey::of(dir.path()), Err(KeyError::Io(_))));
    }
}
