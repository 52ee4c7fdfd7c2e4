//! A certificate that may change while the server runs. Takes the certificate's files at the start and whenever they
//! change, returns the newest valid version to each TLS handshake. Used by DNS over TLS, QUIC and HTTPS, and by the
//! API.

mod expiry;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use bailiwick_rules::time::Timestamp;
use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_rustls::TlsAcceptor;

use crate::system::file_reload::Renew;
use crate::system::files::{Fault, read_file};

/// The files `cert` and `key` of a section of the configuration, both in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The file of the certificate and of the intermediate certificates.
    pub cert: PathBuf,
    /// The file of the private key.
    pub key: PathBuf,
}

/// The certificate in service.
pub struct Certificate {
    files: TlsFiles,
    current: ArcSwap<CertifiedKey>,
}

impl Certificate {
    /// Reads certificate and key.
    ///
    /// # Errors
    /// An error for each file that can't be read or used, or one if certificate and key don't belong together.
    pub fn read(files: &TlsFiles) -> Result<Arc<Self>, Vec<Fault>> {
        let current = ArcSwap::from_pointee(read(files)?);
        Ok(Arc::new(Self { files: files.clone(), current }))
    }

    /// A warning if clients will refuse the certificate at `now`.
    #[must_use]
    pub fn warning(&self, now: Timestamp) -> Option<String> {
        let (from, until) = expiry::validity(self.current.load().cert.first()?)?;
        let what = match now {
            _ if now > until => format!("expired at {until}: clients refuse it; renew it"),
            _ if now < from => {
                format!("is not valid before {from}: clients refuse it until then; mend its dates, or the clock")
            }
            _ => return None,
        };
        Some(format!("{}: {what}", self.files.cert.display()))
    }

    /// An acceptor of TLS connections for these protocols (ALPN).
    ///
    /// # Errors
    /// If rustls lacks a protocol version or a cipher suite. No build of this program does.
    pub fn acceptor(self: &Arc<Self>, protocols: &[&[u8]]) -> Result<TlsAcceptor, rustls::Error> {
        Ok(TlsAcceptor::from(self.tls(protocols)?))
    }

    /// The TLS configuration for these protocols (ALPN). QUIC uses it directly.
    pub fn tls(self: &Arc<Self>, protocols: &[&[u8]]) -> Result<Arc<ServerConfig>, rustls::Error> {
        let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
        let resolver: Arc<dyn ResolvesServerCert> = Arc::clone(self) as _;
        let mut config = builder.with_no_client_auth().with_cert_resolver(resolver);
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        Ok(Arc::new(config))
    }
}

impl ResolvesServerCert for Certificate {
    /// Serves the certificate to every client, whichever server name the client sends. Resolvers know only the address
    /// of an authoritative server (RFC 9539 §4.6.3.3).
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

impl Renew for Certificate {
    fn files(&self) -> Vec<PathBuf> {
        vec![self.files.cert.clone(), self.files.key.clone()]
    }

    fn renew(&self) -> Result<(), Vec<Fault>> {
        self.current.store(Arc::new(read(&self.files)?));
        Ok(())
    }

    fn expires(&self) -> Option<Timestamp> {
        expiry::of(self.current.load().cert.first()?)
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").field("files", &self.files).finish_non_exhaustive()
    }
}

/// The cryptography for TLS in all parts of this program.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// Reads a certificate chain and its private key, and checks that they belong together.
fn read(files: &TlsFiles) -> Result<CertifiedKey, Vec<Fault>> {
    let certificates = read_file(&files.cert).map_err(PemError::Io);
    let certificates = certificates.and_then(|pem| CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>());
    let certificates = certificates.map_err(|error| broken(&files.cert, "certificates", &error)).and_then(|chain| {
        let none =
            || Fault::of_file(&files.cert, "holds no certificate; write the chain there as PEM, the server's first");
        if chain.is_empty() { Err(none()) } else { Ok(chain) }
    });
    let key = read_file(&files.key).map_err(PemError::Io).and_then(|pem| PrivateKeyDer::from_pem_slice(&pem));
    let key = key.map_err(|error| broken(&files.key, "a private key", &error));
    let (certificates, key) = match (certificates, key) {
        (Ok(certificates), Ok(key)) => (certificates, key),
        (certificates, key) => return Err(certificates.err().into_iter().chain(key.err()).collect()),
    };
    // This also fails if the key doesn't belong to the certificate.
    CertifiedKey::from_der(certificates, key, &provider()).map_err(|error| {
        let message =
            format!("can't serve TLS with the key in {} ({error}); they have to belong together", files.key.display());
        vec![Fault::of_file(&files.cert, message)]
    })
}

fn broken(file: &Path, what: &str, error: &PemError) -> Fault {
    Fault::of_file(file, format!("can't be read as {what} in PEM ({error}); mend its path, mode or content"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(directory: &Path) -> (TlsFiles, CertificateDer<'static>) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let files = TlsFiles { cert: directory.join("api.pem"), key: directory.join("api.key") };
        std::fs::write(&files.cert, made.cert.pem()).unwrap();
        std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
        (files, made.cert.der().clone())
    }

    fn served(certificate: &Certificate) -> CertificateDer<'static> {
        certificate.current.load().cert[0].clone()
    }

    #[test]
    fn unusable_files_are_reported() {
        let directory = tempfile::tempdir().unwrap();
        let (files, _) = write(directory.path());
        let reported = |files: &TlsFiles| match Certificate::read(files) {
            Ok(_) => Vec::new(),
            Err(faults) => faults.iter().map(ToString::to_string).collect::<Vec<_>>(),
        };
        assert!(reported(&files).is_empty());
        let missing = TlsFiles { cert: directory.path().join("no.pem"), key: directory.path().join("no.key") };
        let both = reported(&missing);
        assert!(both.len() == 2 && both[0].contains("no.pem") && both[1].contains("no.key"), "{both:?}");

        let empty = directory.path().join("empty.pem");
        std::fs::write(&empty, "").unwrap();
        assert!(reported(&TlsFiles { cert: empty, ..files.clone() })[0].contains("holds no certificate"));
        let pipe = directory.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        for piped in [TlsFiles { cert: pipe.clone(), ..files.clone() }, TlsFiles { key: pipe, ..files.clone() }] {
            assert!(reported(&piped)[0].contains("is no file but a pipe"), "{:?}", reported(&piped));
        }
        let other = tempfile::tempdir().unwrap();
        let (others, _) = write(other.path());
        assert!(reported(&TlsFiles { key: others.key, ..files })[0].contains("belong together"));
    }

    #[test]
    fn a_certificate_that_is_not_valid_now_causes_a_warning() {
        let directory = tempfile::tempdir().unwrap();
        let mut parameters = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        // From 2050 on, a certificate has the year in the longer form (GeneralizedTime).
        (parameters.not_before, parameters.not_after) =
            (rcgen::date_time_ymd(2026, 2, 3), rcgen::date_time_ymd(2051, 4, 5));
        let key = rcgen::KeyPair::generate().unwrap();
        let files = TlsFiles { cert: directory.path().join("c.pem"), key: directory.path().join("c.key") };
        std::fs::write(&files.cert, parameters.self_signed(&key).unwrap().pem()).unwrap();
        std::fs::write(&files.key, key.serialize_pem()).unwrap();
        let certificate = Certificate::read(&files).unwrap();
        let reported = |at: &str| certificate.warning(Timestamp::parse(at).unwrap());
        assert_eq!(reported("2026-02-03T00:00:00Z"), None);
        assert_eq!(reported("2051-04-04T23:59:59Z"), None);
        assert!(reported("2026-02-02T23:59:59Z").unwrap().contains("c.pem: is not valid before 2026-02-03T00:00:00Z"));
        assert!(reported("2051-04-05T00:00:01Z").unwrap().contains("c.pem: expired at 2051-04-05T00:00:00Z"));
        let der = certificate.current.load().cert[0].to_vec();
        (0..der.len()).for_each(|length| _ = expiry::validity(&der[..length]));
    }

    #[test]
    fn a_new_certificate_is_served_and_a_bad_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let (files, first) = write(directory.path());
        let certificate = Certificate::read(&files).unwrap();
        assert_eq!(served(&certificate), first);
        let (_, second) = write(directory.path());
        certificate.renew().unwrap();
        assert_eq!(served(&certificate), second);
        std::fs::write(&files.key, "no key").unwrap();
        assert!(certificate.renew().unwrap_err()[0].to_string().contains("api.key"));
        assert_eq!(served(&certificate), second);
    }
}
