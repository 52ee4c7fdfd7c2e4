//! Tests of starts and reloads with real files: valid files, broken files, and last good versions.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use bailiwick_host::locate::geoip::testing::{DatabaseBuilder, flat};
use bailiwick_rules::rules::Monitor;
use bailiwick_rules::time::Millis;
use tempfile::TempDir;

use super::*;
use crate::dnssec::directory::Locked;
use crate::dnssec::key::{Algorithm, SigningKey};
use crate::dnssec::policy::Policy;
use crate::dnssec::state::State;
use crate::dnssec::timeline::{self, NewKey};
use crate::program::config::SignedZone;
use crate::state::probe::{ProbeFailure, ProbeSuccess, Targets};

/// Every probe succeeds.
struct Healthy;

impl Prober for Healthy {
    async fn probe(&self, _: &Monitor, _: Targets) -> Result<ProbeSuccess, ProbeFailure> {
        Ok(ProbeSuccess::default())
    }

    async fn read_load(
        &self,
        _: &bailiwick_rules::rules::LoadSource,
    ) -> Result<bailiwick_rules::load::EngineReading, String> {
        Err("nothing is read here".to_owned())
    }

    async fn read_replica(
        &self,
        _: &bailiwick_rules::rules::ReplicaSource,
        _: &Clock,
    ) -> Result<bailiwick_rules::replica::ReplicaReading, bailiwick_rules::replica::ReadFailure> {
        Err(bailiwick_rules::replica::ReadFailure::Wrong("nothing is read here".to_owned()))
    }
}

const HEAD: &str = "$TTL 1h\n@ SOA ns.example.net. h.example.net. 1 2 3 4 60\n@ NS ns.example.net.\n";

/// A node's files in a directory of their own.
struct Node {
    directory: TempDir,
}

impl Node {
    fn new() -> Self {
        let node = Self { directory: tempfile::tempdir().unwrap() };
        node.write("rules.json", rules(1, "chat.example.com"));
        node.write("example.zone", HEAD);
        node.write("geo.mmdb", DatabaseBuilder::new(4).add("192.0.2.0/24".parse().unwrap(), &flat("DE", None)).bytes());
        node
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.path(name), content).unwrap();
    }

    /// Replaces a file by renaming a complete one over it.
    fn replace(&self, name: &str, content: impl AsRef<[u8]>) {
        self.write("beside", content);
        fs::rename(self.path("beside"), self.path(name)).unwrap();
    }

    fn sources(&self) -> Sources {
        Sources {
            node: "ns1".to_owned(),
            rules: self.path("rules.json"),
            geoip: Some(self.path("geo.mmdb")),
            registered: bailiwick_host::locate::geoip::Registered::Ignored,
            zones: vec![("example.com".parse().unwrap(), self.path("example.zone"))],
            dnssec: Vec::new(),
            directory: self.path("."),
            lock: None,
            state_dir: Some(self.path("state")),
            shrink: crate::program::config::Shrink::default(),
        }
    }

    async fn start(&self) -> Result<StartedState, Vec<String>> {
        let started = start_with(self.sources(), Healthy, Clock::system()).await;
        started.map_err(|faults| self.reported(&faults))
    }

    /// Faults as text, without the directory's name.
    fn reported(&self, faults: &[Fault]) -> Vec<String> {
        let directory = format!("{}/", self.directory.path().display());
        faults.iter().map(|fault| fault.to_string().replace(&directory, "")).collect()
    }
}

fn rules(revision: u64, host: &str) -> String {
    format!(
        r#"{{ "version": 1, "revision": {revision}, "jurisdictions": {{ "eu": {{ "include": ["EU"] }} }},
            "regions": {{ "fra": {{ "countries": ["DE"], "answers": {{ "A": ["192.0.2.1"] }},
                                    "monitor": {{ "type": "tcp", "address": "127.0.0.1:1" }} }} }},
            "services": {{ "chat": {{ "hosts": ["{host}"], "pattern": "active-active", "regions": ["fra"],
                           "residency": [{{ "clients": ["eu"], "process_in": ["eu"] }}] }} }} }}"#
    )
}

fn revision(started: &StartedState) -> u64 {
    started.handle.snapshot().table().revision().number
}

fn alarm(started: &StartedState) -> Option<String> {
    started.handle.status().rules.last_error.as_ref().map(|failure| failure.errors.join("; "))
}

#[tokio::test]
async fn a_node_starts_with_its_first_probes_heard_and_keeps_its_rules() {
    let node = Node::new();
    let started = node.start().await.unwrap();
    assert_eq!(revision(&started), 1);
    assert_eq!(started.handle.snapshot().health().regions[0].probed, bailiwick_rules::health::Status::Up);
    assert_eq!(fs::read(node.path("state/rules.last-good.json")).unwrap(), rules(1, "chat.example.com").as_bytes());
    assert_eq!(alarm(&started), None);
}

#[tokio::test]
async fn every_error_of_every_file_is_reported_at_once() {
    let node = Node::new();
    node.write("rules.json", r#"{ "version": 1, "revison": 1 }"#);
    node.write("example.zone", format!("{HEAD}a A 192.0.2\nb AAAA ::g\n"));
    node.write("geo.mmdb", "not an MMDB");
    let reported = node.start().await.unwrap_err();
    for (place, reported) in
        ["example.zone:4: ", "example.zone:5: ", "geo.mmdb: ", "rules.json:1:1: /revision", "rules.json:1:17: /revison"]
            .iter()
            .zip(&reported)
    {
        assert!(reported.starts_with(place), "{reported} should start with {place}");
    }
    assert_eq!(reported.len(), 5, "{reported:?}");
    assert_eq!(check(&node.sources(), Timestamp(0)).map_err(|faults| node.reported(&faults)), Err(reported));
}

#[tokio::test]
async fn without_any_valid_rules_there_is_no_start() {
    let node = Node::new();
    fs::remove_file(node.path("rules.json")).unwrap();
    let reported = node.start().await.unwrap_err();
    assert!(reported.len() == 1 && reported[0].starts_with("rules.json: can't be read"), "{reported:?}");
    // The error of a zone that parses but doesn't compile is reported beside it.
    node.write("example.zone", "$TTL 1h\n@ NS ns.example.net.\n");
    let reported = node.start().await.unwrap_err();
    assert!(reported.len() == 2 && reported[1].contains("no SOA"), "{reported:?}");
}

#[tokio::test]
async fn invalid_rules_give_way_to_the_last_good_ones_with_an_alarm() {
    let node = Node::new();
    drop(node.start().await.unwrap());
    node.write("rules.json", "{");
    let started = node.start().await.unwrap();
    assert_eq!(revision(&started), 1);
    assert!(alarm(&started).unwrap().contains("is not JSON"), "{:?}", alarm(&started));
    assert_eq!(started.handle.status().rules.refused, 1);

    node.write("rules.json", rules(2, "chat.sub.example.com"));
    node.write("example.zone", format!("{HEAD}sub NS ns.example.net.\n"));
    let started = node.start().await.unwrap();
    assert_eq!(revision(&started), 1);
    assert!(alarm(&started).unwrap().contains("chat.sub.example.com"), "{:?}", alarm(&started));
}

#[tokio::test]
async fn the_highest_valid_revision_begins() {
    let node = Node::new();
    node.write("rules.json", rules(5, "chat.example.com"));
    drop(node.start().await.unwrap());
    node.write("rules.json", rules(4, "old.example.com"));
    let started = node.start().await.unwrap();
    assert_eq!(revision(&started), 5);
    assert!(alarm(&started).unwrap().contains("revision 4 is older"));
    node.write("rules.json", rules(5, "other.example.com"));
    let started = node.start().await.unwrap();
    assert!(started.handle.snapshot().table().service_of_host("other.example.com").is_none());
    assert!(alarm(&started).unwrap().contains("another document with revision 5"));
    node.write("rules.json", rules(6, "new.example.com"));
    let started = node.start().await.unwrap();
    assert_eq!((revision(&started), alarm(&started)), (6, None));
    // Damaged last-good rules are left aside.
    node.write("state/rules.last-good.json", "{");
    assert_eq!(revision(&node.start().await.unwrap()), 6);
}

#[tokio::test]
async fn a_broken_zone_or_database_gives_way_to_the_last_good_one() {
    let node = Node::new();
    drop(node.start().await.unwrap());
    let kept = |name: &str| node.path("state").join(name).exists();
    while !kept("geoip.last-good.mmdb") || !kept("zones/example.com.zone") {
        tokio::task::yield_now().await;
    }
    node.write("geo.mmdb", "");
    node.write("example.zone", "$TTL 1h\n@ NS ns.example.net.\n");
    let started = node.start().await.unwrap();
    let status = started.handle.status();
    assert!(status.geoip.last_error.as_ref().unwrap().errors[0].contains("is not a usable MMDB file"));
    assert!(status.zones.last_error.as_ref().unwrap().errors[0].contains("no SOA"));
    assert!(started.handle.snapshot().client_at([192, 0, 2, 1].into()).country.is_some());
    assert!(started.handle.snapshot().zones().missing().is_empty());
    drop(started);
    // If the last good version is damaged too, the node can't start.
    node.write("state/geoip.last-good.mmdb", "");
    assert!(node.start().await.unwrap_err()[0].starts_with("geo.mmdb: is not a usable MMDB file"));
}

#[tokio::test]
async fn overrides_outlive_a_restart() {
    let node = Node::new();
    let started = node.start().await.unwrap();
    let region = bailiwick_rules::id::RegionId::parse("fra").unwrap();
    let until = started.handle.now().after(bailiwick_rules::time::Millis(3_600_000));
    let forced = bailiwick_rules::health::Forced {
        status: bailiwick_rules::health::Status::Down,
        until,
        reason: "drill".into(),
    };
    started.handle.set_override(region.clone().into(), forced.clone()).await.unwrap();
    drop(started);
    let started = node.start().await.unwrap();
    assert_eq!(started.handle.snapshot().health().regions[0].forced, Some(forced));
    started.handle.delete_override(region.into()).await.unwrap();
    drop(started);
    assert_eq!(node.start().await.unwrap().handle.snapshot().health().regions[0].forced, None);
}

#[tokio::test]
async fn changed_files_come_into_service_by_themselves() {
    let node = Node::new();
    let started = node.start().await.unwrap();
    let handle = &started.handle;

    node.replace("rules.json", rules(2, "chat.example.com"));
    assert!(handle.wait_until(|snapshot, _| snapshot.table().revision().number == 2).await);
    node.write("rules.json", "{");
    assert!(handle.wait_until(|_, status| status.rules.last_error.is_some()).await);
    assert_eq!(revision(&started), 2, "the last good stays");
    node.write("rules.json", rules(3, "chat.example.com"));
    assert!(
        handle
            .wait_until(|snapshot, status| snapshot.table().revision().number == 3 && status.rules.last_error.is_none())
            .await
    );

    let has = |snapshot: &crate::state::snapshot::Snapshot, host: &str| {
        let name: crate::protocol::name::Name = host.parse().unwrap();
        let zone = snapshot.zones().find(name.as_ref(), 1).unwrap();
        matches!(zone.locate(name.as_ref()), crate::zone::LookupResult::Exact(_))
    };
    node.write("more.zone", "a A 192.0.2.1\n");
    node.replace("example.zone", format!("{HEAD}$INCLUDE more.zone\n"));
    assert!(handle.wait_until(|snapshot, _| has(snapshot, "a.example.com")).await);
    node.write("more.zone", "b A 192.0.2.1\n");
    assert!(
        handle.wait_until(|snapshot, _| has(snapshot, "b.example.com")).await,
        "a change of an included file is noticed"
    );
    node.write("more.zone", "b A 192.0.2\n");
    assert!(handle.wait_until(|_, status| status.zones.last_error.is_some()).await);
    assert!(has(&handle.snapshot(), "b.example.com"));

    // The file is in a directory that wasn't watched so far.
    fs::create_dir(node.path("sub")).unwrap();
    node.write("sub/far.zone", "c A 192.0.2.1\n");
    node.write("more.zone", "$INCLUDE sub/far.zone\n");
    assert!(handle.wait_until(|snapshot, _| has(snapshot, "c.example.com")).await);
    let begun = std::time::Instant::now();
    node.write("sub/far.zone", "d A 192.0.2.1\n");
    assert!(handle.wait_until(|snapshot, _| has(snapshot, "d.example.com")).await);
    assert!(begun.elapsed() < std::time::Duration::from_secs(20), "the change is noticed by frequent checks");

    let country = |snapshot: &crate::state::snapshot::Snapshot| snapshot.client_at([192, 0, 2, 1].into()).country;
    node.replace("geo.mmdb", DatabaseBuilder::new(4).add("192.0.2.0/24".parse().unwrap(), &flat("FR", None)).bytes());
    assert!(handle.wait_until(|snapshot, _| country(snapshot).is_some_and(|country| country.as_str() == "FR")).await);
    node.replace("geo.mmdb", "");
    assert!(handle.wait_until(|_, status| status.geoip.last_error.is_some()).await);
    assert!(country(&handle.snapshot()).is_some());
}

#[cfg(unix)]
#[tokio::test]
async fn swapped_links_are_seen_as_kubernetes_swaps_them() {
    use std::os::unix::fs::symlink;
    let node = Node::new();
    let mounted = |version: &str, text: String| {
        fs::create_dir(node.path(version)).unwrap();
        fs::write(node.path(version).join("rules.json"), text).unwrap();
        symlink(Path::new(version), node.path("..new")).unwrap();
        fs::rename(node.path("..new"), node.path("..data")).unwrap();
    };
    fs::remove_file(node.path("rules.json")).unwrap();
    symlink("..data/rules.json", node.path("rules.json")).unwrap();
    mounted("v1", rules(1, "chat.example.com"));
    let started = node.start().await.unwrap();
    mounted("v2", rules(2, "chat.example.com"));
    assert!(started.handle.wait_until(|snapshot, _| snapshot.table().revision().number == 2).await);
}

/// Whether `wanted` returns true within a time limit that is far longer than a change takes.
async fn seen(handle: &Handle, wanted: impl FnMut(&crate::state::snapshot::Snapshot, &Status) -> bool) -> bool {
    let longest = std::time::Duration::from_secs(30);
    tokio::time::timeout(longest, handle.wait_until(wanted)).await.unwrap_or(false)
}

#[tokio::test]
async fn keys_are_taken_up_when_they_change_and_the_last_good_stay() {
    let node = Node::new();
    let zone =
        SignedZone { origin: "example.com".parse().unwrap(), directory: node.path("keys"), policy: Policy::default() };
    let sources = Sources { dnssec: vec![zone.clone()], ..node.sources() };
    let start = async || start_with(sources.clone(), Healthy, Clock::system()).await;
    let refused = node.reported(&start().await.unwrap_err());
    assert!(refused[0].starts_with("keys/state.json: is missing; make the zone's first key"), "{refused:?}");

    let now = Clock::system().now();
    let put = |name: &str, state: &dyn Fn(NewKey) -> State| {
        let locked = Locked::take(&zone.directory).unwrap();
        let key = SigningKey::generate(Algorithm::EcdsaP256Sha256).unwrap();
        locked.add_key(name, &key).unwrap();
        let state = state(NewKey { file: name.to_owned(), tag: key.tag(), algorithm: key.kind() });
        locked.put_state(&state).unwrap();
        state
    };
    let begun = Timestamp(now.0 - 7 * 86_400_000);
    let state = put("one.pem", &|key| timeline::first(zone.origin.clone(), key, &zone.policy, Millis(0), begun));
    let started = start().await.unwrap();
    let handle = &started.handle;
    let count = |snapshot: &crate::state::snapshot::Snapshot| {
        snapshot.key_set(zone.origin.as_ref()).map_or(0, |key_set| key_set.dnskeys().count())
    };
    let (before, report) = (handle.snapshot_owned(), handle.snapshot().health_report("", now));
    assert_eq!((count(&before), report.keys_sha256["example.com."].len()), (1, 64));

    let state = put("two.pem", &|key| timeline::begin(&state, key, &zone.policy, now).unwrap());
    assert!(seen(handle, |snapshot, _| count(snapshot) == 2).await);
    let after = handle.snapshot_owned();
    assert!(after.generation() > before.generation(), "answers may have changed");
    assert_ne!(after.health_report("", now).keys_sha256, report.keys_sha256);

    // A lost key file raises an alarm, and the keys in service stay.
    let file = zone.directory.join(&state.keys[1].file);
    let text = fs::read_to_string(&file).unwrap();
    fs::remove_file(&file).unwrap();
    assert!(seen(handle, |_, status| status.keys.last_error.is_some()).await);
    assert_eq!(count(&handle.snapshot()), 2);
    assert!(start().await.is_err(), "the server doesn't start either");
    fs::write(&file, text).unwrap();
    // A key file with the wrong mode raises an alarm too. Once the mode is mended as the error says, the key is taken
    // without a reload.
    fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
    let open = |status: &crate::state::owner::Status| {
        status.keys.last_error.as_ref().is_some_and(|failure| failure.errors[0].contains("chmod 600"))
    };
    assert!(seen(handle, |_, status| open(status)).await);
    fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
    assert!(seen(handle, |_, status| status.keys.last_error.is_none()).await);
    assert_eq!(count(&handle.snapshot()), 2);
}

#[tokio::test]
async fn a_reload_reads_everything_again() {
    let node = Node::new();
    let started = node.start().await.unwrap();
    let before = started.handle.status().geoip.accepted;
    started.feed.reload();
    assert!(started.handle.wait_until(|_, status| status.geoip.accepted > before).await);
}
