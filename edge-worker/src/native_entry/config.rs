//! `edge.toml`, the configuration of the native gateway. Takes its text, returns a [`Config`] or a message that says
//! what is wrong, where, and how to mend it. Called by `main`.

use core::time::Duration;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use bailiwick_host::certificate::TlsFiles;
use bailiwick_host::system::files::read_text;
use bailiwick_rules::time::Millis;
use ipnet::IpNet;
use serde::{Deserialize, Deserializer};

/// The configuration. Every key has a default.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where it listens.
    #[serde(deserialize_with = "one_or_many")]
    pub listen: Vec<SocketAddr>,
    /// How many threads serve; as many as cores if it is 0.
    pub threads: u16,
    /// The file of the rules, for want of `RULES_URLS`.
    pub rules: Option<PathBuf>,
    /// A GeoIP database.
    pub geoip: Option<PathBuf>,
    /// Whether an address without a country is where it is registered.
    pub geoip_registered_country: bool,
    /// The folder by which a new process finds the one that serves, to take over.
    pub state_dir: Option<PathBuf>,
    /// The certificate. Without one, it serves without TLS.
    pub tls: Option<Tls>,
    /// What proxies in front of it may say.
    pub proxy: Proxy,
    /// What clients may take.
    pub limits: Limits,
    /// Where metrics are served.
    pub metrics: Option<Metrics>,
    /// Variables of the Worker.
    pub variables: BTreeMap<String, String>,
    /// Files of secrets, by name.
    pub secrets: BTreeMap<String, PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 8787))],
            threads: 0,
            rules: None,
            geoip: None,
            geoip_registered_country: false,
            state_dir: None,
            tls: None,
            proxy: Proxy::default(),
            limits: Limits::default(),
            metrics: None,
            variables: BTreeMap::new(),
            secrets: BTreeMap::new(),
        }
    }
}

/// `[tls]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The chain of certificates in PEM.
    pub cert: PathBuf,
    /// The private key in PEM.
    pub key: PathBuf,
}

/// `[proxy]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Proxy {
    /// The networks of proxies that are believed.
    pub trust: Vec<IpNet>,
    /// Whether they begin each connection with the PROXY protocol.
    pub protocol: bool,
    /// The header in which they name the client.
    pub address: AddressHeader,
}

/// The header in which a trusted proxy names the client.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AddressHeader {
    /// One address.
    #[default]
    CfConnectingIp,
    /// A list, to which each proxy adds whom it serves. The last address that no trusted proxy has is the client's.
    XForwardedFor,
}

/// `[metrics]`
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metrics {
    /// Where they are served, without TLS.
    pub listen: SocketAddr,
}

/// `[limits]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// The most connections at once. Further ones wait in the kernel.
    pub connections: usize,
    /// The most requests at once over one connection of HTTP/2.
    pub streams: u32,
    /// The most bytes of a request's headers.
    pub header_bytes: u32,
    /// How long the handshake and the headers of a request may take.
    #[serde(deserialize_with = "duration")]
    pub headers: Duration,
    /// How long a connection may be without a request.
    #[serde(deserialize_with = "duration")]
    pub idle: Duration,
    /// How long a client may take nothing of an answer that waits for it.
    #[serde(deserialize_with = "duration")]
    pub write: Duration,
    /// How long requests in progress are waited for at the end.
    #[serde(deserialize_with = "duration")]
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 16_384,
            streams: 128,
            header_bytes: 64 << 10,
            headers: Duration::from_secs(30),
            idle: Duration::from_secs(75),
            write: Duration::from_secs(60),
            drain: Duration::from_secs(30),
        }
    }
}

impl Config {
    /// Reads a file. Paths in it start at its folder.
    ///
    /// # Errors
    /// What is wrong, where, and how to mend it.
    pub fn read(file: &Path) -> Result<Self, String> {
        let text = read_text(file)
            .map_err(|error| format!("{}: can't be read ({error}); name another with --config", file.display()))?;
        Self::parse(&text, file.parent().unwrap_or(Path::new("")))
            .map_err(|error| format!("{}: {error}", file.display()))
    }

    fn parse(text: &str, folder: &Path) -> Result<Self, String> {
        let mut config: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        config.check()?;
        let paths = [&mut config.rules, &mut config.geoip, &mut config.state_dir].into_iter().flatten();
        let of_tls = config.tls.iter_mut().flat_map(|tls| [&mut tls.cert, &mut tls.key]);
        paths.chain(of_tls).chain(config.secrets.values_mut()).for_each(|path| *path = folder.join(&path));
        Ok(config)
    }

    /// Checks what types can't say.
    fn check(&self) -> Result<(), String> {
        let Limits { connections, streams, header_bytes, headers, idle, write, drain: _ } = &self.limits;
        let wrong = |what: &str| Err(what.to_owned());
        if self.listen.is_empty() {
            return wrong("listen is empty; name an address, such as \"[::]:443\"");
        }
        if self.threads > 1_024 {
            return wrong("threads: the most is 1024; leave it out for as many as cores");
        }
        if *connections == 0 || *streams == 0 {
            return wrong("limits.connections and limits.streams have to be 1 at least, or nobody is served");
        }
        if !(8_192..=1 << 20).contains(header_bytes) {
            return wrong("limits.header_bytes has to be from 8192 to 1048576");
        }
        if [headers, idle, write].iter().any(|limit| **limit < Duration::from_secs(1)) {
            return wrong(
                "limits.headers, limits.idle and limits.write have to be 1s at least, or honest clients fail",
            );
        }
        if self.proxy.protocol && self.proxy.trust.is_empty() {
            return wrong("proxy.protocol needs proxy.trust: name the networks of the proxies that speak it");
        }
        let name = |name: &&String| name.contains(['=', '\0']) || name.is_empty();
        match self.variables.keys().chain(self.secrets.keys()).find(name) {
            Some(name) => Err(format!("{name:?} can't be the name of a variable or secret")),
            None => Ok(()),
        }
    }

    /// The files of the certificate.
    pub(super) fn tls_files(&self) -> Option<TlsFiles> {
        self.tls.clone().map(|Tls { cert, key }| TlsFiles { cert, key })
    }
}

/// Reads a text such as `30s`.
fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(from)?;
    let read = Millis::parse(&text).filter(|span| *span <= Millis(24 * 3_600_000));
    let wrong = || format!("{text:?} is no duration of up to a day: write digits and ms, s, m or h, such as \"30s\"");
    read.map(Millis::to_std).ok_or_else(|| serde::de::Error::custom(wrong()))
}

/// Reads an address with its port, or a list of them.
fn one_or_many<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<SocketAddr>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Addresses {
        One(String),
        Many(Vec<String>),
    }
    let texts = match Addresses::deserialize(from)? {
        Addresses::One(text) => vec![text],
        Addresses::Many(texts) => texts,
    };
    let wrong =
        |text: &str| format!("{text:?} is no address with a port; write it like \"192.0.2.1:443\" or \"[::]:443\"");
    texts.iter().map(|text| text.parse().map_err(|_| serde::de::Error::custom(wrong(text)))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(text, Path::new("/etc/bailiwick"))
    }

    #[test]
    fn all_keys_are_read_and_paths_start_at_the_files_folder() {
        let config = parse(
            r#"
            listen = ["[::]:443", "192.0.2.1:8443"]
            threads = 2
            rules = "rules.json"
            geoip = "/var/lib/GeoIP/country.mmdb"
            geoip_registered_country = true
            state_dir = "state"
            tls = { cert = "edge.pem", key = "edge.key" }
            metrics = { listen = "127.0.0.1:9153" }
            [proxy]
            trust = ["10.0.0.0/8", "2001:db8::/32"]
            protocol = true
            address = "x-forwarded-for"
            [limits]
            connections = 100
            streams = 8
            header_bytes = 16384
            headers = "5s"
            idle = "2m"
            write = "1500ms"
            drain = "0s"
            [variables]
            RULES_URLS = "https://ns1.example.com:8443/v1/rules"
            [secrets]
            FRA_KEY = "fra.key"
            "#,
        )
        .unwrap();
        assert_eq!(config.listen.len(), 2);
        assert_eq!(config.rules.as_deref(), Some(Path::new("/etc/bailiwick/rules.json")));
        assert_eq!(config.geoip.as_deref(), Some(Path::new("/var/lib/GeoIP/country.mmdb")));
        assert_eq!(config.tls_files().unwrap().key, Path::new("/etc/bailiwick/edge.key"));
        assert_eq!(config.secrets["FRA_KEY"], Path::new("/etc/bailiwick/fra.key"));
        assert_eq!(config.proxy.address, AddressHeader::XForwardedFor);
        assert_eq!((config.limits.write, config.limits.drain), (Duration::from_millis(1_500), Duration::ZERO));
        let defaults = parse("listen = \"0.0.0.0:80\"").unwrap();
        assert_eq!((defaults.listen[0].port(), defaults.limits.streams), (80, 128));
        assert_eq!(parse("").unwrap().listen[0].to_string(), "127.0.0.1:8787");
    }

    #[test]
    fn the_pieces_of_the_page_are_read() {
        let page = include_str!("../../../docs/self-hosting.md");
        let pieces: Vec<&str> = page.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
        assert!(pieces.len() >= 2);
        for piece in pieces {
            assert!(piece.starts_with("# edge.toml\n"), "other tests take it for bailiwick.toml: {piece}");
            parse(piece).unwrap();
        }
        let limits: Vec<&str> = ["connections", "streams", "header_bytes", "headers", "idle", "write", "drain"].into();
        let Limits { connections, streams, header_bytes, headers, idle, write, drain } = Limits::default();
        let spans = [headers, idle, write, drain].map(|span| format!("`{}s`", span.as_secs()));
        let numbers = [connections.to_string(), streams.to_string(), header_bytes.to_string()];
        for (name, default) in limits.into_iter().zip(numbers.into_iter().chain(spans)) {
            let row = page.lines().find(|line| line.starts_with(&format!("| `{name}` |")));
            assert!(row.is_some_and(|row| row.contains(&format!("| {default} |"))), "{name}: {row:?}");
        }
    }

    #[test]
    fn a_mistake_is_told_with_its_place_and_remedy() {
        for (text, told) in [
            ("listne = \"[::]:443\"", "unknown field `listne`, expected one of `listen`, `threads`"),
            ("listen = \"localhost\"", "\"localhost\" is no address with a port"),
            ("listen = []", "listen is empty"),
            ("[tls]\ncert = \"a.pem\"", "missing field `key`"),
            ("[limits]\nidle = 75", "line 2"),
            ("[limits]\nidle = \"75\"", "write digits and ms, s, m or h"),
            ("[limits]\nwrite = \"10ms\"", "have to be 1s at least"),
            ("[limits]\nconnections = 0", "have to be 1 at least"),
            ("[limits]\nheader_bytes = 100", "from 8192 to 1048576"),
            ("threads = 2000", "the most is 1024"),
            ("proxy = { protocol = true }", "proxy.protocol needs proxy.trust"),
            ("proxy = { trust = [\"10.0.0.0\"] }", "line 1"),
            ("proxy = { address = \"forwarded\" }", "`cf-connecting-ip` or `x-forwarded-for`"),
            ("[secrets]\n\"A=B\" = \"c\"", "can't be the name"),
            ("listen = ", "line 1"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(told), "{text}: {error}");
        }
    }
}
