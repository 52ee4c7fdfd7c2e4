//! `bailiwick check`: takes a configuration, reads and compiles everything that it names as `serve` would; returns
//! every error and warning with its place and how to mend it.

mod bundles;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bailiwick_host::certificate::Certificate;
use bailiwick_host::locate::geoip::{Places, Registered, UnknownCode};
use bailiwick_host::system::clock::Clock;
use bailiwick_rules::geo::{self, NonCountry};
use bailiwick_rules::json::Violation;
use bailiwick_rules::rules::SecretName;
use bailiwick_rules::table::{Region, Succession, Table};
use clap::Args;
use serde::Serialize;

use crate::dnssec::directory::read_keys;
use crate::dnssec::key_set::ZoneKeys;
use crate::net::cookie_files;
use crate::program::aggregate;
use crate::program::api::token::{Token, warnings};
use crate::program::config::{Api, Config, ConfigError, Fleet, SignedZone, TlsFiles, ZoneFile};
use crate::program::report::Report;
use crate::state::load::{self, Fault, compile_rules, place_in, read_geoip, read_zones};
use crate::state::owner;
use crate::state::probe::{SecretFiles, authorities, read_secret};
use crate::state::snapshot::{Rules, World, ZoneSource};
use crate::state::store::Store;
use crate::zone::Zone;

/// Options of `bailiwick check`.
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// The configuration; all it names is checked too.
    #[arg(long, value_name = "FILE", default_value = "bailiwick.toml")]
    config: PathBuf,
    /// Check this rules document alone; `-` reads standard input.
    #[arg(long, value_name = "FILE", conflicts_with = "config")]
    rules: Option<PathBuf>,
    /// Print the findings as JSON: {"ok", "summary", "errors": [{"place", "message"}], "warnings": […]}.
    #[arg(long)]
    json: bool,
}

/// The findings of a check.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// The mistakes with which the server wouldn't serve the configuration.
    pub(crate) errors: Vec<Fault>,
    /// Warnings about what would be served but was probably not intended.
    pub(crate) warnings: Vec<String>,
    /// A line for each part that was read: rules, zones, keys, GeoIP database.
    summary: Vec<String>,
}

pub(crate) fn run(args: &CheckArgs, stdin: &mut dyn Read) -> Report {
    let findings = match &args.rules {
        Some(file) => {
            let mut findings = Findings::default();
            rules(file, read_rules(file, stdin), &mut findings);
            findings
        }
        None => configured(&args.config),
    };
    findings.report(args.json)
}

/// Checks a configuration and everything that it names.
pub(super) fn configured(file: &Path) -> Findings {
    let mut findings = Findings::default();
    match Config::read(file) {
        Ok(config) => check_configured_files(&config, &mut findings),
        Err(errors) => findings.errors.extend(errors.into_iter().map(Fault::from)),
    }
    findings
}

/// Checks everything that a configuration names: rules, zones, keys, certificates, secrets and more.
fn check_configured_files(config: &Config, findings: &mut Findings) {
    let rules = configured_rules(config, findings);
    let sources = zones(&config.zones, findings);
    let keys = keys(&config.dnssec, findings);
    let places = config.geoip.as_deref().and_then(|file| places(file, config.registered, findings));
    if let Some(rules) = &rules {
        certificate_authorities(&config.directory, &rules.table, findings);
        let is_set = |name: &str| std::env::var_os(name).is_some();
        credentials(&config.secrets, &rules.table, config.api.as_ref(), is_set, findings);
    }
    let pinned = rules.clone();
    match rules {
        Some(rules) => together(rules, sources, keys, places, findings),
        None => alone(&sources, findings),
    }
    findings.errors.extend(cookie_files::read(&config.cookies).err().into_iter().flatten());
    let encrypted = [&config.dot, &config.doq, &config.doh].into_iter().flatten();
    for section in encrypted {
        certificate(&section.tls, findings);
    }
    fleet(&config.fleet, findings);
    if let Some(rules) = &pinned {
        findings.warnings.extend(rules.table.aggregate().and_then(|_| aggregate::warning(&config.fleet)));
        findings.warnings.extend(bundles::missing(config, &rules.table));
        findings.warnings.extend(config.api.iter().flat_map(|api| bundles::tokens_of_no_region(api, &rules.table)));
    }
    findings.warnings.extend(older_than_kept(config));
    findings.warnings.extend(too_many_connections(config, most_files()));
    if let Some(api) = &config.api {
        secrets(api, findings);
    }
}

/// Checks the rules of the configuration. A node that takes its rules from others may have none before its first start.
fn configured_rules(config: &Config, findings: &mut Findings) -> Option<Arc<Rules>> {
    let file = config.rules_file();
    if config.fleet.follows() && !file.exists() {
        findings.warnings.push("this node has no rules yet: it takes them from its peers when it starts".to_owned());
        return None;
    }
    rules(file, load::read_rules(file), findings)
}

/// Checks the files that are needed for asking other nodes.
fn fleet(config: &Fleet, findings: &mut Findings) {
    let authorities = config.peers_ca_file.as_deref().map(authorities::read);
    findings.errors.extend(authorities.and_then(Result::err));
    findings.errors.extend(config.peers_token_file.as_deref().and_then(|file| Token::read(file).err()));
}

/// Reads and compiles a rules document that the command line names; `-` is standard input. The file may be a pipe. A
/// server refuses a pipe, because it might wait for it for ever, but here nothing else has to wait.
pub(super) fn read_rules(file: &Path, stdin: &mut dyn Read) -> Result<Arc<Rules>, Vec<Fault>> {
    let mut bytes = Vec::new();
    let (name, read) = match file == Path::new("-") {
        true => ("standard input".to_owned(), stdin.read_to_end(&mut bytes)),
        false if bailiwick_host::system::files::is_special(file) => {
            (file.display().to_string(), File::open(file).and_then(|mut pipe| pipe.read_to_end(&mut bytes)))
        }
        false => return load::read_rules(file),
    };
    match read {
        Ok(_) => compile_rules(bytes, &name),
        Err(error) => Err(vec![Fault { place: name, message: format!("can't be read: {error}") }]),
    }
}

/// Takes the rules if they could be read, with a summary and warnings about them. Otherwise notes the errors.
fn rules(file: &Path, read: Result<Arc<Rules>, Vec<Fault>>, findings: &mut Findings) -> Option<Arc<Rules>> {
    match read {
        Ok(rules) => {
            let name = file.display();
            let warnings = rules.table.warnings(Clock::system().now());
            let name = name.to_string();
            let reported = |warning: &Violation| format!("{}: {warning}", place_in(&rules.bytes, &name, warning));
            let of_load = bailiwick_rules::load::warnings(&rules.table);
            findings.warnings.extend(warnings.iter().chain(&of_load).map(reported));
            let table = &rules.table;
            let counts = (table.services().len(), table.regions().len(), table.tenants().len());
            findings.summary.push(format!(
                "rules revision {}: {}, {}, {}",
                table.revision(),
                count(counts.0, "service"),
                count(counts.1, "region"),
                count(counts.2, "tenant")
            ));
            Some(rules)
        }
        Err(errors) => {
            findings.errors.extend(errors);
            None
        }
    }
}

/// Reads the zones. Notes a summary or the errors.
fn zones(zones: &[ZoneFile], findings: &mut Findings) -> Vec<ZoneSource> {
    let mut read: Vec<ZoneSource> = Vec::new();
    for zone in zones {
        match read_zones(&[(zone.origin.clone(), zone.file.clone())], &mut |_| ()) {
            Ok(sources) => read.extend_from_slice(&sources),
            Err(faults) => findings.errors.extend(faults),
        }
    }
    for source in &read {
        findings.summary.push(format!("zone {}: {}", source.origin, count(source.records.len(), "record")));
    }
    read
}

/// Reads the keys of the signed zones. Notes a summary or the errors.
fn keys(zones: &[SignedZone], findings: &mut Findings) -> Vec<ZoneKeys> {
    let now = Clock::system().now();
    let mut read = Vec::new();
    for zone in zones {
        match read_keys(std::slice::from_ref(zone), now, &mut |_| ()) {
            Ok(keys) => {
                let count_of = |keys: &ZoneKeys| keys.key_set(now).dnskeys().count();
                let reported =
                    keys.iter().map(|keys| format!("signed {}: {}", keys.origin(), count(count_of(keys), "key")));
                findings.summary.extend(reported);
                read.extend_from_slice(&keys);
            }
            Err(faults) => findings.errors.extend(faults),
        }
    }
    read
}

/// Reads the GeoIP database. Notes a summary and warnings, or the errors.
fn places(file: &Path, registered: Registered, findings: &mut Findings) -> Option<Arc<Places>> {
    match read_geoip(Some(file), registered) {
        Ok(places) => {
            findings.summary.push(format!("GeoIP {}{}", file.display(), unknown_codes(places.unknown_codes())));
            let warnings = places.unknown_codes().iter().filter_map(|code| code_warning(file, code));
            findings.warnings.extend(warnings);
            Some(places)
        }
        Err(faults) => {
            findings.errors.extend(faults);
            None
        }
    }
}

/// A sentence about the codes that a database has instead of countries, with their counts; empty if it has none.
fn unknown_codes(codes: &[UnknownCode]) -> String {
    if codes.is_empty() {
        return String::new();
    }
    let counts: Vec<String> =
        codes.iter().map(|code| format!("\"{}\" of {}", code.code, count_of(code.networks, "network"))).collect();
    format!(": says {}: no country, so these clients are unknown", counts.join(", "))
}

/// A warning about a code that isn't a country's, such as `UK`. `None` for codes by which databases mark addresses
/// whose country they don't know.
fn code_warning(file: &Path, code: &UnknownCode) -> Option<String> {
    let about = geo::non_country(&code.code);
    let hint = match about {
        Some(NonCountry { stands_for: Some(code), .. }) => format!(" ({code} is meant)"),
        Some(_) => return None,
        None => String::new(),
    };
    Some(format!(
        "{}: says \"{}\" of {}, which is no country's code{hint}: these clients are unknown; mend the database, or \
         place them by \
         \"networks\" in the rules",
        file.display(),
        code.code,
        count_of(code.networks, "network")
    ))
}

/// Compiles zones together with the hosts in them that the rules steer, and signs them.
fn together(
    rules: Arc<Rules>,
    sources: Vec<ZoneSource>,
    keys: Vec<ZoneKeys>,
    places: Option<Arc<Places>>,
    findings: &mut Findings,
) {
    let places = places.unwrap_or_else(|| Arc::new(Places::none()));
    match World::build(rules, sources.into(), keys.into(), places, Clock::system().now(), None) {
        // If a zone has errors, it is missing here, and its hosts would get the wrong warning that they lie in no zone.
        Ok(world) if findings.errors.is_empty() => findings.warnings.extend_from_slice(world.warnings()),
        Ok(_) => {}
        Err(refusals) => findings.errors.extend(refusals.into_iter().map(Fault::from)),
    }
}

/// Compiles zones without the rules, if the rules have errors.
fn alone(sources: &[ZoneSource], findings: &mut Findings) {
    for source in sources {
        match Zone::compile(&source.origin, &source.records, &[]) {
            Ok(compiled) => findings.warnings.extend(compiled.warnings.iter().map(ToString::to_string)),
            Err(errors) => findings.errors.extend(errors.into_iter().map(Fault::from)),
        }
    }
}

/// Reads the certificate authorities that monitors and sources of loads name, each file once.
fn certificate_authorities(directory: &Path, table: &Table, findings: &mut Findings) {
    let mut read = BTreeSet::new();
    for region in table.regions() {
        let of_monitors = region.monitors().filter_map(|(place, monitor)| Some((place, monitor.probe.http()?)));
        let of_loads = region.load_sources().map(|(place, source)| (place, &source.http));
        for (place, probe) in of_monitors.chain(of_loads) {
            let Some(file) = &probe.ca_file else { continue };
            if read.insert(file)
                && let Err(mut fault) = authorities::read(&directory.join(file))
            {
                fault.message += &format!(" (named by {place}/ca_file)");
                findings.errors.push(fault);
            }
        }
    }
}

/// Reads the files of secrets, and checks that the aggregate, the access log, and each monitor that asks a model, has
/// its secret. `is_set` says whether the environment has a variable.
fn credentials(
    files: &SecretFiles,
    table: &Table,
    api: Option<&Api>,
    is_set: impl Fn(&str) -> bool,
    findings: &mut Findings,
) {
    for (name, file) in files {
        if let Err(mut fault) = read_secret(file) {
            fault.message += &format!(" (named by [secrets] {name})");
            findings.errors.push(fault);
        }
    }
    let mut look = |place: String, secret: Option<&SecretName>, what: &str| {
        if let Some(name) = secret.map(SecretName::as_str).filter(|name| !files.contains_key(*name) && !is_set(name)) {
            findings.warnings.push(format!(
                "{place}/secret: {name} has no value here, so that {what}; write {name} = \"FILE\" in [secrets], or \
                 set it in the environment of the node"
            ));
        }
    };
    for (place, monitor) in table.regions().iter().flat_map(Region::monitors) {
        let secret = monitor.probe.model().and_then(|probe| probe.http.secret.as_ref());
        look(place, secret, "the model can't be asked");
    }
    let secret = table.aggregate().and_then(|aggregate| aggregate.secret.as_ref());
    look("/aggregate".to_owned(), secret, "the aggregate can't be sent");
    let secret = api.and_then(|api| api.access_log.as_ref()?.secret.as_ref());
    look("[api.access_log]".to_owned(), secret, "the access log can't be sent");
}

/// Reads a certificate and its key. Several sections may name the same files, so each finding is recorded only once.
fn certificate(files: &TlsFiles, findings: &mut Findings) {
    match Certificate::read(files) {
        Ok(read) => {
            let warning = read.warning(Clock::system().now());
            findings.warnings.extend(warning.filter(|text| !findings.warnings.contains(text)));
        }
        Err(faults) => {
            let new: Vec<Fault> = faults.into_iter().filter(|fault| !findings.errors.contains(fault)).collect();
            findings.errors.extend(new);
        }
    }
}

/// A warning if the node would refuse the configured rules document, because a newer or conflicting one was in service.
fn older_than_kept(config: &Config) -> Option<String> {
    let last_good = std::fs::read(Store::rules_in(config.state_dir.as_deref()?)).ok()?;
    let last_good = Table::compile(&last_good).ok()?.revision();
    let new = Table::compile(&std::fs::read(&config.rules).ok()?).ok()?.revision();
    let why = match last_good.succession(&new) {
        Succession::Older => owner::older(&last_good, &new),
        Succession::Conflict => owner::conflicting(&last_good, &new),
        Succession::Newer | Succession::Same => return None,
    };
    Some(format!(
        "{}: /revision: this node would go on with the rules that it keeps in state_dir: {why}",
        config.rules.display()
    ))
}

/// The most files that this process may have open.
fn most_files() -> u64 {
    use nix::sys::resource::{Resource, getrlimit};
    getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(_, most)| most)
}

/// A warning if the configuration allows more connections than the process may have open files. Each connection is an
/// open file.
fn too_many_connections(config: &Config, most: u64) -> Option<String> {
    /// How many open files are needed for listening sockets, probes and files that are read.
    const OTHERS: u64 = 256;
    let wanted = u64::try_from(config.tcp.connections).unwrap_or(u64::MAX);
    (wanted.saturating_add(OTHERS) > most).then(|| {
        format!(
            "[tcp]: connections = {wanted}, but the system lets a process of this user have {most} files open: the \
             others wait \
             unaccepted; raise the limit (LimitNOFILE= of systemd, `ulimit -Hn`), or lower connections to {}",
            most.saturating_sub(OTHERS)
        )
    })
}

/// Checks the API's tokens, certificate and key.
fn secrets(api: &Api, findings: &mut Findings) {
    if let Some(files) = &api.tls {
        certificate(files, findings);
    }
    let files: Vec<&Path> = api.token_files().collect();
    for file in &files {
        match Token::read(file) {
            Ok(_) => findings.warnings.extend(warnings(file)),
            Err(fault) => findings.errors.push(fault),
        }
    }
    if files.is_empty() && !api.listen.ip().is_loopback() {
        findings.warnings.push(format!(
            "[api]: {} is no loopback address and there is no token_file, so nothing but /healthz is answered; add one",
            api.listen
        ));
    }
}

impl From<ConfigError> for Fault {
    fn from(error: ConfigError) -> Self {
        let place = if error.line == 0 { error.file } else { format!("{}:{}", error.file, error.line) };
        Self { place, message: error.message }
    }
}

impl Findings {
    /// The output of the command.
    fn report(self, json: bool) -> Report {
        let output = if json { self.json() } else { self.text() };
        // As JSON, the findings are part of the output. As text, they go to standard error, before the output.
        Report {
            output,
            errors: self.errors.iter().map(ToString::to_string).collect(),
            warnings: self.warnings,
            silent: json,
            ..Report::default()
        }
    }

    fn text(&self) -> String {
        let verdict = match (self.errors.len(), self.warnings.len()) {
            (0, 0) => "no errors, no warnings".to_owned(),
            (errors, warnings) => format!("{}, {}", count(errors, "error"), count(warnings, "warning")),
        };
        self.summary.iter().chain([&verdict]).map(|line| format!("{line}\n")).collect()
    }

    /// The findings as JSON.
    fn json(&self) -> String {
        #[derive(Serialize)]
        struct Document<'a> {
            ok: bool,
            summary: &'a [String],
            errors: Vec<Finding<'a>>,
            warnings: Vec<Finding<'a>>,
        }
        #[derive(Serialize)]
        struct Finding<'a> {
            place: &'a str,
            message: &'a str,
        }
        // A warning has the form "place: what is odd and how to mend it".
        fn split(text: &str) -> Finding<'_> {
            let (place, message) = text.split_once(": ").unwrap_or(("", text));
            Finding { place, message }
        }
        let document = Document {
            ok: self.errors.is_empty(),
            summary: &self.summary,
            errors: self.errors.iter().map(|fault| Finding { place: &fault.place, message: &fault.message }).collect(),
            warnings: self.warnings.iter().map(|text| split(text)).collect(),
        };
        // Serialising strings and a boolean never fails.
        let mut text = serde_json::to_string_pretty(&document).unwrap_or_default();
        text.push('\n');
        text
    }
}

/// A number with a noun in singular or plural: `1 zone`, `2 zones`.
fn count(number: usize, of: &str) -> String {
    count_of(number as u64, of)
}

fn count_of(number: u64, of: &str) -> String {
    format!("{number} {of}{}", if number == 1 { "" } else { "s" })
}
