//! The configuration of one node. Takes the text of `bailiwick.toml`, returns a [`Config`] or every error with its
//! line. Called by the commands of the command line.
//!
//! Settings that all nodes share are in the rules document, not here.

pub mod keys;
mod read;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::num::NonZero;
use std::path::{Path, PathBuf};

use bailiwick_host::locate::geoip::Registered;
use bailiwick_rules::id::RegionId;
use bailiwick_rules::rules::{HttpUrl, SecretName};

use crate::dnssec::budget::SigningLimit;
use crate::net::rate_limit::RateLimit;
use crate::net::streams::Limits;
use crate::protocol::name::Name;
use crate::response::answer::Responses;
use crate::response::answer::identity::Identity;

pub use crate::dnssec::directory::SignedZone;
pub use crate::net::cookie_files::CookieFiles;
pub use crate::state::fleet::{Mode, Nats, Settings as Fleet};
pub use crate::state::load::Shrink;
pub use crate::state::probe::SecretFiles;
pub use bailiwick_host::certificate::TlsFiles;
pub(crate) use read::zone_name;

/// A configuration that was read and has no errors. Its paths are absolute, or relative to the current directory of the
/// program.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Where relative paths start: the folder of the configuration file.
    pub directory: PathBuf,
    /// This node's name in health reports. `None` stands for the machine's host name.
    pub node: Option<String>,
    /// Where DNS is served, by both UDP and TCP. Port 0 stands for any free port.
    pub listen: Vec<SocketAddr>,
    /// Whether sockets at `[::]` take no IPv4. `None` means: if `0.0.0.0` is listened on with the same port too.
    pub ipv6_only: Option<bool>,
    /// How many threads answer UDP at each address. `None` means: as many as the cores that this process may run on.
    pub threads: Option<NonZero<usize>>,
    /// The rules document. If this node takes its rules from others, this is the last good document in its state
    /// directory.
    pub rules: PathBuf,
    /// The GeoIP database (MMDB), which gives the countries of clients. Without it, only clients in the rules'
    /// `networks` have a known place.
    pub geoip: Option<PathBuf>,
    /// Whether a network without a country in the database counts as being where it is registered.
    pub registered: Registered,
    /// The directory for the last good version of everything, and for overrides. Without it, nothing outlives the
    /// process.
    pub state_dir: Option<PathBuf>,
    /// What to do with a new version of a zone that lacks many of its names.
    pub shrink: Shrink,
    /// Whether positive answers have an authority and an additional section.
    pub responses: Responses,
    /// The zones that this node answers for.
    pub zones: Vec<ZoneFile>,
    /// Those of the zones that are signed.
    pub dnssec: Vec<SignedZone>,
    /// The HTTP API. If `None`, no API is served.
    pub api: Option<Api>,
    /// What the server says of itself when it is asked. By default it says nothing.
    pub identity: Identity,
    /// The secrets of DNS cookies. By default there is one random secret.
    pub cookies: CookieFiles,
    /// DNS over TLS. If `None`, it isn't served.
    pub dot: Option<Encrypted>,
    /// DNS over QUIC. If `None`, it isn't served.
    pub doq: Option<Encrypted>,
    /// DNS over HTTPS. If `None`, it isn't served.
    pub doh: Option<Encrypted>,
    /// The limits of streams: TCP, TLS, HTTPS and QUIC together.
    pub tcp: Limits,
    /// How many answers by UDP a prefix may get. If `None`, there is no limit.
    pub rate_limit: Option<RateLimit>,
    /// How many signatures may be made online, that is, while a query is answered.
    pub signing: SigningLimit,
    /// Where rules come from, if not from this node's files.
    pub fleet: Fleet,
    /// The files of secrets that monitors and sources of loads name. Other secrets are environment variables.
    pub secrets: SecretFiles,
}

/// `[dot]`, `[doq]` or `[doh]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encrypted {
    /// Where the transport listens.
    pub listen: Vec<SocketAddr>,
    /// The certificate and its private key.
    pub tls: TlsFiles,
}

/// A zone and its master file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZoneFile {
    /// The name of the zone's apex.
    pub origin: Name,
    /// The master file.
    pub file: PathBuf,
}

/// The `[api]` section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Api {
    /// Where the API listens.
    pub listen: SocketAddr,
    /// The line of the configuration that has this address, for messages.
    pub line: usize,
    /// The file whose first line is a bearer token that may read and write.
    pub token_file: Option<PathBuf>,
    /// More files of tokens that may read and write, so that a new token can be accepted beside the old one. Without
    /// any token that may write, nothing can be changed through the API.
    pub write_token_files: Vec<PathBuf>,
    /// Files whose first lines are bearer tokens of Workers (the edge). These tokens may read, and post to the paths of
    /// Workers.
    pub worker_token_files: Vec<PathBuf>,
    /// Files whose first lines are bearer tokens that may only read.
    pub read_token_files: Vec<PathBuf>,
    /// Files whose first lines are bearer tokens of the applications in a region. These tokens may only read bundles,
    /// and get the versions for that region.
    pub region_token_files: BTreeMap<RegionId, Vec<PathBuf>>,
    /// The certificate and its private key. If `None`, the API speaks plain HTTP.
    pub tls: Option<TlsFiles>,
    /// Who gets the events of who changes what. If `None`, they are in this node's log only.
    pub access_log: Option<AccessLog>,
}

/// The `[api.access_log]` section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessLog {
    /// Where events are posted.
    pub otlp: HttpUrl,
    /// The secret that is sent as a bearer token.
    pub secret: Option<SecretName>,
}

impl Api {
    /// The files of the tokens that may read and write.
    pub fn writers(&self) -> impl Iterator<Item = &Path> {
        self.token_file.iter().chain(&self.write_token_files).map(PathBuf::as_path)
    }

    /// The files of all tokens.
    pub fn token_files(&self) -> impl Iterator<Item = &Path> {
        let of_regions = self.region_token_files.values().flatten();
        let others = self.worker_token_files.iter().chain(&self.read_token_files).chain(of_regions);
        self.writers().chain(others.map(PathBuf::as_path))
    }
}

/// One mistake in the configuration: where it is, what is wrong, and how to mend it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub struct ConfigError {
    /// The file as it was named.
    pub file: String,
    /// The line, counted from 1; 0 stands for the file as a whole.
    pub line: usize,
    /// What is wrong and how to mend it.
    pub message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.file, self.message),
            line => write!(f, "{}:{line}: {}", self.file, self.message),
        }
    }
}

impl Config {
    /// Reads the configuration file at `path`. Relative paths in the file start at the file's directory.
    ///
    /// # Errors
    /// Every mistake in the file, or that the file can't be read.
    pub fn read(path: &Path) -> Result<Self, Vec<ConfigError>> {
        let file = path.display().to_string();
        let directory = path.parent().unwrap_or(Path::new(""));
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(&text, &file, directory),
            Err(error) => Err(vec![ConfigError {
                message: format!(
                    "can't be read ({error}); name another with --config, or write a first one with `bailiwick init`"
                ),
                file,
                line: 0,
            }]),
        }
    }

    /// The section `[fleet]` of the file at `path`, if it says that rules come from NATS; otherwise `None`. The other
    /// sections aren't read, so a publisher's file needs only this one.
    ///
    /// # Errors
    /// Every mistake in the section. A file that can't be read is no error, and gives `None`.
    pub fn read_fleet_in_nats(path: &Path) -> Result<Option<Fleet>, Vec<ConfigError>> {
        let Ok(text) = std::fs::read_to_string(path) else { return Ok(None) };
        let directory = path.parent().unwrap_or(Path::new(""));
        let fleet = read::fleet_section(&text, &path.display().to_string(), directory)?;
        Ok(Some(fleet).filter(|fleet| fleet.nats.is_some()))
    }

    /// The file of the rules document that a command reads. It is `rules`, unless the node takes its rules from others
    /// and has none yet. Then it is the document that the node begins with.
    #[must_use]
    pub fn rules_file(&self) -> &Path {
        match &self.fleet.seed {
            Some(seed) if !self.rules.exists() => seed,
            _ => &self.rules,
        }
    }

    /// Reads the text of a configuration. `file` is the name of the file in errors. Relative paths start at
    /// `directory`.
    ///
    /// # Errors
    /// Every mistake in the text.
    ///
    /// ```
    /// use bailiwick_dns::program::config::Config;
    /// let text = "lisen = ['127.0.0.1:5300']\nrules = 'rules.json'\n[zones]\n";
    /// let errors = Config::parse(text, "bailiwick.toml", "/etc/bailiwick".as_ref()).unwrap_err();
    /// let lines: Vec<_> = errors.iter().map(ToString::to_string).collect();
    /// assert_eq!(lines, [
    ///     "bailiwick.toml: \"listen\" is missing; write where DNS is served, such as listen = [\"127.0.0.1:5300\"]",
    ///     "bailiwick.toml:1: unknown key \"lisen\"; did you mean \"listen\"?",
    /// ]);
    /// ```
    pub fn parse(text: &str, file: &str, directory: &Path) -> Result<Self, Vec<ConfigError>> {
        read::config(text, file, directory)
    }
}
