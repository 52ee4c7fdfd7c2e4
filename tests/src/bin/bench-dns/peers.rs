//! The servers that are compared. Takes the addresses where one has to answer, writes its configuration, returns the
//! command that runs it in the foreground. Called by `server`. Each is set up to do no more than the others: no logs,
//! no statistics, no transfers, and as many threads as the command line says.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::shedding;
use crate::viewers;
use crate::workload::Kind;
use crate::world::{Country, ELSEWHERE, ORIGIN, SITES, STEERED, STEERED_TTL, rules, zone};

/// A server to be measured.
#[derive(Debug, Clone)]
pub(crate) enum Peer {
    /// The echo, which is the limit of what is possible.
    Echo,
    /// This project's server.
    Bailiwick(PathBuf),
    /// The same while it moves clients because of load, as the engine at this address tells.
    Shedding(PathBuf, SocketAddr),
    /// The same while viewers follow its picture, with its API at this address.
    Watched(PathBuf, SocketAddr),
    /// gdnsd with its geoip plugin.
    Gdnsd,
    /// NSD: static zones only.
    Nsd,
    /// Knot with its geoip module.
    Knot,
    /// BIND, over streams only: of the others none answers by HTTPS.
    Bind,
    /// A Knot that answers by QUIC, over that only. Debian 12's Knot does so only by XDP.
    KnotQuic(PathBuf),
    /// Whatever the user named.
    Other {
        /// Its name.
        name: String,
        /// The command that starts it.
        command: String,
    },
}

/// Where a server runs, and what it serves.
#[derive(Debug)]
pub(crate) struct Place<'p> {
    /// A folder of its own.
    pub(crate) folder: &'p Path,
    /// UDP and TCP.
    pub(crate) address: SocketAddr,
    /// TLS, if it is to be measured; `cert.pem` and `key.pem` are in the folder then.
    pub(crate) encrypted: Option<SocketAddr>,
    /// HTTPS, likewise.
    pub(crate) https: Option<SocketAddr>,
    /// QUIC, likewise.
    pub(crate) quic: Option<SocketAddr>,
    /// The country database.
    pub(crate) mmdb: &'p Path,
    /// Where countries are steered to.
    pub(crate) countries: &'p [Country],
    /// How many static names there are.
    pub(crate) names: u32,
    /// How many threads answer UDP.
    pub(crate) threads: usize,
}

impl Peer {
    /// Its name on the command line.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Echo => "echo",
            Self::Bailiwick(_) => "bailiwick",
            Self::Shedding(..) => "shedding",
            Self::Watched(..) => "watched",
            Self::Gdnsd => "gdnsd",
            Self::Nsd => "nsd",
            Self::Knot => "knot",
            Self::Bind => "bind",
            Self::KnotQuic(_) => "knot-quic",
            Self::Other { name, .. } => name,
        }
    }

    /// Whether it can be asked such questions.
    pub(crate) fn answers(&self, kind: Kind) -> bool {
        !matches!((self, kind), (Self::Nsd, Kind::Steered) | (Self::Bind | Self::KnotQuic(_), _))
    }

    /// The transports besides UDP that it is asked over: TCP, TLS, HTTPS, QUIC.
    pub(crate) fn speaks(&self) -> &'static [&'static str] {
        match self {
            Self::Echo | Self::Shedding(..) | Self::Watched(..) => &[],
            Self::Gdnsd | Self::Knot => &["tcp"],
            Self::Nsd => &["tcp", "dot"],
            Self::Bind => &["tcp", "dot", "doh"],
            Self::KnotQuic(_) => &["doq"],
            Self::Bailiwick(_) | Self::Other { .. } => &["tcp", "dot", "doh", "doq"],
        }
    }

    /// Why it can't be measured here, and how to mend that; `None` if it can.
    pub(crate) fn missing(&self) -> Option<String> {
        let program = match self {
            Self::Echo | Self::Other { .. } => return None,
            Self::Bailiwick(path) | Self::Shedding(path, _) | Self::Watched(path, _) if path.exists() => return None,
            Self::Bailiwick(path) | Self::Shedding(path, _) | Self::Watched(path, _) => {
                return Some(format!("{} is missing; cargo build --release --package bailiwick-dns", path.display()));
            }
            Self::KnotQuic(path) if path.exists() => return None,
            Self::KnotQuic(path) => return Some(format!("there is no {}; mend --knot-quic", path.display())),
            Self::Gdnsd => "gdnsd",
            Self::Nsd => "nsd",
            Self::Knot => "knotd",
            Self::Bind => "named",
        };
        match found(program) {
            Some(_) => None,
            None => Some(format!("{program} isn't installed; start this by scripts/bench/dns, which installs it")),
        }
    }

    /// What it says its version is.
    pub(crate) fn version(&self) -> String {
        let (program, argument) = match self {
            Self::Echo => return concat!("recvmmsg and sendmmsg of bailiwick ", env!("CARGO_PKG_VERSION")).to_owned(),
            Self::Other { command, .. } => return command.clone(),
            Self::Bailiwick(path) | Self::Shedding(path, _) | Self::Watched(path, _) => (path.clone(), "--version"),
            // It knows no argument for this, and tells it whenever it is misused.
            Self::Gdnsd => (PathBuf::from("gdnsd"), "-?"),
            Self::Nsd => (PathBuf::from("nsd"), "-v"),
            Self::Knot => (PathBuf::from("knotd"), "-V"),
            Self::KnotQuic(path) => (path.clone(), "-V"),
            Self::Bind => (PathBuf::from("named"), "-v"),
        };
        let program = program.to_str().and_then(found).unwrap_or(program);
        let Ok(output) = Command::new(&program).arg(argument).stdin(Stdio::null()).output() else {
            return String::new();
        };
        let reported = [output.stdout, output.stderr].concat();
        let reported = String::from_utf8_lossy(&reported);
        let line = reported.lines().find(|line| line.contains("ersion")).or(reported.lines().next());
        line.unwrap_or_default().trim().to_owned()
    }

    /// Writes what it needs and returns what starts it.
    ///
    /// # Errors
    /// When a file can't be written, or this program doesn't know its own path.
    pub(crate) fn command(&self, place: &Place<'_>) -> Result<Vec<String>, String> {
        let folder = place.folder.display();
        let port = place.address.port();
        let steered = format!("A {}", ELSEWHERE.address);
        let command = match self {
            Self::Echo => {
                let own = std::env::current_exe().map_err(|error| format!("where is this program? {error}"))?;
                let (address, threads) = (place.address.to_string(), place.threads.to_string());
                return Ok(words([&*own.to_string_lossy(), "--echo", &address, "--threads", &threads]));
            }
            Self::Bailiwick(path) | Self::Shedding(path, _) | Self::Watched(path, _) => return self.own(path, place),
            Self::Other { command, .. } => {
                bailiwick(place, None)?;
                let reported = command.replace("{port}", &port.to_string()).replace("{folder}", &folder.to_string());
                return Ok(words(["sh", "-c", &format!("exec {reported}")]));
            }
            Self::Gdnsd => {
                for sub in ["zones", "run", "state"] {
                    fs::create_dir(place.folder.join(sub)).map_err(|error| format!("{folder}/{sub}: {error}"))?;
                }
                let zone = zone(place.names, Some("DYNA geoip!steered"));
                write(place, &format!("zones/{ORIGIN}"), &zone)?;
                write(place, "config", &gdnsd(place))?;
                format!("gdnsd -c {folder} start")
            }
            Self::Nsd => {
                write(place, "zone", &zone(place.names, Some(&steered)))?;
                write(place, "conf", &nsd(place))?;
                format!("nsd -d -c {folder}/conf")
            }
            Self::Knot => {
                write(place, "zone", &zone(place.names, Some(&steered)))?;
                write(place, "geo", &knot_map(place))?;
                write(place, "conf", &knot(place))?;
                format!("knotd -c {folder}/conf")
            }
            Self::KnotQuic(path) => {
                write(place, "zone", &zone(place.names, Some(&steered)))?;
                write(place, "conf", &knot_quic(place))?;
                return Ok(words([&*path.to_string_lossy(), "-c", &format!("{folder}/conf")]));
            }
            Self::Bind => {
                write(place, "zone", &zone(place.names, Some(&steered)))?;
                write(place, "conf", &bind(place))?;
                format!("named -f -n {} -c {folder}/conf", place.threads)
            }
        };
        let mut command = words(command.split(' '));
        if let Some(path) = found(&command[0]) {
            command[0] = path.display().to_string();
        }
        Ok(command)
    }

    /// The same for this project's server.
    fn own(&self, path: &Path, place: &Place<'_>) -> Result<Vec<String>, String> {
        let api = if let Self::Watched(_, api) = self { Some(*api) } else { None };
        bailiwick(place, api)?;
        if let Self::Shedding(_, engine) = self {
            write(place, "rules.json", &shedding::rules(rules(place.countries), *engine).to_string())?;
        }
        let (path, config) = (path.to_string_lossy(), format!("{}/bailiwick.toml", place.folder.display()));
        Ok(words([&*path, "serve", "--log", "warn", "--config", &config]))
    }
}

fn words<'w>(words: impl IntoIterator<Item = &'w str>) -> Vec<String> {
    words.into_iter().map(str::to_owned).collect()
}

/// Where a program is: Debian keeps name servers where not everybody's PATH leads.
pub(crate) fn found(program: &str) -> Option<PathBuf> {
    if program.contains('/') {
        return Some(PathBuf::from(program));
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin", "/usr/local/sbin", "/sbin"].map(PathBuf::from));
    folders.map(|folder| folder.join(program)).find(|path| path.is_file())
}

fn write(place: &Place<'_>, name: &str, text: &str) -> Result<(), String> {
    let path = place.folder.join(name);
    fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))
}

/// This project's server, with an API if it has an address.
fn bailiwick(place: &Place<'_>, api: Option<SocketAddr>) -> Result<(), String> {
    let folder = place.folder.display();
    write(place, "zone", &zone(place.names, None))?;
    write(place, "rules.json", &rules(place.countries).to_string())?;
    let linked = std::os::unix::fs::symlink(place.mmdb, place.folder.join("geo.mmdb"));
    linked.map_err(|error| format!("{folder}/geo.mmdb: {error}"))?;
    let mut config = format!(
        "listen = [\"{}\"]\nthreads = {}\nrules = \"rules.json\"\ngeoip = \"geo.mmdb\"\nstate_dir = \"state\"\n",
        place.address, place.threads
    );
    let _ = write!(config, "[zones]\n\"{ORIGIN}\" = \"zone\"\n");
    for (section, address) in [("dot", place.encrypted), ("doh", place.https), ("doq", place.quic)] {
        if let Some(address) = address {
            let _ = write!(config, "[{section}]\nlisten = [\"{address}\"]\ncert = \"cert.pem\"\nkey = \"key.pem\"\n");
        }
    }
    if let Some(api) = api {
        write(place, "token", viewers::TOKEN)?;
        let _ = write!(config, "[api]\nlisten = \"{api}\"\ntoken_file = \"token\"\n");
    }
    write(place, "bailiwick.toml", &config)
}

fn gdnsd(place: &Place<'_>) -> String {
    let (folder, threads) = (place.folder.display(), place.threads);
    let mut text = format!(
        "options => {{\n listen => {}\n udp_threads => {threads}\n tcp_threads => {threads}\n run_dir => \
         {folder}/run\n \
         state_dir => {folder}/state\n}}\nservice_types => {{}}\nplugins => {{ geoip => {{\n maps => {{ world => {{\n  \
         geoip2_db => {}\n  datacenters => [",
        place.address,
        place.mmdb.display()
    );
    let mut names: Vec<&str> = SITES.iter().map(|site| site.name).collect();
    names.push(ELSEWHERE.name);
    let _ = writeln!(text, "{}]\n  map => {{\n   default => [{}]", names.join(", "), ELSEWHERE.name);
    for continent in ["AF", "AN", "AS", "EU", "NA", "OC", "SA"] {
        let _ = write!(text, "   {continent} => {{ default => [{}]", ELSEWHERE.name);
        for country in place.countries.iter().filter(|country| country.continent == continent) {
            let _ = write!(text, ", {} => [{}]", country.code.as_str(), country.site.name);
        }
        text.push_str(" }\n");
    }
    text.push_str("  }\n } }\n resources => { steered => {\n  map => world\n  service_types => up\n  dcmap => {\n");
    for site in SITES.iter().chain([&ELSEWHERE]) {
        let _ = writeln!(text, "   {} => {}", site.name, site.address);
    }
    text.push_str("  }\n } }\n} }\n");
    text
}

fn nsd(place: &Place<'_>) -> String {
    let (folder, address) = (place.folder.display(), place.address);
    let (ip, port, threads) = (address.ip(), address.port(), place.threads);
    let mut text = format!(
        "server:\n server-count: {threads}\n ip-address: {ip}@{port}\n port: {port}\n reuseport: {}\n username: \"\"\n \
         chroot: \"\"\n zonesdir: \"{folder}\"\n database: \"\"\n pidfile: \"{folder}/pid\"\n xfrdfile: \
         \"{folder}/xfrd\"\n \
         xfrdir: \"{folder}\"\n zonelistfile: \"{folder}/list\"\n logfile: \"{folder}/log\"\n minimal-responses: yes\n \
         rrl-ratelimit: 0\n rrl-whitelist-ratelimit: 0\n",
        if threads > 1 { "yes" } else { "no" }
    );
    if let Some(tls) = place.encrypted {
        let _ = write!(
            text,
            " ip-address: {ip}@{0}\n tls-port: {0}\n tls-service-key: \"{folder}/key.pem\"\n tls-service-pem: \
             \"{folder}/cert.pem\"\n",
            tls.port()
        );
    }
    let _ = write!(text, "remote-control:\n control-enable: no\nzone:\n name: {ORIGIN}\n zonefile: zone\n");
    text
}

/// Knot with its geoip module.
fn knot(place: &Place<'_>) -> String {
    format!(
        "{}mod-geoip:\n  - id: steered\n    config-file: {}/geo\n    ttl: {STEERED_TTL}\n    mode: geodb\n    \
         geodb-file: {}\n    geodb-key: country/iso_code\n{}    module: mod-geoip/steered\n",
        knot_server(place, "  edns-client-subnet: on\n"),
        place.folder.display(),
        place.mmdb.display(),
        knot_zone(place)
    )
}

/// A newer Knot that answers by QUIC too.
fn knot_quic(place: &Place<'_>) -> String {
    let folder = place.folder.display();
    let listen = place.quic.map_or_else(String::new, |quic| format!("  listen-quic: {}@{}\n", quic.ip(), quic.port()));
    let quic = format!("{listen}  cert-file: {folder}/cert.pem\n  key-file: {folder}/key.pem\n");
    knot_server(place, &quic) + &knot_zone(place)
}

/// What every Knot has in common. `more` are further lines of the section `server`.
fn knot_server(place: &Place<'_>, more: &str) -> String {
    let (folder, threads, ip, port) = (place.folder.display(), place.threads, place.address.ip(), place.address.port());
    format!(
        "server:\n  rundir: {folder}\n  listen: {ip}@{port}\n  udp-workers: {threads}\n  tcp-workers: {threads}\n  \
         background-workers: 1\n{more}log:\n  - target: stderr\n    any: warning\ndatabase:\n  storage: {folder}\n"
    )
}

fn knot_zone(place: &Place<'_>) -> String {
    format!(
        "template:\n  - id: default\n    storage: {}\n    zonefile-sync: -1\n    zonefile-load: whole\n    \
         journal-content: none\n    semantic-checks: off\nzone:\n  - domain: {ORIGIN}\n    file: zone\n",
        place.folder.display()
    )
}

fn bind(place: &Place<'_>) -> String {
    let (folder, address) = (place.folder.display(), place.address);
    let ip = address.ip();
    let mut listen = format!(" listen-on port {} {{ {ip}; }};\n", address.port());
    let mut text = String::new();
    if let Some((tls, https)) = place.encrypted.zip(place.https) {
        let _ = write!(
            text,
            "tls own {{ cert-file \"{folder}/cert.pem\"; key-file \"{folder}/key.pem\"; }};\n\
             http own {{ endpoints {{ \"/dns-query\"; }}; }};\n"
        );
        let _ = write!(
            listen,
            " listen-on port {} tls own {{ {ip}; }};\n listen-on port {} tls own http own {{ {ip}; }};\n",
            tls.port(),
            https.port()
        );
    }
    let _ = write!(
        text,
        "options {{\n directory \"{folder}\";\n pid-file none;\n session-keyfile none;\n lock-file none;\n{listen} \
         listen-on-v6 {{ none; }};\n \
         recursion no;\n allow-query {{ any; }};\n notify no;\n dnssec-validation no;\n minimal-responses yes;\n \
         zone-statistics none;\n \
         querylog no;\n}};\ncontrols {{ }};\nlogging {{ category default {{ null; }}; }};\n\
         zone \"{ORIGIN}\" {{ type primary; file \"{folder}/zone\"; }};\n"
    );
    text
}

fn knot_map(place: &Place<'_>) -> String {
    let mut text = format!("{STEERED}.{ORIGIN}:\n");
    for country in place.countries {
        let _ = write!(text, "  - geo: \"{}\"\n    A: {}\n", country.code.as_str(), country.site.address);
    }
    let _ = write!(text, "  - geo: \"*\"\n    A: {}\n", ELSEWHERE.address);
    text
}
