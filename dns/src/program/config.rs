//! The configuration of one node. Takes the text of `bailiwick.toml`, returns a [`Config`] or every error with its
//! line. Called by the command line.
//!
//! What all nodes share is in the rules document, not here.

pub mod keys;
mod read;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::num::NonZero;
use std::path::{Path, PathBuf};

use bailiwick_rules::id::RegionId;

use crate::dnssec::budget::SigningLimit;
use crate::locate::geoip::Registered;
use crate::net::rate_limit::RateLimit;
use crate::net::streams::Limits;
use crate::protocol::name::Name;
use crate::response::answer::Responses;
use crate::response::answer::identity::Identity;

pub use crate::dnssec::directory::SignedZone;
pub use crate::net::certificate::TlsFiles;
pub use crate::net::cookie_files::CookieFiles;
pub use crate::state::fleet::{Mode, Nats, Settings as Fleet};
pub use crate::state::load::Shrink;
pub use crate::state::probe::SecretFiles;
pub(crate) use read::zone_name;

/// A configuration that was read and is free of errors. Paths are relative to where the program runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Where relative paths start: the folder of the configuration.
    pub directory: PathBuf,
    /// This node's name in health reports; `None`: the machine's host name.
    pub node: Option<String>,
    /// Where DNS is served, by UDP and TCP alike. Port 0 stands for any free port.
    pub listen: Vec<SocketAddr>,
    /// Whether sockets at `[::]` take no IPv4; `None`: where `0.0.0.0` is listened on, too.
    pub ipv6_only: Option<bool>,
    /// How many threads answer UDP at each address; `None`: as many as there are cores this process may run on.
    pub threads: Option<NonZero<usize>>,
    /// The rules document: of a node that follows others, the last good one in its state directory.
    pub rules: PathBuf,
    /// The GeoIP database (MMDB). Without one every client is unknown but for the rules' `networks`.
    pub geoip: Option<PathBuf>,
    /// Whether the database places networks by where they are registered, too.
    pub registered: Registered,
    /// Where what was last good, and overrides, are kept. Without one nothing outlives the process.
    pub state_dir: Option<PathBuf>,
    /// What becomes of a zone that lost much.
    pub shrink: Shrink,
    /// How much positive answers tell beside what was asked for.
    pub responses: Responses,
    /// The zones this node is an authority for.
    pub zones: Vec<ZoneFile>,
    /// Those of them that are signed.
    pub dnssec: Vec<SignedZone>,
    /// The HTTP API. Without it none is served.
    pub api: Option<Api>,
    /// What the server says of itself, if asked; by default nothing.
    pub identity: Identity,
    /// The secrets of DNS cookies; by default a random one.
    pub cookies: CookieFiles,
    /// DNS over TLS. Without it none is served.
    pub dot: Option<Encrypted>,
    /// DNS over QUIC. Without it none is served.
    pub doq: Option<Encrypted>,
    /// DNS over HTTPS. Without it none is served.
    pub doh: Option<Encrypted>,
    /// The limits of streams.
    pub tcp: Limits,
    /// How many answers a prefix may get. Without it any number.
    pub rate_limit: Option<RateLimit>,
    /// How many signatures are made because somebody asks.
    pub signing: SigningLimit,
    /// Where rules come from, if not from this node's files.
    pub fleet: Fleet,
    /// The files of secrets that monitors and sources of loads name. Others are environment variables.
    pub secrets: SecretFiles,
}

/// `[dot]`, `[doq]` or `[doh]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encrypted {
    /// Where it listens.
    pub listen: Vec<SocketAddr>,
    /// Its certificate and key.
    pub tls: TlsFiles,
}

/// A zone and its master file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZoneFile {
    /// The apex.
    pub origin: Name,
    /// The master file.
    pub file: PathBuf,
}

/// The `[api]` section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Api {
    /// Where it listens.
    pub listen: SocketAddr,
    /// The line of the configuration that says so.
    pub line: usize,
    /// The file whose first line is a bearer token that may read and write.
    pub token_file: Option<PathBuf>,
    /// Further such files, so that a new token can be accepted beside the old one. Without any token that may write,
    /// nothing can be changed through the API.
    pub write_token_files: Vec<PathBuf>,
    /// Files whose first lines are bearer tokens of Workers. They may read, and post what Workers post.
    pub worker_token_files: Vec<PathBuf>,
    /// Files whose first lines are bearer tokens that may read and no more.
    pub read_token_files: Vec<PathBuf>,
    /// Files whose first lines are bearer tokens of the applications in a region. They may read bundles and no more,
    /// and get the versions of that region.
    pub region_token_files: BTreeMap<RegionId, Vec<PathBuf>>,
    /// What TLS needs. Without it the API speaks plain HTTP.
    pub tls: Option<TlsFiles>,
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

/// One thing wrong with the configuration: where, what, and how to mend it.
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
    /// Reads the file at `path`. Relative paths in it start at its directory.
    ///
    /// # Errors
    /// Everything wrong with it, or that it can't be read.
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

    /// `[fleet]` of the file at `path`, if rules come from NATS by it. Nothing else of the file is looked at, so that a
    /// publisher's file needs no more than that.
    ///
    /// # Errors
    /// Everything wrong with the section. A file that can't be read is none here.
    pub fn read_fleet_in_nats(path: &Path) -> Result<Option<Fleet>, Vec<ConfigError>> {
        let Ok(text) = std::fs::read_to_string(path) else { return Ok(None) };
        let directory = path.parent().unwrap_or(Path::new(""));
        let fleet = read::fleet_section(&text, &path.display().to_string(), directory)?;
        Ok(Some(fleet).filter(|fleet| fleet.nats.is_some()))
    }

    /// The rules document as a command reads it: before a node that follows others has one, the one it begins with.
    #[must_use]
    pub fn rules_file(&self) -> &Path {
        match &self.fleet.seed {
            Some(seed) if !self.rules.exists() => seed,
            _ => &self.rules,
        }
    }

    /// Reads the text of a configuration; `file` is its name in errors, `directory` where its relative paths start.
    ///
    /// # Errors
    /// Everything wrong with it.
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
