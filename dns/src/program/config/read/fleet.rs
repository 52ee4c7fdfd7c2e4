//! Reads `[fleet]`: where this node's rules come from, and whose signatures it trusts. Called by the reader of the
//! whole file.

use bailiwick_rules::fleet::head::Stage;
use bailiwick_rules::receipt::PublicKey;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::Url;

use super::values::kind;
use super::{Key, Reader, Value};
use crate::program::config::Fleet;
use crate::program::config::keys::names;
use crate::state::fleet::{Mode, Nats, POLL};

impl Reader<'_> {
    /// Reads the section `[fleet]`.
    pub(super) fn fleet(&mut self, section: &Key<'_>, value: &Value<'_>) -> Fleet {
        let mut fleet = Fleet::default();
        let Some(table) = self.section("fleet", "mode = \"peers\"", value) else { return fleet };
        for (key, value) in table {
            match key.get_ref().as_ref() {
                "mode" => fleet.mode = self.mode(value),
                "peers" => fleet.peers = self.peers(value),
                "peers_token_file" => fleet.peers_token_file = self.path("fleet.peers_token_file", value),
                "peers_ca_file" => fleet.peers_ca_file = self.path("fleet.peers_ca_file", value),
                "nats" => fleet.nats = Some(self.nats(key, value)),
                "poll" => fleet.poll = self.pause("fleet.poll", value, "2s").unwrap_or(POLL),
                "sends_aggregate" => fleet.sends_aggregate = self.boolean("fleet.sends_aggregate", value),
                "writer" => fleet.writer = self.boolean("fleet.writer", value).unwrap_or_default(),
                "trusted_publishers" => fleet.trusted_publishers = self.publishers(value),
                "stage" => fleet.stage = self.stage(value),
                "gates" => fleet.gates = self.gates(value),
                "stages" => fleet.care = self.care(value),
                "voter" => self.note(
                    key.span(),
                    "voters stand in the rules document, as \"fleet\": {\"voters\": {…}}, so that DNS and edge agree; \
                     remove them here"
                        .to_owned(),
                ),
                _ => self.no_key("fleet.", key, &names("fleet")),
            }
        }
        if fleet.mode == Mode::Peers && fleet.peers.is_empty() && !fleet.writer {
            let message = "\"fleet.peers\" is missing; list the other nodes' APIs, such as \
                [\"https://ns2.example.com:8053\"], or set writer = true";
            self.note(section.span(), message.to_owned());
        }
        match (fleet.mode, &fleet.nats) {
            (Mode::Nats, None) => {
                let message = "\"fleet.nats\" is missing; add a section [fleet.nats] with servers = \
                    [\"tls://nats1.example.com:4222\"], as `bailiwick fleet nats-config` writes it";
                self.note(section.span(), message.to_owned());
            }
            (Mode::Files | Mode::Peers, Some(_)) => {
                let message = "\"fleet.nats\" is for mode = \"nats\"; set that, or remove the section";
                self.note(section.span(), message.to_owned());
            }
            _ => {}
        }
        if fleet.writer && fleet.mode != Mode::Peers {
            let message = "\"fleet.writer\" is for mode = \"peers\": elsewhere rules come from this node's \
                file; remove it";
            self.note(section.span(), message.to_owned());
        }
        fleet
    }

    fn mode(&mut self, value: &Value<'_>) -> Mode {
        self.word("fleet.mode", value, &Mode::ALL, Mode::Files)
    }

    fn stage(&mut self, value: &Value<'_>) -> Stage {
        self.word("fleet.stage", value, &Stage::ALL, Stage::Rest)
    }

    /// The texts of a list, each with its value in the file, which has the place.
    fn texts<'v>(&mut self, key: &str, example: &str, value: &'v Value<'v>) -> Vec<(&'v str, &'v Value<'v>)> {
        let Some(items) = value.get_ref().as_array() else {
            let kind = kind(value);
            self.note(value.span(), format!("\"{key}\" is {kind}; write a list, such as [{example}]"));
            return Vec::new();
        };
        items.iter().filter_map(|item| Some((self.string(key, item)?, item))).collect()
    }

    /// Reads the URLs of the other nodes.
    fn peers(&mut self, value: &Value<'_>) -> Vec<String> {
        let mut peers: Vec<String> = Vec::new();
        for (text, item) in self.texts("fleet.peers", "\"https://ns2.example.com:8053\"", value) {
            match peer(text) {
                Ok(peer) if peers.contains(&peer) => {
                    self.note(item.span(), format!("\"{peer}\" is listed twice; remove one"));
                }
                Ok(peer) => peers.push(peer),
                Err(message) => self.note(item.span(), message),
            }
        }
        peers
    }

    /// Reads the section `[fleet.nats]`.
    fn nats(&mut self, section: &Key<'_>, value: &Value<'_>) -> Nats {
        let mut nats = Nats::default();
        let Some(table) = self.section("fleet.nats", "servers = [\"tls://nats1.example.com:4222\"]", value) else {
            return nats;
        };
        let (mut certificate, mut secret) = (None, None);
        for (key, value) in table {
            match key.get_ref().as_ref() {
                "servers" => {
                    for (text, item) in self.texts("fleet.nats.servers", "\"tls://nats1.example.com:4222\"", value) {
                        match server(text) {
                            Ok(server) => nats.servers.push(server),
                            Err(message) => self.note(item.span(), message),
                        }
                    }
                }
                "ca_file" => nats.ca_file = self.path("fleet.nats.ca_file", value),
                "cert_file" => certificate = Some(self.path("fleet.nats.cert_file", value)),
                "key_file" => secret = Some(self.path("fleet.nats.key_file", value)),
                "nkey_file" => nats.nkey_file = self.path("fleet.nats.nkey_file", value),
                _ => self.no_key("fleet.nats.", key, &names("fleet.nats")),
            }
        }
        let is_listed = |(key, value): (&Key<'_>, &Value<'_>)| {
            key.get_ref() == "servers" && value.get_ref().as_array().is_none_or(|list| !list.is_empty())
        };
        if !table.iter().any(is_listed) {
            let message = "\"fleet.nats.servers\" is missing; list the servers, such as \
                [\"tls://nats1.example.com:4222\"]";
            self.note(section.span(), message.to_owned());
        }
        if certificate.is_some() != secret.is_some() {
            let message = "\"fleet.nats.cert_file\" and \"fleet.nats.key_file\" belong together; add the other";
            self.note(section.span(), message.to_owned());
        }
        nats.certificate = certificate.flatten().zip(secret.flatten());
        nats
    }

    /// Reads the public keys that may publish rules.
    fn publishers(&mut self, value: &Value<'_>) -> Vec<PublicKey> {
        let mut keys = Vec::new();
        for (text, item) in self.texts("fleet.trusted_publishers", "\"11qYAYKx…\"", value) {
            match URL_SAFE_NO_PAD.decode(text).ok().and_then(|bytes| bytes.try_into().ok()) {
                Some(key) => keys.push(PublicKey(key)),
                None => self.note(
                    item.span(),
                    "this is no publisher's key: write the 43 characters that `bailiwick fleet keygen` prints"
                        .to_owned(),
                ),
            }
        }
        keys
    }
}

/// Reads the URL of a peer (another node), and returns it without a slash at its end.
fn peer(text: &str) -> Result<String, String> {
    let no_url =
        || format!("\"{text}\" is no peer; write the URL of its API, such as \"https://ns2.example.com:8053\"");
    let url = Url::parse(text).map_err(|_| no_url())?;
    let is_plain = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
    if !["http", "https"].contains(&url.scheme()) || url.host().is_none() || !is_plain {
        return Err(no_url());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("a peer's URL holds a user or a password; name a token by peers_token_file instead".to_owned());
    }
    if url.scheme() == "http" && !is_loopback(&url) {
        return Err(format!(
            "\"{text}\" is asked in the clear, where everybody reads the token and may change the rules; write https"
        ));
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

/// Reads the URL of a NATS server. Without TLS, only a server on this machine is allowed.
fn server(text: &str) -> Result<String, String> {
    let no_url = || format!("\"{text}\" is no NATS server; write its URL, such as \"tls://nats1.example.com:4222\"");
    let url = Url::parse(text).map_err(|_| no_url())?;
    let is_plain = ["", "/"].contains(&url.path()) && url.query().is_none() && url.fragment().is_none();
    if !["tls", "nats"].contains(&url.scheme()) || url.host_str().is_none_or(str::is_empty) || !is_plain {
        return Err(no_url());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("a server's URL holds a user or a password; name an NKey by nkey_file instead".to_owned());
    }
    if url.scheme() == "nats" && !is_loopback(&url) {
        return Err(format!("\"{text}\" is talked to in the clear, where everybody may change what comes; write tls"));
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

/// Whether the host of a URL is a loopback address, such as `127.0.0.1`.
fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    address.is_ok_and(|address| address.is_loopback())
}
