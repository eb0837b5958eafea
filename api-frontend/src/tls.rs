//! The certificate of the remote API: made at the first start, kept in `STATE/tls`, read before the sandbox is entered.

use rustls_pki_types::{CertificateDer, pem::PemObject};
use sha2::{Digest, Sha256};
use skep_service::{Role, Start, StartError};
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// A certificate with its key.
pub(crate) struct Identity {
    /// PEM.
    pub certificate: String,
    /// PEM.
    pub key: String,
    /// SHA-256 of the certificate's DER, for clients to compare.
    pub fingerprint: String,
}

/// Reads the identity, or makes a self-signed one for the host's name and `address`.
pub(crate) fn identity(start: &Start, address: SocketAddr) -> Result<Identity, StartError> {
    let dir = start.state.join("tls");
    start.own_dir(&dir, Role::Frontend, 0o700)?;
    start.as_role(Role::Frontend, || kept(&dir, address))
}

/// The identity that is kept in `dir`.
fn kept(dir: &Path, address: SocketAddr) -> Result<Identity, StartError> {
    let (certificate, key) = (dir.join("cert.pem"), dir.join("key.pem"));
    if !certificate.exists() {
        make(address, &certificate, &key)?;
    }
    let read = |path: &Path| fs::read_to_string(path).map_err(StartError::step(format!("read {}", path.display())));
    let (pem, key) = (read(&certificate)?, read(&key)?);
    let bad = |e| StartError::step(format!("read {}", certificate.display()))(io::Error::new(io::ErrorKind::InvalidData, e));
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|e| bad(e.to_string()))?;
    let fingerprint = Sha256::digest(der).iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(":");
    Ok(Identity { certificate: pem, key, fingerprint })
}

fn make(address: SocketAddr, certificate: &Path, key: &Path) -> Result<(), StartError> {
    let mut names = vec!["localhost".to_owned()];
    names.extend(nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()));
    if !address.ip().is_unspecified() {
        names.push(address.ip().to_string());
    }
    let failed = |e: rcgen::Error| StartError::step("make a certificate")(io::Error::other(e.to_string()));
    let made = rcgen::generate_simple_self_signed(names).map_err(failed)?;
    // The key first: a certificate that is there has its key.
    write(key, 0o600, &made.signing_key.serialize_pem())?;
    write(certificate, 0o644, &made.cert.pem())
}

fn write(path: &Path, mode: u32, text: &str) -> Result<(), StartError> {
    let step = |what: &str| StartError::step(format!("{what} {}", path.display()));
    let beside = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&beside).map_err(step("make"))?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(step("write"))?;
    fs::rename(&beside, path).map_err(step("put in place"))
}
