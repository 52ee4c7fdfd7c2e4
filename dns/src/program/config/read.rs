//! Reads the configuration. Takes its TOML, returns a [`super::Config`] or every error with its line. Called by
//! [`super::Config::parse`].

mod access_log;
mod dnssec;
mod fleet;
mod gates;
mod listen;
mod transports;
mod values;

use std::collections::BTreeMap;
use std::num::NonZero;
use std::ops::Range;
use std::path::{Path, PathBuf};

use bailiwick_host::locate::geoip::Registered;
use bailiwick_rules::id::RegionId;
use bailiwick_rules::rules::SecretName;
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use self::values::kind;
use super::keys::names;
use super::{Api, Config, ConfigError, CookieFiles, Fleet, Mode, SecretFiles, Shrink, TlsFiles, ZoneFile};
use crate::dnssec::budget::SigningLimit;
use crate::net::streams::Limits;
use crate::protocol::name::Name;
use crate::response::answer::Responses;
use crate::response::answer::identity::Identity;
use crate::text::nearest::suggestion;

/// The most threads for each address. No machine has more cores, and more threads would only cost memory.
const MAX_THREADS: u64 = 1024;

type Key<'i> = Spanned<DeString<'i>>;
type Value<'i> = Spanned<DeValue<'i>>;

/// Reads a configuration. `file` is its name in messages; paths in it are relative to `directory`.
pub(super) fn config(text: &str, file: &str, directory: &Path) -> Result<Config, Vec<ConfigError>> {
    let mut reader = Reader { text, file, directory, errors: Vec::new() };
    let (document, broken) = DeTable::parse_recoverable(text);
    for error in broken {
        let place = error.span().unwrap_or(0..0);
        reader.note(place, format!("is not TOML: {}", error.message()));
    }
    let config = reader.document(document.get_ref());
    reader.errors.sort();
    match config {
        Some(config) if reader.errors.is_empty() => Ok(config),
        _ => Err(reader.errors),
    }
}

/// Reads the section `[fleet]` alone, whatever else stands in the file. Mistakes in the section are errors only if it
/// says that rules come from NATS.
pub(super) fn fleet_section(text: &str, file: &str, directory: &Path) -> Result<Fleet, Vec<ConfigError>> {
    let mut reader = Reader { text, file, directory, errors: Vec::new() };
    let (document, _) = DeTable::parse_recoverable(text);
    let section = document.get_ref().iter().find(|(key, _)| key.get_ref() == "fleet");
    let fleet = section.map(|(key, value)| reader.fleet(key, value)).unwrap_or_default();
    let is_nats = fleet.nats.is_some() || fleet.mode == Mode::Nats;
    if is_nats && !reader.errors.is_empty() { Err(reader.errors) } else { Ok(fleet) }
}

struct Reader<'t> {
    text: &'t str,
    file: &'t str,
    directory: &'t Path,
    errors: Vec<ConfigError>,
}

impl Reader<'_> {
    /// Reads the whole configuration. `None` if a setting is missing or wrong; the errors are noted then.
    #[expect(clippy::too_many_lines, reason = "a table of the keys")]
    fn document(&mut self, document: &DeTable<'_>) -> Option<Config> {
        let (mut node, mut listen, mut rules, mut geoip, mut state_dir) = (None, None, None, None, None);
        let mut registered = Registered::default();
        let (mut zones, mut signed, mut api, mut threads) = (Vec::new(), None, None, 0);
        let (mut cookies, mut identity) = (CookieFiles::default(), Identity::default());
        let (mut dot, mut doq, mut doh) = (None, None, None);
        let (mut shrink, mut responses, mut ipv6_only) = (Shrink::default(), Responses::default(), None);
        let (mut tcp, mut rate_limit, mut signing) = (Limits::default(), None, SigningLimit::default());
        let (mut secrets, mut fleet) = (SecretFiles::new(), Fleet::default());
        for (key, value) in document {
            match key.get_ref().as_ref() {
                "node" => node = self.node(value),
                "listen" => listen = Some(self.listen("listen", value)),
                "ipv6_only" => ipv6_only = self.boolean("ipv6_only", value),
                "threads" => self.size("threads", value, 1, MAX_THREADS, &mut threads),
                "rules" => rules = Some(self.path("rules", value)),
                "geoip" => geoip = self.path("geoip", value),
                "geoip_registered_country" => registered = self.registered(value),
                "state_dir" => state_dir = self.path("state_dir", value),
                "shrink" => shrink = self.shrink(value),
                "responses" => responses = self.responses(value),
                "zones" => zones = self.zones(value),
                "dnssec" => signed = Some(value),
                "api" => api = self.api(key, value),
                "cookies" => cookies = self.cookies(value),
                "identity" => identity = self.identity(value),
                "dot" => dot = self.encrypted("dot", key, value),
                "doq" => doq = self.encrypted("doq", key, value),
                "doh" => doh = self.encrypted("doh", key, value),
                "tcp" => tcp = self.tcp(value),
                "rate_limit" => rate_limit = self.rate_limit(key, value),
                "signing" => signing = self.signing(value),
                "secrets" => secrets = self.secrets(value),
                "fleet" => fleet = self.fleet(key, value),
                _ => self.no_key("", key, &names("")),
            }
        }
        self.overlaps(document, ipv6_only);
        let dnssec = signed.map(|signed| self.dnssec(signed, &zones)).unwrap_or_default();
        if listen.is_none() {
            self.missing("\"listen\" is missing; write where DNS is served, such as listen = [\"127.0.0.1:5300\"]");
        }
        let rules = self.rules(rules, state_dir.as_deref(), &mut fleet);
        if rules.is_none() {
            self.missing("\"rules\" is missing; name the rules document, such as rules = \"rules.json\"");
        }
        Some(Config {
            directory: self.directory.to_owned(),
            node,
            listen: listen?,
            ipv6_only,
            threads: NonZero::new(threads),
            rules: rules??,
            geoip,
            registered,
            state_dir,
            shrink,
            responses,
            zones,
            dnssec,
            api,
            cookies,
            identity,
            dot,
            doq,
            doh,
            tcp,
            rate_limit,
            signing,
            fleet,
            secrets,
        })
    }

    /// The file that the rules are read from. A node that takes its rules from others reads the last good document in
    /// its state directory. If there is none, the node begins with the configured document.
    fn rules(
        &mut self,
        configured: Option<Option<PathBuf>>,
        state_dir: Option<&Path>,
        fleet: &mut Fleet,
    ) -> Option<Option<PathBuf>> {
        if !fleet.follows() {
            return configured;
        }
        fleet.seed = configured.flatten();
        fleet.state_dir = state_dir.map(Path::to_owned);
        if state_dir.is_none() {
            self.missing(
                "\"state_dir\" is missing; a node that takes its rules from others keeps them there, so that it can \
                 start without them",
            );
        }
        Some(state_dir.map(Fleet::rules_in))
    }

    fn registered(&mut self, value: &Value<'_>) -> Registered {
        match self.boolean("geoip_registered_country", value) {
            Some(true) => Registered::Counts,
            Some(false) | None => Registered::Ignored,
        }
    }

    fn node(&mut self, value: &Value<'_>) -> Option<String> {
        let node = self.string("node", value)?;
        if node.is_empty() {
            return self.fail(value.span(), "\"node\" is empty; name the node or remove the key".to_owned());
        }
        Some(node.to_owned())
    }

    fn shrink(&mut self, value: &Value<'_>) -> Shrink {
        self.word("shrink", value, &[(Shrink::Hold, "hold"), (Shrink::Take, "take")], Shrink::Hold)
    }

    fn responses(&mut self, value: &Value<'_>) -> Responses {
        let words = [(Responses::Minimal, "minimal"), (Responses::Full, "full")];
        self.word("responses", value, &words, Responses::Minimal)
    }

    /// Reads the section `[zones]`: names of zones with their files.
    fn zones(&mut self, value: &Value<'_>) -> Vec<ZoneFile> {
        let mut zones: Vec<ZoneFile> = Vec::new();
        let Some(table) = value.get_ref().as_table() else {
            let kind = kind(value);
            self.note(
                value.span(),
                format!("\"zones\" is {kind}; write a section [zones] of lines \"example.com\" = \"example.com.zone\""),
            );
            return zones;
        };
        let mut entries: Vec<_> = table.iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        for (key, value) in entries {
            let name = key.get_ref();
            if value.get_ref().is_table() {
                // Without quotes, TOML reads the dots of a key as nested sections.
                let message = format!("the zone's name that begins with \"{name}\" must stand in quotes, dots and all");
                self.note(key.span(), message);
                continue;
            }
            let file = self.path(name, value);
            match zone_name(name) {
                Err(error) => {
                    self.note(key.span(), format!("\"{name}\" is not a zone's name: {error}"));
                }
                Ok(origin) if zones.iter().any(|zone| zone.origin == origin) => {
                    self.note(key.span(), format!("the zone \"{name}\" is listed twice; remove one"));
                }
                // A zone whose path is wrong is an error already. It is added, so that its name counts as taken.
                Ok(origin) => zones.push(ZoneFile { origin, file: file.unwrap_or_default() }),
            }
        }
        zones
    }

    /// Reads the section `[api]`.
    fn api(&mut self, key: &Key<'_>, value: &Value<'_>) -> Option<Api> {
        let Some(table) = value.get_ref().as_table() else {
            let kind = kind(value);
            return self.fail(
                value.span(),
                format!("\"api\" is {kind}; write a section [api] with listen = \"127.0.0.1:8053\""),
            );
        };
        let (mut listen, mut token_file, mut cert, mut secret) = (None, None, None, None);
        let (mut line, mut access_log) = (0, None);
        let (mut writers, mut workers, mut readers) = (Vec::new(), Vec::new(), Vec::new());
        let mut of_regions = BTreeMap::new();
        for (key, value) in table {
            match key.get_ref().as_ref() {
                "listen" => {
                    let text = self.string("api.listen", value).map(str::to_owned);
                    listen = Some(text.and_then(|text| self.address(&text, value)));
                    line = self.line(&value.span());
                }
                "write_token_files" => writers = self.paths("api.write_token_files", value),
                "worker_token_files" => workers = self.paths("api.worker_token_files", value),
                "read_token_files" => readers = self.paths("api.read_token_files", value),
                "region_token_files" => of_regions = self.region_tokens(value),
                "token_file" => token_file = self.path("api.token_file", value),
                "access_log" => access_log = self.access_log(key, value),
                "cert" => cert = Some(self.path("api.cert", value)),
                "key" => secret = Some(self.path("api.key", value)),
                _ => self.no_key("api.", key, &names("api")),
            }
        }
        if listen.is_none() {
            self.note(
                key.span(),
                "\"api.listen\" is missing; write where the API is served, such as listen = \"127.0.0.1:8053\""
                    .to_owned(),
            );
        }
        if cert.is_some() != secret.is_some() {
            self.note(key.span(), "\"api.cert\" and \"api.key\" belong together; add the other".to_owned());
        }
        let tls = cert.flatten().zip(secret.flatten()).map(|(cert, key)| TlsFiles { cert, key });
        let listen = listen??;
        Some(Api {
            listen,
            line,
            token_file,
            write_token_files: writers,
            worker_token_files: workers,
            read_token_files: readers,
            region_token_files: of_regions,
            tls,
            access_log,
        })
    }

    /// Reads the section `[api.region_token_files]`: the token files of each region.
    fn region_tokens(&mut self, value: &Value<'_>) -> BTreeMap<RegionId, Vec<PathBuf>> {
        let mut files = BTreeMap::new();
        let Some(table) = value.get_ref().as_table() else {
            let kind = kind(value);
            let message = format!(
                "\"api.region_token_files\" is {kind}; write a section [api.region_token_files] of lines uk-london = \
                 [\"london.token\"]"
            );
            self.note(value.span(), message);
            return files;
        };
        for (key, value) in table {
            let name = key.get_ref();
            match RegionId::parse(name) {
                Some(region) => _ = files.insert(region, self.paths(&format!("api.region_token_files.{name}"), value)),
                None => self.note(key.span(), format!("\"{name}\" is no region's name; write it as the rules do")),
            }
        }
        files
    }

    /// Reads the section `[cookies]`.
    fn cookies(&mut self, value: &Value<'_>) -> CookieFiles {
        let mut cookies = CookieFiles::default();
        let Some(table) = value.get_ref().as_table() else {
            let kind = kind(value);
            let message =
                format!("\"cookies\" is {kind}; write a section [cookies] with secret_files = [\"cookie.secret\"]");
            self.note(value.span(), message);
            return cookies;
        };
        for (key, value) in table {
            match key.get_ref().as_ref() {
                "secret_files" => cookies.secret_files = self.paths("cookies.secret_files", value),
                "required" => cookies.required = self.boolean("cookies.required", value).unwrap_or_default(),
                _ => self.no_key("cookies.", key, &names("cookies")),
            }
        }
        cookies
    }

    /// Reads the section `[secrets]`: names of secrets with their files.
    fn secrets(&mut self, value: &Value<'_>) -> SecretFiles {
        let mut files = SecretFiles::new();
        let Some(table) = value.get_ref().as_table() else {
            let kind = kind(value);
            self.note(
                value.span(),
                format!("\"secrets\" is {kind}; write a section [secrets] of lines FRA_PROBE = \"fra-probe.secret\""),
            );
            return files;
        };
        for (key, value) in table {
            let name = key.get_ref();
            if SecretName::parse(name).is_none() {
                let message = format!(
                    "\"{name}\" is not the name of a secret; write it as the rules do, in letters, digits and \"_\""
                );
                self.note(key.span(), message);
                continue;
            }
            files.extend(self.path(&format!("secrets.{name}"), value).map(|path| (name.to_string(), path)));
        }
        files
    }

    /// Reads the section `[identity]`: what the server says about itself.
    fn identity(&mut self, value: &Value<'_>) -> Identity {
        let Some(table) = value.get_ref().as_table() else {
            let kind = kind(value);
            self.note(value.span(), format!("\"identity\" is {kind}; write a section [identity] with nsid = \"ns1\""));
            return Identity::default();
        };
        let (mut version, mut hostname, mut nsid) = (None, None, None);
        for (key, value) in table {
            match key.get_ref().as_ref() {
                "version" => version = self.short("identity.version", value),
                "hostname" => hostname = self.short("identity.hostname", value),
                "nsid" => nsid = self.short("identity.nsid", value),
                _ => self.no_key("identity.", key, &names("identity")),
            }
        }
        Identity::new(version, hostname, nsid)
    }

    fn no_key(&mut self, section: &str, key: &Key<'_>, known: &[&str]) {
        let name = key.get_ref();
        let message = format!("unknown key \"{section}{name}\"; {}", suggestion(name, known.iter().copied()));
        self.note(key.span(), message);
    }

    fn missing(&mut self, message: &str) {
        self.errors.push(ConfigError { file: self.file.to_owned(), line: 0, message: message.to_owned() });
    }

    /// Notes an error and returns `None`, so that a reading function can end with a call of it.
    fn fail<T>(&mut self, place: Range<usize>, message: String) -> Option<T> {
        self.note(place, message);
        None
    }

    /// The line in which a place in the text begins, counted from 1.
    fn line(&self, place: &Range<usize>) -> usize {
        let before = &self.text.as_bytes()[..place.start.min(self.text.len())];
        1 + before.iter().filter(|&&byte| byte == b'\n').count()
    }

    fn note(&mut self, place: Range<usize>, message: String) {
        let line = self.line(&place);
        self.errors.push(ConfigError { file: self.file.to_owned(), line, message });
    }
}

/// Reads the name of a zone. Names that no client asks for are errors. Clients ask for letters outside ASCII in
/// Punycode (RFC 5891 §4). A name with spaces or a wildcard can't be a zone.
pub(crate) fn zone_name(text: &str) -> Result<Name, String> {
    let text = text.strip_suffix('.').unwrap_or(text);
    if !text.is_ascii() {
        return Err(match domain_to_ascii(text) {
            Some(punycode) => format!("it has letters outside ASCII; write it in Punycode, \"{punycode}\""),
            None => "it has letters outside ASCII, and no form in Punycode (xn--…); mend its spelling".to_owned(),
        });
    }
    if let Some(odd) = text.chars().find(|letter| letter.is_ascii_whitespace() || letter.is_ascii_control()) {
        return Err(format!("it holds {odd:?}, which no name of a zone does; remove it"));
    }
    if text.split('.').any(|label| label == "*") {
        let below = text.trim_start_matches("*.");
        return Err(format!(
            "a wildcard is no zone; write the zone \"{below}\" and in its file records of \"*\", or steer \"{text}\" \
             by a service's hosts"
        ));
    }
    Name::parse(format!("{text}.").as_bytes(), None).map_err(|error| error.to_string())
}

/// A name in Punycode (RFC 5891, UTS 46); `None` if it has no such form.
fn domain_to_ascii(text: &str) -> Option<String> {
    idna::domain_to_ascii_strict(text).ok()
}
