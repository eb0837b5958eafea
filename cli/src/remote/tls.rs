//! TLS with one certificate: the one whose SHA-256 was pinned. Who signed it, for which name and until when says nothing.

use super::Address;
use sha2::{Digest, Sha256};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, SignatureScheme};

/// How long a connection may take until it can be used.
const PATIENCE: Duration = Duration::from_secs(20);

/// Takes one certificate, and remembers which it saw.
#[derive(Debug)]
struct Pinned {
    fingerprint: Option<String>,
    seen: Arc<Mutex<Option<String>>>,
    provider: Arc<CryptoProvider>,
}

/// SHA-256 in pairs of digits with colons, as the frontend logs it.
fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    Sha256::digest(certificate).iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(":")
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self, certificate: &CertificateDer<'_>, _: &[CertificateDer<'_>], _: &ServerName<'_>, _: &[u8], _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let got = fingerprint(certificate);
        let good = self.fingerprint.as_ref() == Some(&got);
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(got);
        if good {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
        }
    }

    fn verify_tls12_signature(
        &self, message: &[u8], certificate: &CertificateDer<'_>, signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self, message: &[u8], certificate: &CertificateDer<'_>, signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The certificate there is not the one that was pinned.
#[derive(Debug, thiserror::Error)]
#[error("the certificate there has the fingerprint {seen}, not {pinned}")]
pub struct Changed {
    seen: String,
    pinned: String,
}

async fn handshake(address: &Address, pinned: Option<&str>) -> (io::Result<TlsStream<TcpStream>>, Option<String>) {
    let (provider, seen) = (Arc::new(ring::default_provider()), Arc::new(Mutex::new(None)));
    let verifier = Pinned { fingerprint: pinned.map(str::to_owned), seen: seen.clone(), provider: provider.clone() };
    let connecting = async {
        let config =
            ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().map_err(io::Error::other)?;
        let mut config = config.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let name = ServerName::try_from(address.host.clone()).map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?;
        let socket = TcpStream::connect((address.host.as_str(), address.port)).await?;
        socket.set_nodelay(true)?;
        TlsConnector::from(Arc::new(config)).connect(name, socket).await
    };
    let late = || Err(io::Error::new(io::ErrorKind::TimedOut, "no answer"));
    let result = timeout(PATIENCE, connecting).await.unwrap_or_else(|_| late());
    let seen = seen.lock().unwrap_or_else(PoisonError::into_inner).take();
    (result, seen)
}

/// Connects to whom the certificate with this fingerprint belongs.
pub async fn connect(address: &Address, pinned: &str) -> io::Result<TlsStream<TcpStream>> {
    match handshake(address, Some(pinned)).await {
        (Err(_), Some(seen)) if seen != pinned => Err(io::Error::other(Changed { seen, pinned: pinned.to_owned() })),
        (result, _) => result,
    }
}

/// The fingerprint of the certificate there. Nothing is sent to it.
pub async fn first_look(address: &Address) -> io::Result<String> {
    match handshake(address, None).await {
        (_, Some(seen)) => Ok(seen),
        (Err(error), None) => Err(error),
        (Ok(_), None) => Err(io::Error::other("it showed no certificate")),
    }
}
