//! The API's bearer tokens. Takes their files at the start and whenever they change, returns what the bearer of a
//! request's `Authorization` header may do.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use bailiwick_host::system::file_reload::Renew;
use bailiwick_rules::id::RegionId;
use bailiwick_rules::rules::KeyDigest;
use subtle::ConstantTimeEq;

use crate::program::config;
use crate::state::load::{Fault, read_text};

/// A token of fewer characters is warned of, because it could be guessed. 32 characters are 128 bits in hex.
const STRONG: usize = 32;

/// A token, kept as its digest: comparing digests takes the same time whatever the lengths.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Token(KeyDigest);

impl Token {
    /// Reads the token from the first line of a file.
    ///
    /// # Errors
    /// When the file can't be read or holds no valid token.
    pub(crate) fn read(file: &Path) -> Result<Self, Fault> {
        let text = read_text(file).map_err(|error| {
            let mend = "write a token there, such as `openssl rand -hex 32` gives";
            Fault::of_file(file, format!("can't be read ({error}); {mend}"))
        })?;
        Self::parse(text.lines().next().unwrap_or_default().trim())
            .map_err(|message| Fault { place: format!("{}:1", file.display()), message })
    }

    /// Reads a token from its text.
    fn parse(token: &str) -> Result<Self, String> {
        // RFC 6750 §2.1: b64token.
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
        if token.is_empty() || !token.bytes().all(fits) {
            return Err(
                "a token is letters, digits or -._~+/= on one line; `openssl rand -hex 32` makes one".to_owned()
            );
        }
        Ok(Self(KeyDigest::of_key(token)))
    }

    /// Whether this is the value of an `Authorization` header that carries the token.
    #[must_use]
    pub(crate) fn admits(&self, authorization: &str) -> bool {
        let Some((scheme, token)) = authorization.split_once(' ') else { return false };
        let same = KeyDigest::of_key(token.trim_start()).0.ct_eq(&self.0.0);
        scheme.eq_ignore_ascii_case("bearer") && bool::from(same)
    }
}

/// The token in service: the last valid token of a file.
#[derive(Debug)]
pub(crate) struct TokenFile {
    file: PathBuf,
    current: ArcSwap<Token>,
}

impl TokenFile {
    /// Reads the token from the first line of a file.
    ///
    /// # Errors
    /// As [`Token::read`].
    pub(crate) fn read(file: &Path) -> Result<Self, Fault> {
        Ok(Self { file: file.to_owned(), current: ArcSwap::from_pointee(Token::read(file)?) })
    }

    /// Whether this is the value of an `Authorization` header that carries the token.
    #[must_use]
    pub(crate) fn admits(&self, authorization: &str) -> bool {
        self.current.load().admits(authorization)
    }
}

impl Renew for TokenFile {
    fn files(&self) -> Vec<PathBuf> {
        vec![self.file.clone()]
    }

    fn renew(&self) -> Result<(), Vec<Fault>> {
        let token = Token::read(&self.file).map_err(|fault| vec![fault])?;
        self.current.store(token.into());
        Ok(())
    }
}

/// The tokens in service, by what they may do.
#[derive(Debug, Default)]
pub(crate) struct Tokens {
    /// They may read and write.
    pub write: Vec<Arc<TokenFile>>,
    /// They may read, and post what Workers post.
    pub worker: Vec<Arc<TokenFile>>,
    /// They may read.
    pub read: Vec<Arc<TokenFile>>,
    /// They may read bundles, as applications of this region.
    pub region: Vec<(RegionId, Arc<TokenFile>)>,
}

impl Tokens {
    /// Reads every file that a configuration names.
    ///
    /// # Errors
    /// Every error of [`Token::read`].
    pub(crate) fn of(config: &config::Api) -> Result<Self, Vec<Fault>> {
        let mut faults = Vec::new();
        let mut read = |file: &Path| match TokenFile::read(file) {
            Ok(token) => Some(Arc::new(token)),
            Err(fault) => {
                faults.push(fault);
                None
            }
        };
        let write = config.writers().filter_map(&mut read).collect();
        let worker = config.worker_token_files.iter().filter_map(|file| read(file)).collect();
        let readers = config.read_token_files.iter().filter_map(|file| read(file)).collect();
        let of_regions =
            config.region_token_files.iter().flat_map(|(id, files)| files.iter().map(move |file| (id, file)));
        let region = of_regions.filter_map(|(id, file)| Some((id.clone(), read(file)?))).collect();
        if faults.is_empty() { Ok(Self { write, worker, read: readers, region }) } else { Err(faults) }
    }

    /// What the bearer of an `Authorization` header may do. Every token is compared, so that the time that this takes
    /// doesn't tell which token it is.
    #[must_use]
    pub(crate) fn admit(&self, authorization: &str) -> Access {
        let any = |tokens: &[Arc<TokenFile>]| tokens.iter().fold(false, |any, token| token.admits(authorization) | any);
        match (any(&self.write), any(&self.worker), any(&self.read)) {
            (true, ..) => Access::Write,
            (_, true, _) => Access::Worker,
            (_, _, true) => Access::Read,
            (false, false, false) if self.region(authorization).is_some() => Access::Region,
            (false, false, false) => Access::Nothing,
        }
    }

    /// The region whose applications have this token; `None` for any other token, and without one.
    #[must_use]
    pub(crate) fn region(&self, authorization: &str) -> Option<&RegionId> {
        self.region.iter().fold(None, |found, (id, token)| if token.admits(authorization) { Some(id) } else { found })
    }

    /// The file of the token in an `Authorization` header; `None` if it is nobody's.
    #[must_use]
    pub(crate) fn file_of(&self, authorization: &str) -> Option<&Path> {
        self.all()
            .fold(None, |found, token| if token.admits(authorization) { Some(token.file.as_path()) } else { found })
    }

    /// All tokens.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<TokenFile>> {
        let of_regions = self.region.iter().map(|(_, token)| token);
        self.write.iter().chain(&self.worker).chain(&self.read).chain(of_regions)
    }
}

/// What somebody may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Nothing that needs a token.
    Nothing,
    /// Read bundles.
    Region,
    /// Read.
    Read,
    /// Read, and post what Workers post.
    Worker,
    /// Read and write.
    Write,
}

/// Warnings: others than the owner can read the token, or it is so short that it could be guessed.
pub(crate) fn warnings(file: &Path) -> impl Iterator<Item = String> {
    use std::os::unix::fs::PermissionsExt;
    let readable = std::fs::metadata(file).is_ok_and(|metadata| metadata.permissions().mode() & 0o077 != 0);
    let text = read_text(file).unwrap_or_default();
    let short = text.lines().next().is_some_and(|token| token.trim().len() < STRONG);
    let reported = [
        readable.then_some("others than its owner can read the token; `chmod 600` it"),
        short.then_some("so short a token can be guessed; `openssl rand -hex 32` makes a better one"),
    ];
    reported.into_iter().flatten().map(move |message| format!("{}: {message}", file.display()))
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
    fn several_tokens_are_accepted_at_once_and_readers_do_not_write() {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str| {
            let file = directory.path().join(name);
            std::fs::write(&file, format!("{name}-{TOKEN}\n")).unwrap();
            Arc::new(TokenFile::read(&file).unwrap())
        };
        let (write, worker, read) = (vec![file("old"), file("new")], vec![file("worker")], vec![file("grafana")]);
        let region = vec![(RegionId::parse("uk-london").unwrap(), file("london"))];
        let tokens = Tokens { write, worker, read, region };
        let access = |token: &str| tokens.admit(&format!("Bearer {token}-{TOKEN}"));
        assert_eq!([access("old"), access("new")], [Access::Write; 2]);
        assert_eq!([access("worker"), access("grafana")], [Access::Worker, Access::Read]);
        assert_eq!(access("london"), Access::Region);
        let region = |token: &str| tokens.region(&format!("Bearer {token}-{TOKEN}")).map(RegionId::as_str);
        assert_eq!([region("london"), region("grafana"), region("other")], [Some("uk-london"), None, None]);
        assert_eq!([access("other"), Tokens::default().admit("Bearer ")], [Access::Nothing; 2]);
    }

    #[test]
    fn a_new_token_replaces_the_old_and_a_bad_one_does_not() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("api.token");
        std::fs::write(&file, TOKEN).unwrap();
        let token = TokenFile::read(&file).unwrap();
        std::fs::write(&file, "another").unwrap();
        token.renew().unwrap();
        assert!(token.admits("Bearer another") && !token.admits(&format!("Bearer {TOKEN}")));
        std::fs::write(&file, "").unwrap();
        assert!(token.renew().is_err() && token.admits("Bearer another"));
    }

    #[test]
    fn what_is_no_token_is_told_and_weak_ones_are_warned_of() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("api.token");
        assert!(Token::read(&file).unwrap_err().to_string().contains("api.token: can't be read"));
        let pipe = directory.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        assert!(Token::read(&pipe).unwrap_err().to_string().contains("is no file but a pipe"));
        for none in ["", "\n", "two words", "schlüssel"] {
            std::fs::write(&file, none).unwrap();
            assert!(
                Token::read(&file).unwrap_err().to_string().contains("api.token:1: a token is letters"),
                "{none:?}"
            );
        }
        std::fs::write(&file, "short").unwrap();
        assert!(Token::read(&file).is_ok() && warnings(&file).any(|warning| warning.contains("guessed")));
        std::fs::write(&file, format!("{TOKEN}\nnot this line\n")).unwrap();
        assert!(Token::read(&file).unwrap().admits(&format!("Bearer {TOKEN}")));
    }
}
