//! Tests of the commands for keys, over a folder of files: a rollover step by step, and steps that come too early.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use clap::Parser;

use super::*;
use crate::dnssec::directory::STATE;

const NOW: Timestamp = Timestamp(1_800_000_000_000);
const HOUR: u64 = 3_600_000;

#[derive(Debug, Parser)]
struct Line {
    #[command(subcommand)]
    command: KeysCommand,
}

/// A configuration with a zone whose longest TTL is four hours.
struct Node(tempfile::TempDir);

impl Node {
    fn new() -> Self {
        let node = Self(tempfile::tempdir().unwrap());
        node.write("bailiwick.toml", CONFIG);
        node.write("a.zone", "$TTL 1h\n@ SOA ns.x. h.x. 1 2 3 4 5\n@ 4h NS ns.x.\n");
        node.write("rules.json", r#"{"version": 1, "revision": 1}"#);
        node
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    fn keys(&self, words: &str, hours: u64) -> Report {
        let config = self.path("bailiwick.toml").display().to_string();
        let line = ["keys"].into_iter().chain(words.split(' ')).chain(["--config", &config]);
        run(&Line::try_parse_from(line).unwrap().command, NOW.after(Millis(hours * HOUR)))
    }

    fn fine(&self, words: &str, hours: u64) -> String {
        let reported = self.keys(words, hours);
        assert!(reported.errors.is_empty(), "{words} after {hours} h: {reported:?}");
        reported.output
    }

    fn refused(&self, words: &str, hours: u64) -> String {
        let reported = self.keys(words, hours);
        assert!(reported.errors.len() == 1 && reported.output.is_empty(), "{words} after {hours} h: {reported:?}");
        reported.errors[0].clone()
    }
}

const CONFIG: &str = "listen = ['127.0.0.1:0']\nrules = 'rules.json'\n[zones]\n'a.example' = 'a.zone'\n\
                      [dnssec.'a.example']\nkeys = 'keys/a'\n";

fn files(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_key_goes_from_generation_to_removal_and_no_step_comes_early() {
    let node = Node::new();
    let made = node.fine("generate", 0);
    // The DS may go to the parent after the propagation time (1 h) and the zone's longest TTL (4 h).
    assert!(made.contains("From 2027-01-15T13:00:00Z on, when no resolver holds the zone unsigned"), "{made}");
    assert!(node.refused("ds", 4).contains("too early for the parent: resolvers may hold the zone unsigned"));
    let first = node.fine("ds", 5);
    assert!(first.starts_with("a.example. IN DS ") && first.contains(" 13 2 "), "{first}");
    assert_eq!(first, node.fine("ds --early", 0));
    assert!(node.refused("roll", 4).ends_with("; try again at 2027-01-15T13:00:00Z or later"));
    assert!(node.refused("roll --ds-seen", 5).contains("no rollover is under way"));

    // The new DS may go to the parent after the propagation time (1 h) and the TTL of DNSKEY (1 h).
    let begun = node.fine("roll", 5);
    assert!(begun.contains("From 2027-01-15T15:00:00Z on, bring the new DS to the parent"), "{begun}");
    assert!(node.refused("roll", 6).contains("a rollover to key "));
    assert!(node.refused("ds", 6).contains("resolvers may hold the zone's keys without key "));
    assert!(node.refused("roll --ds-seen", 6).ends_with("; try again at 2027-01-15T15:00:00Z or later"));
    let second = node.fine("ds", 7);
    assert_ne!(first, second);
    let listed = node.fine("list", 7);
    assert!(listed.contains("active") && listed.contains("published") && listed.contains("in place of the old one"));

    // The old key leaves after the propagation time (1 h) and the TTL of the DS (48 h), which is longer than the
    // zone's.
    let finished = node.fine("roll --ds-seen", 8);
    assert!(finished.contains("leaves by itself at 2027-01-17T17:00:00Z"), "{finished}");
    assert_eq!(node.fine("ds", 8), second);
    assert!(node.refused("roll", 56).ends_with("; try again at 2027-01-17T17:00:00Z or later"));
    assert!(node.fine("list", 57).contains("removed"));
    node.fine("roll", 57);
    assert_eq!(files(&node.path("keys/a")).len(), 4, "three keys and the state");
}

#[test]
fn what_is_listed_as_json_has_every_time() {
    let node = Node::new();
    node.fine("generate --algorithm 15", 0);
    let json: serde_json::Value = serde_json::from_str(&node.fine("list --json", 0)).unwrap();
    let zone = &json[0];
    assert_eq!((&zone["zone"], &zone["keys"][0]["state"]), (&"a.example.".into(), &"active".into()));
    assert_eq!(zone["keys"][0]["algorithm"], 15);
    assert_eq!(zone["keys"][0]["ready"], "2027-01-15T13:00:00Z");
    assert_eq!(zone["keys_sha256"].as_str().unwrap().len(), 64);
    assert!(zone["next"].as_str().unwrap().starts_with("from 2027-01-15T13:00:00Z on, bring the DS of key "));
}

#[test]
fn nothing_is_overwritten_and_nothing_half_done() {
    let node = Node::new();
    assert!(
        node.refused("roll", 0)
            .contains("is missing; make the zone's first key with `bailiwick keys generate --zone a.example.")
    );
    assert!(!node.path("keys").exists(), "no directory is made in vain");
    node.fine("generate", 0);
    let before: Vec<_> =
        files(&node.path("keys/a")).iter().map(|name| std::fs::read(node.path("keys/a").join(name)).unwrap()).collect();
    assert!(node.refused("generate", 0).contains("the zone has a key already"));
    node.refused("roll", 0);
    let after: Vec<_> =
        files(&node.path("keys/a")).iter().map(|name| std::fs::read(node.path("keys/a").join(name)).unwrap()).collect();
    assert_eq!(before, after, "a refused step leaves no key behind");
    for name in files(&node.path("keys/a")) {
        let mode = std::fs::metadata(node.path("keys/a").join(&name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    // If the file of the new key was lost, this key can't become the one that signs.
    node.fine("roll", 5);
    let state = std::fs::read(node.path("keys/a").join(STATE)).unwrap();
    let state = crate::dnssec::state::State::parse(&state).unwrap();
    std::fs::remove_file(node.path("keys/a").join(&state.successor().unwrap().file)).unwrap();
    assert!(node.refused("roll --ds-seen", 7).contains("is missing, and state.json names it"));
}

#[test]
fn a_zone_has_to_be_signed_and_named_where_several_are() {
    let node = Node::new();
    assert!(node.refused("list --zone b.example", 0).contains("b.example. is no zone of [zones]"));
    let two = CONFIG.replace("[dnssec", "'b.example' = 'a.zone'\n[dnssec");
    node.write("bailiwick.toml", &two);
    assert!(
        node.refused("generate --zone b.example", 0)
            .contains("b.example. isn't signed; add a section [dnssec.\"b.example.\"]")
    );
    node.write("bailiwick.toml", &format!("{two}[dnssec.'b.example']\nkeys = 'keys/b'\n"));
    assert!(node.refused("generate", 0).contains("name one with --zone: a.example., b.example."));
    node.fine("generate --zone A.example.", 0);
    let reported = node.keys("list", 0);
    assert!(
        reported.output.contains("a.example.") && reported.errors[0].contains("keys/b/state.json: is missing"),
        "{reported:?}"
    );
    node.write("bailiwick.toml", CONFIG.split("[dnssec").next().unwrap());
    assert!(node.refused("list", 0).contains("no zone is signed; add a section [dnssec.\"a.example.\"]"));
    assert!(Line::try_parse_from(["keys", "ds", "--zone", "a..b"]).is_err());
}

#[test]
fn rules_count_for_the_longest_ttl_even_those_last_in_service() {
    let node = Node::new();
    let rules = |ttl: u32| {
        format!(
            r#"{{"version": 1, "revision": 1, "jurisdictions": {{"eu": {{"include": ["EU"]}}}},
                "regions": {{"fra": {{"countries": ["DE"], "answers": {{"A": ["192.0.2.1"]}}}}}},
                "services": {{"chat": {{"hosts": ["chat.a.example"], "pattern": "active-active", "regions": ["fra"],
                              "ttl": {{"min": 5, "max": {ttl}}}, "residency": [{{"clients": ["eu"],
                                  "process_in": ["eu"]}}]}}}}}}"#
        )
    };
    node.write("a.zone", "$TTL 1h\n@ SOA ns.x. h.x. 1 2 3 4 5\n@ NS ns.x.\n");
    node.write("bailiwick.toml", &CONFIG.replace("[zones]", "state_dir = 'state'\n[zones]"));
    let longest = |node: &Node| {
        let zone = ZoneArgs { zone: None, config: node.path("bailiwick.toml") };
        zone.find().unwrap().longest_ttl().unwrap()
    };
    assert_eq!(longest(&node), Millis(HOUR));
    node.write("rules.json", &rules(7200));
    assert_eq!(longest(&node), Millis(2 * HOUR));
    std::fs::create_dir(node.path("state")).unwrap();
    node.write("state/rules.last-good.json", &rules(10_800));
    assert_eq!(longest(&node), Millis(3 * HOUR));
    node.write("a.zone", "nonsense");
    assert!(node.refused("generate", 0).contains("a.zone:1: "));
}
