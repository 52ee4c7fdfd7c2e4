//! The API's bearer token: a file enters at start, the yes or no to a request's `Authorization` header leaves.

use std::path::Path;

use bailiwick_rules::rules::KeyDigest;
use subtle::ConstantTimeEq;

use crate::sources::Fault;

/// The shortest token that is accepted: 128 bits in hex.
const SHORTEST: usize = 32;

/// A token, kept as its digest: comparing digests takes the same time whatever the lengths.
#[derive(Debug, Clone, Copy)]
pub struct Token(KeyDigest);

impl Token {
    /// Reads the token from the first line of a file.
    ///
    /// # Errors
    /// When the file can't be read or holds no token worth the name.
    pub fn read(file: &Path) -> Result<Self, Fault> {
        let text = std::fs::read_to_string(file).map_err(|error| {
            let mend = "write a token there, such as `openssl rand -hex 32` gives";
            Fault::of_file(file, format!("can't be read ({error}); {mend}"))
        })?;
        Self::parse(text.lines().next().unwrap_or_default().trim())
            .map_err(|message| Fault { place: format!("{}:1", file.display()), message })
    }

    fn parse(token: &str) -> Result<Self, String> {
        // RFC 6750 §2.1: b64token.
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
        if token.len() < SHORTEST || !token.bytes().all(fits) {
            return Err(format!(
                "a token has at least {SHORTEST} letters, digits or -._~+/= on one line; `openssl rand -hex 32` makes one"
            ));
        }
        Ok(Self(KeyDigest::of_key(token)))
    }

    /// Whether this is the value of an `Authorization` header that carries the token.
    #[must_use]
    pub fn admits(&self, authorization: &str) -> bool {
        let Some((scheme, token)) = authorization.split_once(' ') else { return false };
        let same = KeyDigest::of_key(token.trim_start()).0.ct_eq(&self.0.0);
        scheme.eq_ignore_ascii_case("bearer") && bool::from(same)
    }
}

/// A warning if others than the owner can read the token.
#[must_use]
pub fn mode_warning(file: &Path) -> Option<String> {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(file).ok()?.permissions().mode();
    (mode & 0o077 != 0).then(|| format!("{}: others than its owner can read the token; `chmod 600` it", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "0123456789abcdef0123456789abcdef";

    #[test]
    fn only_the_token_behind_bearer_is_admitted() {
        let token = Token::parse(TOKEN).unwrap();
        assert!(token.admits(&format!("Bearer {TOKEN}")));
        assert!(token.admits(&format!("bearer  {TOKEN}")));
        for header in ["", "Bearer", "Bearer ", TOKEN, &format!("Basic {TOKEN}"), &format!("Bearer {TOKEN}0")] {
            assert!(!token.admits(header), "{header:?}");
        }
    }

    #[test]
    fn weak_tokens_and_missing_files_are_told() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("api.token");
        assert!(Token::read(&file).unwrap_err().to_string().contains("api.token: can't be read"));
        for weak in ["", "\n", "short", &format!("{TOKEN} {TOKEN}")] {
            std::fs::write(&file, weak).unwrap();
            assert!(
                Token::read(&file).unwrap_err().to_string().contains("api.token:1: a token has at least 32"),
                "{weak:?}"
            );
        }
        std::fs::write(&file, format!("{TOKEN}\nnot this line\n")).unwrap();
        assert!(Token::read(&file).unwrap().admits(&format!("Bearer {TOKEN}")));
    }
}
