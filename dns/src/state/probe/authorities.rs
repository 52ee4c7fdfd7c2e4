//! The certificate authorities that probes trust: the system's, or those of a monitor's `ca_file`. Takes the path of a
//! file, returns a TLS configuration. Called before each probe, and once for each file by `bailiwick check`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt;

use crate::net::certificate::provider;
use crate::state::load::{Fault, read_file};
use crate::system::files::Stamp;

/// What begins and ends a certificate in PEM (RFC 7468 §5.1).
const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

/// The authorities of all monitors.
#[derive(Debug)]
pub(super) struct Authorities {
    system: ClientConfig,
    /// Where relative paths start.
    directory: PathBuf,
    files: Mutex<HashMap<PathBuf, CachedFile>>,
}

/// A file as it was last read.
#[derive(Debug)]
struct CachedFile {
    /// Its size and times when it was read.
    stamp: Option<Stamp>,
    /// Its last valid version.
    good: Option<ClientConfig>,
    /// What is wrong with it now.
    fault: Option<Fault>,
}

impl Authorities {
    /// Trusts the system's authorities. The files of monitors are read when they are needed.
    ///
    /// # Errors
    /// When TLS can't be set up; the text says why.
    pub(super) fn new(directory: &Path) -> Result<Self, rustls::Error> {
        let builder = || ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
        let system = match builder()?.with_platform_verifier() {
            Ok(system) => system.with_no_client_auth(),
            Err(error) => {
                tracing::warn!(
                    "this system has no certificate authorities ({error}): https monitors without a ca_file fail; \
                     install them (ca-certificates), or name a ca_file"
                );
                builder()?.with_root_certificates(RootCertStore::empty()).with_no_client_auth()
            }
        };
        let (system, directory) = (speaking_http(system), directory.to_owned());
        Ok(Self { system, directory, files: Mutex::default() })
    }

    /// A configuration that trusts the system's authorities.
    pub(super) fn of_system(&self) -> &ClientConfig {
        &self.system
    }

    /// A configuration that trusts only the authorities of a file. A changed file is read again. If it is invalid, its
    /// last valid version is trusted.
    ///
    /// # Errors
    /// If no version of it was valid.
    pub(super) fn of_file(&self, path: &str) -> Result<ClientConfig, Fault> {
        let path = self.directory.join(path);
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = files.entry(path.clone()).or_insert(CachedFile { stamp: None, good: None, fault: None });
        let now = Some(Stamp::of(&path));
        let is_read = kept.good.is_some() || kept.fault.is_some();
        if !is_read || now != kept.stamp {
            kept.stamp = now;
            match read(&path) {
                Ok(good) => {
                    kept.good = Some(good);
                    kept.fault = None;
                }
                Err(fault) => {
                    if kept.good.is_some() && kept.fault.as_ref() != Some(&fault) {
                        tracing::error!("{fault}; the version before it stays in service");
                    }
                    kept.fault = Some(fault);
                }
            }
        }
        match (&kept.good, &kept.fault) {
            (Some(good), _) => Ok(good.clone()),
            (None, Some(fault)) => Err(fault.clone()),
            (None, None) => Err(Fault::of_file(&path, "wasn't read, by a fault of this program")),
        }
    }
}

/// Reads a file of authorities.
///
/// # Errors
/// What is wrong with it, with the line.
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
    Ok(speaking_http(builder.map_err(failed)?.with_root_certificates(roots).with_no_client_auth()))
}

/// The certificates in a PEM text; what stands between them is left out, as in the bundles of distributions. The error
/// is the line of a certificate, if it is about one, and what is wrong with it.
fn parse(pem: &[u8]) -> Result<RootCertStore, (Option<usize>, String)> {
    let mut roots = RootCertStore::empty();
    let text = String::from_utf8_lossy(pem);
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

fn unended(line: usize) -> (Option<usize>, String) {
    (Some(line), "begins a certificate that doesn't end; the file was cut, copy it anew".to_owned())
}

fn speaking_http(mut config: ClientConfig) -> ClientConfig {
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn made() -> String {
        rcgen::generate_simple_self_signed(["gpu.example.net".to_owned()]).unwrap().cert.pem()
    }

    #[test]
    fn a_bundle_is_read_whatever_stands_between() {
        let bundle = format!("# ours\n{}\n\nsubject=theirs\r\n{}", made(), made().replace('\n', "\r\n"));
        assert_eq!(parse(bundle.as_bytes()).unwrap().len(), 2);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        let good = made();
        let lines = good.lines().count();
        let told = |text: &str| {
            let (line, message) = parse(text.as_bytes()).unwrap_err();
            (line, message.split([';', '(']).next().unwrap().trim().to_owned())
        };
        let none = (None, "holds no certificate".to_owned());
        assert_eq!(told(""), none);
        assert_eq!(told("-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n"), none);
        let unended = "begins a certificate that doesn't end";
        let cut = good.lines().take(lines - 1).collect::<Vec<_>>().join("\n");
        assert_eq!(told(&format!("{good}{cut}")), (Some(lines + 1), unended.to_owned()));
        assert_eq!(told(&format!("\n{cut}\n{good}")), (Some(2), unended.to_owned()));
        let garbled = format!("{good}{BEGIN}\n!!!\n{END}\n");
        assert_eq!(told(&garbled), (Some(lines + 1), "holds no readable PEM here".to_owned()));
        let empty = format!("{good}{BEGIN}\nAAAA\n{END}\n");
        assert_eq!(told(&empty), (Some(lines + 1), "holds what is no certificate here".to_owned()));
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
        // Each reading makes one of its own.
        let made_of = |config: &ClientConfig| Arc::as_ptr(config.crypto_provider());
        let missing = authorities.of_file("ca.pem").unwrap_err().to_string();
        assert!(missing.starts_with(&format!("{}: can't be read (", path.display())), "{missing}");
        write("ca.pem", &made());
        let first = authorities.of_file("ca.pem").unwrap();
        assert_eq!(made_of(&authorities.of_file("ca.pem").unwrap()), made_of(&first), "not read again");
        write("ca.pem", &made());
        let second = authorities.of_file("ca.pem").unwrap();
        assert_ne!(made_of(&second), made_of(&first), "read again");
        write("ca.pem", "garbage");
        assert_eq!(made_of(&authorities.of_file("ca.pem").unwrap()), made_of(&second), "the last good one stays");
        std::fs::remove_file(&path).unwrap();
        assert_eq!(made_of(&authorities.of_file("ca.pem").unwrap()), made_of(&second));
        write("ca.pem", &made());
        assert_ne!(made_of(&authorities.of_file("ca.pem").unwrap()), made_of(&second));
    }
}
