//! The certificate authorities that health checks trust: those of the system, or those of a monitor's `ca_file`. Takes
//! the path of a file, returns a TLS configuration. Called before each probe, and once per file by `bailiwick check`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use bailiwick_host::certificate::provider;
use bailiwick_host::system::files::Stamp;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt;

use crate::state::load::{Fault, read_file};

/// The line before a certificate in PEM (RFC 7468 §5.1).
const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
/// The line after a certificate in PEM.
const END: &str = "-----END CERTIFICATE-----";

/// The authorities of all monitors.
#[derive(Debug)]
pub(super) struct Authorities {
    /// Trusts the system's authorities.
    system: ClientConfig,
    /// The directory that relative paths start from.
    directory: PathBuf,
    files: Mutex<HashMap<PathBuf, CachedFile>>,
}

/// A `ca_file` as it was last read.
#[derive(Debug)]
struct CachedFile {
    /// The file's size and times when it was last read.
    stamp: Option<Stamp>,
    /// The configuration that trusts the last valid version of the file.
    last_valid: Option<ClientConfig>,
    /// The mistake in the file's current version.
    fault: Option<Fault>,
}

impl Authorities {
    /// Loads the system's authorities. Each monitor's `ca_file` is read when a probe first needs it.
    ///
    /// # Errors
    /// When TLS can't be set up; the text says why.
    pub(super) fn new(directory: &Path) -> Result<Self, rustls::Error> {
        let (system, directory) = (system()?, directory.to_owned());
        Ok(Self { system, directory, files: Mutex::default() })
    }

    /// A configuration that trusts the system's authorities.
    pub(super) fn of_system(&self) -> &ClientConfig {
        &self.system
    }

    /// A configuration that trusts only the authorities of a file. A changed file is read again. If the new version is
    /// invalid, the last valid version stays in use.
    ///
    /// # Errors
    /// If no version of the file was valid.
    pub(super) fn of_file(&self, path: &str) -> Result<ClientConfig, Fault> {
        let path = self.directory.join(path);
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let file = files.entry(path.clone()).or_insert(CachedFile { stamp: None, last_valid: None, fault: None });
        let stamp = Some(Stamp::of(&path));
        let was_read = file.last_valid.is_some() || file.fault.is_some();
        if !was_read || stamp != file.stamp {
            file.stamp = stamp;
            match read(&path) {
                Ok(valid) => {
                    file.last_valid = Some(valid);
                    file.fault = None;
                }
                Err(fault) => {
                    if file.last_valid.is_some() && file.fault.as_ref() != Some(&fault) {
                        tracing::error!("{fault}; the version before it stays in service");
                    }
                    file.fault = Some(fault);
                }
            }
        }
        match (&file.last_valid, &file.fault) {
            (Some(config), _) => Ok(config.clone()),
            (None, Some(fault)) => Err(fault.clone()),
            (None, None) => Err(Fault::of_file(&path, "wasn't read, by a fault of this program")),
        }
    }
}

/// A configuration that trusts the system's authorities. If the system has none, it trusts nobody.
///
/// # Errors
/// When TLS can't be set up.
pub(crate) fn system() -> Result<ClientConfig, rustls::Error> {
    let builder = || ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let system = match builder()?.with_platform_verifier() {
        Ok(system) => system.with_no_client_auth(),
        Err(error) => {
            tracing::warn!(
                "this system has no certificate authorities ({error}): https monitors and peers without a ca_file \
                 fail; install them (ca-certificates), or name a ca_file"
            );
            builder()?.with_root_certificates(RootCertStore::empty()).with_no_client_auth()
        }
    };
    Ok(with_http_alpn(system))
}

/// Reads a file of authorities into a configuration that trusts only them.
///
/// # Errors
/// The mistake in the file, with its line.
pub(crate) fn read(path: &Path) -> Result<ClientConfig, Fault> {
    let pem = read_file(path).map_err(|error| {
        Fault::of_file(
            path,
            format!("can't be read ({error}); a monitor's ca_file names it: mend the path, or put the file there"),
        )
    })?;
    let roots = parse(&pem).map_err(|(line, message)| {
        let place = line.map_or_else(|| path.display().to_string(), |line| format!("{}:{line}", path.display()));
        Fault { place, message }
    })?;
    let failed = |error: rustls::Error| Fault::of_file(path, format!("can't be used for TLS ({error})"));
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    Ok(with_http_alpn(builder.map_err(failed)?.with_root_certificates(roots).with_no_client_auth()))
}

/// The certificates in a PEM text. Text between the certificates is ignored, because the bundles of distributions have
/// comments there. An error is the line where the faulty certificate begins (`None` if there is no certificate at all)
/// and a message.
fn parse(pem: &[u8]) -> Result<RootCertStore, (Option<usize>, String)> {
    let mut roots = RootCertStore::empty();
    let text = String::from_utf8_lossy(pem);
    // The certificate that is being read: the number of its first line, and its text so far.
    let mut begun: Option<(usize, String)> = None;
    for (number, line) in (1..).zip(text.lines().map(str::trim)) {
        match (&mut begun, line) {
            (Some((first, _)), BEGIN) => return Err(unended(*first)),
            (None, BEGIN) => begun = Some((number, format!("{line}\n"))),
            (Some((first, block)), END) => {
                *block += END;
                let first = *first;
                let certificate = CertificateDer::from_pem_slice(block.as_bytes()).map_err(|error| {
                    (Some(first), format!("holds no readable PEM here ({error}); copy the certificate anew"))
                })?;
                roots.add(certificate).map_err(|error| {
                    let message =
                        format!("holds what is no certificate here ({error}); copy the authority's certificate anew");
                    (Some(first), message)
                })?;
                begun = None;
            }
            (Some((_, block)), _) => {
                block.push_str(line);
                block.push('\n');
            }
            (None, _) => {}
        }
    }
    match begun {
        Some((first, _)) => Err(unended(first)),
        None if roots.is_empty() => {
            let message = "holds no certificate; write the authority's certificate there as PEM (one of DER becomes \
                PEM by \
                           `openssl x509 -inform der`)";
            Err((None, message.to_owned()))
        }
        None => Ok(roots),
    }
}

/// The error for a certificate that begins in this line and has no end.
fn unended(line: usize) -> (Option<usize>, String) {
    (Some(line), "begins a certificate that doesn't end; the file was cut, copy it anew".to_owned())
}

/// Adds HTTP/1.1 as the protocol to negotiate (ALPN, RFC 7301).
fn with_http_alpn(mut config: ClientConfig) -> ClientConfig {
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// A self-signed certificate in PEM.
    fn certificate() -> String {
        rcgen::generate_simple_self_signed(["gpu.example.net".to_owned()]).unwrap().cert.pem()
    }

    #[test]
    fn a_bundle_is_read_with_any_text_between_its_certificates() {
        let bundle = format!("# ours\n{}\n\nsubject=theirs\r\n{}", certificate(), certificate().replace('\n', "\r\n"));
        assert_eq!(parse(bundle.as_bytes()).unwrap().len(), 2);
    }

    #[test]
    fn an_error_names_the_line_of_the_faulty_certificate() {
        let good = certificate();
        let lines = good.lines().count();
        let error_of = |text: &str| {
            let (line, message) = parse(text.as_bytes()).unwrap_err();
            (line, message.split([';', '(']).next().unwrap().trim().to_owned())
        };
        let no_certificate = (None, "holds no certificate".to_owned());
        assert_eq!(error_of(""), no_certificate);
        assert_eq!(error_of("-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n"), no_certificate);
        let unended = "begins a certificate that doesn't end";
        let cut = good.lines().take(lines - 1).collect::<Vec<_>>().join("\n");
        assert_eq!(error_of(&format!("{good}{cut}")), (Some(lines + 1), unended.to_owned()));
        assert_eq!(error_of(&format!("\n{cut}\n{good}")), (Some(2), unended.to_owned()));
        let garbled = format!("{good}{BEGIN}\n!!!\n{END}\n");
        assert_eq!(error_of(&garbled), (Some(lines + 1), "holds no readable PEM here".to_owned()));
        let empty = format!("{good}{BEGIN}\nAAAA\n{END}\n");
        assert_eq!(error_of(&empty), (Some(lines + 1), "holds what is no certificate here".to_owned()));
    }

    #[test]
    fn a_changed_file_is_read_again_and_its_last_good_version_stays() {
        let directory = tempfile::tempdir().unwrap();
        let authorities = Authorities::new(directory.path()).unwrap();
        let write = |name: &str, text: &str| {
            std::fs::write(directory.path().join("new"), text).unwrap();
            std::fs::rename(directory.path().join("new"), directory.path().join(name)).unwrap();
        };
        let path = directory.path().join("ca.pem");
        // Every time a file is read, a new crypto provider is made. So its address tells whether the file was read.
        let provider_of = |config: &ClientConfig| Arc::as_ptr(config.crypto_provider());
        let missing = authorities.of_file("ca.pem").unwrap_err().to_string();
        assert!(missing.starts_with(&format!("{}: can't be read (", path.display())), "{missing}");
        write("ca.pem", &certificate());
        let first = authorities.of_file("ca.pem").unwrap();
        assert_eq!(
            provider_of(&authorities.of_file("ca.pem").unwrap()),
            provider_of(&first),
            "an unchanged file isn't read again"
        );
        write("ca.pem", &certificate());
        let second = authorities.of_file("ca.pem").unwrap();
        assert_ne!(provider_of(&second), provider_of(&first), "a changed file is read again");
        write("ca.pem", "garbage");
        assert_eq!(
            provider_of(&authorities.of_file("ca.pem").unwrap()),
            provider_of(&second),
            "the last valid version stays"
        );
        std::fs::remove_file(&path).unwrap();
        assert_eq!(provider_of(&authorities.of_file("ca.pem").unwrap()), provider_of(&second));
        write("ca.pem", &certificate());
        assert_ne!(provider_of(&authorities.of_file("ca.pem").unwrap()), provider_of(&second));
    }
}
