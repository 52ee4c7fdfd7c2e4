//! Every key of `bailiwick.toml` with its meaning. The reader takes the names of known keys from here, and
//! `docs/reference.md` is generated from it.

mod fleet;

use WhenMissing::{Nothing, Required, Value, Words};

/// What applies if a key is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenMissing {
    /// An error: the key is required.
    Required,
    /// No value: the feature that the key sets is off.
    Nothing,
    /// This default value, as TOML.
    Value(&'static str),
    /// A default that these words describe.
    Words(&'static str),
}

/// A section of the file, or the part of the file above all sections.
#[derive(Debug)]
pub struct Section {
    /// The name of the section; empty for the keys above all sections.
    pub name: &'static str,
    /// The heading of the section in the reference.
    pub heading: &'static str,
    /// The purpose of the section.
    pub meaning: &'static str,
    /// The keys of the section.
    pub keys: &'static [Key],
}

/// A key of the configuration.
#[derive(Debug)]
pub struct Key {
    /// The name of the key.
    pub name: &'static str,
    /// What the value looks like, with its unit and range.
    pub kind: &'static str,
    /// What applies if the key is missing.
    pub when_missing: WhenMissing,
    /// What the key sets.
    pub meaning: &'static str,
}

const fn key(name: &'static str, kind: &'static str, when_missing: WhenMissing, meaning: &'static str) -> Key {
    Key { name, kind, when_missing, meaning }
}

/// The keys of an encrypted transport's section.
const ENCRYPTED: &[Key] = &[
    key("listen", "address and port, or a list of them", Required, "Where it listens. Port 0 is any free port."),
    key("cert", "path", Required, "The certificate chain in PEM. Read again when it changes."),
    key("key", "path", Required, "The certificate's private key in PEM. Read again when it changes."),
];

/// All sections of the file, in the order in which `bailiwick init` writes them.
pub const SECTIONS: &[Section] = &[
    Section {
        name: "",
        heading: "Above all sections",
        meaning: "Relative paths start at the folder of the file.",
        keys: &[
            key("node", "string", Words("the machine's host name"), "The node's name in health reports."),
            key(
                "listen",
                "list of addresses with ports",
                Required,
                "Where DNS is served, by UDP and TCP. Port 0 is any free port.",
            ),
            key(
                "ipv6_only",
                "boolean",
                Words("`true` where an IPv4 address is listened on with the same port"),
                "Whether sockets at `[::]` take no IPv4.",
            ),
            key(
                "threads",
                "integer from 1 to 1024",
                Words("as many as cores"),
                "How many threads answer UDP at each address.",
            ),
            key("rules", "path", Required, "The rules document. Read again when it changes."),
            key(
                "geoip",
                "path",
                Nothing,
                "A GeoIP database in MMDB format. Without one only the rules' `networks` place clients.",
            ),
            key(
                "geoip_registered_country",
                "boolean",
                Value("false"),
                "Whether an address without a country in the database is where it is registered.",
            ),
            key(
                "state_dir",
                "path",
                Nothing,
                "A directory for the last good version of everything, and for overrides. Without one nothing outlives \
                 the process.",
            ),
            key(
                "shrink",
                "`\"hold\"` or `\"take\"`",
                Value("\"hold\""),
                "A new version of a zone that lacks over a third of its names: `hold` waits for a SIGHUP or for a \
                 minute without a change, `take` takes it.",
            ),
            key(
                "responses",
                "`\"minimal\"` or `\"full\"`",
                Value("\"minimal\""),
                "Whether positive answers have an authority and an additional section.",
            ),
        ],
    },
    Section {
        name: "zones",
        heading: "`[zones]`",
        meaning: "The zones that this node answers for. Steered names come from the rules and need no line here.",
        keys: &[key("\"example.com\"", "path", Required, "The zone's name in quotes, and its master file.")],
    },
    Section {
        name: "dnssec",
        heading: "`[dnssec.\"example.com\"]`",
        meaning: "A zone of `[zones]` that is signed; a section for each.",
        keys: &[
            key("keys", "path", Required, "The directory of its keys. Every node has the same files in it."),
            key(
                "cds",
                "`\"off\"`, `\"publish\"` or `\"delete\"`",
                Value("\"off\""),
                "What CDS and CDNSKEY tell the parent: nothing, which DS to hold, or to remove them.",
            ),
            key(
                "dnskey_ttl",
                "duration from 1s to 24h, whole seconds",
                Value("\"1h\""),
                "How long resolvers keep the keys.",
            ),
            key(
                "ds_ttl",
                "duration from 0s to 336h, whole seconds",
                Value("\"48h\""),
                "How long resolvers keep the DS: the parent's choice.",
            ),
            key(
                "propagation",
                "duration from 0s to 336h, whole seconds",
                Value("\"1h\""),
                "Within what time every node, and every server of the parent, has a change.",
            ),
        ],
    },
    Section {
        name: "api",
        heading: "`[api]`",
        meaning: "The HTTP API. Without the section none is served. Reading needs no token on a loopback address; \
                  writing always does.",
        keys: &[
            key("listen", "address and port", Required, "Where it listens."),
            key("token_file", "path", Nothing, "A file whose first line is a token that may read and write."),
            key(
                "write_token_files",
                "list of paths",
                Value("[]"),
                "More such files, so that a new token can be accepted beside the old one.",
            ),
            key(
                "worker_token_files",
                "list of paths",
                Value("[]"),
                "Files of tokens of Workers: they may read, and post what they observed.",
            ),
            key("read_token_files", "list of paths", Value("[]"), "Files of tokens that may read and no more."),
            key(
                "region_token_files",
                "table of a region and a list of paths",
                Nothing,
                "Files of tokens of the applications in a region: they may read bundles, and get the versions of that \
                 region.",
            ),
            key("cert", "path", Nothing, "A certificate chain in PEM. With `key`, the API speaks TLS."),
            key("key", "path", Nothing, "The certificate's private key in PEM."),
        ],
    },
    Section {
        name: "api.access_log",
        heading: "`[api.access_log]`",
        meaning: "Who gets an event of each change by the API. Without the section, events are in the node's log only.",
        keys: &[
            key(
                "otlp",
                "URL",
                Required,
                "Where events are posted by OTLP over HTTP with JSON, such as \
                 `\"https://otel.example.net/v1/logs\"`. `https`, or `http` to this machine.",
            ),
            key(
                "secret",
                "string",
                Nothing,
                "The name of a secret of `[secrets]` or the environment, which is sent as a bearer token.",
            ),
        ],
    },
    Section {
        name: "cookies",
        heading: "`[cookies]`",
        meaning: "DNS cookies (RFC 7873). Nodes with the same secrets accept each other's.",
        keys: &[
            key(
                "secret_files",
                "list of paths",
                Words("a random secret"),
                "Files of 32 hexadecimal digits each. The first signs, all verify.",
            ),
            key(
                "required",
                "boolean",
                Value("false"),
                "Whether a client that knows cookies needs a good one by UDP; else it gets BADCOOKIE.",
            ),
        ],
    },
    Section {
        name: "identity",
        heading: "`[identity]`",
        meaning: "What the server says of itself when it is asked; by default nothing. Each text has at most 255 \
                  octets.",
        keys: &[
            key("version", "string", Nothing, "The answer to `version.bind` and `version.server`."),
            key("hostname", "string", Nothing, "The answer to `hostname.bind` and `id.server`."),
            key("nsid", "string", Nothing, "The NSID (RFC 5001)."),
        ],
    },
    Section {
        name: "dot",
        heading: "`[dot]`",
        meaning: "DNS over TLS (RFC 7858). Without the section none is served.",
        keys: ENCRYPTED,
    },
    Section {
        name: "doq",
        heading: "`[doq]`",
        meaning: "DNS over QUIC (RFC 9250). Without the section none is served.",
        keys: ENCRYPTED,
    },
    Section {
        name: "doh",
        heading: "`[doh]`",
        meaning: "DNS over HTTPS (RFC 8484) at `/dns-query`. Without the section none is served.",
        keys: ENCRYPTED,
    },
    Section {
        name: "tcp",
        heading: "`[tcp]`",
        meaning: "Limits of TCP, TLS, HTTPS and QUIC together.",
        keys: &[
            key("connections", "integer from 1 to 1000000", Value("1024"), "How many connections there may be."),
            key(
                "per_client",
                "integer from 1 to 1000000",
                Value("64"),
                "How many of them one IPv4 address or IPv6 /64 may have.",
            ),
            key("idle", "duration from 100ms to 10m", Value("\"10s\""), "How long a connection may be silent."),
        ],
    },
    Section {
        name: "rate_limit",
        heading: "`[rate_limit]`",
        meaning: "Limits answers by UDP of one class to one prefix. Without the section nothing is limited.",
        keys: &[
            key(
                "per_second",
                "integer from 1 to 1000000",
                Required,
                "Answers of one class that a prefix gets in a second.",
            ),
            key(
                "slip",
                "integer from 0 to 100",
                Value("2"),
                "Of answers over the limit every so many goes out truncated; the others aren't sent. 0: none is sent.",
            ),
            key("ipv4_prefix", "integer from 1 to 32", Value("24"), "How long a prefix is, in bits."),
            key("ipv6_prefix", "integer from 1 to 128", Value("56"), "The same for IPv6."),
            key("exempt", "list of networks", Value("[]"), "Who isn't limited."),
        ],
    },
    Section {
        name: "signing",
        heading: "`[signing]`",
        meaning: "Limits signatures that are made because somebody asks, by datagram, and as many by stream.",
        keys: &[
            key("per_second", "integer from 1 to 100000", Value("200"), "Signatures in a second for one prefix."),
            key("in_all", "integer from 1 to 100000", Value("2000"), "Signatures in a second for all."),
            key("ipv4_prefix", "integer from 1 to 32", Value("24"), "How long a prefix is, in bits."),
            key("ipv6_prefix", "integer from 1 to 128", Value("56"), "The same for IPv6."),
        ],
    },
    Section {
        name: "secrets",
        heading: "`[secrets]`",
        meaning: "The files of secrets that monitors and sources of loads name. Others are environment variables.",
        keys: &[key(
            "NAME",
            "path",
            Nothing,
            "The name as the rules write it, and a file whose first line is the value. It is read again when it \
             changes.",
        )],
    },
    Section {
        name: "fleet",
        heading: "`[fleet]`",
        meaning: "Other nodes that serve the same rules.",
        keys: fleet::KEYS,
    },
    Section {
        name: "fleet.gates",
        heading: "`[fleet.gates]`",
        meaning: "What a change of the rules may come to. On the writer; `rules publish` and `rules diff` ask it.",
        keys: fleet::GATES,
    },
    Section {
        name: "fleet.stages",
        heading: "`[fleet.stages]`",
        meaning: "How carefully a revision goes from stage to stage. On the writer; `rules watch` asks it.",
        keys: fleet::STAGES,
    },
    Section {
        name: "fleet.nats",
        heading: "`[fleet.nats]`",
        meaning: "How NATS is reached, with `mode = \"nats\"`. `bailiwick fleet nats-config` writes it.",
        keys: fleet::NATS,
    },
];

/// The names of a section's keys, and of the sections directly below it. The empty name stands for the top level: the
/// keys above all sections, and the sections themselves.
pub(crate) fn names(section: &str) -> Vec<&'static str> {
    let keys = SECTIONS.iter().filter(|known| known.name == section).flat_map(|known| known.keys).map(|key| key.name);
    let below = |name: &'static str| match section {
        "" => Some(name),
        _ => name.strip_prefix(section)?.strip_prefix('.'),
    };
    let sections = SECTIONS.iter().filter_map(|known| below(known.name));
    keys.chain(sections.filter(|name| !name.is_empty() && !name.contains('.'))).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::program::config::Config;

    /// The text of a file with this section, its required keys, and `line`.
    fn with(section: &Section, line: &str) -> String {
        let (above, line) = if section.name.is_empty() { (line, "") } else { ("", line) };
        let heading = match section.name {
            "" => String::new(),
            "dnssec" => "[dnssec.'a.example']\n".to_owned(),
            name => format!("[{name}]\n"),
        };
        let needed = match section.name {
            "dnssec" => "keys = 'k'\n",
            "api" => "listen = '127.0.0.1:0'\n",
            "api.access_log" => "otlp = 'https://otel.example/v1/logs'\n",
            "rate_limit" => "per_second = 20\n",
            "dot" | "doq" | "doh" => "listen = '127.0.0.1:0'\ncert = 'c'\nkey = 'k'\n",
            _ => "",
        };
        format!("listen = ['127.0.0.1:0']\nrules = 'r'\n{above}\n[zones]\n'a.example' = 'a'\n{heading}{needed}{line}\n")
    }

    fn read(text: &str) -> Config {
        Config::parse(text, "b.toml", Path::new("/etc/b")).unwrap_or_else(|errors| panic!("{text}\n{errors:?}"))
    }

    #[test]
    fn every_default_is_what_the_reader_takes_without_the_key() {
        for section in SECTIONS {
            for key in section.keys {
                let Value(value) = key.when_missing else { continue };
                let written = read(&with(section, &format!("{} = {value}", key.name)));
                assert_eq!(written, read(&with(section, "")), "{} {}", section.heading, key.name);
            }
        }
    }

    #[test]
    fn every_key_is_known_to_the_reader_and_needed_where_it_says_so() {
        for section in SECTIONS.iter().filter(|section| section.name != "zones") {
            for key in section.keys {
                let odd = Config::parse(&with(section, &format!("{} = 1979-05-27", key.name)), "b", Path::new("/"));
                let reported = format!("{odd:?}");
                assert!(!reported.contains("unknown key"), "{} {}: {reported}", section.heading, key.name);
            }
        }
        for section in SECTIONS.iter().filter(|section| !["", "zones", "dnssec"].contains(&section.name)) {
            let text = format!("listen = ['127.0.0.1:0']\nrules = 'r'\n[{}]\n", section.name);
            let errors = Config::parse(&text, "b", Path::new("/")).err().unwrap_or_default();
            for key in section.keys {
                let wanted = format!("\"{}.{}\" is missing", section.name, key.name);
                let is_missing = errors.iter().any(|error| error.message.starts_with(&wanted));
                assert_eq!(is_missing, key.when_missing == Required, "{} {}: {errors:?}", section.heading, key.name);
            }
        }
    }
}
