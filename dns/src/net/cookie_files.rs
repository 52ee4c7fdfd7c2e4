//! Reads DNS cookie secrets. Takes the files that the configuration names, returns [`Cookies`] or every fault. Called
//! by `serve` and `check`.

use std::path::{Path, PathBuf};

use bailiwick_host::system::files::{Fault, read_text};

use crate::response::wire::Cookies;

/// The `[cookies]` section.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CookieFiles {
    /// The files of the secrets. Each holds 32 hexadecimal digits. The first secret signs, all secrets verify. Nodes
    /// that share the secrets accept each other's cookies.
    pub secret_files: Vec<PathBuf>,
    /// Whether a datagram with a COOKIE option but without a valid server cookie gets BADCOOKIE instead of an answer.
    pub required: bool,
}

/// Reads the secrets, in order.
pub(crate) fn read(config: &CookieFiles) -> Result<Cookies, Vec<Fault>> {
    let (mut secrets, mut faults) = (Vec::new(), Vec::new());
    for file in &config.secret_files {
        match secret(file) {
            Ok(secret) => secrets.push(secret),
            Err(message) => faults.push(Fault { place: file.display().to_string(), message }),
        }
    }
    if faults.is_empty() { Ok(Cookies::new(secrets, config.required)) } else { Err(faults) }
}

/// Reads a cookie secret from a file.
fn secret(file: &Path) -> Result<[u8; 16], String> {
    let text = read_text(file)
        .map_err(|error| format!("can't be read ({error}); write a secret with `openssl rand -hex 16`"))?;
    let digits = text.trim();
    let number = u128::from_str_radix(digits, 16).ok();
    let number = number.filter(|_| digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
    number.map(u128::to_be_bytes).ok_or_else(|| {
        "must hold 32 hexadecimal digits and nothing else; write a secret with `openssl rand -hex 16`".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_without_a_secret_is_reported() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let good = file("good", "e5e973e5a6b2a43f48e7dc849e37bfcf\n");
        let none = folder.path().join("none");
        let required = false;
        let secret_files =
            vec![good.clone(), file("short", "e5e9"), file("sign", "+5e973e5a6b2a43f48e7dc849e37bfcf"), none];
        let faults = read(&CookieFiles { secret_files, required }).unwrap_err();
        let reported: Vec<&str> = faults.iter().map(|fault| fault.message.as_str()).collect();
        assert_eq!(reported.len(), 3, "{reported:?}");
        assert!(reported[0].starts_with("must hold 32") && reported[2].starts_with("can't be read"), "{reported:?}");
        let cookies = read(&CookieFiles { secret_files: vec![good], required }).unwrap();
        assert_eq!(format!("{cookies:?}"), "Cookies(1 secrets)", "secrets are never shown");
    }
}
